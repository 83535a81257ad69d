"""What is audited and what is found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Ecosystem = Literal["PyPI", "Go", "Debian"]
ECOSYSTEMS: tuple[Ecosystem, ...] = ("PyPI", "Go", "Debian")
Severity = Literal["unimportant", "low", "medium", "high", "critical", "malware"]
# From the least to the worst. What names no severity counts as `high`: nobody has said that it is less.
SEVERITIES: tuple[Severity, ...] = ("unimportant", "low", "medium", "high", "critical", "malware")
UNNAMED: Severity = "high"


@dataclass(frozen=True, slots=True, order=True)
class Package:
    """One thing that is locked or runs.

    Attributes:
        ecosystem: whose advisories speak of it.
        name: normalised as they write it; of Debian the source package.
        version: as the lock has it; of Debian that of the source package.
        shown: for people: the name in the lock, where that is another one.
    """

    ecosystem: Ecosystem
    name: str
    version: str
    shown: str = ""

    def __str__(self) -> str:
        return f"{self.shown or self.name} {self.version}"


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """Advisories about one defect of one package: those that name each other as aliases are one.

    Attributes:
        package: that has it.
        ids: of the advisories and their aliases, the most telling one first: CVE, then GHSA, then the others.
        severity: the worst that one of them names.
        named: whether one of them names a severity; else it counts as `UNNAMED`.
        fixed: versions that have it no more, in order; none: there is no fix.
        summary: in the words of the first that has some.
        said: what Debian says beside it: `no security update: Minor issue`.
        places: the locks or images that hold the package, sorted.
        vex: why it does not count, where `lockfiles/vex.toml` says so.
    """

    package: Package
    ids: tuple[str, ...]
    severity: Severity
    named: bool
    fixed: tuple[str, ...]
    summary: str
    said: str = ""
    places: tuple[str, ...] = ()
    vex: str = ""

    @property
    def known_by(self) -> tuple[str, str]:
        """By what it is recognised at the next audit."""
        return f"{self.package.ecosystem} {self.package.name}", self.ids[0]


def at_least(severity: Severity, least: Severity) -> bool:
    """Whether a severity is as bad as another one, or worse."""
    return SEVERITIES.index(severity) >= SEVERITIES.index(least)
