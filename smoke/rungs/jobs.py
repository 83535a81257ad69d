"""Work that goes on while rungs are looked at: rungs that do not stand on each other run together.

A rung that passed starts what stands on it; the rungs of that work wait for it and judge it. Threads are enough: the work
happens in containers. A job may wait for one that was begun before it, never for a later one: with few places that could be
for ever.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Job(Generic[T]):
    """A piece of work under way.

    Attributes:
        seconds: how long it took; 0 until it ended.
    """

    def __init__(self, work: Callable[[], T], pool: ThreadPoolExecutor, around: AbstractContextManager[object]) -> None:
        self.seconds = 0.0
        self._future: Future[T] = pool.submit(self._timed, work, around)

    def _timed(self, work: Callable[[], T], around: AbstractContextManager[object]) -> T:
        began = time.monotonic()
        try:
            with around:
                return work()
        finally:
            self.seconds = time.monotonic() - began

    def result(self) -> T:
        """What the work returns; waits for it, and raises what it raised."""
        return self._future.result()


class Jobs:
    """The jobs of a run, by name. A context manager: leaving it waits for what runs and begins nothing more.

    Args:
        at_once: how many may run together.
        around: made of a job's name, entered in its thread while it works.
    """

    def __init__(self, at_once: int, around: Callable[[str], AbstractContextManager[object]] = nullcontext) -> None:
        self._around = around
        self._pool = ThreadPoolExecutor(at_once, thread_name_prefix="smoke")
        self._jobs: dict[str, Job[Any]] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Jobs:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._pool.shutdown(cancel_futures=True)

    def start(self, name: str, work: Callable[[], T]) -> Job[T]:
        """Begin `work`, or put it in line, unless a job of that name was begun before; from any thread."""
        with self._lock:
            if name not in self._jobs:
                self._jobs[name] = Job(work, self._pool, self._around(name))
            return self._jobs[name]
