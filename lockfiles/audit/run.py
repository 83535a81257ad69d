"""The audit: packages looked up, judged, silenced where VEX says so, compared with the last time."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace

from lockfiles import policy
from lockfiles.audit import locked, osv, report, support, tracker, versions, vex
from lockfiles.audit.data import Index
from lockfiles.audit.model import Finding, Package
from lockfiles.audit.report import Audit


def of_locks(set_name: str = "") -> Audit:
    """Audit what is locked.

    Args:
        set_name: one set with its base; empty: everything.

    Raises:
        MissingEnvironmentError: there is no advisory data.
        LockError: a lock is missing or broken.
        UsageError: there is no such set, or `vex.toml`, `support.toml` or `policy.toml` is wrong.
    """
    scope = f"the set {set_name} and its base" if set_name else "all locks"
    return judge(scope, locked.everything(set_name), support.periods(), whole=not set_name)


def judge(
    scope: str,
    packages: Mapping[Package, set[str]],
    periods: Sequence[support.Period] = (),
    *,
    unread: Sequence[str] = (),
    whole: bool = False,
) -> Audit:
    """Look packages up and judge them.

    Args:
        scope: for people.
        packages: and the places that hold each.
        periods: of support, of what they stand on.
        unread: what nothing could be looked up of, and why: a line each.
        whole: it is everything that is locked: a VEX statement that silences nothing there is of no use any more.

    Raises:
        MissingEnvironmentError: there is no advisory data.
        UsageError: `vex.toml` or `policy.toml` is wrong.
    """
    rules, statements = policy.read(), vex.read()
    now = datetime.datetime.now(datetime.UTC)
    found: list[Finding] = []
    unknown = [*unread]
    with Index() as index:
        for package in sorted(packages):
            try:
                own = defects(index, package)
            except ValueError as problem:
                unknown.append(f"{package} ({', '.join(sorted(packages[package]))}): {problem}")
                continue
            found += [replace(one, places=tuple(sorted(packages[package]))) for one in own]
        sources = index.sources
    marked, notes = vex.apply(found, statements, now.date(), whole=whole)
    before = report.remembered(scope)
    new = frozenset(one.known_by for one in marked) - before if before is not None else frozenset()
    notes += [f"the data of {one.ecosystem} is {one.age(now)} days old" for one in sources if one.age(now) > rules.data_days]
    notes += [text for period in periods if (text := period.text(now.date()))]
    day = now.date().isoformat()
    ordered = report.ordered(marked, new)
    return Audit(scope, day, len(packages), tuple(unknown), sources, ordered, tuple(sorted(new)), tuple(notes), rules.audit)


def defects(index: Index, package: Package) -> list[Finding]:
    """The defects that a package has, as the data says, without what VEX says of them.

    Raises:
        ValueError: no rule orders its version.
    """
    versions.key(package.ecosystem, package.version)
    records = index.about(package.ecosystem, package.name)
    if package.ecosystem == "Debian":
        verdicts = (tracker.judge(package, name, json.loads(body)) for name, body in records)
        return [verdict for verdict in verdicts if verdict]
    return osv.judge(package, [osv.read(body) for _, body in records])
