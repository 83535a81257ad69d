"""Debian's own verdicts: the JSON of its security tracker (https://security-tracker.debian.org/tracker/data/json).

By source package and CVE, for each release: `status` (open, resolved, undetermined), `fixed_version`, `urgency`, and `nodsa`,
why there is no security update of its own. Debian's word counts here: what it calls unimportant has no effect in the package as
it is built.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from lockfiles.audit import versions
from lockfiles.audit.model import Finding, Package, Severity

RELEASE = "bookworm"
_URGENCIES: dict[str, Severity] = {"unimportant": "unimportant", "low": "low", "medium": "medium", "high": "high"}


def parse(body: Any) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """What the tracker says of this release, by source package and CVE.

    Raises:
        ValueError: it is not the tracker's form.
    """
    try:
        for source, issues in body.items():
            for name, issue in issues.items():
                if verdict := issue["releases"].get(RELEASE):
                    kept = {key: str(verdict.get(key) or "") for key in ("status", "fixed_version", "urgency", "nodsa")}
                    yield source, name, {**kept, "summary": " ".join(str(issue.get("description") or "").split())[:200]}
    except (KeyError, TypeError, AttributeError) as problem:
        raise ValueError(f"not the security tracker's form: {type(problem).__name__} {problem}") from None


def judge(package: Package, name: str, verdict: Mapping[str, str]) -> Finding | None:
    """The defect, if this version has it.

    Args:
        package: of Debian.
        name: of the issue, mostly a CVE.
        verdict: as `parse` gives it.
    """
    status, fixed = verdict["status"], verdict["fixed_version"]
    if status == "resolved":
        # "0": the release was never affected.
        if not fixed or versions.key("Debian", package.version) >= versions.key("Debian", fixed):
            return None
    elif status != "open":
        # Undetermined: Debian has not found out whether it is about this package.
        return None
    urgency, nodsa = verdict["urgency"].strip("*"), verdict["nodsa"]
    severity = _URGENCIES.get(urgency)
    said = f"no security update of its own: {nodsa}" if nodsa else ""
    if urgency == "end-of-life":
        said = "Debian ended its support of this package"
    if severity is None and nodsa:
        # Debian's security team looked at it and found it minor.
        severity = "low"
    # What Debian has not rated yet it would have, were it grave: updates come within days.
    return Finding(
        package, (name,), severity or "medium", severity is not None, (fixed,) if fixed else (), verdict["summary"], said
    )
