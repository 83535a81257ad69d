"""Thin builds against a real docker-registry: equal digests, only what is needed, and each fault in one line."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import zstandard

from common.errors import BuildError, RegistryError, UsageError
from common.files import sha256_bytes
from images import build, inventory, layer, receipt, spec, thin
from images.inventory import Donor
from images.receipt import BuildReceipt
from images.recipe import Recipe, recipe_of
from lockfiles import check, fetching, images_lock, lockfile, store
from lockfiles.debian import rootfs
from lockfiles.debian.rootfs import Rootfs
from lockfiles.model import BaseLock, Deb, SetLock
from oci.client.client import Client
from oci.client.patience import Patience
from oci.layout import Layout
from registry import attach, inspect, inventories, push, signer, skopeo
from registry.policy import Policy
from registry.signer import Signer
from tests.images.conftest import root
from tests.images.wheels.wheels import make, stored
from tests.oci.real import RealRegistry
from tests.registry.pushing import MINE, THEIRS

pytestmark = pytest.mark.host

__all__ = ["root"]
BASE = lockfile.read_base()
QUICK = Patience(tries=2, pause=0.01, connect=5, read=20, readable=0.1)
NAMES = ("llamafactory", *(f"small{number}" for number in range(9)))
BUMPED = "small3"


@pytest.fixture(scope="module")
def python(root: Rootfs) -> Iterator[Rootfs]:
    """The interpreter's own debs alone, unpacked."""
    with rootfs.compiling(rootfs.interpreter(BASE)) as tree:
        yield tree


@dataclass
class World:
    """A registry, and machines that share nothing but it and the checkout.

    Attributes:
        folder: of all that is written.
        registry: the real one.
        fetched: names of the debs and wheels that were asked for since a machine was entered.
        made: names of layers that were made since then.
    """

    folder: Path
    registry: RealRegistry
    monkeypatch: pytest.MonkeyPatch
    fetched: list[str] = field(default_factory=list)
    lock: SetLock | None = None

    def set(self, name: str = BUMPED, files: dict[str, bytes] | None = None, *, text: bytes = b"x = {'a', 'b'}\n") -> None:
        """Lock the small set, one of its packages with other contents."""
        self.machine("wheels")
        wheels = []
        for one in NAMES:
            body = {f"{one}/__init__.py": (text if one == name else b"x = {'a', 'b'}\n") * 200}
            body |= (files or {}) if one == name else {f"{one}/more.txt": one.encode()}
            file = make(self.folder, body, name=one, entry_points=f"[console_scripts]\n{one} = {one}:x\n")
            wheels.append(stored(file))
            file.rename(self.folder / wheels[-1].artifact.sha256)
        ordered = tuple(sorted(wheels, key=lambda wheel: wheel.name))
        self.lock = SetLock("train", "sha256:0", "2026-01-02", "3.11.2", "2.36", ordered)

    def machine(self, name: str, *, new: bool = False) -> None:
        """Go on with the folders of another machine."""
        for folder in ("dist", "cache"):
            place = self.folder / name / folder
            if new:
                shutil.rmtree(place, ignore_errors=True)
            self.monkeypatch.setenv(f"PINWHEEL_{folder.upper()}", str(place))
        self.fetched.clear()

    def bring(self, base: BaseLock, debs: tuple[Deb, ...], locks: list[SetLock]) -> None:
        wheels = [wheel for lock in locks for wheel in lock.wheels]
        self.fetched += [*(deb.name for deb in debs), *(wheel.name for wheel in wheels)]
        for wheel in wheels:
            store.add_file(wheel.artifact, self.folder / wheel.artifact.sha256)

    def build(self, *, key: Signer | None = None, spot_checks: int = 0, full: bool = False) -> BuildReceipt:
        donor = None if full else self.donor(key or MINE)
        return build.build(["train"], donor=donor, spot_checks=spot_checks)

    def donor(self, key: Signer) -> Donor:
        return inventories.donor(f"{self.registry.address}/team", key.public, ["train"])

    def push(self, to: str = "") -> str:
        address = to or f"{self.registry.address}/team"
        attach.check(address)
        return push.push(address, frozenset()) + attach.attach(address)

    def lose(self, digest: str) -> None:
        """As a garbage collector does; a restart, as the registry remembers what it has seen."""
        for place in self.registry.data.rglob(digest.removeprefix("sha256:")):
            shutil.rmtree(place, ignore_errors=True)
        self.registry.stop()
        self.registry.start()


@contextmanager
def at(folder: Path, monkeypatch: pytest.MonkeyPatch, root: Rootfs, python: Rootfs) -> Iterator[World]:
    """A world in a folder, its registry running."""
    registry = RealRegistry(folder / "registry")
    state = World(folder, registry, monkeypatch)
    monkeypatch.setenv("PINWHEEL_STATE", str(folder / "state"))
    monkeypatch.setenv("DOCKER_CONFIG", str(folder))
    monkeypatch.setattr(check, "check", lambda: "")
    monkeypatch.setattr(fetching, "bring", state.bring)
    monkeypatch.setattr(fetching, "fetch", lambda _: state.bring(BASE, BASE.debs, [state.lock] if state.lock else []))
    monkeypatch.setattr(lockfile, "read_set", lambda _: state.lock)
    monkeypatch.setattr(rootfs, "made", lambda *_: root)
    monkeypatch.setattr(rootfs, "compiling", lambda _: nullcontext(python))
    monkeypatch.setattr(images_lock, "path", lambda: folder / "images.lock")
    monkeypatch.setattr(signer, "signer", lambda _: MINE)
    monkeypatch.setattr(skopeo, "RETRIES", "0")
    for module in (push, inventories, attach):
        monkeypatch.setattr(module, "_PATIENCE", QUICK)
    registry.start()
    try:
        yield state
    finally:
        registry.stop()


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: Rootfs, python: Rootfs) -> Iterator[World]:
    with at(tmp_path, monkeypatch, root, python) as state:
        yield state


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory, root: Rootfs, python: Rootfs) -> Path:
    """What is on all disks after a machine of its own built and pushed."""
    folder = tmp_path_factory.mktemp("world")
    with pytest.MonkeyPatch.context() as monkeypatch, at(folder, monkeypatch, root, python) as state:
        state.set()
        state.machine("first")
        state.build(full=True)
        state.push()
    return folder


@pytest.fixture
def pushed(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: Rootfs, python: Rootfs) -> Iterator[World]:
    """The registry has what a machine of its own built and pushed."""
    shutil.copytree(template, tmp_path, dirs_exist_ok=True)
    with at(tmp_path, monkeypatch, root, python) as state:
        state.set()
        yield state


def holes(built: BuildReceipt) -> int:
    return sum(bool(one.source) for one in built.images[0].layers)


def digest(built: BuildReceipt) -> str:
    return built.images[0].digest


def full(world: World) -> BuildReceipt:
    world.machine("full", new=True)
    return world.build(full=True)


def test_a_bump_is_built_and_pushed_without_the_bytes_that_did_not_change(
    pushed: World, capsys: pytest.CaptureFixture[str]
) -> None:
    pushed.set(text=b"y = {'c'}\n")
    whole = full(pushed)
    known = inventory.make(Layout(receipt.layout()), recipe_of(spec.read("train"), BASE))
    pushed.machine("second")
    built = pushed.build()
    (image,) = built.images
    assert digest(built) == digest(whole)
    assert holes(built) == len(image.layers) - 1
    (made,) = (one for one in image.layers if not one.source)
    alone = {deb.name for deb in rootfs.interpreter(BASE)}
    wheels = set(pushed.fetched) - alone
    assert alone <= set(pushed.fetched)
    assert len(alone) < 12
    assert BUMPED in wheels
    assert len(wheels) < len(NAMES)
    layout = Layout(receipt.layout())
    assert [one.digest for one in image.layers if layout.has(one.digest, one.size)] == [made.digest]
    capsys.readouterr()
    pushed.push()
    assert "mounted" not in capsys.readouterr().out
    assert {one.digest for one in image.layers} <= set(pushed.registry.blobs())
    # The next one may take from this one: its inventory is that of the full build.
    assert known in pushed.registry.blobs().values()
    ref = inspect.reference(f"{pushed.registry.address}/team/{image.name}@{image.digest}")
    assert inspect.look(ref, MINE.public, Policy(smoke="none"))[1].holds


def test_where_nothing_changed_nothing_is_fetched_or_made(pushed: World, capsys: pytest.CaptureFixture[str]) -> None:
    pushed.machine("second")
    built = pushed.build()
    assert holes(built) == len(built.images[0].layers)
    assert pushed.fetched == []
    capsys.readouterr()
    pushed.push()
    assert "llama-factory-train: 0 B sent" in capsys.readouterr().out


def test_a_push_to_another_registry_copies_what_it_lacks(pushed: World) -> None:
    pushed.machine("second")
    (image,) = pushed.build().images
    other = RealRegistry(pushed.folder / "other")
    other.start()
    try:
        pushed.push(f"{other.address}/elsewhere")
        assert {one.digest for one in image.layers} <= set(other.blobs())
    finally:
        other.stop()
    assert not list((pushed.folder / "second/dist").glob(".hole-*"))


def test_a_push_to_another_folder_of_the_registry_mounts(pushed: World, capsys: pytest.CaptureFixture[str]) -> None:
    pushed.machine("second")
    pushed.build()
    pushed.push(f"{pushed.registry.address}/elsewhere")
    assert "mounted from other repositories" in capsys.readouterr().out


def test_the_whole_base_is_had_where_the_configuration_changed(pushed: World, monkeypatch: pytest.MonkeyPatch) -> None:
    read = spec.read
    monkeypatch.setattr(spec, "read", lambda role: dataclasses.replace(read(role), uid=12345))
    whole = full(pushed)
    pushed.machine("second")
    built = pushed.build()
    assert digest(built) == digest(whole)
    assert set(pushed.fetched) == {deb.name for deb in BASE.debs}


def test_packages_that_collide_are_found_though_one_was_taken(pushed: World) -> None:
    pushed.set(files={"small5/more.txt": b"other bytes"})
    pushed.machine("second")
    with pytest.raises(BuildError, match="packages install different bytes at 1 path: small5 and small3|small3 and small5"):
        pushed.build()


def test_without_an_inventory_all_is_made_and_that_is_said(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.set()
    world.machine("first")
    built = world.build()
    assert not holes(built)
    assert "no inventory: lockfiles/images.lock names no image" in capsys.readouterr().err
    push.push(f"{world.registry.address}/team", frozenset())
    world.machine("second")
    assert not holes(world.build())
    assert "no inventory is believed: it has no provenance that key" in capsys.readouterr().err


def test_an_inventory_of_another_key_is_not_believed(pushed: World, capsys: pytest.CaptureFixture[str]) -> None:
    pushed.machine("second")
    assert not holes(pushed.build(key=THEIRS))
    assert "it has no provenance that key" in capsys.readouterr().err


def _says(pushed: World, change: Callable[[dict[str, object]], None]) -> None:
    """Push an inventory that lies of its layers, signed."""
    true = inventory.make

    def lie(layout: Layout, recipe: Recipe) -> bytes:
        lines = []
        for one, text in inventory.read(true(layout, recipe)):
            body = dataclasses.asdict(one)
            change(body)
            lines += [json.dumps(body, sort_keys=True), text]
        return zstandard.ZstdCompressor().compress("\n".join(lines).encode())

    pushed.machine("first")
    pushed.monkeypatch.setattr(inventory, "make", lie)
    pushed.push()
    pushed.monkeypatch.setattr(inventory, "make", true)
    pushed.machine("second")


@pytest.mark.parametrize(
    ("field", "value", "why"),
    [
        ("diff_id", "sha256:" + "e" * 64, "it says diff_id sha256:e"),
        ("digest", "sha256:" + "e" * 64, "its layers are not those of the image"),
        ("size", 7, "its layers are not those of the image"),
        ("listing", "sha256:" + "e" * 64, "are others than it says"),
        ("unpacked", "much", "Layer.unpacked is 'much'"),
    ],
)
def test_a_signed_inventory_that_does_not_fit_its_image_is_not_believed(
    pushed: World, capsys: pytest.CaptureFixture[str], field: str, value: object, why: str
) -> None:
    _says(pushed, lambda body: body.update({field: value}))
    assert not holes(pushed.build())
    assert why in capsys.readouterr().err


def test_a_spot_check_finds_a_signed_lie_about_a_key_and_keeps_nothing(pushed: World) -> None:
    pushed.set(text=b"y = {'c'}\n")
    wanted = recipe_of(spec.read("train"), BASE)
    bumped = next(plan for plan in wanted.wheels if any(wheel.name == BUMPED for wheel in plan.wheels))
    lock = pushed.lock
    pushed.set()

    def lie(body: dict[str, object]) -> None:
        if str(body["what"]).partition(":")[0] == bumped.what.partition(":")[0]:
            body["key"] = bumped.key

    _says(pushed, lie)
    pushed.lock = lock
    # Without a check the signature is believed: the image is another than it should be.
    believed = digest(pushed.build())
    assert believed != digest(full(pushed))
    pushed.machine("third")
    with pytest.raises(BuildError, match="and a signed inventory says sha256:.*build without --from"):
        pushed.build(spot_checks=1000)
    assert not receipt.path().exists()


def test_a_true_inventory_passes_a_spot_check_of_all(pushed: World, capsys: pytest.CaptureFixture[str]) -> None:
    pushed.machine("second")
    built = pushed.build(spot_checks=1000)
    assert not holes(built)
    assert capsys.readouterr().out.count("made again, as the inventory says") == len(built.images[0].layers)


def test_a_machine_that_made_the_layer_otherwise_refuses_a_lie_without_any_check(pushed: World) -> None:
    pushed.machine("first")
    plan = next(iter(recipe_of(spec.read("train"), BASE).wheels))
    known = layer.made(plan)
    assert known is not None
    Layout(receipt.layout()).blob(known.digest).unlink()
    record = layer._record(plan.key)
    record.write_text(json.dumps(dataclasses.asdict(dataclasses.replace(known, digest="sha256:" + "e" * 64))))
    with pytest.raises(BuildError, match="was made on this machine as sha256:e"):
        pushed.build()


def test_a_blob_that_is_gone_is_made(pushed: World, capsys: pytest.CaptureFixture[str]) -> None:
    pushed.machine("first")
    lost = receipt.read().images[0].layers[3]
    pushed.lose(lost.digest)
    pushed.machine("second")
    built = pushed.build()
    assert [one.digest for one in built.images[0].layers if not one.source] == [lost.digest]
    assert f"the registry no longer has {lost.digest}; it is made here" in capsys.readouterr().err


def test_a_blob_collected_between_build_and_push_is_made_then(pushed: World, capsys: pytest.CaptureFixture[str]) -> None:
    pushed.machine("second")
    (image,) = pushed.build().images
    lost = image.layers[3].digest
    pushed.lose(lost)
    assert lost not in pushed.registry.blobs()
    pushed.push()
    assert lost in pushed.registry.blobs()
    assert f"no longer has {lost}; it is made here" in capsys.readouterr().err


def test_an_inventory_that_was_collected_gives_nothing(pushed: World, capsys: pytest.CaptureFixture[str]) -> None:
    pushed.machine("first")
    data = inventory.make(Layout(receipt.layout()), recipe_of(spec.read("train"), BASE))
    pushed.lose(sha256_bytes(data))
    pushed.machine("second")
    assert not holes(pushed.build())
    assert "no inventory is believed: the registry answers 404" in capsys.readouterr().err


def test_a_registry_that_dies_in_the_middle_of_a_build_is_named(pushed: World, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Client.read_blob

    def last(client: Client, repository: str, digest: str, size: int) -> bytes:
        found = real(client, repository, digest, size)
        if size > 2000:
            pushed.registry.kill()
        return found

    pushed.machine("second")
    monkeypatch.setattr(Client, "read_blob", last)
    with pytest.raises(RegistryError, match=f"connection refused .*{pushed.registry.address}"):
        pushed.build()
    assert not receipt.path().exists()


def test_a_registry_that_dies_before_the_holes_are_filled_is_named(pushed: World) -> None:
    pushed.machine("second")
    pushed.build()
    recorded = images_lock.path().read_bytes()
    pushed.registry.kill()
    with pytest.raises(RegistryError, match=f"connection refused .*{pushed.registry.address}"):
        pushed.push()
    assert images_lock.path().read_bytes() == recorded


def test_a_full_build_after_a_thin_one_fills_the_layout(pushed: World) -> None:
    pushed.machine("second")
    thin_built = pushed.build()
    whole = pushed.build(full=True)
    assert digest(whole) == digest(thin_built)
    assert not holes(whole)
    layout = Layout(receipt.layout())
    assert all(layout.has(one.digest, one.size) for one in whole.images[0].layers)


@pytest.mark.parametrize("text", ["-1", "three", "1.5", "٣", "99999"])
def test_a_number_of_spot_checks_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--spot-check: not a number of layers"):
        thin.number(text)
