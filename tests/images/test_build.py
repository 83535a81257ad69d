"""A whole build of a small set on the real base's interpreter: repeatable, on any number of cores, and found out when not."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import replace
from pathlib import Path

import pytest
import zstandard

from common.errors import BuildError, MissingEnvironmentError
from images import build, config, layer, receipt, spec
from images.files_entry import FilesEntry
from images.plan import LayerPlan
from images.receipt import BuildReceipt, BuiltImage
from images.recipe import Recipe, recipe_of
from images.tarball import LayerWriter
from lockfiles import lockfile
from lockfiles.debian import rootfs
from lockfiles.debian.rootfs import Rootfs
from lockfiles.model import Gpu, SetLock
from oci.layout import Layout
from tests.images.wheels.wheels import make, members, stored

BASE = lockfile.read_base()


@pytest.fixture
def recipes(own_folders: Path, monkeypatch: pytest.MonkeyPatch, root: Rootfs) -> list[Recipe]:
    own_folders.mkdir(exist_ok=True)
    names = ["llamafactory", *(f"small{number}" for number in range(12))]
    wheels = [
        stored(
            make(
                own_folders,
                {f"{n}/__init__.py": b"x = {'a', 'b'}\n" * 200},
                name=n,
                entry_points=f"[console_scripts]\n{n} = {n}:x\n",
            )
        )
        for n in names
    ]
    lock = SetLock("small", "sha256:0", "2026-01-02", "3.11.2", "2.36", tuple(sorted(wheels, key=lambda w: w.name)))
    monkeypatch.setattr(lockfile, "read_set", lambda _: lock)
    monkeypatch.setattr(rootfs, "made", lambda *_: root)
    return [recipe_of(spec.read("train"), BASE)]


GPU = Gpu("13.0", 580, ("7.5", "8.0"))


@pytest.mark.host
@pytest.mark.parametrize(
    ("role", "gpu", "asked"),
    [("train", None, (0, ())), ("train", GPU, (580, ("7.5", "8.0"))), ("api-cpu", GPU, (0, ()))],
    ids=["no CUDA", "CUDA", "the CPU's family"],
)
def test_the_receipt_says_what_the_image_asks_of_a_gpu(
    recipes: list[Recipe], root: Rootfs, role: str, gpu: Gpu | None, asked: tuple[int, tuple[str, ...]]
) -> None:
    (recipe,) = recipes
    made = replace(recipe, spec=replace(recipe.spec, role=role), lock=replace(recipe.lock, gpu=gpu))
    receipt.write(BuildReceipt("abc", build._build(Layout(receipt.layout()), [made], BASE, root)))
    (image,) = receipt.read().images
    assert (image.driver, image.compute) == asked


def test_a_receipt_from_before_images_said_what_they_ask_for_still_reads(own_folders: Path) -> None:
    image = BuiltImage("small", "train", "1", "sha256:0", "", 1, 1, "", (), 580, ("7.5",))
    file = receipt.write(BuildReceipt("abc", (image,)))
    body = json.loads(file.read_text())
    del body["images"][0]["driver"], body["images"][0]["compute"]
    file.write_text(json.dumps(body))
    assert receipt.read().images == (replace(image, driver=0, compute=()),)


def _digests(images: tuple[BuiltImage, ...]) -> list[str]:
    return [one.digest for image in images for one in image.layers] + [image.digest for image in images]


@pytest.mark.host
def test_one_core_and_two_give_the_same_digests(
    recipes: list[Recipe], root: Rootfs, own_folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = []
    for cores in ({0}, {0, 1}):
        monkeypatch.setattr("os.sched_getaffinity", lambda _, cores=cores: cores)
        results.append(_digests(build._build(Layout(own_folders / str(len(cores)) / "oci"), recipes, BASE, root)))
    assert results[0] == results[1]


@pytest.mark.host
def test_a_second_build_reuses_all_and_twice_finds_no_difference(recipes: list[Recipe], root: Rootfs) -> None:
    layout = Layout(receipt.layout())
    first = build._build(layout, recipes, BASE, root)
    second = build._build(layout, recipes, BASE, root)
    assert _digests(first) == _digests(second)
    assert not any(one.reused for one in first[0].layers)
    assert all(one.reused for one in second[0].layers)
    build._again(recipes, BASE, first)


@pytest.mark.host
def test_twice_names_the_layer_that_differs(recipes: list[Recipe], root: Rootfs, monkeypatch: pytest.MonkeyPatch) -> None:
    first = build._build(Layout(receipt.layout()), recipes, BASE, root)
    real = config.fill

    def other(*arguments: object) -> object:
        writer = arguments[-1]
        assert isinstance(writer, LayerWriter)
        writer.file("differs", 1, [b"x"])
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(config, "fill", other)
    with pytest.raises(
        BuildError, match=r"llama-factory-train differs between two builds: layer 'config': differs is only in the second"
    ):
        build._again(recipes, BASE, first)


@pytest.mark.host
def test_a_killed_worker_is_named_and_the_next_build_just_continues(
    recipes: list[Recipe], root: Rootfs, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = Layout(receipt.layout())
    with monkeypatch.context() as during:
        during.setattr(layer, "make_wheels", _die)
        with pytest.raises(MissingEnvironmentError, match="a process that makes layers was killed"):
            build._build(layout, recipes, BASE, root)
    assert build._build(layout, recipes, BASE, root)[0].layers


def _die(root: Path, plan: LayerPlan, tree: Path) -> None:
    import os
    import signal

    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.host
def test_a_file_of_the_repository_in_the_place_of_a_wheels_or_the_bases_is_refused(recipes: list[Recipe], root: Rootfs) -> None:
    layout = Layout(receipt.layout())
    (recipe,) = recipes
    for to, holder in (("/opt/venv/bin/small1", "small1"), ("/var/lib/dpkg/status", "the base")):
        entry = FilesEntry("LICENSE", to, (), (), 0o644, "root", "image.toml, files[0]")
        clashing = recipe_of(replace(recipe.spec, files=(entry,)), BASE)
        with pytest.raises(BuildError, match=rf'from = "LICENSE" and {holder} both bring it \({to}\)'):
            build._build(layout, [clashing], BASE, root)


@pytest.mark.host
def test_the_files_of_the_repository_lie_below_the_configuration_and_what_it_writes(
    recipes: list[Recipe], root: Rootfs
) -> None:
    layout = Layout(receipt.layout())
    entry = FilesEntry("common", "/opt/mine", ("errors.py",), (), 0o640, "user", "image.toml, files[0]")
    with_files = recipe_of(replace(recipes[0].spec, files=(entry,)), BASE)
    (image,) = build._build(layout, [with_files], BASE, root)
    assert [one.what for one in image.layers[-2:]] == ["files", "config"]
    (again,) = build._build(layout, [with_files], BASE, root)
    assert again.digest == image.digest
    assert again.layers[-2].reused
    with layout.blob(image.layers[-2].digest).open("rb") as blob, zstandard.ZstdDecompressor().stream_reader(blob) as tar:
        held = members(tar.read())
    assert list(held) == ["opt", "opt/mine", "opt/mine/errors.py"]


@pytest.mark.host
def test_the_base_digest_and_the_users_identity_are_in_the_image(recipes: list[Recipe], root: Rootfs) -> None:
    layout = Layout(receipt.layout())
    (image,) = build._build(layout, recipes, BASE, root)
    manifest = layout.read(image.digest)
    body = layout.read(manifest["config"]["digest"])
    assert body["config"]["User"] == "10001:10001"
    assert body["rootfs"]["diff_ids"] == [one.diff_id for one in image.layers]
    base = layout.read(manifest["annotations"]["org.opencontainers.image.base.digest"])
    assert base["layers"] == manifest["layers"][:1]
    assert dataclasses.asdict(image.layers[-1])["what"] == "config"
