"""What `base.in` may say of Debian packages: names, pinned versions, and further suites than Debian 12's own."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import paths
from common.apt import KEYRING
from common.errors import UsageError
from common.files import sha256_file
from common.reader import Keys

# Name and version of a package (Debian policy 5.6.1, 5.6.12).
_DEB = re.compile(r"([a-z0-9][a-z0-9+.-]+)(?:=([0-9][A-Za-z0-9.+~:-]*))?")
# What stands in apt's files without quotes.
_WORD = re.compile(r"[A-Za-z0-9._/~+-]+")


@dataclass(frozen=True, slots=True)
class Suite:
    """A further suite, from which exactly the packages come that are named.

    Attributes:
        suite: its name in apt's sources: `bookworm-backports`; with a slash at the end for a repository without suites.
        component: `main`; empty for a repository without suites.
        packages: (name, version) with an empty version where it is not pinned.
        keyring: the file with the keys that sign it.
    """

    suite: str
    component: str
    packages: tuple[tuple[str, str], ...]
    keyring: Path

    def keys(self) -> str:
        """The digest of a keyring of the repository's own; empty where Debian's is taken."""
        return "" if self.keyring == KEYRING else sha256_file(self.keyring)


def read(listed: Any, file: Path) -> tuple[Suite, ...]:
    """The tables of `[[suites]]`.

    Raises:
        UsageError: one says something that cannot be.
    """
    keys = Keys({"suites": listed}, paths.shown(file))
    return tuple(_suite(entry, file) for entry in keys.each("suites"))


def _suite(entry: Keys, file: Path) -> Suite:
    suite = entry.text("suite")
    component = entry.text("component", "" if suite.endswith("/") else "main")
    for key, text in (("suite", suite), ("component", component)):
        if text and not _WORD.fullmatch(text):
            raise entry.refused(key, f"expected a word as apt's sources have it (sources.list(5)), got {text!r}")
    if (component == "") != suite.endswith("/"):
        raise entry.refused("component", "a suite has one; only a repository without suites, which ends in a slash, has none")
    keyring = entry.text("keyring", "")
    path = paths.ROOT / keyring if keyring else KEYRING
    if not (_WORD.fullmatch(keyring or "-") and path.is_file()) or keyring.startswith("/") or ".." in keyring.split("/"):
        raise entry.refused("keyring", f"no such file in the repository: {keyring!r}", "put there what `gpg --export` writes")
    packages = entry.texts("packages")
    if not packages:
        raise entry.refused("packages", "expected the packages that come from it")
    entry.end()
    return Suite(suite, component, tuple(package(text, file) for text in packages), path)


def package(text: str, file: Path) -> tuple[str, str]:
    """A package's name, and the version that it is pinned to; empty for none.

    Raises:
        UsageError: it is neither a name nor name=version.
    """
    found = _DEB.fullmatch(text)
    if not found:
        fix = "write its name, or name=version, such as tmux=3.3a-3"
        raise UsageError(f"not a Debian package: {text!r}", where=paths.shown(file), fix=fix)
    return found[1], found[2] or ""


def name(text: str, file: Path) -> str:
    """A package's name.

    Raises:
        UsageError: it is none.
    """
    found, version = package(text, file)
    if version:
        raise UsageError(f"not the name of a Debian package: {text!r}", where=paths.shown(file), fix="leave the version out")
    return found


def once(names: Sequence[str], file: Path) -> tuple[str, ...]:
    """The names, each of which stands once.

    Raises:
        UsageError: one stands twice.
    """
    for twice in sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(f"{twice} is named twice", where=paths.shown(file), fix="name it once, in one suite")
    return tuple(names)
