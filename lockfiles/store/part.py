"""A file in the making: `.part-<sha256>` beside the place it will take.

It survives a process that is killed, and another one goes on with it. One process at a time has it: the kernel drops the
lock of a process that ends, however it ends.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import threading
import time
from pathlib import Path
from types import TracebackType

from common import console, ownership
from common.files import CHUNK, FULL
from lockfiles.model import Artifact

PREFIX = ".part-"
ETAG = ".etag"
_POLL = 0.1


class StoppedError(Exception):
    """Another file failed or the user interrupted: this one is given up, and what is there of it stays."""


class Part:
    """Bytes on their way to becoming an artifact, hashed as they come.

    Waits for another process that has the same file in hand. Leaving the `with` block keeps what is there for next time,
    unless the disk is full.

    Args:
        artifact: what it must become.
        target: where it goes then.
        stop: gives up waiting when set.

    Raises:
        StoppedError: `stop` was set.
    """

    def __init__(self, artifact: Artifact, target: Path, stop: threading.Event | None = None) -> None:
        self.artifact, self.size = artifact, 0
        self._target, self._name = target, target.with_name(PREFIX + artifact.sha256)
        self._etag_file = self._name.with_name(self._name.name + ETAG)
        ownership.check(self._etag_file)
        self._digest = hashlib.sha256()
        self._gone = False
        self._file = open(locked(self._name, artifact.file, stop), "r+b", buffering=0)  # noqa: SIM115 - closed by __exit__

    def __enter__(self) -> Part:
        return self

    def __exit__(self, _: type[BaseException] | None, problem: BaseException | None, __: TracebackType | None) -> None:
        # A part of nothing is of no use; and a full disk must be given back what it lacks.
        if not self._gone and (self.size == 0 or (isinstance(problem, OSError) and problem.errno in FULL)):
            self.discard()
        self._file.close()

    def resume(self) -> None:
        """Go on after what an earlier process left; that is hashed first."""
        if os.fstat(self._file.fileno()).st_size > self.artifact.size:
            self.restart()
        buffer = memoryview(bytearray(CHUNK))
        while count := self._file.readinto(buffer):
            self._digest.update(buffer[:count])
            self.size += count

    def restart(self, etag: str = "") -> None:
        """Forget all bytes; those that follow come from what the server calls `etag`."""
        self._file.seek(0)
        self._file.truncate()
        self._digest, self.size = hashlib.sha256(), 0
        if etag:
            self._etag_file.write_text(etag, encoding="latin-1")
        else:
            self._etag_file.unlink(missing_ok=True)

    @property
    def etag(self) -> str:
        """What the server calls the file that the bytes so far are of; empty when it has no name for it."""
        try:
            return self._etag_file.read_text(encoding="latin-1")
        except FileNotFoundError:
            return ""

    def write(self, data: bytes) -> None:
        """Append bytes."""
        rest = memoryview(data)
        while rest:
            count = self._file.write(rest)
            self._digest.update(rest[:count])
            self.size += count
            rest = rest[count:]

    @property
    def sha256(self) -> str:
        """Of the bytes so far."""
        return self._digest.hexdigest()

    def place(self) -> None:
        """Give the file its name; the caller has compared the hash."""
        os.fsync(self._file.fileno())
        self._etag_file.unlink(missing_ok=True)
        self._name.replace(self._target)
        self._gone = True
        # Only now: a read-only part that was left by a kill could not be continued, but by root.
        os.fchmod(self._file.fileno(), 0o444)

    def discard(self) -> None:
        """Remove it."""
        # In this order: nobody else can take the part in hand before its lock is dropped, at the end of the block.
        self._etag_file.unlink(missing_ok=True)
        self._name.unlink(missing_ok=True)
        self._gone = True


def locked(file: Path, shown: str = "", stop: threading.Event | None = None) -> int:
    """Open a file, made where it is missing, and lock it; returns the descriptor that holds the lock.

    Args:
        file: its folder is made, too.
        shown: how to call it when another process has it.
        stop: gives up when set.

    Raises:
        StoppedError: `stop` was set.
    """
    told = False
    while True:
        file.parent.mkdir(parents=True, exist_ok=True)
        fd = ownership.opened(file, os.O_RDWR | os.O_CREAT)
        try:
            while not _take(fd):
                if shown and not told:
                    console.info(f"another process is fetching {shown}; waiting for it")
                    told = True
                if stop is not None and stop.is_set():
                    raise StoppedError
                time.sleep(_POLL)
            # While we waited, the one before us may have given the file its final name, or removed it.
            if _is(fd, file):
                return fd
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def in_use(file: Path) -> bool:
    """Whether a living process holds the file's lock; one that nobody holds is removed."""
    try:
        fd = ownership.opened(file, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        if not _take(fd):
            return True
        if _is(fd, file):
            file.with_name(file.name + ETAG).unlink(missing_ok=True)
            file.unlink()
        return False
    finally:
        os.close(fd)


def _take(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is(fd: int, file: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), file.stat())
    except FileNotFoundError:
        return False
