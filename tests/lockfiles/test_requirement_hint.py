"""What is copied from pip's requirements files is refused with what to write instead."""

from __future__ import annotations

import pytest

from lockfiles import requirement_hint


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("-r other.txt", "an input reads no other file"),
        ("-c constraints.txt", "an input reads no other file"),
        ("--requirement=other.txt", "an input reads no other file"),
        ("one==1.0 --hash=sha256:00", "leave --hash out"),
        ("one>=1 # why", "the comment behind the quotes"),
        ("one # see https://example.com/x", "the comment behind the quotes"),
        ("-e ../LLaMA-Factory", r"[sources] NAME = { path"),
        ("../LLaMA-Factory", r"[sources] NAME = { path"),
        ("./one-1.0-py3-none-any.whl", r"[sources] NAME = { path"),
        ("one-1.0-py3-none-any.whl", r"[sources] NAME = { path"),
        ("wheels/one-1.0.tar.gz", r"[sources] NAME = { path"),
        ("~/one", r"[sources] NAME = { path"),
        ("--extra-index-url https://x.example.com/simple", "what comes from another index"),
        ("--pre", "options of pip"),
        ("git+https://git.example.com/team/fork@main", "NAME @ ADDRESS"),
        ("https://files.example.com/one-1.0-py3-none-any.whl", "NAME @ ADDRESS"),
        ("one=1.0", "write == for one version"),
        ("one[more] = 1.0", "write == for one version"),
        ("one==latest", "the newest is taken"),
        ("!!bad", "see PEP 508"),
    ],
)
def test_a_line_of_pip_is_answered_with_what_an_input_says(text: str, expected: str) -> None:
    assert expected in requirement_hint.of(text)
