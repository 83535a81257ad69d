"""How long a client waits, how often it tries again, and how much it does at once."""

from __future__ import annotations

import email.utils
import random
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from common.errors import RegistryError

_Read = TypeVar("_Read")
# Fewer bytes than this between two failures are no progress: a connection that breaks after every few bytes ends in an error.
_PROGRESS = 1 << 20


class UnusableError(RegistryError):
    """One thing in a registry is not to be had, whoever asks: it is missing, too large, or has other bytes.

    Args:
        what, where, fix: as of every error.
        why: the reason in a few words that go on after the thing's name.
    """

    def __init__(self, what: str, *, where: str = "", fix: str = "", why: str = "") -> None:
        super().__init__(what, where=where, fix=fix)
        self.why = why or what


class TransientError(Exception):
    """A failure that may pass by itself: a cut connection, a busy or overloaded server.

    Args:
        reason: what happened, in a few words that hold no secret.
        wait: seconds the server asks to wait; 0 where it does not.
        fix: what the user can do where it does not pass; empty: what is usual.
    """

    def __init__(self, reason: str, wait: float = 0, fix: str = "") -> None:
        self.reason, self.wait, self.fix = reason, wait, fix
        super().__init__(reason)


class StoppedError(Exception):
    """Another part of the push failed."""


@dataclass(frozen=True, slots=True)
class Patience:
    """Bounds of one client.

    Attributes:
        tries: failures in a row, without progress between them, that end in an error.
        pause: seconds after the first failure; doubles with each that follows.
        longest: seconds of the longest pause that doubling leads to.
        longest_wait: seconds; a server that asks to wait longer (Retry-After) is given up.
        connect: seconds to make a connection, and to send each piece.
        read: seconds until an answer comes.
        commit: seconds until the answer to a blob's last request comes: some registries then read all of it once more.
        chunk: bytes of one PATCH; what is lost at most with a registry that keeps no part of a request.
        parallel: requests and uploads at the same time.
        readable: seconds until what a registry took can surely be read: replicas and caches follow after a while.
        tell: called with a short text for each failure after which another try follows.
        warn: called with a line about what is odd and stops nothing.
    """

    tries: int = 6
    pause: float = 0.5
    longest: float = 20
    longest_wait: float = 300
    connect: float = 30
    read: float = 60
    commit: float = 600
    chunk: int = 32 << 20
    parallel: int = 4
    readable: float = 30
    tell: Callable[[str], None] = lambda _: None
    warn: Callable[[str], None] = lambda _: None


# For questions asked on the side, which are not worth waiting for.
ONCE = Patience(tries=1, connect=5, read=20)


class Attempts:
    """Counts the failures of one action and waits between them (exponential backoff with full jitter).

    Args:
        patience: bounds.
        action: what is tried, for the error message.
        where: the place in the error message.
        stop: when set, waiting ends.
        sends: whether something is sent, for the error message.
    """

    def __init__(self, patience: Patience, action: str, where: str, stop: threading.Event, *, sends: bool = False) -> None:
        self._patience, self._action, self._where, self._stop = patience, action, where, stop
        self._again = ": what arrived is not sent twice" if sends else ""
        self._failures, self._best = 0, 0

    def reached(self, offset: int) -> None:
        """Note how many bytes arrived; enough more than ever before sets the count of failures to zero."""
        if offset >= self._best + _PROGRESS:
            self._best, self._failures = offset, 0

    def failed(self, problem: TransientError) -> None:
        """Wait before the next try.

        Raises:
            RegistryError: this was the last try.
            StoppedError: `stop` was set.
        """
        if self._stop.is_set():
            raise StoppedError
        self._failures += 1
        if self._failures >= self._patience.tries or problem.wait > self._patience.longest_wait:
            wish = f", and asks to wait {problem.wait:.0f} s" if problem.wait else ""
            times = f" {self._failures} times in a row" if self._failures > 1 else ""
            what = f"{self._action} failed{times}: {problem.reason}{wish}"
            fix = problem.fix or f"check the server and the network, then run it again{self._again}"
            raise RegistryError(what, where=self._where, fix=fix)
        pause = min(self._patience.longest, self._patience.pause * 2 ** (self._failures - 1))
        # At least as long as the server asks; else a random time, so that clients that failed together do not return together.
        wait = max(problem.wait, random.uniform(pause / 2, pause))  # noqa: S311
        self._patience.tell(f"{self._action}: {problem.reason}; again in {wait:.0f} s")
        if self._stop.wait(wait):
            raise StoppedError


def asked_to_wait(headers: Mapping[str, str]) -> float:
    """Seconds of a Retry-After header, in either of its forms (RFC 9110, 10.2.3); 0 without one."""
    text = headers.get("Retry-After", "").strip()
    if re.fullmatch(r"[0-9]{1,9}(\.[0-9]*)?", text):
        return float(text)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError):
        return 0


def settled(read: Callable[[], _Read], expected: _Read, patience: Patience) -> _Read:
    """What a reader finds, once what was pushed can be read; for a while it may be missing, or be what was there before.

    Raises:
        RegistryError: it cannot be read.
    """
    end, pause = time.monotonic() + patience.readable, patience.pause
    while True:
        try:
            found = read()
            if found == expected or time.monotonic() >= end:
                return found
        except RegistryError:
            if time.monotonic() >= end:
                raise
        time.sleep(pause)
        pause = min(2 * pause, patience.longest)
