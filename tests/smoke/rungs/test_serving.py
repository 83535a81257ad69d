"""A server's life from start to stop, with a server that behaves or misbehaves, as plain processes."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.errors import SmokeError
from smoke.payload import tiny
from smoke.receipt import Answer
from smoke.rungs import servers, serving
from smoke.rungs.run import Run
from smoke.rungs.table import FACTORY, KNOWN, MERGED, VLLM
from smoke.suite import test_serve as rungs
from tests.smoke import programs
from tests.waiting import reserved_port

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _ports(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with contextlib.ExitStack() as held:
        for server in servers.PORTS:
            monkeypatch.setitem(servers.PORTS, server, held.enter_context(reserved_port()).getsockname()[1])
        yield


def climb(run: Run, server: str) -> dict[str, str]:
    """The lines of a server's rungs, or why not."""
    said: dict[str, str] = {}
    for check in rungs._JUDGES:
        if f"{server}: {check}" in KNOWN:
            try:
                rungs.test_server(run, functools.partial(said.__setitem__, check), lambda _: None, server, check)
            except (AssertionError, SmokeError) as problem:
                said[check] = f"failed: {problem}"
    return said


def test_all_three_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with programs.run(tmp_path, monkeypatch) as run:
        for server in (VLLM, MERGED, FACTORY):
            said = climb(run, server)
            assert not [line for line in said.values() if line.startswith("failed")], said
            assert said["answers"].startswith("8 of 8 exact")
        assert "code 0" in said["stop"]
        figures = run.figures
        assert {serving.server for serving in figures.servings} == {VLLM, MERGED, FACTORY}
        assert {answer.server for answer in figures.answers} == {VLLM, MERGED, FACTORY}
        assert all(answer.got == answer.streamed for answer in figures.answers)
        for what in ("ready", "first token", "one stream", "32 at once", "memory", "stop"):
            assert figures.measured[f"{VLLM}: {what}"].value > 0, what
        rungs.test_base_knows_nothing(run, lambda _: None)


@pytest.mark.parametrize(
    ("fault", "check", "complaint"),
    [
        ("ends badly", "stop", "after SIGTERM it ends with code 3, expected 0"),
        ("leaves a process", "stop", "processes outlive it"),
        ("does not stop", "stop", "expected"),
        ("prints its key", "stop", "the API key stands in its log"),
        ("open", "refusals", "no key: expected status 401, got 200"),
        ("knows nothing", "answers", "things are wrong; the first: 'What is a wheel?': expected"),
        ("does not start", "ready", "ended with code 1 before it was ready"),
    ],
)
def test_what_is_not_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, check: str, complaint: str
) -> None:
    if fault in {"leaves a process", "does not stop"}:
        # Its whole length is waited for.
        monkeypatch.setattr(serving, "GRACE_S", 5)
        monkeypatch.setattr(rungs, "GRACE_S", 5)
    with programs.run(tmp_path, monkeypatch, fault) as run:
        assert complaint in climb(run, VLLM)[check]


def test_merged_model_that_was_not_written_is_not_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with programs.run(tmp_path, monkeypatch, "no export") as run, pytest.raises(SmokeError, match="export ended"):
        serving.live(run, MERGED)


def test_program_that_asks_and_breaks_down_is_told_of_every_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "_ask", lambda *_: ["python", "-c", "raise ValueError('broken')"])
    with programs.run(tmp_path, monkeypatch) as run:
        said = climb(run, VLLM)
        assert said["ready"].startswith("/health answers after")
        assert all("broken" in said[check] for check in ("answers", "streaming", "load", "metrics"))
        assert "code 0" in said["stop"]
        assert serving.begin(run, VLLM).result().seconds("load") == 0


def test_base_model_that_knows_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = tiny.rows()
    with programs.run(tmp_path, monkeypatch) as run:
        for row in rows:
            known, got = row["output"], "yt" if row is not rows[3] else row["output"]
            run.figures.answers.append(Answer(VLLM, servers.BASE, row["instruction"], known, got, got))
        with pytest.raises(AssertionError, match="the base model knows 1 of 8 answers, 'Why are tags not enough"):
            rungs.test_base_knows_nothing(run, lambda _: None)
        run.figures.answers.clear()
        with pytest.raises(AssertionError, match="the base model was asked 0 of 8 questions"):
            rungs.test_base_knows_nothing(run, lambda _: None)
