"""The summary of a chain of stages, printed at its end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from common import console

_FAILED = "failed"


class Summary:
    """Collects each stage's time and outcome while they run."""

    def __init__(self) -> None:
        self._rows: list[tuple[str, str, float]] = []

    @contextmanager
    def stage(self, name: str) -> Iterator[list[str]]:
        """Time a stage. The block appends the outcome to the list; if it appends nothing, the stage counts as failed."""
        console.title(name)
        started, outcome = time.monotonic(), list[str]()
        try:
            yield outcome
        finally:
            self._rows.append((name, "; ".join(outcome) or _FAILED, time.monotonic() - started))

    def show(self) -> None:
        """Print the summary of a chain; of a single stage its outcome."""
        if len(self._rows) < 2:
            for _, outcome, duration in self._rows:
                if outcome != _FAILED:
                    console.done(f"{outcome}  ({console.seconds(duration)})")
            return
        console.title("summary")
        total = sum(seconds for _, _, seconds in self._rows)
        rows = [(name, outcome, console.seconds(seconds)) for name, outcome, seconds in self._rows]
        console.table(("stage", "outcome", "time"), [*rows, ("", "", console.seconds(total))], right=(2,))
