"""Processes that work for this one and end with it, however it ends."""

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

    A block that ends badly, by Ctrl-C or a failed task, does not wait for them: they end at once, in the middle of what they
    do. So they do when this process is killed.

    Args:
        count: of processes.

    Raises:
        BrokenProcessPool: a worker was killed.
    """
    # A fresh process each, not a fork of this one with its threads; it starts in a third of a second.
    context = multiprocessing.get_context("spawn")
    # Nobody writes into this pipe: its end is the end of the one who holds it.
    held, leash = context.Pipe(duplex=False)
    with held, leash:
        executor = ProcessPoolExecutor(count, mp_context=context, initializer=_follow, initargs=(held,))
        try:
            # A terminal sends Ctrl-C to the workers, too; it is this process that answers it.
            before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            try:
                # An executor starts a process when a task comes and none is idle.
                for _ in range(count):
                    executor.submit(os.getpid)
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
            yield executor
        except BaseException:
            leash.close()
            raise
        finally:
            executor.shutdown(cancel_futures=True)


def _follow(leash: Connection) -> None:
    # One that was started later, when Ctrl-C was not held back any more.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(leash,), daemon=True).start()


def _end_with(leash: Connection) -> None:
    leash.poll(None)
    os._exit(1)
