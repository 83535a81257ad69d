"""Worker processes, which end when this process ends, in whatever way."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing.connection import Connection


@contextmanager
def pool(count: int) -> Iterator[ProcessPoolExecutor]:
    """A pool of processes.

    A block that ends by Ctrl-C or a failed task does not wait for them: they end at once, in the middle of their work. They
    also end when this process is killed.

    Args:
        count: of processes.

    Raises:
        BrokenProcessPool: a worker was killed.
    """
    # A fresh process each, not a fork of this one with its threads; it starts in a third of a second.
    context = multiprocessing.get_context("spawn")
    # Nothing is ever written into this pipe: it closes when this process ends, and the workers wait for that.
    parent_alive, lifeline = context.Pipe(duplex=False)
    with parent_alive, lifeline:
        executor = ProcessPoolExecutor(count, mp_context=context, initializer=_follow, initargs=(parent_alive,))
        try:
            # A terminal sends Ctrl-C to the workers too, but only this process shall react to it.
            before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            try:
                # An executor starts a process when a task comes and none is idle.
                for _ in range(count):
                    executor.submit(os.getpid)
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
            yield executor
        except BaseException:
            lifeline.close()
            raise
        finally:
            executor.shutdown(cancel_futures=True)


def _follow(lifeline: Connection) -> None:
    # For a worker that was started later, when Ctrl-C was no longer blocked.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, args=(lifeline,), daemon=True).start()


def _end_with_parent(lifeline: Connection) -> None:
    lifeline.poll(None)
    os._exit(1)
