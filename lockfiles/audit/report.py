"""An audit's result: for people, as JSON, and as SARIF."""

from __future__ import annotations

import dataclasses
import datetime
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from common import console, paths, sarif
from common.files import write_whole
from lockfiles import lockfile
from lockfiles.audit.data import Source
from lockfiles.audit.model import SEVERITIES, Finding, Severity, at_least

FORMAT = 1
_MOST_PLACES = 3


@dataclass(frozen=True, slots=True)
class Audit:
    """The result. JSON form: `format` (1) and these fields.

    Attributes:
        scope: what was audited, for people: `all locks`.
        date: day, UTC.
        packages: how many were looked up.
        unknown: what was not judged, and why: packages whose version no rule orders, images without a signed SBOM.
        sources: the data.
        findings: the worst first; those that a VEX statement silences are among them.
        new: names (package, advisory) of the findings that the last audit of this scope did not have.
        notes: what else is to be said: support that ended, VEX statements that are over.
        refuse: the severity from which it fails.
    """

    scope: str
    date: str
    packages: int
    unknown: tuple[str, ...]
    sources: tuple[Source, ...]
    findings: tuple[Finding, ...]
    new: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    refuse: Severity

    @property
    def day(self) -> datetime.date:
        """The day of the audit."""
        return datetime.date.fromisoformat(self.date)

    @property
    def counting(self) -> tuple[Finding, ...]:
        """The findings that no VEX statement silences."""
        return tuple(one for one in self.findings if not one.vex)

    @property
    def failing(self) -> tuple[Finding, ...]:
        """The findings that the policy does not allow."""
        return tuple(one for one in self.counting if at_least(one.severity, self.refuse))

    def json(self) -> str:
        """As JSON."""
        return json.dumps({"format": FORMAT, **dataclasses.asdict(self)}, indent=2)

    def sarif(self) -> str:
        """As SARIF: a finding stands at the lock's line that holds the package."""
        found = []
        for one in self.findings:
            level: sarif.Level = "error" if one in self.failing else "warning"
            text = f"{one.package}: {one.severity}, {_fix(one)}. {one.summary or ', '.join(one.ids)}"
            for place in one.places:
                file, line = _line(place, one)
                found.append(sarif.Result(one.ids[0], text, file, line, str(one.package), level, one.vex))
        return sarif.document(found)


def ordered(findings: Sequence[Finding], new: frozenset[tuple[str, str]]) -> tuple[Finding, ...]:
    """What counts first, of that what is new, then the worst."""
    return tuple(
        sorted(
            findings,
            key=lambda one: (bool(one.vex), one.known_by not in new, -SEVERITIES.index(one.severity), one.package, one.ids),
        )
    )


def show(audit: Audit) -> None:
    """Print it."""
    now = datetime.datetime.now(datetime.UTC)
    for source in audit.sources:
        newest = f", the newest of {source.newest[:10]}" if source.newest else ""
        console.info(f"data         {source.ecosystem}: {source.records} records, fetched {source.age(now)} days ago{newest}")
    new = set(audit.new)
    rows = [
        (
            "new" if one.known_by in new else "",
            f"{one.severity}{'' if one.named else ' (not rated)'}",
            str(one.package),
            one.ids[0],
            _fix(one),
            _places(one),
            one.vex or one.said or one.summary[:80],
        )
        for one in audit.findings
    ]
    if rows:
        console.table(("", "severity", "package", "advisory", "fix", "in", "what"), rows)
    for text in audit.unknown:
        console.warn(f"not judged: {text}")
    for note in audit.notes:
        console.warn(note)


def remember(audit: Audit) -> None:
    """Keep the names of the findings for the next audit of the same scope."""
    write_whole(_memory(audit.scope), json.dumps(sorted(one.known_by for one in audit.findings)))


def remembered(scope: str) -> frozenset[tuple[str, str]] | None:
    """The names of the last audit's findings; None: there was none."""
    try:
        return frozenset((str(package), str(advisory)) for package, advisory in json.loads(_memory(scope).read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def _memory(scope: str) -> Path:
    safe = "".join(letter if letter.isalnum() else "-" for letter in scope)[:80]
    return paths.cache("advisories", f"last-{safe}.json")


def _fix(finding: Finding) -> str:
    return f"fixed in {' or '.join(finding.fixed)}" if finding.fixed else "no fix"


def _places(finding: Finding) -> str:
    more = len(finding.places) - _MOST_PLACES
    return ", ".join(finding.places[:_MOST_PLACES]) + (f" and {more} more" if more > 0 else "")


def _line(place: str, finding: Finding) -> tuple[str, int]:
    """The file and line of a lock that hold the package."""
    name = place.partition(" ")[0]
    file, _, line = lockfile.place(name, finding.package.shown or finding.package.name).partition(":")
    if line.isdigit():
        return file, int(line)
    known = {"toolkit": "lockfiles/toolkit.txt", "single-node": "lockfiles/single-node"}
    return known.get(name, file if (paths.ROOT / file).exists() else ""), 0
