"""SARIF 2.1.0 (OASIS): findings as code hosts and editors show them beside the lines, in a deterministic order."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

Level = Literal["error", "warning", "note"]
_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"


@dataclass(frozen=True, slots=True)
class Result:
    """One finding.

    Attributes:
        rule: what was violated; stable between runs.
        text: what is wrong and what to do.
        file: relative to the repository, or absolute; empty: it is about no file.
        line: from 1; 0: about the whole file.
        named: the object or part that it is about.
        level: `note` does not fail a check.
        suppressed: why it is accepted; empty: it is not.
    """

    rule: str
    text: str
    file: str = ""
    line: int = 0
    named: str = ""
    level: Level = "error"
    suppressed: str = ""


def document(results: Iterable[Result]) -> str:
    """The findings of one command as a log with one run, sorted by file and line."""
    found = sorted(results, key=lambda one: (one.file, one.line, one.rule, one.named, one.text))
    rules = sorted({result.rule for result in found})
    run = {
        "tool": {"driver": {"name": "Pinwheel", "rules": [{"id": rule} for rule in rules]}},
        "results": [_result(result, rules) for result in found],
        "columnKind": "utf16CodeUnits",
    }
    return json.dumps({"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2, ensure_ascii=False)


def _result(result: Result, rules: Sequence[str]) -> dict[str, Any]:
    body: dict[str, Any] = {"ruleId": result.rule, "ruleIndex": rules.index(result.rule), "level": result.level}
    body["message"] = {"text": result.text}
    location: dict[str, Any] = {}
    if result.file:
        location["physicalLocation"] = {"artifactLocation": {"uri": _uri(result.file)}}
        if result.line:
            location["physicalLocation"]["region"] = {"startLine": result.line}
    if result.named:
        location["logicalLocations"] = [{"fullyQualifiedName": result.named}]
    if location:
        body["locations"] = [location]
    if result.suppressed:
        body["suppressions"] = [{"kind": "external", "justification": result.suppressed}]
    return body


def _uri(file: str) -> str:
    """A file as a URI: relative to the repository where it lies in it."""
    path = Path(file)
    return path.as_uri() if path.is_absolute() else quote(path.as_posix())
