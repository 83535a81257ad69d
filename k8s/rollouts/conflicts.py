"""Fields that another manager owns, as kubectl reports them for a server-side apply."""

from __future__ import annotations

import re
from dataclasses import dataclass

_CONFLICT = re.compile(r'conflicts? with "(?P<owner>[^"]+)"[^\n]*?:(?P<fields>(?: \.[^\n]*|(?:\n- [^\n]*)+))')


@dataclass(frozen=True, slots=True)
class Conflict:
    """A field that another manager owns.

    Attributes:
        owner: the manager, as kubectl names it.
        field: `.spec.replicas`.
    """

    owner: str
    field: str


def conflicts(stderr: str) -> tuple[Conflict, ...]:
    """The conflicts that kubectl reports for a server-side apply."""
    result = []
    for match in _CONFLICT.finditer(stderr):
        for line in match["fields"].strip().splitlines():
            result.append(Conflict(match["owner"], line.removeprefix("- ").strip()))
    return tuple(result)
