"""The order of versions, each ecosystem's own: PEP 440, dpkg's (deb-version(7)), and Go's (semantic versions 2.0.0)."""

from __future__ import annotations

import functools
import re
from typing import Any

from debian.debian_support import Version as DebianVersion
from packaging.version import InvalidVersion
from packaging.version import Version as PythonVersion

from lockfiles.audit.model import Ecosystem

_GO = re.compile(r"v?(\d+)(?:\.(\d+))?(?:\.(\d+))?(?:-([0-9A-Za-z.-]+))?(?:\+[0-9A-Za-z.-]+)?")


def key(ecosystem: Ecosystem, version: str) -> Any:
    """What versions of an ecosystem are ordered by.

    Raises:
        ValueError: it is no version there.
    """
    return _key(ecosystem, version)


@functools.lru_cache(maxsize=65536)
def _key(ecosystem: Ecosystem, version: str) -> Any:
    if ecosystem == "Debian":
        return DebianVersion(version)
    if ecosystem == "Go":
        return _go(version)
    try:
        return PythonVersion(version)
    except InvalidVersion as problem:
        raise ValueError(str(problem)) from None


def _go(version: str) -> tuple[object, ...]:
    matched = _GO.fullmatch(version)
    if not matched:
        raise ValueError(f"{version!r} is no semantic version")
    numbers = tuple(int(part or 0) for part in matched.groups()[:3])
    if matched[4] is None:
        # A release comes after all its pre-releases, a pseudo-version's among them.
        return (*numbers, 1, ())
    return (*numbers, 0, tuple(_identifier(part) for part in matched[4].split(".")))


def _identifier(part: str) -> tuple[int, int, str]:
    """Numbers come before words, and by their value."""
    return (0, int(part), "") if part.isdigit() else (1, 0, part)
