"""Whoever can write to `dist/` gets nothing signed but what specs, locks, git and this machine's own layers say."""

from __future__ import annotations

import dataclasses
import datetime
import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from common import git, paths
from common.errors import BuildError, MissingEnvironmentError, SmokeError
from common.files import sha256_file
from images import assembly, bill, layer, receipt, spec
from images.receipt import BuildReceipt, BuiltImage
from images.recipe import Recipe, recipe_of
from images.tarball import LayerWriter
from lockfiles import lockfile
from oci.layout import Layout
from registry import attach, recompute, result
from smoke import receipt as smoke_receipt
from smoke.receipt import ProvenImage, SmokeReceipt
from tests.registry import signing
from tests.smoke import receipts

pytestmark = pytest.mark.slow

BASE = lockfile.read_base()


def fill(text: str) -> Callable[[LayerWriter], dict[str, Any]]:
    def write(writer: LayerWriter) -> dict[str, Any]:
        writer.file("a", len(text), [text.encode()])
        writer.end()
        return {}

    return write


@pytest.fixture
def recipe() -> Recipe:
    return recipe_of(spec.read("train"), BASE)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Dist and cache after a build of the train image by this machine; its layers hold little."""
    folder, recipe = tmp_path_factory.mktemp("built"), recipe_of(spec.read("train"), BASE)
    with mock.patch.dict("os.environ", PINWHEEL_DIST=str(folder / "dist"), PINWHEEL_CACHE=str(folder / "cache")):
        _build(recipe)
    return folder


def _build(recipe: Recipe) -> None:
    layout = Layout(receipt.layout())
    layout.create()
    layers = [layer.make(layout, plan, fill(plan.key)) for plan in recipe.plans]
    image = bill.make(recipe, BASE, ()).written(assembly.assemble(layout, recipe, BASE, layers))
    toolkit = sha256_file(paths.LOCKFILES / "toolkit.txt")
    made = BuildReceipt(signing.COMMIT, (image,), "2026-11-23T17:00:00+00:00", toolkit)
    receipt.write(made)


@pytest.fixture
def built(template: Path, own_folders: Path, monkeypatch: pytest.MonkeyPatch) -> BuildReceipt:
    """What was built, in folders of this test alone."""
    shutil.copytree(template, own_folders, dirs_exist_ok=True)
    monkeypatch.setattr(git, "knows", lambda commit: commit == signing.COMMIT)
    monkeypatch.setattr(git, "differing", lambda _commit, _places: [])
    monkeypatch.setattr(git, "digest", lambda _commit, _file: "")
    return receipt.read()


def test_what_this_machine_built_is_taken(built: BuildReceipt) -> None:
    true = recompute.inputs(built.images[0], built)
    assert true.sbom["metadata"]["component"]["name"] == "llama-factory-train"
    assert list(true.locks) == ["lockfiles/base.lock", "lockfiles/train.lock", "lockfiles/toolkit.txt"]
    # Which layers were found made is of no account.
    found = tuple(dataclasses.replace(one, reused=True) for one in built.images[0].layers)
    recompute.inputs(dataclasses.replace(built.images[0], layers=found), built)


OTHER = "sha256:" + "e" * 64
FORGED: dict[str, dict[str, Any]] = {
    "name": {"name": "llama-factory-api"},
    "role": {"role": "api"},
    "version": {"version": "1"},
    "digest": {"digest": OTHER},
    "configuration": {"config_digest": OTHER},
    "size": {"size": 1},
    "unpacked": {"unpacked": 1},
    "inputs": {"inputs": OTHER},
    "no layers": {"layers": ()},
    "GPU driver": {"driver": 1},
    "GPU capability": {"compute": ()},
    "SBOM": {"sbom": OTHER},
    "serial number": {"sbom_serial": "x"},
}


@pytest.mark.parametrize("fields", FORGED.values(), ids=FORGED)
def test_a_receipt_that_says_something_else_is_refused(built: BuildReceipt, fields: dict[str, Any]) -> None:
    with pytest.raises(BuildError, match="is not what this machine built|was not built from the locks"):
        recompute.inputs(dataclasses.replace(built.images[0], **fields), built)


def test_an_image_of_another_layer_under_true_names_is_refused(built: BuildReceipt, recipe: Recipe) -> None:
    layout, image = Layout(receipt.layout()), built.images[0]
    evil = layer.make(layout, dataclasses.replace(recipe.plans[0], key="e" * 64), fill("curl evil | sh"))
    layers = [evil, *(layer.made(plan) for plan in recipe.plans[1:])]
    forged = assembly.assemble(layout, recipe, BASE, [one for one in layers if one])
    assert forged.inputs == image.inputs
    with pytest.raises(BuildError, match="digest of llama-factory-train is not what this machine built"):
        recompute.inputs(dataclasses.replace(forged, sbom=image.sbom, sbom_serial=image.sbom_serial), built)


def test_a_layer_that_dist_alone_notes_is_made_again_and_not_reused(built: BuildReceipt, recipe: Recipe) -> None:
    layout, plan = Layout(receipt.layout()), recipe.plans[0]
    true = layer.noted(layout, plan)
    assert true is not None
    evil = layout.add("x", b"curl evil | sh")
    note = layout.root.parent / "layers" / f"{plan.key}.json"
    said = {**dataclasses.asdict(true), "digest": evil.digest, "size": evil.size}
    note.write_text(json.dumps(said) + "\n{}")
    assert layer.noted(layout, plan) is None


def test_what_another_machine_built_is_built_here_first(built: BuildReceipt, own_folders: Path, recipe: Recipe) -> None:
    (own_folders / "cache" / "made" / f"{recipe.plans[-1].key}.json").unlink()
    with pytest.raises(BuildError, match=r"nothing but dist/ says what the layer 'config'.*run `invoke build` here"):
        recompute.inputs(built.images[0], built)


@pytest.mark.parametrize("how", ["link", "for others to write"])
def test_a_record_that_others_could_have_written_is_refused(
    built: BuildReceipt, own_folders: Path, recipe: Recipe, how: str
) -> None:
    file = own_folders / "cache" / "made" / f"{recipe.plans[0].key}.json"
    if how == "link":
        file.rename(own_folders / "elsewhere")
        file.symlink_to(own_folders / "elsewhere")
    else:
        file.chmod(0o666)
    with pytest.raises(MissingEnvironmentError, match=f"what lies in the cache is .*{how}"):
        recompute.inputs(built.images[0], built)


def test_an_sbom_is_computed_and_not_read(built: BuildReceipt) -> None:
    file = receipt.sbom("llama-factory-train")
    body = json.loads(file.read_text())
    file.write_text(json.dumps({**body, "components": body["components"][:1]}))
    image = dataclasses.replace(built.images[0], sbom=sha256_file(file))
    with pytest.raises(BuildError, match="sbom of llama-factory-train is not what this machine built"):
        recompute.inputs(image, built)
    with pytest.raises(BuildError, match="the SBOM of llama-factory-train is not the one that was built"):
        recompute.inputs(built.images[0], built)
    file.unlink()
    with pytest.raises(BuildError, match="the SBOM of llama-factory-train is missing"):
        recompute.inputs(built.images[0], built)


@pytest.mark.parametrize("source", ["0" * 40, "main", "", "--help", "abc-dirty"])
def test_a_revision_that_git_does_not_know_is_refused(built: BuildReceipt, source: str) -> None:
    with pytest.raises(BuildError, match="git knows no commit"):
        recompute.inputs(built.images[0], dataclasses.replace(built, source=source))


def test_a_revision_that_holds_something_else_is_not_clean(built: BuildReceipt, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Path] = []

    def differing(_: str, places: Iterable[Path]) -> list[str]:
        asked.extend(places)
        return ["images/shared.toml"]

    monkeypatch.setattr(git, "differing", differing)
    with pytest.raises(BuildError, match=r"which holds another images/shared.toml"):
        recompute.inputs(built.images[0], built)
    assert {paths.IMAGES, paths.LOCKFILES, paths.ROOT / "k8s/pipeline/step.py"} <= set(asked)
    recompute.inputs(built.images[0], dataclasses.replace(built, source=f"{signing.COMMIT}-dirty"))
    recompute.inputs(built.images[0], dataclasses.replace(built, source="unknown"))


def test_a_toolkit_and_a_time_that_cannot_be_are_refused(built: BuildReceipt, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BuildError, match="the toolkit that built is neither"):
        recompute.inputs(built.images[0], dataclasses.replace(built, toolkit=OTHER))
    monkeypatch.setattr(git, "digest", lambda _commit, _file: OTHER)
    assert recompute.inputs(built.images[0], dataclasses.replace(built, toolkit=OTHER)).locks["lockfiles/toolkit.txt"] == OTHER
    later = (datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)).isoformat()
    with pytest.raises(BuildError, match="ended in the future"):
        recompute.inputs(built.images[0], dataclasses.replace(built, finished=later))


def ran(image: BuiltImage) -> SmokeReceipt:
    run = receipts.passed()
    own = ProvenImage(image.name, image.role, image.version, image.digest, image.config_digest)
    return dataclasses.replace(run, images=(own, run.images[1]))


RUNGS = receipts.passed().rungs
FAILED = dataclasses.replace(RUNGS[0], outcome="failed", code=10)
WRONG_RUNS: dict[str, dict[str, Any]] = {
    "no rungs": {"rungs": ()},
    "a rung lacking": {"rungs": RUNGS[1:]},
    "a rung that is unknown": {"rungs": (*RUNGS, dataclasses.replace(RUNGS[0], name="trust me"))},
    "a rung twice": {"rungs": (*RUNGS, RUNGS[0])},
    "a rung of a GPU on a CPU": {"rungs": receipts.passed(gpu=True).rungs},
    "rungs of a CPU on a GPU": {"gpu": True},
    "a failed rung in a passed run": {"rungs": (FAILED, *RUNGS[1:])},
    "a failed run in which all passed": {"passed": False},
}


@pytest.mark.parametrize("fields", WRONG_RUNS.values(), ids=WRONG_RUNS)
def test_a_smoke_receipt_that_no_run_writes_is_refused(fields: dict[str, Any]) -> None:
    run = dataclasses.replace(ran(signing.BUILT), **fields)
    with pytest.raises(SmokeError, match="no receipt that a run writes"):
        result.check(run, signing.BUILT)


@pytest.mark.parametrize("field", ["name", "role", "version", "config_digest"])
def test_a_run_is_bound_to_the_configuration_and_the_name_too(field: str) -> None:
    result.check(ran(signing.BUILT), signing.BUILT)
    run = ran(signing.BUILT)
    other = dataclasses.replace(run.images[0], **{field: OTHER})
    with pytest.raises(SmokeError, match="no receipt that a run writes: it ran"):
        result.check(dataclasses.replace(run, images=(other, run.images[1])), signing.BUILT)


def test_a_run_on_a_gpu_or_one_that_failed_is_taken() -> None:
    gpu = receipts.passed(gpu=True)
    own = ProvenImage(*(getattr(signing.BUILT, field.name) for field in dataclasses.fields(ProvenImage)))
    result.check(dataclasses.replace(gpu, images=(own, gpu.images[1])), signing.BUILT)
    failed = receipts.failed()
    result.check(dataclasses.replace(failed, images=(own, failed.images[1])), signing.BUILT)


def test_a_push_finds_it_out_before_anything_is_sent(built: BuildReceipt) -> None:
    smoke_receipt.write(dataclasses.replace(ran(built.images[0]), rungs=()))
    with pytest.raises(SmokeError, match="no receipt that a run writes"):
        attach.check("127.0.0.1:5000")
    smoke_receipt.write(ran(built.images[0]))
    receipt.write(dataclasses.replace(built, source="0" * 40))
    with pytest.raises(BuildError, match="git knows no commit"):
        attach.check("127.0.0.1:5000")
