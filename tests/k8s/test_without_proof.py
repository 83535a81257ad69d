"""A deploy in an emergency: who may, what is recorded, and that it is shown until it is gone."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import pytest

from common.errors import DriftError, PolicyError, UsageError
from k8s import deploy, drift
from k8s.envs.environment import Environment
from k8s.prepare import gate
from k8s.rollouts import release, stamp
from k8s.rollouts.receipt import DeployReceipt
from oci.reference import ImageRef
from tests.k8s.conftest import Checkout
from tests.k8s.simulator.apiserver import ApiServer
from tests.k8s.simulator.steps import BRIEF, record

ADA = "Ada, ada@box"


@pytest.fixture
def gated(checkout: Checkout, monkeypatch: pytest.MonkeyPatch) -> Checkout:
    """Staging asks for proof, and Ada is at the keyboard."""
    monkeypatch.setattr(stamp, "who", lambda: ADA)
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
    monkeypatch.setattr(stamp, "now", lambda: "2999-01-01T00:00:00Z")
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


def test_a_record_from_before_there_were_excuses_is_read() -> None:
    from common import reader
    from tests.k8s.rollouts.test_release import FIRST

    written = {
        name: list(value) if isinstance(value, tuple) else value
        for name in FIRST.__dataclass_fields__
        if name != "excuse" and (value := getattr(FIRST, name)) is not None
    }
    assert reader.record(release.Release, written).excuse is None
