"""A run by digest: which images it takes, that it brings exactly them, and what it says where it cannot."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from common.errors import LockError, RegistryError, UsageError
from images import spec
from images.receipt import BuiltImage
from lockfiles import images_lock
from lockfiles.images_lock import PinnedImage
from oci.client.patience import Patience
from oci.descriptor import MANIFEST
from oci.layout import Layout
from smoke import ladder, pulled
from smoke.machine import engine
from tests.oci.double import Double, answers, serving
from tests.smoke import layouts
from tests.smoke.simulator import SimulatedEngine

pytestmark = pytest.mark.slow

NOBODY = "sha256:" + "f" * 64


@pytest.fixture
def double(own_folders: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Double]:
    monkeypatch.setenv("DOCKER_CONFIG", str(own_folders))
    monkeypatch.setattr(images_lock, "path", lambda: own_folders / "images.lock")
    monkeypatch.setattr(pulled, "_PATIENCE", Patience(tries=2, pause=0.01, connect=5, read=5))
    with serving() as state:
        yield state


def held(double: Double, folder: Path, *roles: str, prefix: str = "team/") -> list[BuiltImage]:
    """Images of these roles in the registry and in images.lock."""
    images = []
    for role in roles:
        image = layouts.add(folder / role, role, [layouts.layer({role: role.encode()})], name=spec.read(role).name)
        repository = prefix + image.name
        for file in (folder / role / "blobs/sha256").iterdir():
            double.blobs[repository][f"sha256:{file.name}"] = file.read_bytes()
        manifest = (MANIFEST, double.blobs[repository].pop(image.digest))
        double.manifests[repository][image.version] = double.manifests[repository][image.digest] = manifest
        images.append(image)
    images_lock.write(PinnedImage(one.name, one.digest, one.version, 580, ("9.0",)) for one in images)
    return images


def test_what_images_lock_names_is_read_from_the_registry(double: Double, tmp_path: Path) -> None:
    known = held(double, tmp_path, "train", "api", "api-cpu")
    for gpu, roles in ((False, ("train", "api-cpu")), (True, ("train", "api"))):
        found = pulled.chosen(f"{double.address}/team", [], gpu=gpu)
        assert tuple(one.role for one in found.images) == roles
        for one in found.images:
            true = next(image for image in known if image.role == one.role)
            assert (one.name, one.version, one.digest, one.config_digest) == (
                *(true.name, true.version),
                *(true.digest, true.config_digest),
            )
            assert [(part.digest, part.diff_id, part.size) for part in one.layers] == [
                (part.digest, part.diff_id, part.size) for part in true.layers
            ]
            assert (one.driver, one.compute) == (580, ("9.0",))


def test_named_images_take_the_place_of_the_locked_ones_and_say_where_the_other_lies(double: Double, tmp_path: Path) -> None:
    held(double, tmp_path, "train", "api-cpu")
    locked = {one.name: one for one in images_lock.read()}
    (other,) = held(double, tmp_path / "other", "api-cpu", prefix="elsewhere/")
    images_lock.write(locked.values())
    double.manifests["elsewhere/llama-factory-train"] = double.manifests["team/llama-factory-train"]
    double.blobs["elsewhere/llama-factory-train"] = double.blobs["team/llama-factory-train"]
    found = pulled.chosen("", [f"{double.address}/elsewhere/{other.name}@{other.digest}"], gpu=False)
    assert [place.repository for place in found.places] == ["elsewhere/llama-factory-train", f"elsewhere/{other.name}"]


@pytest.mark.parametrize(
    ("named", "message"),
    [
        (["llama-factory-train@" + NOBODY], "an image to run is named by registry and digest"),
        (["r.example.com/llama-factory-train:1"], "an image to run is named by registry and digest"),
        (["r.example.com/nginx@" + NOBODY], "no image of this checkout .*there are: llama-factory-api"),
        (["r.example.com/llama-factory-train@sha256:12"], "write HOST/NAME@sha256"),
        (["r.example.com/llama-factory-train@" + NOBODY] * 2, "the image 'train' is named twice"),
        (["r.example.com/llama-factory-api@" + NOBODY], "no pair of images for the CPU is named; it is train and api-cpu"),
        ([], "no pair of images for the CPU is named; it is train and api-cpu .*images.lock"),
    ],
)
def test_what_names_no_pair_is_refused(double: Double, named: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        pulled.chosen("", named, gpu=False)


def test_two_pairs_for_one_device_are_refused_until_one_is_named(double: Double, tmp_path: Path) -> None:
    images = held(double, tmp_path, "train", "api", "train-cu128", "api-cu128")
    with pytest.raises(UsageError, match="several pairs of images could run on a GPU: train and api; .*--image"):
        pulled.chosen(f"{double.address}/team", [], gpu=True)
    named = f"{double.address}/team/{images[3].name}@{images[3].digest}"
    assert [one.role for one in pulled.chosen("", [named], gpu=True).images] == ["train-cu128", "api-cu128"]


def test_an_image_that_is_not_there_or_not_ours_is_named(double: Double, tmp_path: Path) -> None:
    images = held(double, tmp_path, "train", "api-cpu")
    double.manifests[f"team/{images[1].name}"][images[1].digest] = (MANIFEST, b"{}")
    with pytest.raises(RegistryError, match="serves other bytes"):
        pulled.chosen(f"{double.address}/team", [], gpu=False)
    del double.manifests[f"team/{images[1].name}"][images[1].digest]
    with pytest.raises(RegistryError, match=f"reading .*{images[1].digest} back failed.*404"):
        pulled.chosen(f"{double.address}/team", [], gpu=False)


def test_the_engine_gets_exactly_what_was_pulled_and_the_copy_is_removed(double: Double, tmp_path: Path) -> None:
    images = held(double, tmp_path, "train", "api-cpu")
    found = pulled.chosen(f"{double.address}/team", [], gpu=False)
    simulated = SimulatedEngine()
    fit = engine.Engine(simulated, "1", None)  # type: ignore[arg-type]
    for image in found.images:
        engine.load(fit, image, found.bring(image))
    assert set(simulated.images.names.values()) == {one.digest for one in images}
    assert Layout(pulled._folder()).has(images[0].layers[0].digest, images[0].layers[0].size)
    found.drop()
    assert not pulled._folder().exists()


def test_a_pull_that_is_cut_goes_on_and_altered_bytes_are_refused(double: Double, tmp_path: Path) -> None:
    images = held(double, tmp_path, "train", "api-cpu")
    found = pulled.chosen(f"{double.address}/team", [], gpu=False)
    layer = images[1].layers[0]
    double.fail("GET", layer.digest, answers(500), times=99)
    with pytest.raises(RegistryError, match="500"):
        found.bring(found.images[1])
    double.faults.clear()
    found.bring(found.images[1])
    found.drop()
    double.blobs[f"team/{images[1].name}"][layer.digest] = b"x" * layer.size
    with pytest.raises(LockError, match=layer.digest.removeprefix("sha256:")):
        found.bring(found.images[1])


def test_a_thin_builds_images_are_pushed_first(own_folders: Path) -> None:
    from dataclasses import replace

    from common.errors import BuildError
    from images.receipt import BuildReceipt

    made = [layouts.add(own_folders / "dist/oci", role, [layouts.layer({role: b"x"})]) for role in ("train", "api-cpu")]
    ladder.choose(BuildReceipt("a", tuple(made)), gpu=False)
    hole = replace(made[0].layers[0], source="r.example.com/team/train", digest=NOBODY)
    thin = replace(made[0], layers=(hole,))
    with pytest.raises(BuildError, match="a thin build left the layer 'test' of test-train in r.example.com/team/train"):
        ladder.choose(BuildReceipt("a", (thin, made[1])), gpu=False)
