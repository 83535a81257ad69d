"""What moves because of a known defect: found by audit/fixing.py, kept by what resolves."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

# How the Debian packages are named together.
DEBIAN = "debian"


@dataclass(frozen=True, slots=True)
class Target:
    """The release of a package that fixes what can be fixed.

    Attributes:
        version: of it.
        constraint: that a resolver must keep (PEP 508): this release; or, where the cooldown allows it, a later one that fixes
            as much.
        until: files uploaded before this time may be taken (ISO 8601); empty where the cooldown decides.
    """

    version: str
    constraint: str
    until: str = ""


@dataclass(frozen=True, slots=True)
class Fixes:
    """What is to move.

    Attributes:
        targets: by lock (a set, or `toolkit`) and package.
        debs: names of Debian packages.
        reasons: why nothing helps against what is known of a package, by lock and package.
    """

    targets: Mapping[str, Mapping[str, Target]] = field(default_factory=dict)
    debs: frozenset[str] = frozenset()
    reasons: Mapping[tuple[str, str], str] = field(default_factory=dict)

    def names(self) -> list[str]:
        """What may move or stay: packages of Python in all their locks, and the Debian packages together; sorted."""
        return sorted({name for found in self.targets.values() for name in found} | ({DEBIAN} if self.debs else set()))

    def only(self, names: Collection[str]) -> Fixes:
        """Those of these names."""
        kept = {lock: {name: one for name, one in found.items() if name in names} for lock, found in self.targets.items()}
        return Fixes({lock: found for lock, found in kept.items() if found}, self.debs if DEBIAN in names else frozenset())
