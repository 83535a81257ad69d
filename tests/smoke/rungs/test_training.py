"""Trainings that are repeated, killed, resumed and broken, with a program that trains in no time or misbehaves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from common.errors import SmokeError
from smoke.receipt import Training
from smoke.rungs.run import Run
from smoke.suite import test_train as rungs
from tests.smoke import programs

pytestmark = pytest.mark.slow
STEPS = range(1, 201)
Rung = Callable[[Run, Callable[[str], None], Callable[[float], None]], None]


def climb(run: Run, rung: Rung) -> tuple[str, float]:
    """The rung's line and time, when it passes."""
    said: list[str] = []
    times: list[float] = []
    run.figures.training = Training(tuple(8.0 / step for step in STEPS), 1.0, 1)
    rung(run, said.append, times.append)
    return said[0], times[0]


def test_all_is_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with programs.run(tmp_path, monkeypatch) as run:
        said, seconds = climb(run, rungs.test_train_again)
        assert said == "200 losses, all the same"
        assert seconds > 0
        said, _ = climb(run, rungs.test_resume)
        assert said.startswith("killed at step ")
        assert 50 <= int(said.split()[3].rstrip(",")) < 200
        assert said.endswith("resumed at 51, last loss 0.0400, all as without")
        said, _ = climb(run, rungs.test_broken_config)
        assert said.startswith(
            "misspelt.yaml: code 1, “not used by the HfArgumentParser: ['learning_rat']”; no-dataset.yaml: code 1"
        )


@pytest.mark.parametrize(
    ("fault", "rung", "complaint"),
    [
        ("another loss", rungs.test_train_again, r"loss of step 1: expected 8.0 \(± 0.0\), got 8.5"),
        ("another loss", rungs.test_resume, r"loss of step 51: expected 0.15\d+ \(± 0.0\), got 0.65"),
        ("begins anew", rungs.test_resume, "it resumed with the steps 1 to 200, expected 51 to 200"),
        ("no checkpoint", rungs.test_resume, "the training ended with code 0 before its first checkpoint"),
        ("quick", rungs.test_resume, "ended with code 0|over before it was killed"),
        ("takes any key", rungs.test_broken_config, "misspelt.yaml: expected a failure, got code 0"),
        ("fails with code 0", rungs.test_broken_config, "no-dataset.yaml: expected a failure, got code 0"),
        ("no export", rungs.test_export, "export ended with code 1"),
        ("no export", rungs.test_agree, "export ended with code 1"),
    ],
)
def test_what_is_not_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, rung: Rung, complaint: str
) -> None:
    with (
        programs.run(tmp_path, monkeypatch, fault) as run,
        pytest.raises((AssertionError, SmokeError), match=complaint),
    ):
        climb(run, rung)
