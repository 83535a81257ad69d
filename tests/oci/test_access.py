"""A registry with an authority of its own, or without TLS: believed for the host it is said of, and no login in the clear."""

from __future__ import annotations

import base64
import json
import ssl
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from common.errors import MissingEnvironmentError, RegistryError
from oci.client import access, auth, http, proxy, target
from oci.client.access import Access
from oci.client.auth import RefusedError
from oci.client.client import Client
from oci.client.target import Registry
from tests.oci.conftest import QUICK, Image, send
from tests.oci.double import PASSWORD, USER, Double, answers, serving
from tests.oci.real import CERTIFICATE

Make = Callable[..., Image]
Say = Callable[..., Path]


@pytest.fixture
def secure(monkeypatch: pytest.MonkeyPatch) -> Iterator[Double]:
    """A registry with TLS, whose certificate nobody knows."""
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE, CERTIFICATE.with_suffix(".key"))
    with serving(context) as state:
        yield state


@pytest.fixture
def say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Say:
    """Makes the folder that PINWHEEL_REGISTRY names."""

    def write(**files: str) -> Path:
        place = tmp_path / "registry"
        place.mkdir(exist_ok=True)
        for name, text in files.items():
            (place / {"ca": "ca.crt", "plain": "plain-http"}.get(name, name)).write_text(text)
        monkeypatch.setenv(access.VARIABLE, str(place))
        return place

    return write


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine's own addresses count as any other."""
    for module in (target, http, proxy, auth):
        monkeypatch.setattr(module, "is_loopback", lambda _: False)


def other_ca() -> str:
    """The certificate of an authority that has signed nothing."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "other")])
    now = datetime.now(UTC)
    built = x509.CertificateBuilder(name, name, key.public_key(), 1, now - timedelta(days=1), now + timedelta(days=1))
    made = built.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True).sign(key, hashes.SHA256())
    return made.public_bytes(serialization.Encoding.PEM).decode()


def asked(address: str, said: Access | None = None) -> bytes | None:
    registry = Registry(address, "") if said is None else Registry(address, "", said)
    with Client(registry, QUICK) as client:
        return client.find_manifest("team/x", "1")


@pytest.mark.parametrize("way", ["folder", "handed"])
def test_a_registry_is_believed_by_the_authority_that_is_said_of_it(secure: Double, say: Say, way: str) -> None:
    pem = CERTIFICATE.read_text()
    if way == "folder":
        say(host=secure.address, ca=pem)
        assert asked(secure.address) is None
    else:
        assert asked(secure.address, Access(secure.address, pem)) is None
    assert [one.method for one in secure.asked] == ["GET"]


@pytest.mark.parametrize("what", ["another authority", "of another host", "of another port"])
def test_an_authority_of_something_else_is_not_believed(
    secure: Double, say: Say, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    # Of a registry that nothing is said of, this machine's would be asked without TLS.
    monkeypatch.setattr(Registry, "plain_http", False)
    port = secure.address.rpartition(":")[2]
    host = {"another authority": secure.address, "of another host": f"localhost:{port}", "of another port": "127.0.0.1"}[what]
    say(host=host, ca=other_ca() if what == "another authority" else CERTIFICATE.read_text())
    with pytest.raises(RegistryError, match=r"certificate is not trusted.*registry\.ca"):
        asked(secure.address)
    assert not secure.asked


def test_the_systems_certificates_count_beside_it(secure: Double, say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    say(host=secure.address, ca=other_ca())
    assert asked(secure.address) is None


@pytest.mark.usefixtures("elsewhere")
def test_plain_http_is_spoken_to_the_host_that_is_named_and_to_no_other(double: Double, image: Make, say: Say) -> None:
    say(host=double.address, plain="true\n")
    send(double.address, image(b"x"))
    assert "1" in double.manifests["team/small"]
    assert Registry("registry.example.com", "").address == "https://registry.example.com"
    say(host="127.0.0.1:1")
    with pytest.raises(RegistryError, match="does not speak TLS"):
        send(double.address, image(b"y"))


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize("kind", ["basic", "bearer"])
def test_no_login_goes_by_plain_http(double: Double, image: Make, say: Say, docker_config: Path, kind: str) -> None:
    encoded = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    docker_config.write_text(json.dumps({"auths": {double.address: {"auth": encoded}}}))
    say(host=double.address, plain="true")
    double.auth = kind
    with pytest.raises(RegistryError) as caught:
        send(double.address, image(b"x"))
    if kind == "basic":
        assert isinstance(caught.value, RefusedError)
        assert "no login is sent by plain HTTP" in caught.value.line()
    assert all("authorization" not in one.headers for one in double.asked)


@pytest.mark.usefixtures("elsewhere")
def test_who_answers_by_plain_http_gets_no_login_for_a_token_server_of_their_own(
    double: Double, secure: Double, say: Say, docker_config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    encoded = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    docker_config.write_text(json.dumps({"auths": {double.address: {"auth": encoded}}}))
    say(host=double.address, plain="true")
    challenge = f'Bearer realm="https://{secure.address}/token",service="x"'
    double.fail("GET", "manifests", answers(401, {"WWW-Authenticate": challenge}), times=9)
    with pytest.raises(RegistryError):
        asked(double.address)
    assert [one.headers.get("authorization") for one in secure.asked] in ([], [None])


def test_a_registry_elsewhere_cannot_send_us_to_this_machine_without_tls(
    double: Double, say: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    # By one of its two names this machine counts as another.
    for module in (target, http, proxy, auth):
        monkeypatch.setattr(module, "is_loopback", lambda name: name == "127.0.0.1")
    address = double.address.replace("127.0.0.1", "localhost")
    say(host=address, plain="true")
    with serving() as inner:
        double.fail("GET", "manifests", answers(307, {"Location": f"http://{inner.address}/v2/team/x/manifests/1"}))
        with pytest.raises(RegistryError, match="points to an address without TLS"):
            asked(address)
        assert double.asked
        assert not inner.asked


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"ca": "x"}, "does not say which registry is meant"),
        ({"plain": "true"}, "does not say which registry is meant"),
        ({"host": "r.example", "plain": "yes"}, "expected true, got 'yes'"),
        (
            {"host": "r.example", "ca": "-----BEGIN CERTIFICATE-----\nQUJD\n-----END CERTIFICATE-----\n"},
            "no certificate in PEM",
        ),
        ({"host": "r.example", "ca": "not one"}, "no certificate in PEM"),
        ({"host": "r.example", "ca": "x", "plain": "true"}, "ca.crt and plain-http at once"),
    ],
)
def test_a_folder_that_makes_no_sense_is_refused(say: Say, files: dict[str, str], message: str) -> None:
    place = say(**files)
    with pytest.raises(MissingEnvironmentError, match=message) as caught:
        Registry("r.example", "")
    assert str(place) in caught.value.line()


def test_a_folder_that_only_names_the_registry_says_nothing_of_it(double: Double, say: Say) -> None:
    say(host=double.address)
    assert asked(double.address) is None
    say(host="r.example")
    assert Registry("r.example", "").address == "https://r.example"


def test_a_folder_that_is_not_there_or_empty_says_nothing(say: Say) -> None:
    place = say()
    assert access.of_folder() == Access()
    place.rmdir()
    assert access.of_folder() == Access()


def test_of_a_file_only_the_certificates_are_taken(secure: Double, say: Say) -> None:
    key = CERTIFICATE.with_suffix(".key").read_text()
    place = say(host=secure.address, ca=f"Überschrift\n{key}\n{CERTIFICATE.read_text()}\n{other_ca()}")
    found = access.of_folder()
    assert found.ca.count("BEGIN CERTIFICATE") == 2
    assert "PRIVATE" not in found.ca
    for name, text in found.files().items():
        (place / name).write_text(text)
    assert access.of_folder() == found
