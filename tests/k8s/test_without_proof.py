"""A deploy in an emergency: who may, what is recorded, and that it is shown until it is gone."""

from __future__ import annotations

import dataclasses
import re
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from common.errors import DriftError, PolicyError, UsageError
from k8s import deploy, drift, rollback
from k8s.envs.environment import Environment
from k8s.prepare import gate
from k8s.rollouts import circumstances, release
from k8s.rollouts.receipt import DeployReceipt
from oci import statement
from oci.client.client import Client
from oci.client.target import Registry
from oci.descriptor import MANIFEST
from oci.reference import ImageRef
from registry.attach import Proof, deliver
from tests.k8s.conftest import API, REPO, Checkout
from tests.k8s.prepare import models
from tests.k8s.simulator.apiserver import ApiServer
from tests.k8s.simulator.steps import BRIEF, record
from tests.oci.conftest import QUICK
from tests.oci.double import Double, digest_of, serving
from tests.registry import signing
from tests.registry.pushing import CONFIG, DIGEST, IMAGE, MINE, ago
from tests.registry.signing import OWN

ADA = "Ada, ada@box"


@pytest.fixture
def gated(checkout: Checkout, monkeypatch: pytest.MonkeyPatch) -> Checkout:
    """Staging asks for proof, and Ada is at the keyboard."""
    monkeypatch.setattr(circumstances, "who", lambda: ADA)
    file = checkout.root / "k8s/envs/staging.yaml"
    file.write_text(file.read_text().replace("proof: none\n", "proof: {key: k.pub}\n"))
    return checkout


def allow(gated: Checkout, text: str = "{people: [Ada], hours: 2}") -> None:
    file = gated.root / "k8s/envs/staging.yaml"
    file.write_text(file.read_text() + f"without-proof: {text}\n")


def judging(monkeypatch: pytest.MonkeyPatch, holds: bool = False) -> None:
    """A gate whose registry is not asked: all images carry proof, or none does."""

    def verdicts(images: Collection[ImageRef], env: Environment, gate_: Any) -> list[Any]:
        text = "smoke passed" if holds else "smoke missing"
        return [gate._Verdict(str(image), holds, "proven", text, "prove it") for image in images]

    monkeypatch.setattr(gate, "_verdicts", verdicts)


def go(reason: str = "") -> DeployReceipt:
    return deploy.deploy("staging", yes=True, without_proof=reason, patience=BRIEF)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "nobody may deploy to staging without proof (k8s/envs/staging.yaml)"),
        ("{people: [Bob], hours: 2}", "Ada, ada@box may not deploy to staging without proof"),
        ("{people: [ada], hours: 2}", "Ada, ada@box may not deploy to staging without proof"),
    ],
)
def test_who_is_not_named_may_not(gated: Checkout, text: str, what: str) -> None:
    if text:
        allow(gated, text)
    with pytest.raises(PolicyError) as refused:
        go("the site is down")
    assert what in refused.value.line()
    assert refused.value.exit_code == 15


@pytest.mark.parametrize("reason", [" ", "\t\n", "a\x1bb"])
def test_a_reason_is_asked_for(gated: Checkout, reason: str) -> None:
    allow(gated)
    with pytest.raises(UsageError, match="takes the reason, in a few words"):
        go(reason)


def test_a_directory_and_an_environment_without_proof_have_nothing_to_excuse(checkout: Checkout) -> None:
    file = checkout.root / "k8s/envs/rendered.yaml"
    file.write_text(file.read_text().replace("proof: none\n", "proof: {key: k.pub}\nwithout-proof: {hours: 1}\n"))
    with pytest.raises(UsageError, match="is rendered into a directory, which keeps no record"):
        deploy.deploy("rendered", without_proof="x")
    with pytest.raises(UsageError, match="staging asks for no proof"):
        go("x")


@pytest.mark.host
@pytest.mark.parametrize("people", ["people: [Ada], ", "people: [ada@box], ", ""])
def test_who_why_and_until_when_stand_in_the_record(
    gated: Checkout, server: ApiServer, monkeypatch: pytest.MonkeyPatch, people: str, capsys: pytest.CaptureFixture[str]
) -> None:
    judging(monkeypatch)
    allow(gated, f"{{{people}hours: 2}}")
    with pytest.raises(PolicyError, match="without the proof staging asks for: smoke missing"):
        go()
    go("the site is down")
    (one,) = record().releases
    assert one.excuse is not None
    assert (one.who, one.excuse.reason, one.excuse.over) == (ADA, "the site is down", False)
    assert all(text == "LACKING smoke missing" for _, text in one.proof)
    assert "without proof, which is allowed until" in " ".join(capsys.readouterr().err.split())


@pytest.mark.host
def test_drift_shows_it_until_it_is_gone(
    gated: Checkout, server: ApiServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    judging(monkeypatch)
    allow(gated)
    go("the site is down")
    assert drift.drift("staging", patience=BRIEF).startswith("no drift")
    assert "the site is down" in capsys.readouterr().err
    monkeypatch.setattr(circumstances, "now", lambda: "2999-01-01T00:00:00Z")
    with pytest.raises(
        DriftError, match="smoke missing.*release 1 still runs without proof, which is over since .*: the site is"
    ):
        drift.drift("staging", patience=BRIEF)


@pytest.mark.host
def test_the_same_set_with_its_proof_ends_it(gated: Checkout, server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    judging(monkeypatch)
    allow(gated)
    go("the site is down")
    judging(monkeypatch, holds=True)
    go("still down, it seems")  # Nothing is excused that carries its proof.
    assert [one.excuse is None for one in record().releases] == [False, True]
    go()
    assert len(record().releases) == 2


@pytest.fixture
def double(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Double]:
    """A registry with one image, of which nothing is proven yet."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    with serving() as state:
        state.blobs[f"team/{API}"][digest_of(b"{}")] = b"{}"
        state.manifests[f"team/{API}"][DIGEST] = (MANIFEST, IMAGE)
        yield state


def prove(double: Double) -> None:
    build = signing.build(name=API, role="api", digest=DIGEST, config_digest=CONFIG)
    smoke = signing.smoke(digest=DIGEST, started=ago(2), gpu=True)
    proof = Proof(
        dataclasses.replace(signing.BUILT, name=API, digest=DIGEST),
        {statement.SBOM: signing.COMPONENTS, statement.PROVENANCE: build, statement.SMOKE: smoke},
    )
    with Client(Registry.parse(f"{double.address}/team"), QUICK, writes=True) as client:
        deliver(client, proof, MINE)


@pytest.mark.host
def test_from_an_emergency_to_its_end_with_a_real_registrys_proof(
    gated: Checkout, server: ApiServer, double: Double, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is played: the gate reads what is attached, and drift reads it again."""
    file = gated.root / "k8s/envs/staging.yaml"
    text = re.sub(r"(?m)^registry: .*$", f"registry: {double.address}/team", file.read_text())
    file.write_text(text.replace("proof: {key: k.pub}\n", "proof: {key: k.pub, policy: {smoke: cpu}}\n"))
    models.named(gated.root, "staging")
    public = OWN.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (gated.root / "k.pub").write_bytes(public)
    gated.lock({API: DIGEST})
    # Provenance names the version of Pinwheel that made it.
    shutil.copy(REPO.parent / "pyproject.toml", gated.root)
    allow(gated)
    with pytest.raises(PolicyError, match="without the proof staging asks for: signature missing"):
        go()
    go("the site is down")
    assert drift.drift("staging", patience=BRIEF).startswith("no drift")
    assert "the site is down" in capsys.readouterr().err
    with pytest.raises(PolicyError, match="has no earlier release that ran"):
        rollback.rollback("staging", yes=True, patience=BRIEF)

    prove(double)
    go()
    assert [one.excuse is None for one in record().releases] == [False, True]
    capsys.readouterr()
    assert drift.drift("staging", patience=BRIEF).startswith("no drift")
    assert "the site is down" not in capsys.readouterr().err

    # Who may write to the registry takes the proof of what runs away: it is looked at again, and never gone back to.
    kept = double.manifests[f"team/{API}"]
    for tag in [name for name in kept if name.endswith(".att")]:
        del kept[tag]
    with pytest.raises(DriftError, match="1 image without the proof staging asks for: SBOM missing"):
        drift.drift("staging", patience=BRIEF)
    with pytest.raises(PolicyError, match="without the proof|no earlier release"):
        rollback.rollback("staging", yes=True, patience=BRIEF)


def test_a_record_from_before_there_were_excuses_is_read() -> None:
    from common import reader
    from tests.k8s.rollouts.test_release import FIRST

    written = {
        name: list(value) if isinstance(value, tuple) else value
        for name in FIRST.__dataclass_fields__
        if name != "excuse" and (value := getattr(FIRST, name)) is not None
    }
    assert reader.record(release.Release, written).excuse is None
