"""What a change of the locks means for the images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from images import plan, spec
from images.forecast import impact
from lockfiles import changes
from lockfiles.changes import Locked
from lockfiles.model import Artifact


def bumped(locked: Locked, name: str, size: int) -> Locked:
    """The same locks with another file for one package, in every set."""
    sets = {}
    for key, lock in locked.sets.items():
        wheels = [replace(w, artifact=Artifact(w.artifact.file, size, "ab" * 32)) if w.name == name else w for w in lock.wheels]
        sets[key] = replace(lock, wheels=tuple(wheels))
    return Locked(locked.base, sets)


def test_nothing_moved_touches_no_image(own_folders: Path) -> None:
    now = changes.read()
    assert impact.of(now, now) == ()


def test_a_small_package_touches_one_layer_of_each_image_that_holds_it(own_folders: Path) -> None:
    now = changes.read()
    found = {one.name: one for one in impact.of(now, bumped(now, "jinja2", 100_000))}
    assert {"llama-factory-train", "llama-factory-api", "llama-factory-api-cu128"} <= set(found)
    for one in found.values():
        (layer,) = one.new
        assert "jinja2" in {wheel.name for wheel in layer.wheels}
        assert 0.9 * layer.weight < one.upload < 2.4 * layer.weight


def test_a_big_package_is_a_layer_alone(own_folders: Path) -> None:
    now = changes.read()
    train = next(one for one in impact.of(now, bumped(now, "torch", 500_000_000)) if one.name == "llama-factory-train")
    assert (len(train.new), train.upload) == (1, 485_000_000)  # an estimate: no such file is in the store
    assert train.layers > plan.BUCKETS


def test_another_base_touches_every_layer_that_its_interpreter_compiled(own_folders: Path) -> None:
    now = changes.read()
    assert now.base
    debs = [
        replace(d, artifact=replace(d.artifact, sha256="ab" * 32)) if d.name == "python3.11-minimal" else d
        for d in now.base.debs
    ]
    found = impact.of(now, Locked(replace(now.base, debs=tuple(debs)), now.sets))
    assert len(found) == len(spec.roles())
    assert all(len(one.new) == one.layers for one in found)


def test_it_is_told_in_a_line_for_each_image(own_folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    now = changes.read()
    impact.show(now, bumped(now, "torch", 500_000_000))
    said = " ".join(capsys.readouterr().out.split())
    assert "llama-factory-train: 1 of" in said
    assert "a push sends about 485.0 MB (torch 2.13.0)" in said
