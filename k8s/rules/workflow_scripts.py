"""Rules about the scripts that containers run: none shows a secret to the whole node, and in a workflow none hides a failure.

A step that fails without saying so lets the workflow go on with what it did not make.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from k8s.objects import argo_schema, pods
from k8s.objects.findings import Finding, Path, rule
from k8s.objects.manifests import Manifest
from k8s.rules.leaks import secret_variables
from k8s.rules.shell import SHELLS, Command, Script
from k8s.rules.whole_set import words

_FAIL = {"--fail", "--fail-with-body", "--fail-early"}
# curl(1): the short options that take a value, which may follow without a blank.
_WITH_VALUE = set("AbcCdDeEFhHKmoPQrtTuUwxXyYz")
# They run inside of the shell: what they are given stands in no process list.
_BUILTIN = {"[", "[[", "cd", "eval", "exit", "export", "local", "printf", "read", "readonly", "set", "test", "trap", "unset"}
_EXPANDED = re.compile(r"'[^']*'|\$\{?([A-Za-z_][A-Za-z0-9_]*)")


def check(objects: Sequence[Manifest]) -> Iterator[Finding]:
    """What the scripts of these objects hide or give away."""
    for manifest in objects:
        for template in pods.templates(manifest):
            for path, container in template.containers():
                found = _script(path, container)
                if found:
                    yield from _shown(manifest, *found, secret_variables(container))
                if manifest.api_version == argo_schema.API_VERSION:
                    yield from _failures(manifest, path, container, found)


@rule("script")
def _failures(
    manifest: Manifest, path: Path, container: Mapping[str, Any], found: tuple[Path, Script] | None
) -> Iterator[Finding]:
    if found is None:
        line = [*words(container.get("command")), *words(container.get("args"))]
        yield from _curl(manifest, (*path, "command"), Command(tuple(line), "", 0))
        return
    at, script = found
    if hidden := script.hidden():
        fix = "begin with `set -eo pipefail` in bash (`set -e` in sh), or join the commands by &&"
        yield manifest.finding(at, f"the script hides a failure: {hidden}", fix)
    for command in script.commands:
        yield from _curl(manifest, at, command)


@rule("secret-in-command-line")
def _shown(manifest: Manifest, at: Path, script: Script, secret: set[str]) -> Iterator[Finding]:
    for command in script.commands:
        if command.name in _BUILTIN:
            continue
        for name in sorted({name for word in command.words for name in _EXPANDED.findall(word) if name in secret}):
            what = f"the secret {name} stands in the command line of `{command.name}`, which the whole node can read"
            if command.name == "echo":
                what = f"the secret {name} would stand in the log"
            yield manifest.finding(at, what, "let the program read the variable, or mount a file")


def _script(path: Path, container: Mapping[str, Any]) -> tuple[Path, Script] | None:
    """The shell script that a container runs, and where it stands; None when it runs none."""
    line: list[tuple[Path, str]] = []
    for group in ("command", "args"):
        held = container.get(group)
        for number, word in enumerate(held if isinstance(held, list) else ()):
            line.append(((*path, group, number), str(word)))
    start = next((number for number, (_, word) in enumerate(line[:3]) if word.rpartition("/")[2] in SHELLS), None)
    if start is None:
        return None
    if isinstance(container.get("source"), str):  # A script template: its source is a file that the command gets.
        return (*path, "source"), Script.of(container["source"], [word for _, word in line[start + 1 :]])
    for number, (_, word) in enumerate(line[start + 1 :], start + 1):
        if re.fullmatch(r"-[A-Za-z]*c[A-Za-z]*", word):
            at = next((place for place in range(number + 1, len(line)) if not line[place][1].startswith("-")), None)
            if at is None:
                return None
            # `-eo pipefail -c` and `-ceo pipefail`: an option's name is no script.
            if line[at - 1][1].endswith("o") and at + 1 < len(line):
                at += 1
            return line[at][0], Script.of(line[at][1], [word for _, word in line[start + 1 : at]])
    return None


@rule("script")
def _curl(manifest: Manifest, path: Path, command: Command) -> Iterator[Finding]:
    if command.name == "curl" and not any(word in _FAIL or _short_f(word) for word in command.words):
        what = "curl without --fail: it takes a server's error page for the file, and calls it a success"
        yield manifest.finding(path, what, "write curl --fail --location …")


def _short_f(word: str) -> bool:
    """Whether a cluster of short options holds `f`: `-sSfL` does, `-ofile` does not."""
    if not word.startswith("-") or word.startswith("--"):
        return False
    for letter in word[1:]:
        if letter == "f":
            return True
        if letter in _WITH_VALUE:
            return False
    return False
