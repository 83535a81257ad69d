"""Push and verify through one registry of each family that users have; the second reader is the real skopeo."""

from __future__ import annotations

import base64
import json
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from common import paths
from lockfiles import images_lock
from oci import statement
from oci.client import auth, http, proxy, target, trust
from oci.client.client import Client
from oci.client.target import Registry
from oci.reference import ImageRef
from registry import attach, inspect, push, skopeo
from registry.policy import Policy
from tests.oci import connect, pki
from tests.oci.conftest import QUICK
from tests.oci.double import IDENTITY, PASSWORD, USER, Double, Handler, answers, serving
from tests.registry import signing
from tests.registry.pushing import MINE, ago
from tests.registry.test_push import built

pytestmark = pytest.mark.host

AUTHORITY, NAMED = pki.issue(), "registry.example.test"


@dataclass
class Place:
    """Where a registry is being made, and what the user has set."""

    resources: ExitStack
    folder: Path
    monkeypatch: pytest.MonkeyPatch

    def login(self, address: str, **more: str) -> None:
        """As `docker login` keeps it."""
        known = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        (self.folder / "config.json").write_text(json.dumps({"auths": {address: {"auth": known, **more}}}))

    def tls(self, name: str, *, asks: bool = False) -> Double:
        """A registry with a certificate of an authority that the system does not know."""
        file = pki.issue(AUTHORITY, name=name).write(self.folder, "server")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file, file.with_suffix(".key"))
        if asks:
            context.load_verify_locations(cadata=AUTHORITY.pem.decode())
            context.verify_mode = ssl.CERT_REQUIRED
        return self.resources.enter_context(serving(context))


Family = Callable[[Place], tuple[Double, str]]


def plain(place: Place) -> tuple[Double, str]:
    double = place.resources.enter_context(serving())
    return double, double.address


def with_referrers(place: Place) -> tuple[Double, str]:
    double, address = plain(place)
    double.referrers = True
    return double, address


def immutable(place: Place) -> tuple[Double, str]:
    double, address = plain(place)
    double.fixed, double.refuses = ".", 412
    return double, address


def immutable_with_referrers(place: Place) -> tuple[Double, str]:
    double, address = immutable(place)
    double.referrers = True
    return double, address


def without_referrers(place: Place) -> tuple[Double, str]:
    double, address = plain(place)
    double.fail("GET", "referrers/", answers(403), times=999)
    return double, address


def hiding_tags(place: Place) -> tuple[Double, str]:
    double, address = plain(place)
    double.hides = True
    return double, address


def token_server(place: Place) -> tuple[Double, str]:
    double, address = plain(place)
    double.auth = "bearer"
    place.login(address)
    return double, address


def identity_token(place: Place) -> tuple[Double, str]:
    double, address = plain(place)
    double.auth = "bearer"
    place.login(address, auth=base64.b64encode(b"<token>:").decode(), identitytoken=IDENTITY)
    return double, address


def odd_answers(place: Place) -> tuple[Double, str]:
    """No HEAD, no second chunk of that size, uploads by a number alone, and another challenge beside the one that counts."""
    double, address = token_server(place)
    double.largest = 1 << 15
    double.fail("HEAD", "", answers(405), times=999)
    double.fail(
        "GET", "manifests/", challenged(f'Negotiate, Bearer realm = "http://{address}/token" , error-x="a, b",service=double')
    )
    return double, address


def challenged(challenge: str) -> Callable[[Handler], None]:
    return answers(401, {"WWW-Authenticate": challenge})


def storage_elsewhere(place: Place) -> tuple[Double, str]:
    """Blobs are redirected to a storage that refuses whoever sends a login beside the signed address."""
    double, address = basic_only(place)
    storage = place.resources.enter_context(serving())
    storage.blobs = double.blobs

    def redirected(handler: Handler) -> None:
        there = f"http://{storage.address}{handler.path}?X-Amz-Signature=x"
        known = "Authorization" in handler.headers
        answers(*((307, {"Location": there}) if known else (401, {"WWW-Authenticate": "Basic"})))(handler)

    def stored(handler: Handler) -> None:
        data = double.blobs["team/llama-factory-train"].get(handler.path.partition("?")[0].rpartition("/")[2])
        refused = "Authorization" in handler.headers
        answers(400 if refused else 403 if handler.command == "HEAD" else 404 if data is None else 200, {}, data or b"")(
            handler
        )

    for method in ("GET", "HEAD"):
        double.fail(method, "/blobs/sha256", redirected, times=999)
        storage.fail(method, "", stored, times=999)
    return double, address


def basic_only(place: Place) -> tuple[Double, str]:
    double, address = plain(place)
    double.auth = "basic"
    place.login(address)
    return double, address


def behind_a_proxy(place: Place) -> tuple[Double, str]:
    double = place.tls(NAMED)
    port = int(double.address.rpartition(":")[2])
    address, _ = place.resources.enter_context(connect.leading_to(port))
    place.monkeypatch.setenv("HTTPS_PROXY", address)
    (place.folder / "ca.pem").write_bytes(AUTHORITY.pem)
    place.monkeypatch.setenv("SSL_CERT_FILE", str(place.folder / "ca.pem"))
    return double, NAMED


def client_certificates(place: Place) -> tuple[Double, str]:
    for module in (target, http, proxy, auth):
        place.monkeypatch.setattr(module, "is_loopback", lambda _: False)
    place.monkeypatch.setattr(trust, "CERTS_D", place.folder / "certs.d")
    double = place.tls("127.0.0.1", asks=True)
    folder = trust.CERTS_D / double.address
    pki.issue(AUTHORITY, name="client").write(folder, "client", "cert")
    (folder / "ca.crt").write_bytes(AUTHORITY.pem)
    return double, double.address


FAMILIES: dict[str, Family] = {
    "plain": plain,
    "referrers API": with_referrers,
    "immutable tags": immutable,
    "immutable tags, referrers API": immutable_with_referrers,
    "no referrers API, 403": without_referrers,
    "403 for a tag that is not there": hiding_tags,
    "token server": token_server,
    "Basic only": basic_only,
    "identity token": identity_token,
    "odd answers": odd_answers,
    "storage elsewhere": storage_elsewhere,
    "behind a proxy, its own CA": behind_a_proxy,
    "client certificates": client_certificates,
}


@pytest.fixture
def place(own_folders: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    monkeypatch.setattr(paths, "LOCKFILES", own_folders / "lockfiles")
    monkeypatch.setattr(push, "_PATIENCE", QUICK)
    monkeypatch.setattr(skopeo, "RETRIES", "0")
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    with ExitStack() as resources:
        yield Place(resources, own_folders, monkeypatch)


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_push_and_verify(place: Place, family: Family) -> None:
    double, address = family(place)
    image = built(b"one", b"two", name="llama-factory-train", role="train")
    failed = {**signing.smoke(train_digest=image.digest, started=ago(2)), "result": "FAILED", "failedTests": ["train"]}
    said = {
        statement.SBOM: signing.COMPONENTS,
        statement.PROVENANCE: signing.build(config_digest=image.config_digest),
        statement.SMOKE: failed,
    }

    def pushed() -> None:
        push.push(f"{address}/team", frozenset())
        with Client(Registry.parse(f"{address}/team"), QUICK, writes=True) as client:
            attach.deliver(client, attach.Proof(image, said), MINE)

    def verified(policy: Policy) -> bool:
        return inspect.look(ImageRef(address, "team/llama-factory-train", "1"), MINE.public, policy)[1].holds

    pushed()
    assert images_lock.read()[0].digest == image.digest
    assert verified(Policy(smoke="none"))
    assert not verified(Policy(rungs=frozenset()))
    # Unchanged: nothing is sent again.
    before = {name: dict(held) for name, held in double.manifests.items()}
    sent = double.received
    pushed()
    assert double.manifests == before
    assert double.received == sent
    # What is new is added, and a failure is cured, though no tag can be moved.
    said[statement.SMOKE] = signing.smoke(train_digest=image.digest, started=ago(1))
    pushed()
    assert verified(Policy())
