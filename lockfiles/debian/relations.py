"""Which locked Debian packages a locked Debian package needs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

# A relation's package name, before any `:any`, version or architecture (Debian policy 7.1).
_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]+")


@dataclass(frozen=True, slots=True)
class Relations:
    """What a package's control fields say of others.

    Attributes:
        depends: for each thing it needs, the names that would do, the preferred first.
        provides: names it stands for besides its own.
        essential: Debian policy 3.8.
    """

    depends: tuple[tuple[str, ...], ...]
    provides: frozenset[str]
    essential: bool


def read(fields: Mapping[str, str]) -> Relations:
    """Read the fields Depends, Pre-Depends, Provides and Essential (Debian policy 7.1)."""
    groups = [group for field in ("Pre-Depends", "Depends") for group in fields.get(field, "").split(",") if group.strip()]
    depends = tuple(tuple(m[0] for part in group.split("|") if (m := _NAME.match(part.strip()))) for group in groups)
    provides = frozenset(m[0] for part in fields.get("Provides", "").split(",") if (m := _NAME.match(part.strip())))
    return Relations(depends, provides, fields.get("Essential", "no") == "yes")


def needs(chosen: Mapping[str, Relations]) -> dict[str, tuple[str, ...]]:
    """For each chosen package the chosen ones that satisfy what it depends on, sorted.

    Versions are not looked at: apt chose the set. A dependency that no chosen package satisfies is on one that was ruled out
    by the caller (`without`) and that an alternative replaces; it is left out.
    """
    providers: dict[str, list[str]] = {}
    for name, relations in sorted(chosen.items()):
        for virtual in relations.provides:
            providers.setdefault(virtual, []).append(name)
    found: dict[str, tuple[str, ...]] = {}
    for name, relations in chosen.items():
        wanted: set[str] = set()
        for group in relations.depends:
            real = [name for name in group if name in chosen]
            standing_in = [provider for virtual in group for provider in providers.get(virtual, ())]
            wanted |= {*real[:1]} or {*standing_in[:1]}
        found[name] = tuple(sorted(wanted - {name}))
    return found
