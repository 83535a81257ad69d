"""What an image may weigh: a build that exceeds it is refused, and nothing that was made is lost."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from common import paths
from common.errors import BuildError, ExitCode, UsageError
from images import budget, build, receipt, spec
from images.receipt import BuiltImage, BuiltLayer
from images.recipe import recipe_of
from lockfiles import check, fetching, lockfile
from lockfiles.debian import rootfs
from lockfiles.debian.rootfs import Rootfs
from lockfiles.model import SetLock
from tests.images.wheels.wheels import make, stored


def image(**sizes: int) -> BuiltImage:
    layers = tuple(BuiltLayer(what.replace("_", " "), "sha256:0", "", size, size, reused=False) for what, size in sizes.items())
    return BuiltImage("small", "train", "1", "sha256:0", "", sum(sizes.values()), 0, "", layers)


@pytest.mark.parametrize(("text", "size"), [("3.00 GB", 3_000_000_000), ("950 MB", 950_000_000), ("0.5 GB", 500_000_000)])
def test_a_budget_is_a_decimal_size(text: str, size: int) -> None:
    assert budget.parse(text) == size


@pytest.mark.parametrize("text", ["", "3", "3 GiB", "3GB", "-1 GB", "0 MB", "1e3 MB", "3.00 GB\n", "nan GB", "٣ GB"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a size"):
        budget.parse(text)


def test_a_spec_with_no_size_for_a_budget_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("shared.toml", "train/image.toml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        text = (paths.IMAGES / name).read_text()
        (tmp_path / name).write_text(text.replace('budget = "', 'budget = "about '))
    monkeypatch.setattr(paths, "IMAGES", tmp_path)
    with pytest.raises(UsageError, match=r"budget: not a size: 'about 3.* write \"3.00 GB\" or \"950 MB\".*train/image.toml"):
        spec.read("train")


def test_within_its_budget_nothing_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    budget.check(image(a_1=97), 100, ())
    assert capsys.readouterr() == ("", "")


def test_near_its_budget_is_warned_of(capsys: pytest.CaptureFixture[str]) -> None:
    budget.check(image(a_1=98), 100, ())
    assert "small is 98 B of 100 B (98.0 %) of its budget: the next release may not fit" in capsys.readouterr().err


def test_beyond_its_budget_the_layers_that_grew_are_named() -> None:
    old = image(a_1=50, b_1=20, bucket_03__2_wheels=5, gone_1=9)
    old = dataclasses.replace(old, layers=tuple(dataclasses.replace(o, what=o.what.replace("  ", ": ")) for o in old.layers))
    new = image(a_2=51, b_1=20, bucket_03__4_wheels=25, c_1=8)
    new = dataclasses.replace(new, layers=tuple(dataclasses.replace(o, what=o.what.replace("  ", ": ")) for o in new.layers))
    with pytest.raises(BuildError) as refused:
        budget.check(new, 100, [old])
    assert refused.value.line() == (
        "small is 104 B of 100 B (104.0 %): grown most: bucket 03: 4 wheels +20 B, c 1 +8 B, a 2 +1 B "
        "(images/train/image.toml): raise `budget` if that is meant; else leave files out ([[leave_out]]) "
        "or pin smaller versions"
    )
    assert refused.value.exit_code == ExitCode.BUILD


@pytest.mark.parametrize("before", [[], [image(a_1=100, b_1=40, c_1=9, d_1=8, e_1=7, f_1=6)]], ids=["no build", "the same"])
def test_beyond_its_budget_with_nothing_grown_the_largest_are_named(before: list[BuiltImage]) -> None:
    with pytest.raises(
        BuildError, match=r"170 B of 100 B \(170.0 %\): largest: a 1 100 B, b 1 40 B, c 1 9 B, d 1 8 B, e 1 7 B \("
    ):
        budget.check(image(a_1=100, b_1=40, c_1=9, d_1=8, e_1=7, f_1=6), 100, before)


def test_a_raised_budget_changes_no_image() -> None:
    base, train = lockfile.read_base(), spec.read("train")
    raised = dataclasses.replace(train, budget=train.budget + 1)
    assert dataclasses.replace(recipe_of(raised, base), spec=train) == recipe_of(train, base)


@pytest.mark.host
def test_a_refused_build_keeps_its_layers_and_the_receipt_before(
    own_folders: Path, monkeypatch: pytest.MonkeyPatch, root: Rootfs
) -> None:
    own_folders.mkdir(exist_ok=True)
    real = spec.read("train")

    def locked(size: int) -> None:
        wheels = [make(own_folders, {f"{n}/a.py": b"x = 1\n" * size}, name=n) for n in ("llamafactory", "small")]
        lock = SetLock("small", "sha256:0", "2026-01-02", "3.11.2", "2.36", tuple(map(stored, wheels)))
        monkeypatch.setattr(lockfile, "read_set", lambda _: lock)

    def allowed(size: int) -> None:
        monkeypatch.setattr(spec, "read", lambda _: dataclasses.replace(real, budget=size, left_out=()))

    for module, name in ((check, "check"), (fetching, "fetch")):
        monkeypatch.setattr(module, name, lambda *_: "")
    monkeypatch.setattr(rootfs, "made", lambda *_: root)
    locked(10)
    allowed(10**9)
    first = build.build(["train"])
    locked(50)
    allowed(1000)
    with pytest.raises(BuildError, match=r"llama-factory-train is .* of 1.0 kB .*: grown most: bucket"):
        build.build(["train"])
    assert receipt.read() == first
    allowed(10**9)
    (second,) = build.build(["train"]).images
    assert second.digest != first.images[0].digest
    assert all(one.reused for one in second.layers)
