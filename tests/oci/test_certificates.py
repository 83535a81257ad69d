"""Certificates that we show, by Docker's rules, and those that we are shown: each refusal by its reason, with what mends it."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from common.errors import MissingEnvironmentError, RegistryError
from oci.client import auth, http, proxy, target, trust
from oci.client.access import Access
from oci.client.client import Client
from oci.client.target import Registry
from oci.descriptor import MANIFEST
from oci.reference import ImageRef
from registry import skopeo
from tests.oci import pki
from tests.oci.conftest import QUICK
from tests.oci.double import Double, answers, digest_of, serving

AUTHORITY, OTHER = pki.issue(), pki.issue()
CLIENT = pki.issue(AUTHORITY, name="client")
Serve = Callable[..., Double]
DATA = b'{"schemaVersion": 2}'


@pytest.fixture(autouse=True)
def _own_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    # This machine's own addresses count as any other.
    for module in (target, http, proxy, auth):
        monkeypatch.setattr(module, "is_loopback", lambda _: False)
    monkeypatch.setattr(trust, "CERTS_D", tmp_path / "certs.d")


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Starts a registry with TLS."""
    with ExitStack() as running:

        def start(
            own: pki.Issued | None = None, *, asks: bool = True, newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3
        ) -> Double:
            shown = own or pki.issue(AUTHORITY, name="127.0.0.1")
            file = shown.write(tmp_path, f"server{shown.certificate.serial_number}")
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.maximum_version = newest
            context.load_cert_chain(file, file.with_suffix(".key"))
            if asks:
                context.load_verify_locations(cadata=AUTHORITY.pem.decode())
                context.verify_mode = ssl.CERT_REQUIRED
            double = running.enter_context(serving(context))
            double.manifests["team/x"]["1"] = (MANIFEST, DATA)
            return double

        yield start


def certs(double: Double) -> Path:
    place = trust.CERTS_D / double.address
    place.mkdir(parents=True, exist_ok=True)
    return place


def read(double: Double, ca: pki.Issued = AUTHORITY) -> bytes:
    with Client(Registry(double.address, "", Access(double.address, ca.pem.decode())), QUICK) as client:
        return client.manifest("team/x", "1")


def line(double: Double, ca: pki.Issued = AUTHORITY) -> str:
    with pytest.raises((RegistryError, MissingEnvironmentError)) as caught:
        read(double, ca)
    return caught.value.line()


VERSIONS = pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])


@VERSIONS
def test_a_pair_is_shown_to_the_registry_that_asks_for_one(serve: Serve, newest: ssl.TLSVersion) -> None:
    double = serve(newest=newest)
    CLIENT.write(certs(double), "client", "cert")
    assert read(double) == DATA


def test_the_authority_beside_the_pair_counts(serve: Serve) -> None:
    double = serve()
    CLIENT.write(certs(double), "client", "cert")
    (certs(double) / "ca.crt").write_bytes(AUTHORITY.pem)
    assert read(double, OTHER) == DATA


def test_a_pair_is_for_its_own_host_and_port_alone(serve: Serve) -> None:
    double = serve()
    CLIENT.write(trust.CERTS_D / "127.0.0.1", "client", "cert")
    assert "asks for a client certificate" in line(double)


@pytest.mark.parametrize("order", [("a", "b"), ("b", "a")])
@VERSIONS
def test_of_several_pairs_the_one_that_the_registry_takes_is_shown(
    serve: Serve, order: tuple[str, str], newest: ssl.TLSVersion
) -> None:
    double = serve(newest=newest)
    for name, pair in zip(order, (CLIENT, pki.issue(OTHER, name="client")), strict=True):
        pair.write(certs(double), name, "cert")
    assert read(double) == DATA


@VERSIONS
def test_a_registry_that_asks_for_a_certificate_says_so_once(serve: Serve, newest: ssl.TLSVersion) -> None:
    double = serve(newest=newest)
    said = line(double)
    assert "ask for a client certificate" in said or "asks for a client certificate" in said
    assert f"put the pair client.cert and client.key into {trust.CERTS_D / double.address}" in said
    assert "times in a row" not in said


@pytest.mark.parametrize(
    ("pair", "reason"),
    [
        (pki.issue(AUTHORITY, name="client", start=-60, end=-1), "certificate expired"),
        (pki.issue(OTHER, name="client"), "unknown ca"),
    ],
)
@VERSIONS
def test_a_pair_that_is_refused_is_named_with_the_reason(
    serve: Serve, pair: pki.Issued, reason: str, newest: ssl.TLSVersion
) -> None:
    double = serve(newest=newest)
    file = pair.write(certs(double), "client", "cert")
    said = line(double)
    assert f"the registry refuses the client certificate: {reason}" in said
    assert str(file) in said
    assert ("expired on" in said) is (reason == "certificate expired")
    assert "times in a row" not in said


def without(name: str) -> Callable[[Path], None]:
    return lambda place: (place / name).unlink()


def other_key(place: Path) -> None:
    (place / "client.key").write_bytes(OTHER.key_pem())


def passphrase(place: Path) -> None:
    (place / "client.key").write_bytes(CLIENT.key_pem("secret"))


def no_pem(place: Path) -> None:
    (place / "client.cert").write_text("not one")


@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        (without("client.key"), r"half of a client certificate: there is no client\.key \(.*client\.cert\): .*in \.crt"),
        (without("client.cert"), r"half of a client certificate: there is no client\.cert \(.*client\.key\)"),
        (other_key, "the key is another certificate's"),
        (passphrase, r"key has a passphrase \(.*client\.key\)"),
        (no_pem, "it is no PEM"),
    ],
)
def test_a_pair_that_is_none_is_named_before_anything_is_sent(serve: Serve, spoil: Callable[[Path], None], what: str) -> None:
    double = serve()
    CLIENT.write(certs(double), "client", "cert")
    spoil(certs(double))
    with pytest.raises(MissingEnvironmentError, match=what):
        read(double)
    assert not double.asked


@pytest.mark.parametrize("name", ["client.key", "client.cert", "."])
def test_what_may_not_be_read_is_named(serve: Serve, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Docker's daemon reads these files as root; root may read everything, so the system's answer is put."""
    double = serve()
    CLIENT.write(certs(double), "client", "cert")
    kept, listed = Path.read_bytes, Path.iterdir

    def refuse(path: Path) -> Path:
        if path.resolve() == (certs(double) / name).resolve():
            raise PermissionError(13, os.strerror(13))
        return path

    monkeypatch.setattr(Path, "read_bytes", lambda path: kept(refuse(path)))
    monkeypatch.setattr(Path, "iterdir", lambda path: listed(refuse(path)))
    with pytest.raises(MissingEnvironmentError, match="Permission denied .*let your user read it") as caught:
        read(double)
    assert str((certs(double) / name).resolve()) in caught.value.line()


def test_no_pair_is_shown_to_who_asks_for_none(serve: Serve) -> None:
    double = serve(asks=False)
    CLIENT.write(certs(double), "client", "cert")
    assert read(double) == DATA


def test_what_a_proxy_says_in_a_web_page_is_told(serve: Serve) -> None:
    """nginx ends no connection for want of a certificate."""
    double = serve(asks=False)
    page = b"<html><head><title>400 No required SSL certificate was sent</title></head></html>"
    double.fail("GET", "manifests/", answers(400, {"Content-Type": "text/html"}, page), times=9)
    assert "No required SSL certificate was sent" in line(double)


@pytest.mark.host
def test_skopeo_shows_and_trusts_the_same(serve: Serve) -> None:
    double = serve()
    CLIENT.write(certs(double), "client", "cert")
    registry = Registry(double.address, "", Access(double.address, AUTHORITY.pem.decode()))
    assert skopeo.digest(registry, ImageRef(double.address, "team/x", "1")) == digest_of(DATA)


# --- theirs ---


def test_one_that_expired_says_when_and_what_the_clock_says(serve: Serve) -> None:
    said = line(serve(pki.issue(AUTHORITY, name="127.0.0.1", start=-60, end=-1), asks=False))
    assert "certificate has expired" in said
    assert "it is valid from 20" in said
    assert "this machine's clock says 20" in said
    assert "ca.crt" not in said


def test_one_that_is_not_yet_valid_says_from_when(serve: Serve) -> None:
    said = line(serve(pki.issue(AUTHORITY, name="127.0.0.1", start=1, end=60), asks=False))
    assert "certificate is not yet valid" in said
    assert "it is valid from 20" in said
    assert "mend the clock" in said


def test_one_for_another_name_says_for_which(serve: Serve) -> None:
    said = line(serve(pki.issue(AUTHORITY, name="other.example.test"), asks=False))
    assert "it is for other.example.test, not for 127.0.0.1" in said
    assert "ca.crt" not in said


def test_one_of_an_unknown_authority_says_where_to_put_it(serve: Serve) -> None:
    double = serve(asks=False)
    assert f"put the CA into {trust.CERTS_D / double.address / 'ca.crt'}" in line(double, OTHER)


def test_one_that_vouches_for_itself_says_so(serve: Serve) -> None:
    """As whoever sets a registry up at first has it."""
    own = pki.issue()
    said = line(serve(own, asks=False), OTHER)
    assert "put the certificate itself, which nobody else vouches for, into" in said
