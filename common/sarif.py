"""SARIF 2.1.0 (OASIS, sarif-v2.1.0): findings as code hosts and editors read them, in a deterministic order."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

Level = Literal["error", "warning", "note"]
_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"


@dataclass(frozen=True, slots=True, order=True)
class Result:
    """One finding.

    Attributes:
        rule: what was violated; stable between runs.
        text: what is wrong and what to do.
        file: relative to the repository; empty: it is about no file.
        line: from 1; 0: about the whole file.
        level: `note` does not fail a check.
    """

    rule: str
    text: str
    file: str = ""
    line: int = 0
    level: Level = "error"


def document(command: str, results: Iterable[Result]) -> str:
    """The findings of one command, as JSON.

    Args:
        command: that found them: `check`.
        results: in any order.
    """
    found = sorted(results)
    rules = [{"id": rule} for rule in sorted({result.rule for result in found})]
    driver = {"name": f"pinwheel {command}", "rules": rules}
    run = {"tool": {"driver": driver}, "results": [_result(result) for result in found]}
    return json.dumps({"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2) + "\n"


def _result(result: Result) -> dict[str, Any]:
    body: dict[str, Any] = {"ruleId": result.rule, "level": result.level, "message": {"text": result.text}}
    if result.file:
        place: dict[str, Any] = {"artifactLocation": {"uri": result.file}}
        place |= {"region": {"startLine": result.line}} if result.line else {}
        body["locations"] = [{"physicalLocation": place}]
    return body
