"""Findings that an environment accepts, each with its reason and its end: `accept` in the environment's file.

A list of `rule`, as a finding ends with it in brackets; `object`, as the finding names it (`Deployment serve/llm`); `reason`;
and `until`, the last day (YYYY-MM-DD) on which it counts. What says which images run is never accepted: those rules are not
among k8s/rules/.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from dataclasses import dataclass

from common.reader import Keys
from k8s.objects.findings import Finding

# What the gate refuses, and what no server would take.
NEVER = ("gpu-node", "image", "image-missing", "manifest", "schema", "server")


@dataclass(frozen=True, slots=True)
class Accepted:
    """One finding that is accepted.

    Attributes:
        rule: that found it.
        object: the title of the object it is about.
        reason: why it is right here.
        until: the last day on which it is accepted.
    """

    rule: str
    object: str
    reason: str
    until: datetime.date

    def matches(self, finding: Finding) -> bool:
        """Whether it is about this finding."""
        return (finding.rule, finding.title) == (self.rule, self.object)


@dataclass(frozen=True, slots=True)
class Sorted:
    """Findings, told apart by what an environment accepts.

    Attributes:
        refused: that nobody accepted, or no longer.
        accepted: with the entry that says so.
        ended: entries whose last day is over.
        idle: entries that match nothing.
    """

    refused: tuple[Finding, ...]
    accepted: tuple[tuple[Finding, Accepted], ...]
    ended: tuple[Accepted, ...]
    idle: tuple[Accepted, ...]


def parse(top: Keys) -> tuple[Accepted, ...]:
    """Take the key of this module out of an environment's file.

    Raises:
        UsageError: it holds something else than it may.
    """
    found = []
    for keys in top.each("accept"):
        rule, title, reason, written = (keys.text(key) for key in ("rule", "object", "reason", "until"))
        keys.end()
        if rule in NEVER:
            raise keys.refused("rule", f"what {rule} finds is never accepted", "mend what it found")
        try:
            until = datetime.date.fromisoformat(written)
        except ValueError:
            raise keys.refused("until", f"{written!r} is no day: write it like 2027-01-31") from None
        found.append(Accepted(rule, title, reason, until))
    return tuple(found)


def apply(findings: Iterable[Finding], entries: Iterable[Accepted], today: datetime.date) -> Sorted:
    """Tell findings apart.

    Args:
        findings: of one set.
        entries: of the environment.
        today: entries whose last day was before accept nothing.
    """
    current = [one for one in entries if one.until >= today]
    refused, taken = [], []
    for finding in findings:
        entry = next((one for one in current if one.matches(finding)), None)
        if entry:
            taken.append((finding, entry))
        else:
            refused.append(finding)
    used = {entry for _, entry in taken}
    ended = tuple(one for one in entries if one not in current)
    return Sorted(tuple(refused), tuple(taken), ended, tuple(one for one in current if one not in used))
