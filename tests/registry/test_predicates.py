"""Predicates: what a build and a run say, in the words of the specifications."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from common import paths
from common.errors import UsageError
from images import spec
from oci import statement
from registry import provenance, result
from tests.registry import signing
from tests.smoke import receipts


def test_the_same_statement_has_the_same_bytes() -> None:
    made = [statement.make(statement.PROVENANCE, signing.REPOSITORY, signing.DIGEST, signing.build()) for _ in range(2)]
    assert made[0] == made[1]
    body = json.loads(made[0])
    assert body["_type"] == "https://in-toto.io/Statement/v1"
    assert body["subject"] == [{"name": signing.REPOSITORY, "digest": {"sha256": signing.DIGEST[7:]}}]


def test_provenance_names_every_input_by_digest() -> None:
    made = signing.build()
    assert made["buildDefinition"]["externalParameters"] == {"image": "train", "role": "train", "family": ""}
    named = {one.get("uri") or one["name"]: one["digest"] for one in made["buildDefinition"]["resolvedDependencies"]}
    assert named == {
        "git+https://example.com/pinwheel": {"gitCommit": signing.COMMIT},
        "lockfiles/base.lock": {"sha256": "8" * 64},
        "lockfiles/train.lock": {"sha256": "9" * 64},
        "pkg:deb/debian/bash@5.2": {"sha256": "f" * 64},
        "pkg:pypi/jieba@0.42.1": {"sha256": "a" * 64},
        "pkg:pypi/jieba@0.42.1?file_name=j.tar.gz": {"sha256": "e" * 64},
    }
    assert made["runDetails"]["metadata"]["finishedOn"] == "2026-11-23T17:00:00+00:00"


def test_provenance_says_how_a_wheel_of_ours_was_built(monkeypatch: pytest.MonkeyPatch) -> None:
    body = json.loads(json.dumps(signing.COMPONENTS))
    body["components"][0]["pedigree"]["notes"] = "built here; not reproducible, as its input states"
    monkeypatch.setattr(signing, "COMPONENTS", body)
    named = {one.get("uri"): one.get("annotations") for one in signing.build()["buildDefinition"]["resolvedDependencies"]}
    assert named["pkg:pypi/jieba@0.42.1"] == {"build": "built here; not reproducible, as its input states"}
    assert named["pkg:deb/debian/bash@5.2"] is None


@pytest.mark.parametrize(
    ("source", "commit", "clean"),
    [("abc", "abc", True), ("abc-dirty", "abc", False), ("unknown", "unknown", False)],
)
def test_the_source_revision_comes_back_from_provenance(source: str, commit: str, *, clean: bool) -> None:
    assert provenance.revision(signing.build(source=source)) == (commit, clean)


def test_a_passed_run_says_what_it_ran_where_and_with_what_result() -> None:
    run = receipts.passed(gpu=True)
    made = result.predicate(run, "0" * 64)
    assert made["result"] == "PASSED"
    assert made["passedTests"] == receipts.names(gpu=True, container=True)
    assert made["failedTests"] == []
    assert [one["name"] for one in made["configuration"]] == ["smoke/payload", "llama-factory-train", "llama-factory-api"]
    more = made["pinwheel_smoke"]
    assert more["gpu"] is True
    assert more["host"]["gpus"][0]["name"] == "NVIDIA H100 80GB HBM3"
    assert more["loss"]["first"] > more["loss"]["last"]
    json.dumps(made, allow_nan=False)


def test_a_failed_run_says_so_and_what_was_not_run_is_not_passed() -> None:
    run = receipts.failed()
    made = result.predicate(run, "0" * 64)
    assert made["result"] == "FAILED"
    assert sorted(made["passedTests"] + made["failedTests"]) == sorted(rung.name for rung in run.rungs)
    assert {rung.name for rung in run.rungs if rung.outcome == "not run"} <= set(made["failedTests"])


def test_only_a_run_of_the_image_itself_that_passed_or_failed_says_something_of_a_digest() -> None:
    run = receipts.passed()
    assert result.speaks(run, receipts.TRAIN_DIGEST)
    assert result.speaks(run, receipts.API_DIGEST)
    assert result.speaks(receipts.failed(), receipts.TRAIN_DIGEST)
    assert not result.speaks(run, "sha256:" + "0" * 64)
    assert not result.speaks(dataclasses.replace(run, container=False), receipts.TRAIN_DIGEST)
    # Interrupted from the keyboard before anything failed.
    cut = tuple(dataclasses.replace(rung, outcome="not run") for rung in run.rungs[1:])
    assert not result.speaks(dataclasses.replace(run, passed=False, rungs=(run.rungs[0], *cut)), receipts.TRAIN_DIGEST)


def test_the_payloads_digest_changes_with_any_file_and_any_name(tmp_path: Path) -> None:
    shutil.copytree(paths.ROOT / "smoke/payload", tmp_path / "payload", ignore=shutil.ignore_patterns("__pycache__"))
    folder = tmp_path / "payload"
    first = result.payload_digest(folder)
    assert first == result.payload_digest()
    file = next(iter(sorted(folder.glob("*.py"))))
    file.write_bytes(file.read_bytes() + b"\n")
    second = result.payload_digest(folder)
    file.rename(file.with_name("other.py"))
    assert len({first, second, result.payload_digest(folder)}) == 3


def test_what_nobody_knows_of_a_build_is_not_said() -> None:
    assert "finishedOn" not in signing.build(finished="")["runDetails"]["metadata"]


def test_the_project_names_itself_in_one_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert provenance.project() == spec.read("train").source
    monkeypatch.setattr(paths, "IMAGES", tmp_path)
    (tmp_path / "shared.toml").write_text('source = "https://git.example/team/pinwheel/"\n')
    said = signing.build()
    assert said["buildDefinition"]["buildType"] == "https://git.example/team/pinwheel/build/v1"
    assert said["runDetails"]["builder"]["id"] == "https://git.example/team/pinwheel/local"
    assert said["buildDefinition"]["resolvedDependencies"][0]["uri"] == "git+https://git.example/team/pinwheel"
    (tmp_path / "shared.toml").write_text("source = 1\n")
    with pytest.raises(UsageError, match="no `source` that is a URI"):
        provenance.project()


CPU, GPU = signing.smoke(started="2026-11-23T17:00:00+00:00"), signing.smoke(gpu=True, started="2026-11-23T17:00:00+00:00")


def later(said: dict[str, Any], *, failed: bool = False) -> dict[str, Any]:
    more = {**said["pinwheel_smoke"], "started": "2026-11-24T08:00:00+00:00"}
    return {**said, "pinwheel_smoke": more, **({"result": "FAILED"} if failed else {})}


@pytest.mark.parametrize(
    ("new", "old", "supersedes", "adds"),
    [
        (CPU, CPU, True, True),
        (later(CPU, failed=True), CPU, True, True),
        (later(CPU), {**CPU, "result": "FAILED"}, True, True),
        (CPU, later(CPU, failed=True), False, False),
        (later(CPU), GPU, False, False),
        (later(CPU), {**GPU, "result": "FAILED"}, False, False),
        (later(CPU, failed=True), GPU, False, True),
        (later(GPU, failed=True), GPU, True, True),
        (later(GPU), {**CPU, "result": "FAILED"}, True, True),
        (GPU, later(CPU), True, True),
        (GPU, later(CPU, failed=True), False, True),
        (GPU, later(GPU, failed=True), False, False),
        (CPU, {**CPU, "pinwheel_smoke": {"started": "soon"}}, True, True),
        (CPU, {"result": "PASSED"}, True, True),
    ],
)
def test_the_last_run_speaks_and_a_cpu_not_for_a_gpu(
    new: dict[str, Any], old: dict[str, Any], *, supersedes: bool, adds: bool
) -> None:
    assert result.supersedes(new, old) is supersedes
    assert result.adds(new, [] if supersedes else [old]) is adds
