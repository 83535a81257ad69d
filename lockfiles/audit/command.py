"""How an audit ends: printed, remembered, and failed where the policy says so."""

from __future__ import annotations

from typing import Literal

from common import console
from common.errors import AuditError
from lockfiles.audit import report
from lockfiles.audit.report import Audit


def conclude(audit: Audit, form: Literal["text", "json", "sarif"]) -> str:
    """Print the result and judge it; returns the outcome in a few words.

    Args:
        audit: the result.
        form: in which it is printed.

    Raises:
        AuditError: something is at least as bad as the policy's limit.
    """
    if form == "text":
        report.show(audit)
    else:
        console.machine(audit.json() if form == "json" else audit.sarif())
    report.remember(audit)
    silenced = sum(bool(one.vex) for one in audit.findings)
    parts = [f"{len(audit.findings)} known defects in {audit.packages} packages"]
    parts += [f"{silenced} silenced"] if silenced else []
    parts += [f"{len(audit.unknown)} NOT judged"] if audit.unknown else []
    counts = ", ".join(parts)
    if failing := audit.failing:
        first = failing[0]
        rest = f" and {len(failing) - 1} more" if len(failing) > 1 else ""
        fix = "upgrade (`invoke lock --upgrade NAME`), or say in lockfiles/vex.toml why it does not apply here"
        where = f"{first.package}, {first.ids[0]}{rest}"
        raise AuditError(f"{audit.scope}: {len(failing)} defects of severity {audit.refuse} or worse", where=where, fix=fix)
    return f"{audit.scope}: {counts}, none of severity {audit.refuse} or worse"
