"""`lockfiles/vex.toml`: advisories that do not apply here, each with its reason and its end (OpenVEX 0.2.0).

[[vex]]
advisory = "CVE-2026-12345"        # any of its names
package = "urllib3"                # as the lock or the advisory names it
status = "not_affected"            # or "fixed": by a patch of ours, or a backport
justification = "vulnerable_code_not_in_execute_path"
reason = "nobody here opens an address that a stranger names"
until = "2027-03-31"               # looked at again on that day
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from common import paths, reader
from lockfiles.audit.model import Finding

STATUSES = ("not_affected", "fixed")
JUSTIFICATIONS = (
    "component_not_present",
    "vulnerable_code_not_present",
    "vulnerable_code_not_in_execute_path",
    "vulnerable_code_cannot_be_controlled_by_adversary",
    "inline_mitigations_already_exist",
)


@dataclass(frozen=True, slots=True, order=True)
class Statement:
    """One advisory that does not apply.

    Attributes:
        advisory: one of its names.
        package: that has it.
        status: `not_affected` or `fixed`.
        justification: OpenVEX's word for why; of what is fixed empty.
        reason: for people.
        until: the last day on which it counts.
    """

    advisory: str
    package: str
    status: str
    justification: str
    reason: str
    until: datetime.date


def path() -> Path:
    """The file."""
    return paths.LOCKFILES / "vex.toml"


def read() -> tuple[Statement, ...]:
    """The statements, sorted; none where there is no file.

    Raises:
        UsageError: the file holds something else than the keys above.
    """
    if not path().exists():
        return ()
    top = reader.toml(path(), fix="see docs/audit.md for its keys")
    found = []
    for keys in top.each("vex"):
        advisory, package, status = keys.text("advisory"), keys.text("package"), keys.choice("status", STATUSES)
        justification = keys.choice("justification", JUSTIFICATIONS) if "justification" in keys else ""
        if status == "not_affected" and not justification:
            raise keys.refused("justification", f"missing: one of {', '.join(JUSTIFICATIONS)}")
        reason, written = keys.text("reason"), keys.body.pop("until", None)
        try:
            until = written if isinstance(written, datetime.date) else datetime.date.fromisoformat(str(written))
        except ValueError:
            raise keys.refused("until", f"expected a day, as 2027-03-31, got {written!r}") from None
        keys.end()
        found.append(Statement(advisory, package, status, justification, reason, until))
    top.end()
    return tuple(sorted(found))


def apply(
    findings: Iterable[Finding], statements: Iterable[Statement], today: datetime.date, *, whole: bool
) -> tuple[list[Finding], list[str]]:
    """Mark the findings that a statement silences; and say which statements are over, or silence nothing.

    Malware is never silenced.

    Args:
        findings: to be marked.
        statements: of `vex.toml`.
        today: the day on which they must count.
        whole: whether the findings are those of everything that is locked.
    """
    used: set[Statement] = set()
    said = list(statements)
    marked = []
    for finding in findings:
        used |= {one for one in said if _about(one, finding)}
        valid = silencing(finding, said, today)
        why = f"{valid.status}: {valid.justification or valid.reason}, until {valid.until}" if valid else ""
        marked.append(replace(finding, vex=why))
    lines = []
    for one in said:
        if one.until < today:
            lines.append(
                f"{paths.shown(path())}: {one.advisory} of {one.package} was silenced until {one.until}: look at it again"
            )
        elif whole and one not in used:
            lines.append(f"{paths.shown(path())}: {one.advisory} of {one.package} silences nothing any more: remove it")
    return marked, lines


def silencing(finding: Finding, statements: Iterable[Statement], today: datetime.date) -> Statement | None:
    """The statement that silences a finding on a day; none silences malware."""
    valid = (one for one in statements if _about(one, finding) and one.until >= today)
    return None if finding.severity == "malware" else next(valid, None)


def _about(one: Statement, finding: Finding) -> bool:
    return one.advisory in finding.ids and one.package in (finding.package.name, finding.package.shown)
