"""Which boxes each piece of work opens, and that none of them takes for ever.

A piece of work is a rung, or a job that goes on meanwhile. Every wait in a box has its limit; what a rung does beside may
still hang. So who takes too long loses its boxes, and with them what it waits for.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from common import console
from smoke.boxes.box import Box
from smoke.rungs import table

# A limit within the box speaks first, and better.
_GRACE_S = 30.0
_LOOK_S = 1.0
# As `Run.open` is.
Opening = Callable[[str, str, list[str], Mapping[str, str], int], Box]


@dataclass(slots=True)
class _Work:
    """Something under way, since when, what it may take, and the boxes that it opened."""

    name: str
    began: float
    limit: float
    boxes: list[Box] = field(default_factory=list)


class Watch:
    """The book of a run's boxes. A context manager: inside, it looks for who takes too long.

    Args:
        grace: seconds on top of a limit.
    """

    def __init__(self, grace: float = _GRACE_S) -> None:
        self._grace = grace
        self._lock = threading.Lock()
        self._current = threading.local()
        self._works: list[_Work] = []
        self._logs: list[tuple[str, str, Path]] = []
        self._overdue: set[str] = set()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, name="smoke watch", daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._over.set()
        self._thread.join()

    @contextmanager
    def work(self, name: str) -> Iterator[None]:
        """What this thread does inside is of that name.

        Raises:
            ValueError: no rung is about work of that name, so nobody would know when it takes too long.
        """
        work = _Work(name, time.monotonic(), limit(name))
        with self._lock:
            self._works.append(work)
        self._current.work = work
        try:
            yield
        finally:
            self._current.work = None
            with self._lock:
                self._works.remove(work)

    def booked(self, opening: Opening) -> Opening:
        """What opens boxes, booking each for the work of the thread that opens it."""

        def book(name: str, task: str, command: list[str], environment: Mapping[str, str], shm: int) -> Box:
            box = opening(name, task, command, environment, shm)
            work: _Work | None = getattr(self._current, "work", None)
            with self._lock:
                self._logs.append((work.name if work else "", name, box.log))
                if work:
                    if not work.boxes:
                        # Before, it may have waited for other work, which has a limit of its own.
                        work.began = time.monotonic()
                    work.boxes.append(box)
            return box

        return book

    def logs(self, rung: str) -> tuple[Path, ...]:
        """Where the logs are of the boxes that a rung is about: that it opened, that a job of its name did, or its server's."""
        with self._lock:
            found = {log for work, box, log in self._logs if _about(work, rung) or _about(box, rung)}
        return tuple(sorted(found))

    def overdue(self, rung: str) -> bool:
        """Whether work that the rung is about took too long."""
        with self._lock:
            return any(_about(name, rung) for name in self._overdue)

    def _look(self) -> None:
        while not self._over.wait(_LOOK_S):
            now = time.monotonic()
            with self._lock:
                late = [work for work in self._works if now - work.began > work.limit + self._grace]
                boxes = [box for work in late for box in work.boxes]
                self._overdue |= {work.name for work in late if work.boxes}
            for box in boxes:
                try:
                    box.stop()
                except Exception as problem:  # noqa: BLE001 - whatever the engine says, the others are watched on
                    console.debug(f"{box.log.stem} cannot be ended: {problem}")


def limit(work: str) -> float:
    """Seconds that a piece of work may take: a rung's own; a job that several rungs are about has all their time.

    Raises:
        ValueError: no rung is about it.
    """
    found = [known.limit for name, known in table.KNOWN.items() if _about(work, name)]
    if not found:
        raise ValueError(f"no rung of smoke/rungs/table.py is about {work!r}")
    return sum(found)


def _about(work: str, rung: str) -> bool:
    """Whether a rung is about that piece of work: `vllm serve: stop` is about `vllm serve`."""
    return rung == work or rung.startswith(f"{work}: ")
