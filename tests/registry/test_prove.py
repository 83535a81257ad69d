"""Push first, prove later: the result of a run is attached to what a registry has, and in between nothing counts as proven."""

from __future__ import annotations

import dataclasses
import datetime
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.errors import RegistryError, SmokeError, UsageError
from oci import statement
from oci.client.client import Client
from oci.client.target import Registry
from oci.envelope import PublicKey
from oci.reference import ImageRef
from registry import attach, inspect, prove, signer
from registry.attach import Proof
from registry.policy import Policy
from smoke import receipt
from smoke.receipt import SmokeReceipt
from tests.oci.conftest import QUICK
from tests.oci.double import Double, serving
from tests.registry import signing
from tests.registry.pushing import MINE, THEIRS
from tests.smoke import receipts
from tests.smoke.test_pulled import held

pytestmark = pytest.mark.slow


@pytest.fixture
def double(own_folders: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Double]:
    from lockfiles import images_lock

    monkeypatch.setenv("DOCKER_CONFIG", str(own_folders))
    monkeypatch.setattr(images_lock, "path", lambda: own_folders / "images.lock")
    monkeypatch.setattr(prove, "_PATIENCE", QUICK)
    monkeypatch.setattr(attach, "_PATIENCE", QUICK)
    monkeypatch.setattr(signer, "signer", lambda key: THEIRS if key == "other" else MINE)
    with serving() as state:
        yield state


def ran(double: Double, folder: Path, *, gpu: bool = False, passed: bool = True, hours: int = 1) -> SmokeReceipt:
    """A run of images that were pushed without any result, and its receipt."""
    roles = ("train", "api") if gpu else ("train", "api-cpu")
    images = held(double, folder, *roles)
    at = datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=hours)
    run = receipts.passed(
        gpu=gpu, digest=images[1].digest, train_digest=images[0].digest, started=at.isoformat(timespec="seconds")
    )
    proven = tuple(
        dataclasses.replace(one, version=image.version, config_digest=image.config_digest)
        for one, image in zip(run.images, images, strict=True)
    )
    rungs = run.rungs if passed else (*run.rungs[:-1], dataclasses.replace(run.rungs[-1], outcome="failed", code=99))
    run = dataclasses.replace(run, images=proven, rungs=rungs, passed=passed)
    receipt.write(run)
    with Client(Registry.parse(f"{double.address}/team"), QUICK, writes=True) as client:
        for image in images:
            build = signing.build(role=image.role, config_digest=image.config_digest)
            proof = Proof(image, {statement.SBOM: signing.COMPONENTS, statement.PROVENANCE: build})
            attach.deliver(client, proof, MINE)
    return run


def states(double: Double, run: SmokeReceipt, policy: Policy | None = None, key: PublicKey | None = None) -> set[bool]:
    refs = [ImageRef(double.address, f"team/{one.name}", "", one.digest) for one in run.images]
    return {inspect.look(ref, key or MINE.public, policy or Policy())[1].holds for ref in refs}


@pytest.mark.parametrize("gpu", [False, True])
def test_what_was_pushed_unproven_is_refused_until_it_is_proven(double: Double, tmp_path: Path, *, gpu: bool) -> None:
    run = ran(double, tmp_path, gpu=gpu)
    assert states(double, run) == {False}
    assert "passed smoke run attached to 2 digests" in prove.prove(f"{double.address}/team")
    assert states(double, run) == {True}
    assert states(double, run, Policy(smoke="gpu")) == {gpu}


def test_another_machine_proves_by_the_receipt_alone(double: Double, tmp_path: Path) -> None:
    run = ran(double, tmp_path)
    file = tmp_path / "brought.json"
    receipt.path().rename(file)
    with pytest.raises(SmokeError, match="nothing was proven yet"):
        prove.prove(f"{double.address}/team")
    prove.prove(f"{double.address}/team", file=str(file))
    assert states(double, run) == {True}


def test_proving_twice_sends_nothing(double: Double, tmp_path: Path) -> None:
    ran(double, tmp_path)
    prove.prove(f"{double.address}/team")
    double.asked.clear()
    prove.prove(f"{double.address}/team")
    assert {one.method for one in double.asked} <= {"GET", "HEAD"}


def test_a_failed_run_is_attached_and_refused(double: Double, tmp_path: Path) -> None:
    run = ran(double, tmp_path, hours=2)
    prove.prove(f"{double.address}/team")
    ran(double, tmp_path, passed=False)
    assert "FAILED smoke run attached" in prove.prove(f"{double.address}/team")
    assert states(double, run) == {False}


def test_who_proves_does_not_stand_for_the_image(double: Double, tmp_path: Path) -> None:
    run = ran(double, tmp_path)
    prove.prove(f"{double.address}/team", key="other")
    findings = inspect.look(
        ImageRef(double.address, f"team/{run.images[0].name}", "", run.images[0].digest), THEIRS.public, Policy()
    )[1]
    assert {one.name: one.state for one in findings.findings if one.state == "holds"} == {"smoke": "holds"}
    assert states(double, run) == {False}


def test_a_run_of_something_else_is_not_attached(double: Double, tmp_path: Path) -> None:
    run = ran(double, tmp_path)
    forged = dataclasses.replace(run, rungs=run.rungs[1:])
    for wrong, message in (
        (forged, "its rungs are not those of a run on a CPU"),
        (dataclasses.replace(run, container=False), "says nothing of a digest"),
        (dataclasses.replace(run, images=()), "says nothing of a digest"),
        (
            dataclasses.replace(run, images=(dataclasses.replace(run.images[0], version="2"), run.images[1])),
            "no receipt that a run writes",
        ),
    ):
        receipt.write(wrong)
        with pytest.raises(SmokeError, match=message):
            prove.prove(f"{double.address}/team")
    assert states(double, run) == {False}


def test_where_one_image_is_missing_neither_is_proven(double: Double, tmp_path: Path) -> None:
    run = ran(double, tmp_path)
    del double.manifests[f"team/{run.images[1].name}"][run.images[1].digest]
    with pytest.raises(RegistryError, match="404"):
        prove.prove(f"{double.address}/team")
    ref = ImageRef(double.address, f"team/{run.images[0].name}", "", run.images[0].digest)
    assert not inspect.look(ref, MINE.public, Policy())[1].holds


def test_a_file_that_is_no_receipt_is_refused(double: Double, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no receipt can be read: No such file"):
        prove.prove(double.address, file=str(tmp_path / "none.json"))
    (tmp_path / "other.json").write_text(json.dumps({"format": 1}))
    with pytest.raises(SmokeError, match="not a smoke receipt: another format"):
        prove.prove(double.address, file=str(tmp_path / "other.json"))
