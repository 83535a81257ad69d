from __future__ import annotations

import sys

import pytest

from common.errors import UsageError
from k8s.rollouts import consent


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)


def answers(monkeypatch: pytest.MonkeyPatch, answer: str | None) -> None:
    def said() -> str:
        if answer is None:
            raise EOFError
        return answer

    monkeypatch.setattr("builtins.input", said)


@pytest.mark.parametrize("answer", ["y", "YES", " yes "])
def test_a_yes_on_the_terminal_goes_on(terminal: None, monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    answers(monkeypatch, answer)
    consent.ask("apply 3 changes", yes=False)


@pytest.mark.parametrize("answer", ["", "n", "yep", None])
def test_anything_else_is_a_no(terminal: None, monkeypatch: pytest.MonkeyPatch, answer: str | None) -> None:
    answers(monkeypatch, answer)
    with pytest.raises(UsageError, match="the plan was not agreed to.*nothing was sent"):
        consent.ask("apply 3 changes", yes=False)


def test_in_ci_nobody_is_asked(terminal: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    with pytest.raises(UsageError, match="there is no terminal to ask on.*add --yes"):
        consent.ask("apply 3 changes", yes=False)
    consent.ask("apply 3 changes", yes=True)


def test_without_a_terminal_nobody_is_asked(terminal: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False, raising=False)
    with pytest.raises(UsageError, match="no terminal"):
        consent.ask("apply 3 changes", yes=False)
