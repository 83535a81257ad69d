"""Known vulnerabilities of Python packages, from a source that speaks OSV's API (osv.dev, "POST /v1/querybatch").

Asked only for what moved, and only told names and versions. Where no source answers, that is said and nothing fails.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

import requests

from common import console
from common.offline import offline
from lockfiles.changes import Move
from lockfiles.model import Wheel
from lockfiles.python import index

_SOURCE = "https://api.osv.dev"
# OSV's own limit for one query.
_BATCH = 1000


def source() -> str:
    """The address of the advisory source: PINWHEEL_ADVISORIES, else OSV's own; empty for none."""
    return os.environ.get("PINWHEEL_ADVISORIES", _SOURCE).rstrip("/")


def known(wanted: Iterable[tuple[str, str]]) -> dict[tuple[str, str], tuple[str, ...]] | None:
    """The advisories of each (package, version), their identifiers sorted; None where no source answers as one."""
    pairs = sorted(set(wanted))
    found: dict[tuple[str, str], set[str]] = {pair: set() for pair in pairs}
    if not source() or offline():
        return None
    pending: list[tuple[tuple[str, str], str]] = [(pair, "") for pair in pairs]
    try:
        with index.session() as http:
            while pending:
                batch, pending = pending[:_BATCH], pending[_BATCH:]
                queries = [_query(pair, token) for pair, token in batch]
                answer = http.post(f"{source()}/v1/querybatch", json={"queries": queries}, timeout=(5, 30))
                answer.raise_for_status()
                for (pair, _), result in zip(batch, answer.json()["results"], strict=True):
                    found[pair] |= {str(one["id"]) for one in result.get("vulns", [])}
                    if token := result.get("next_page_token"):
                        pending.append((pair, str(token)))
    except (requests.RequestException, KeyError, ValueError, TypeError, AttributeError):
        return None
    return {pair: tuple(sorted(ids)) for pair, ids in found.items()}


def show(moves: Iterable[Move]) -> None:
    """Print which advisories the moves of Python packages fix and which they bring."""
    wheels = [move for move in moves if isinstance(move.old or move.new, Wheel)]
    if not wheels:
        return
    pairs = [(move.name, one.version) for move in wheels for one in (move.old, move.new) if one]
    found = known(pairs)
    if found is None:
        console.warn("advisories: no source answers, so none were looked up (PINWHEEL_ADVISORIES names one)")
        return
    fixed, brought = 0, 0
    for move in wheels:
        old, new = (set(found[move.name, one.version]) if one else set() for one in (move.old, move.new))
        for sign, ids in (("fixed", old - new), ("brought", new - old)):
            if ids:
                console.info(f"advisories {sign} by {move.name}: {', '.join(sorted(ids))}")
        fixed, brought = fixed + len(old - new), brought + len(new - old)
    console.info(f"advisories: {fixed} fixed, {brought} brought")


def _query(pair: tuple[str, str], token: str) -> dict[str, object]:
    query: dict[str, object] = {"package": {"ecosystem": "PyPI", "name": pair[0]}, "version": pair[1]}
    return {**query, "page_token": token} if token else query
