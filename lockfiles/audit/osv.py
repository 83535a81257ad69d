"""Advisories in OSV's form (https://ossf.github.io/osv-schema/), of Python packages and Go modules.

What counts: `withdrawn` says that it is none; a version is affected when `versions` lists it or a range of type ECOSYSTEM or
SEMVER holds it, by OSV's own algorithm ("Evaluation"); GIT ranges are about commits and say nothing of a release.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cvss import CVSS2, CVSS3, CVSS4
from cvss.exceptions import CVSSError
from packaging.utils import canonicalize_name

from lockfiles.audit import versions
from lockfiles.audit.model import SEVERITIES, UNNAMED, Ecosystem, Finding, Package, Severity

_MALWARE = "MAL-"
_SCORES = {"CVSS_V2": CVSS2, "CVSS_V3": CVSS3, "CVSS_V4": CVSS4}
_WORDS: dict[str, Severity] = {"LOW": "low", "MODERATE": "medium", "MEDIUM": "medium", "HIGH": "high", "CRITICAL": "critical"}
_ECOSYSTEMS: dict[str, Ecosystem] = {"PyPI": "PyPI", "Go": "Go"}
# Whose name says most, first.
_FIRST = ("CVE-", "GHSA-", "PYSEC-", "GO-")


@dataclass(frozen=True, slots=True)
class Advisory:
    """One record, about one package.

    Attributes:
        id: its own.
        aliases: the same defect elsewhere.
        summary: one line.
        severity: None: it names none.
        affected: entries of its `affected` about this package.
    """

    id: str
    aliases: tuple[str, ...]
    summary: str
    severity: Severity | None
    affected: tuple[Mapping[str, Any], ...]


def normalised(ecosystem: Ecosystem, name: str) -> str:
    """A package's name as it is looked up."""
    return canonicalize_name(name) if ecosystem == "PyPI" else name


def parse(body: Any) -> Iterator[tuple[Ecosystem, str, dict[str, Any]]]:
    """What a record says, by ecosystem and package, cut to what is read later; nothing of one that was withdrawn.

    Raises:
        ValueError: it is no record.
    """
    try:
        if body.get("withdrawn"):
            return
        head = {"id": str(body["id"]), "aliases": [str(alias) for alias in body.get("aliases") or ()]}
        details = str(body.get("summary") or body.get("details") or "")
        head |= {"summary": " ".join(details.split())[:200], "severity": body.get("severity") or []}
        head |= {"word": (body.get("database_specific") or {}).get("severity") or ""}
        by_package: dict[tuple[Ecosystem, str], list[dict[str, Any]]] = {}
        for entry in body.get("affected") or ():
            # An entry about commits alone names no package.
            named = entry.get("package") or {"ecosystem": ""}
            ecosystem = _ECOSYSTEMS.get(str(named["ecosystem"]).partition(":")[0])
            if ecosystem is None:
                continue
            kept = {"versions": entry.get("versions") or [], "ranges": entry.get("ranges") or []}
            kept["severity"] = entry.get("severity") or []
            place = (ecosystem, normalised(ecosystem, str(named["name"])))
            by_package.setdefault(place, []).append(kept)
    except (KeyError, TypeError, AttributeError) as problem:
        raise ValueError(f"no advisory: {type(problem).__name__} {problem}") from None
    for (ecosystem, name), affected in by_package.items():
        yield ecosystem, name, {**head, "affected": affected}


def read(text: str) -> Advisory:
    """A record as the index keeps it."""
    body = json.loads(text)
    vectors = [*body["severity"], *(vector for entry in body["affected"] for vector in entry["severity"])]
    severity = "malware" if body["id"].startswith(_MALWARE) else _severity(vectors, body["word"])
    return Advisory(body["id"], tuple(body["aliases"]), body["summary"], severity, tuple(body["affected"]))


def judge(package: Package, advisories: Iterable[Advisory]) -> list[Finding]:
    """The defects that a package has, by the advisories about it."""
    mine = [advisory for advisory in advisories if any(_holds(entry, package) for entry in advisory.affected)]
    return [_finding(package, group) for group in _grouped(mine)]


def _holds(entry: Mapping[str, Any], package: Package) -> bool:
    if _listed(entry["versions"], package):
        return True
    return any(_in_range(found, package) for found in entry["ranges"] if found.get("type") in ("ECOSYSTEM", "SEMVER"))


def _listed(listed: Sequence[Any], package: Package) -> bool:
    if package.version in listed:
        return True
    mine = versions.key(package.ecosystem, package.version)
    return any(_key(package, other) == mine for other in listed)


def _key(package: Package, version: Any) -> Any:
    """None for what is no version: old releases have names that no rule orders any more."""
    try:
        return versions.key(package.ecosystem, str(version))
    except ValueError:
        return None


def _in_range(found: Mapping[str, Any], package: Package) -> bool:
    """OSV's algorithm: events in the order of their versions, the last one that is not above the version decides."""
    mine = versions.key(package.ecosystem, package.version)
    events: list[tuple[Any, int, str]] = []
    vulnerable = False
    for event in found.get("events") or ():
        for what, version in event.items():
            if what == "introduced" and version == "0":
                vulnerable = True
            elif (at := _key(package, version)) is not None:
                # At one version an end comes before a new beginning; what is last affected ends behind it.
                events.append((at, {"fixed": 0, "limit": 0, "introduced": 1, "last_affected": 2}.get(what, 3), what))
    for at, _, what in sorted(events, key=lambda one: one[:2]):
        if what == "introduced" and mine >= at:
            vulnerable = True
        elif (what in ("fixed", "limit") and mine >= at) or (what == "last_affected" and mine > at):
            vulnerable = False
    return vulnerable


def _grouped(advisories: Sequence[Advisory]) -> list[list[Advisory]]:
    """Those that name each other, or a third one, together."""
    groups: list[tuple[set[str], list[Advisory]]] = []
    for advisory in sorted(advisories, key=lambda one: one.id):
        names, members = {advisory.id, *advisory.aliases}, [advisory]
        apart = []
        for others, found in groups:
            if others & names:
                names |= others
                members = [*found, *members]
            else:
                apart.append((others, found))
        groups = [*apart, (names, members)]
    return [members for _, members in groups]


def _finding(package: Package, group: Sequence[Advisory]) -> Finding:
    names = {name for advisory in group for name in (advisory.id, *advisory.aliases)}
    severities = [advisory.severity for advisory in group if advisory.severity]
    worst = max(severities, key=SEVERITIES.index, default=UNNAMED)
    summary = next((advisory.summary for advisory in group if advisory.summary), "")
    return Finding(package, _ordered(names), worst, bool(severities), _fixes(package, group), summary)


def _ordered(names: Iterable[str]) -> tuple[str, ...]:
    def rank(name: str) -> tuple[int, str]:
        return next((number for number, start in enumerate(_FIRST) if name.startswith(start)), len(_FIRST)), name

    return tuple(sorted(names, key=rank))


def _fixes(package: Package, group: Sequence[Advisory]) -> tuple[str, ...]:
    """The versions above this one that end a range which holds it."""
    mine, found = versions.key(package.ecosystem, package.version), {}
    for advisory in group:
        for entry in advisory.affected:
            for span in entry["ranges"]:
                if span.get("type") in ("ECOSYSTEM", "SEMVER") and _in_range(span, package):
                    for event in span.get("events") or ():
                        at = _key(package, event["fixed"]) if "fixed" in event else None
                        if at is not None and at > mine:
                            found[at] = str(event["fixed"])
    return tuple(found[at] for at in sorted(found))


def _severity(vectors: Sequence[Mapping[str, Any]], word: str) -> Severity | None:
    """The worst by a vector's score (CVSS 3.1, section 5: qualitative severity), else the database's own word."""
    scores = [score for vector in vectors if (score := _score(vector)) is not None]
    if not scores:
        return _WORDS.get(str(word).upper())
    worst = max(scores)
    return (
        "critical"
        if worst >= 9
        else "high"
        if worst >= 7
        else "medium"
        if worst >= 4
        else "low"
        if worst > 0
        else "unimportant"
    )


def _score(vector: Mapping[str, Any]) -> float | None:
    kind = _SCORES.get(str(vector.get("type")))
    try:
        # Without a threat the base score: the first of what the library gives.
        return float(kind(str(vector.get("score"))).scores()[0]) if kind else None
    except (CVSSError, ValueError, KeyError):
        return None
