"""Runs uv, and tells what it says in words that fit here: its own hints name options that no command of ours has."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from packaging.utils import canonicalize_name

from common import console, offline
from common.errors import LockError, MissingEnvironmentError
from common.run import run
from lockfiles.python.sources import Source

# How uv's messages call an input that it reads as a project.
PROJECT = "pinwheel-input"
_YOUNG = r"`([^`]+)` was filtered by `exclude-newer`.*?(?:satisfying the requirement is|requested version,) v([^\s,]+)"
# One or more versions of a package, in uv's words.
_SOME = r"([\w.-]+)(?:[=<>!]\S+(?: \1[=<>!]\S+)*)? "
# What uv remarks of them, and what helps.
_REMARKS = (
    (
        r"ha(?:s|ve) no wheels with a matching ()",
        "no wheel of {name} runs on the base (CPython, x86-64, glibc): another version has to, or one built by [sdists.{name}]",
    ),
    (r"depends? on Python([<>=!~]\S+?)[, ]", "{name} is for Python {python}, which the base's is not: name an older version"),
    (
        r"(?:was|were) yanked()",
        "what fits of {name} was withdrawn (yanked); who means it pins it, {name}==VERSION",
    ),
    (r"ha(?:s|ve) (?:invalid metadata|an invalid package format)()", "the wheel of {name} is broken: pin another version"),
    (r"ha(?:s|ve) no source distribution()", "{name} has no source archive, only wheels: drop [sdists.{name}]"),
    (r"has a non-PEP 625-compliant source()", "the source archive of {name} is neither .tar.gz nor .zip: take another version"),
)
# A file that no index should serve; another version of the package may be sound.
_BROKEN = re.compile(r"Failed to unzip wheel|does not match given (name|version)|[Ff]ailed to parse|is invalid")
_YANKED = re.compile(r"`([\w.-]+)==([^`]+)` is yanked(?: \(reason: \"(.*?)\"\))?")


class UnresolvedError(LockError):
    """Requirements that cannot all hold.

    Args:
        what: the resolver's explanation.
        where: the input.
        remedies: what would help, in words of ours: the resolver's own name options that no command here has.
    """

    def __init__(self, what: str, where: str, remedies: Sequence[str]) -> None:
        self.remedies = tuple(remedies)
        explain = [f"`invoke lock --explain {where}` tells the nearest change that resolves"] if where.endswith(".in") else []
        super().__init__(what, where=where, fix="; ".join([*(remedies or ["loosen or move a pin"]), *explain]))


def _remedies(text: str) -> Iterator[str]:
    for name, version in re.findall(_YOUNG, text):
        pin = f"{name}=={version.rstrip('.')}"
        yield f"{pin} is younger than the cooldown in policy.toml (`days`): written so in requires, it is taken all the same"
    for name, example in re.findall(r"Pre-releases are available for `([^`]+)`.*?\(e\.g\., ([^)]+)\)", text):
        yield f"{name} has pre-releases only: one is taken where it is pinned, {name}=={example}"
    for name in re.findall(r"Wheels are required for `([^`]+)`", text):
        yield f"{name} is published as source only: describe it under [sdists.{name}]"
    for remark, remedy in _REMARKS:
        for name, python in dict.fromkeys(re.findall(_SOME + remark, text)):
            yield remedy.format(name=name, python=python)
    for name in dict.fromkeys(re.findall(r"there are no versions of ([\w.-]+)", text)):
        yield f"your index has a page of {name} that lists no file: does its address end in /simple, and does it want a login?"
    for name in re.findall(r"(?:Because|And|and|because) ([\w.-]+) was not found in the package registry", text):
        yield f"{name} is not on the index that is asked for it: [sources] names another one, if it is not misspelt"


def run_uv(argv: list[str | Path], source: Source, what: str, where: str) -> str:
    """Run uv; returns what it remarked.

    Args:
        argv: the program and its arguments.
        source: where it may look.
        what: the failure, as the beginning of a sentence.
        where: the input, for messages.

    Raises:
        UnresolvedError: the requirements cannot all hold.
        LockError: a file on an index is broken.
        MissingEnvironmentError: an index does not answer or refuses, or this machine lacks something.
    """
    result = run([*argv, *source.options], env=source.environment, missing="run ./invokew")
    if result.code:
        lines = list(_meaningful(result.stderr))
        whole = " ".join(lines)
        text = whole.partition(" hint: ")[0].removeprefix("error: ").replace(f"{PROJECT} depends on", "you require")
        if "provided package locations" in text and offline.offline():
            raise MissingEnvironmentError(f"{what} with what is on this machine: {text}", fix=offline.FIX)
        if re.search(r"\b40[137]\b|authentication credentials", whole):
            raise MissingEnvironmentError(f"your index refuses: {text}", fix="check its address and your credentials for it")
        if "No solution found" in text or "no versions" in text or "not found in the package registry" in text:
            because = re.sub(r"No solution found when resolving dependencies:?\s*(cause: )?", "", text)
            raise UnresolvedError(f"{what}: {because.removesuffix('.')}", where, [*_remedies(whole)])
        if _BROKEN.search(text):
            fix = "that file is broken: pin another version, or ask who publishes it"
            raise LockError(f"{what}: {text}", where=where, fix=fix)
        raise MissingEnvironmentError(f"uv failed: {text}", fix="check the network and your uv or pip configuration")
    return result.stderr


def _meaningful(stderr: str) -> Iterator[str]:
    for line in stderr.splitlines():
        text = line.strip(" ×╰─▶│├").strip()
        # What it says beside its verdict.
        if text and not text.startswith(("warning:", "Resolved ")):
            yield text


def tell_withdrawn(said: str, asked: Collection[str], where: str) -> None:
    """Say which of the chosen releases were withdrawn by their authors (yanked, PEP 592).

    Args:
        said: what uv remarked.
        asked: packages that somebody pinned.
        where: the input, for messages.

    Raises:
        LockError: nobody pinned one of them.
    """
    for name, version, reason in _YANKED.findall(said):
        package = f"{canonicalize_name(name)} {version}"
        why = f"withdrawn by its authors (yanked{', ' + reason if reason else ''})"
        if canonicalize_name(name) not in asked:
            fix = f"`invoke lock --upgrade {name}` takes another; who means it pins {name}=={version}"
            raise LockError(f"{package} was {why}", where=where, fix=fix)
        console.warn(f"{package} was {why}; it is taken, for an input pins it")
