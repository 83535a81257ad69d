"""Starting programs."""

from __future__ import annotations

import pytest

from common.errors import BuildError, MissingEnvironmentError
from common.run import run


def test_a_missing_program_is_named_with_its_remedy() -> None:
    with pytest.raises(MissingEnvironmentError, match=r"^no-such-program is not installed: get it$"):
        run(["no-such-program"], missing="get it")


def test_a_failure_carries_the_code_and_the_last_line() -> None:
    with pytest.raises(BuildError, match=r"^laying failed with code 3 \(bad\): try again$"):
        run(["sh", "-c", "echo first >&2; echo bad >&2; exit 3"], error=BuildError, what="laying", fix="try again")


def test_a_program_that_does_not_answer_is_ended() -> None:
    assert run(["sleep", "5"], timeout=0.1).code == 124


def test_the_environment_can_be_added_to_and_taken_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLD", "1")
    said = run(["sh", "-c", 'echo "${OLD-gone} $NEW"'], env={"OLD": None, "NEW": "2"})
    assert said.stdout == "gone 2\n"
