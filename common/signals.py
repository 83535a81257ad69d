"""SIGTERM for runs that have something to clean up."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class TerminatedError(KeyboardInterrupt):
    """SIGTERM came: code that handles Ctrl-C handles it too."""


@contextmanager
def terminable() -> Iterator[None]:
    """Inside the block SIGTERM acts like Ctrl-C, so that a stopped CI job cleans up too."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _terminate(_signal: int, _frame: FrameType | None) -> None:
    raise TerminatedError
