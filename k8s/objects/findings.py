"""What a check found: one line each, always with the file, the object, the path and what to do."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import ParamSpec

Path = tuple[str | int, ...]
_Given = ParamSpec("_Given")


def shown(path: Path) -> str:
    """A path as kubectl and jsonpath write it: `spec.template.spec.containers[0].image`."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        elif "." in step or "/" in step:
            text += f"[{step!r}]"
        else:
            text += f".{step}" if text else step
    return text


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """One thing that is wrong with a manifest. Sorts by file and line.

    Attributes:
        file: as a person would open it.
        line: in that file, from 1.
        title: the object, `Deployment llm-inference/llama-factory-inference`; empty when the file is not even YAML.
        path: within the object; empty when the object as a whole is meant.
        what: what is wrong.
        fix: what to do about it.
        rule: the rule that found it, `service-selector`: by this name a finding is accepted, and told to other programs.
    """

    file: str
    line: int
    title: str
    path: str
    what: str
    fix: str
    rule: str = ""

    def text(self) -> str:
        """The finding as one line."""
        parts = [f"{self.file}:{self.line}", self.title, self.path]
        return " ".join(f"{': '.join(part for part in parts if part)}: {self.what}: {self.fix}".split())

    def line_with_rule(self) -> str:
        """The finding as one line, the rule that found it at its end: what `accept` in an environment names."""
        return f"{self.text()} [{self.rule}]" if self.rule else self.text()


def named(rule: str, found: Iterable[Finding]) -> Iterator[Finding]:
    """The findings under the name of a rule; those that have one keep it."""
    return (one if one.rule else replace(one, rule=rule) for one in found)


def rule(name: str) -> Callable[[Callable[_Given, Iterator[Finding]]], Callable[_Given, Iterator[Finding]]]:
    """Give a rule the name that its findings carry. Of a rule that calls others, each keeps its own."""

    def decorate(check: Callable[_Given, Iterator[Finding]]) -> Callable[_Given, Iterator[Finding]]:
        @functools.wraps(check)
        def under_its_name(*args: _Given.args, **kwargs: _Given.kwargs) -> Iterator[Finding]:
            return named(name, check(*args, **kwargs))

        return under_its_name

    return decorate
