"""The client against Debian's docker-registry, and skopeo as a second reader of what it left there."""

from __future__ import annotations

import base64
import dataclasses
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from common import console, paths
from common.errors import RegistryError
from common.run import run
from images import receipt
from images.receipt import BuildReceipt, BuiltImage, BuiltLayer
from lockfiles import images_lock
from oci.client import trust
from oci.client.patience import Patience
from oci.client.target import Registry
from oci.descriptor import MANIFEST
from oci.layout import Layout
from registry import push, skopeo
from tests.oci.conftest import QUICK, Image, noise, send
from tests.oci.double import PASSWORD, USER, Double
from tests.oci.real import CERTIFICATE, HASHED, RealRegistry

pytestmark = pytest.mark.host

Make = Callable[..., Image]


@pytest.fixture
def real(tmp_path: Path) -> Iterator[Callable[..., RealRegistry]]:
    started: list[RealRegistry] = []

    def start(**options: object) -> RealRegistry:
        one = RealRegistry(tmp_path / "registry", **options)  # type: ignore[arg-type]
        started.append(one)
        one.start()
        return one

    yield start
    for one in started:
        one.stop()


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What progress was told: bytes that went out, and negative ones that go again."""
    counts: list[int] = []
    advance = console.Bar.advance

    def counted(self: console.Bar, count: int) -> None:
        counts.append(count)
        advance(self, count)

    monkeypatch.setattr(console.Bar, "advance", counted)
    return counts


def at(monkeypatch: pytest.MonkeyPatch, total: int, act: Callable[[], None]) -> None:
    """Do something once, in the middle of a request: so many bytes were read to be sent."""
    advance, left = console.Bar.advance, [total]

    def counted(self: console.Bar, count: int) -> None:
        advance(self, count)
        if left and count > 0:
            left[0] -= count
            if left[0] <= 0:
                left.clear()
                act()

    monkeypatch.setattr(console.Bar, "advance", counted)


def test_the_double_and_the_real_registry_hold_the_same_after_the_same_push(
    double: Double, image: Make, real: Callable[..., RealRegistry], tmp_path: Path
) -> None:
    """The double is worth its tests only as far as it behaves like the real one."""
    registry = real()
    one = image(noise(300_000), noise(2 << 20, 2), b"small", b"")
    assert send(double.address, one) == send(registry.address, one)
    assert send(double.address, one, repository="team/other", others=("team/small",)) == send(
        registry.address, one, repository="team/other", others=("team/small",)
    )
    held = {digest: data for blobs in double.blobs.values() for digest, data in blobs.items()}
    held |= {digest: data for digest, (_, data) in double.manifests["team/small"].items() if ":" in digest}
    assert registry.blobs() == held
    # And it is what a second program pulls.
    pulled = tmp_path / "pulled"
    for repository in ("team/small", "team/other"):
        source = f"docker://{registry.address}/{repository}:1"
        run(["skopeo", "copy", "--preserve-digests", "--src-tls-verify=false", source, f"oci:{pulled}:1"], error=RegistryError)
        ours = {file.name: file.read_bytes() for file in one.layout.blobs.iterdir()}
        manifest = json.loads((pulled / "index.json").read_text())["manifests"][0]["digest"]
        theirs = {file.name: file.read_bytes() for file in (pulled / "blobs" / "sha256").iterdir()}
        assert theirs.pop(manifest.removeprefix("sha256:")) == one.manifest
        assert theirs == ours


def test_layers_of_another_repository_are_mounted_without_a_byte(
    image: Make, real: Callable[..., RealRegistry], told: list[int]
) -> None:
    registry = real()
    shared = noise(3 << 20)
    send(registry.address, image(shared), repository="team/train")
    told.clear()
    sent = send(registry.address, image(shared, b"own"), repository="team/api", others=("team/train",))
    assert sent.mounted == len(shared)
    assert sum(told) == sent.sent < 1000


@pytest.mark.parametrize(("secret", "twice"), [("kept", 0), ("", 80 << 20)])
def test_a_registry_killed_between_two_chunks_and_started_again_gets_the_rest(
    image: Make, real: Callable[..., RealRegistry], monkeypatch: pytest.MonkeyPatch, secret: str, twice: int
) -> None:
    """With a secret that it keeps it knows its uploads again; without, they start over: either way the push ends well."""
    registry = real(secret=secret)
    data = noise(1 << 20) * 128
    told: list[int] = []

    def crash(_: console.Bar, count: int) -> None:
        told.append(count)
        # The first of the sixth chunk, read and not yet sent.
        if sum(told) == (80 << 20) + trust.PIECE and max(told) == trust.PIECE and min(told) >= 0:
            registry.kill()
            registry.start()

    monkeypatch.setattr(console.Bar, "advance", crash)
    one = image(data)
    config = one.layout.blob(one.digests[0]).stat().st_size
    patience = dataclasses.replace(Patience(), chunk=16 << 20, pause=0.05, parallel=1)
    send(registry.address, one, patience=patience)
    assert registry.blobs()[one.digests[1]] == data
    # And what was on its way when the connection broke.
    assert 0 < sum(count for count in told if count > 0) - (len(data) + config + twice) < 8 << 20


def test_a_registry_killed_in_mid_chunk_gets_no_more_than_that_blob_again(
    image: Make, real: Callable[..., RealRegistry], told: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """docker-registry 2.8 signs how far an upload got, and gives up one that got further before the answer."""
    registry = real(secret="kept")
    layers = [noise(1 << 20, seed) * 32 for seed in range(4)]

    def crash() -> None:
        registry.kill()
        time.sleep(0.3)
        registry.start()

    # Two are there, or nearly, the other two on their way.
    at(monkeypatch, 88 << 20, crash)
    one = image(*layers)
    patience = dataclasses.replace(Patience(), chunk=16 << 20, pause=0.1, longest=0.5, tries=20, parallel=2)
    send(registry.address, one, patience=patience)
    assert [registry.blobs()[digest] for digest in one.digests[1:]] == layers
    assert sum(count for count in told if count > 0) <= sum(map(len, layers)) + 100 + 2 * (32 << 20)


def test_a_push_that_was_given_up_is_taken_up_by_the_next_one(
    image: Make, real: Callable[..., RealRegistry], monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = real()
    layers = [noise(1 << 20, seed) * 8 for seed in range(6)]
    one = image(*layers)
    at(monkeypatch, 25 << 20, registry.kill)
    with pytest.raises(RegistryError, match="run it again: what arrived is not sent twice"):
        send(registry.address, one, patience=dataclasses.replace(QUICK, parallel=1, chunk=1 << 20))
    registry.start()
    sent = send(registry.address, one)
    assert sent.there == 3 * (8 << 20)
    assert set(one.digests) <= set(registry.blobs())


def test_two_pushes_of_the_same_at_once_both_end_well(image: Make, real: Callable[..., RealRegistry]) -> None:
    registry = real()
    one = image(*(noise(1 << 20, seed) for seed in range(4)))
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda repository: send(registry.address, one, repository=repository), ["a", "a", "b"]))
    assert {digest: registry.blobs()[digest] for digest in one.digests} == {
        digest: one.layout.blob(digest).read_bytes() for digest in one.digests
    }


def built(one: Image) -> BuiltImage:
    """The image as `invoke build` leaves it: listed, with a receipt."""
    layers = tuple(
        BuiltLayer("x", digest, "", one.layout.blob(digest).stat().st_size, 1, reused=False) for digest in one.digests[1:]
    )
    described = one.layout.add(MANIFEST, one.manifest)
    own = BuiltImage("small", "small", "1", described.digest, one.digests[0], 1, 1, "", layers)
    receipt.write(BuildReceipt("unknown", (own,)))
    return own


@pytest.fixture
def own_lock(own_folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "LOCKFILES", own_folders / "lockfiles")
    monkeypatch.setattr(push, "_PATIENCE", QUICK)
    monkeypatch.setattr(skopeo, "RETRIES", "0")


def test_users_and_tls_as_docker_keeps_them(
    own_lock: None, real: Callable[..., RealRegistry], docker_config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # On loopback it would go without; a registry elsewhere never does.
    monkeypatch.setattr(Registry, "plain_http", False)
    registry = real(users=True, tls=True)
    image = built(Image(Layout(receipt.layout()), [noise(300_000)]).write())

    with pytest.raises(RegistryError, match=r"certificate is not trusted: .*certs.d/127.0.0.1:\d+/ca.crt"):
        push.push(registry.address, frozenset())

    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    with pytest.raises(RegistryError, match=rf"refuses: 401 .*docker login {registry.address}"):
        push.push(registry.address, frozenset())
    assert not images_lock.path().exists()

    encoded = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    docker_config.write_text(json.dumps({"auths": {registry.address: {"auth": encoded}}}))
    push.push(registry.address + "/team", frozenset())
    (pinned,) = images_lock.read()
    assert pinned.digest == image.digest
    assert set(registry.blobs()) == {image.digest, image.config_digest, image.layers[0].digest}


@pytest.mark.parametrize("way", ["REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "certs.d"])
def test_every_way_to_trust_a_registry_works(
    image: Make, real: Callable[..., RealRegistry], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, way: str
) -> None:
    monkeypatch.setattr(Registry, "plain_http", False)
    registry = real(tls=True)
    if way == "certs.d":
        monkeypatch.setattr(trust, "CERTS_D", tmp_path / "certs.d")
        folder = tmp_path / "certs.d" / registry.address
        folder.mkdir(parents=True)
        (folder / "ca.crt").write_bytes(CERTIFICATE.read_bytes())
    else:
        monkeypatch.setenv(way, str(CERTIFICATE))
    send(registry.address, image(b"x"))


@pytest.mark.parametrize("folder", [False, True])
def test_skopeo_trusts_the_certificates_of_requests(
    own_lock: None, real: Callable[..., RealRegistry], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, folder: bool
) -> None:
    monkeypatch.setattr(Registry, "plain_http", False)
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    (tmp_path / "certificates").mkdir()
    (tmp_path / "certificates" / HASHED).write_bytes(CERTIFICATE.read_bytes())
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "certificates" if folder else CERTIFICATE))
    registry = real(tls=True)
    image = built(Image(Layout(receipt.layout()), [b"x"]).write())
    push.push(registry.address, frozenset())
    assert images_lock.read()[0].digest == image.digest


def test_a_registry_that_speaks_no_tls_is_not_spoken_to_in_the_clear(
    image: Make, real: Callable[..., RealRegistry], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Registry, "plain_http", False)
    registry = real()
    with pytest.raises(RegistryError, match="does not speak TLS"):
        send(registry.address, image(b"x"))
    assert not registry.data.exists()
