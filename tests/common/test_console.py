"""What others wrote is shown, and does nothing to the terminal."""

from __future__ import annotations

import pytest

from common import console
from common.errors import PolicyError

# It clears the screen, goes up a line, sets the window's title, and lets a line read from right to left.
HOSTILE = "a\x1b[2J\x1b[1Ab\x1b]0;title\x07c\u202ed\x9b1Ae\rf [bold]g[/]"


@pytest.mark.parametrize("say", [console.title, console.info, console.done, console.warn, console.error])
def test_no_control_character_of_a_text_reaches_the_terminal(say: object, capsys: pytest.CaptureFixture[str]) -> None:
    assert callable(say)
    say(PolicyError(HOSTILE).line())
    shown = "".join(capsys.readouterr())
    assert not {"\x1b", "\x07", "\x9b", "\r", "\u202e"} & {*shown}
    assert "[bold]g[/]" in shown


def test_none_of_a_table_does(capsys: pytest.CaptureFixture[str]) -> None:
    console.table(("name", "what"), [("x", HOSTILE)])
    assert not {"\x1b", "\x07", "\x9b", "\r", "\u202e"} & {*capsys.readouterr().out}


def test_what_is_no_control_character_is_shown_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    console.info("ąę → ✓ 😀\tz")
    assert "ąę → ✓ 😀" in capsys.readouterr().out
