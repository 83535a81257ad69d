"""A positional list takes every word up to the next flag or task's name, as shells expand `*.yaml`."""

from __future__ import annotations

import shlex
from typing import Any

import pytest
from invoke.collection import Collection
from invoke.exceptions import ParseError
from invoke.parser import Parser
from invoke.program import Program

import tasks


def parsed(line: str) -> list[tuple[str | None, dict[str, Any]]]:
    contexts = Collection.from_module(tasks).to_contexts()
    found = Parser(contexts=contexts, initial=Program().initial_context).parse_argv(shlex.split(line))
    return [(one.name, dict(one.as_kwargs)) for one in found[1:]]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("check a.yaml", ["a.yaml"]),
        ("check a.yaml b.yaml c/", ["a.yaml", "b.yaml", "c/"]),
        ("check --env local a.yaml b.yaml", ["a.yaml", "b.yaml"]),
        ("check a.yaml --env local b.yaml", ["a.yaml", "b.yaml"]),
        ("check a.yaml b.yaml --json", ["a.yaml", "b.yaml"]),
        ("check -", ["-"]),
        ("check ./build", ["./build"]),
        ("check --path a.yaml b.yaml", ["a.yaml", "b.yaml"]),
    ],
)
def test_every_word_is_a_path(line: str, words: list[str]) -> None:
    ((name, given),) = parsed(line)
    assert name == "check"
    assert given["path"] == words


def test_the_next_tasks_name_ends_the_list() -> None:
    first, second = parsed("check a.yaml b.yaml deploy --env local")
    assert (first[0], first[1]["path"]) == ("check", ["a.yaml", "b.yaml"])
    assert (second[0], second[1]["env"]) == ("deploy", "local")
    assert [name for name, _ in parsed("envs check a b envs")] == ["envs", "check", "envs"]


@pytest.mark.parametrize("line", ["check a.yaml --jsn", "build b.yaml", "verify ref other"])
def test_what_is_neither_is_refused_as_before(line: str) -> None:
    with pytest.raises(ParseError, match="No idea what"):
        parsed(line)
