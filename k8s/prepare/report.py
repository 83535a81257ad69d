"""What a check found, for other programs: JSON of our own, and SARIF 2.1.0 (OASIS), which code hosts show beside the lines."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from common import sarif
from k8s.envs.accepted import Accepted, Sorted
from k8s.envs.environment import Environment
from k8s.objects.findings import Finding
from k8s.prepare.rendered import RenderedSet


def as_json(rendered: RenderedSet, told: Sorted, env: Environment, unasked: Sequence[str] = ()) -> str:
    """The result of a check as one JSON document.

    `findings` and `accepted` hold `rule`, `file`, `line`, `object`, `path`, `what` and `fix`, sorted by file and line; accepted
    ones `reason` and `until` as well. `ended` and `idle` are the entries of `accept` that count no more, or accept nothing;
    `unasked` says what the environment's server could not judge, where it was asked; `images` says what was written, and the
    digest that it stands for.
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
        "unasked": list(unasked),
        "images": [{"object": one.title, "written": one.written, "pinned": str(one.pinned)} for one in rendered.pins],
    }
    return json.dumps(body, indent=2, ensure_ascii=False)


def _finding(finding: Finding) -> dict[str, Any]:
    body = dataclasses.asdict(finding)
    return {"rule": body.pop("rule"), "file": body.pop("file"), "line": body.pop("line"), "object": body.pop("title"), **body}


def _entry(entry: Accepted) -> dict[str, Any]:
    return {**dataclasses.asdict(entry), "until": str(entry.until)}


def as_sarif(told: Sorted) -> str:
    """The result of a check as SARIF. What is accepted is in it as suppressed."""
    both: list[tuple[Finding, Accepted | None]] = [*((one, None) for one in told.refused), *told.accepted]
    return sarif.document(_result(finding, entry) for finding, entry in both)


def _result(finding: Finding, entry: Accepted | None) -> sarif.Result:
    named = ": ".join(part for part in (finding.title, finding.path) if part)
    text = f"{f'{named}: ' if named else ''}{finding.what}: {finding.fix}"
    why = f"{entry.reason} (until {entry.until})" if entry else ""
    return sarif.Result(finding.rule, text, finding.file, finding.line, named, suppressed=why)
