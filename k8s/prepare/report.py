"""What a check found, for other programs: JSON of our own, and SARIF 2.1.0 (OASIS), which code hosts show beside the lines."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from k8s.envs.accepted import Accepted, Sorted
from k8s.envs.environment import Environment
from k8s.objects.findings import Finding
from k8s.prepare.rendered import RenderedSet

_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"


def as_json(rendered: RenderedSet, told: Sorted, env: Environment) -> str:
    """The result of a check as one JSON document.

    `findings` and `accepted` hold `rule`, `file`, `line`, `object`, `path`, `what` and `fix`, sorted by file and line; accepted
    ones `reason` and `until` as well. `ended` and `idle` are the entries of `accept` that count no more, or accept nothing;
    `images` says what was written, and the digest that it stands for.
    """
    body = {
        "environment": env.name,
        "kubernetes": env.kubernetes,
        "objects": len(rendered.objects),
        "clean": not told.refused,
        "findings": [_finding(one) for one in told.refused],
        "accepted": [{**_finding(one), "reason": entry.reason, "until": str(entry.until)} for one, entry in told.accepted],
        "ended": [_entry(one) for one in told.ended],
        "idle": [_entry(one) for one in told.idle],
        "images": [{"object": one.title, "written": one.written, "pinned": str(one.pinned)} for one in rendered.pins],
    }
    return json.dumps(body, indent=2, ensure_ascii=False)


def _finding(finding: Finding) -> dict[str, Any]:
    body = dataclasses.asdict(finding)
    return {"rule": body.pop("rule"), "file": body.pop("file"), "line": body.pop("line"), "object": body.pop("title"), **body}


def _entry(entry: Accepted) -> dict[str, Any]:
    return {**dataclasses.asdict(entry), "until": str(entry.until)}


def as_sarif(told: Sorted) -> str:
    """The result of a check as a SARIF log with one run. What is accepted is in it as suppressed."""
    both: list[tuple[Finding, Accepted | None]] = [*((one, None) for one in told.refused), *told.accepted]
    found = sorted(both, key=lambda one: one[0])
    rules = sorted({finding.rule for finding, _ in found})
    run = {
        "tool": {"driver": {"name": "Pinwheel", "rules": [{"id": rule} for rule in rules]}},
        "results": [_result(finding, entry, rules) for finding, entry in found],
        "columnKind": "utf16CodeUnits",
    }
    return json.dumps({"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2, ensure_ascii=False)


def _result(finding: Finding, entry: Accepted | None, rules: Sequence[str]) -> dict[str, Any]:
    place = {"artifactLocation": {"uri": _uri(finding.file)}, "region": {"startLine": finding.line}}
    named = ": ".join(part for part in (finding.title, finding.path) if part)
    location: dict[str, Any] = {"physicalLocation": place}
    if named:
        location["logicalLocations"] = [{"fullyQualifiedName": named}]
    message = f"{f'{named}: ' if named else ''}{finding.what}: {finding.fix}"
    result = {
        "ruleId": finding.rule,
        "ruleIndex": rules.index(finding.rule),
        "level": "error",
        "message": {"text": message},
        "locations": [location],
    }
    if entry:
        result["suppressions"] = [{"kind": "external", "justification": f"{entry.reason} (until {entry.until})"}]
    return result


def _uri(file: str) -> str:
    """A file as a URI: relative to the repository where it lies in it."""
    path = Path(file)
    return path.as_uri() if path.is_absolute() else quote(path.as_posix())
