"""Files that come over the network: whole, checked and resumable, or not at all."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from . import wire
from .wire import CHUNK, ENVIRONMENT, LOCK, REGISTRY, Answer, RefusedError, TransientError

# How the name of a file ends that is still being fetched.
PART = ".part"
# How many files come at once, and how often a long one is heard of, in seconds.
_AT_ONCE, _EVERY = 4, 15.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """A file that has to be there.

    Attributes:
        path: below the folder; safe.
        size: bytes.
        sha256: 64 hex digits.
    """

    path: str
    size: int
    sha256: str


def gather(folder: Path, wanted: Sequence[Wanted], fetch: Callable[[Wanted, Path], None]) -> None:
    """Make a folder hold these files: what is there and right is kept, the rest is fetched, several at once.

    Args:
        folder: holds nothing else but files in the making.
        wanted: the files.
        fetch: fetches one of them to a path; whole, checked, or not at all.

    Raises:
        RefusedError: a file cannot be had, or there is no space for all.
    """
    folder.mkdir(parents=True, exist_ok=True)
    missing = [one for one in wanted if not _is_there(folder / one.path, one)]
    parts = [folder / (one.path + PART) for one in missing]
    demand_space(folder, sum(one.size for one in missing) - sum(part.stat().st_size for part in parts if part.exists()))
    wire.say(
        f"{len(wanted) - len(missing)} of {len(wanted)} files are here, {_shown(sum(one.size for one in missing))} to fetch"
    )
    pool = ThreadPoolExecutor(_AT_ONCE)
    try:
        done = pool.map(lambda one: fetch(one, folder / one.path), missing)
        for one, _ in zip(missing, done, strict=True):
            wire.say(f"fetched {one.path}, {_shown(one.size)}")
    finally:
        # After a failure nothing is waited for: the process ends.
        pool.shutdown(wait=False, cancel_futures=True)


def _is_there(file: Path, wanted: Wanted) -> bool:
    if file.is_symlink() or not file.is_file() or file.stat().st_size != wanted.size or sha256_of(file) != wanted.sha256:
        return False
    file.with_name(file.name + PART).unlink(missing_ok=True)
    return True


def download(
    ask: Callable[[int], AbstractContextManager[Answer]], target: Path, size: int, sha256: str, code: int = REGISTRY
) -> None:
    """Fetch a file, whole or not at all; what a killed run left of it is gone on from.

    Args:
        ask: asks for the bytes from an offset on (RFC 9110, 14.2); answers with 200 or 206.
        target: gets its name when size and digest are right.
        size: bytes.
        sha256: 64 hex digits.
        code: the exit code where the server fails.

    Raises:
        RefusedError: the server fails, or gives other bytes; or there is no space.
    """
    part = target.with_name(target.name + PART)
    part.parent.mkdir(parents=True, exist_ok=True)
    try:
        with open(os.open(part, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644), "rb+") as out:
            digest, have = hashlib.sha256(), 0
            while data := out.read(CHUNK):
                digest.update(data)
                have += len(data)
            # Another run's bytes may be of another time: where they turn out wrong, one go without them is owed.
            inherited = have > 0
            failures, heard = 0, time.monotonic()
            while True:
                before = have
                try:
                    if have > size:
                        raise _RestartError
                    if have < size:
                        with ask(have) as answer:
                            if have and not answer.header("Content-Range").startswith(f"bytes {have}-"):
                                raise _RestartError
                            told = answer.header("Content-Length")
                            if answer.header("Content-Encoding") or (told.isdecimal() and int(told) != size - have):
                                raise RefusedError(
                                    f"{target.name}: {wire.host_of(answer.url)} gives another size than {size}", LOCK
                                )
                            for data in answer.chunks(size - have):
                                out.write(data)
                                digest.update(data)
                                have += len(data)
                                if time.monotonic() > heard + _EVERY:
                                    heard = time.monotonic()
                                    wire.say(f"{target.name}: {_shown(have)} of {_shown(size)}")
                    if have < size:
                        raise TransientError("the connection was cut")
                    if digest.hexdigest() == sha256:
                        break
                    if not inherited:
                        raise RefusedError(f"{target.name}: the bytes are not those of sha256 {sha256}", LOCK)
                    raise _RestartError
                except _RestartError:
                    inherited = False
                    out.seek(0)
                    out.truncate()
                    digest, have = hashlib.sha256(), 0
                    failures += 1
                    if failures >= wire.TRIES:
                        raise RefusedError(f"{target.name}: the server gives no range and no whole file", code) from None
                except TransientError as problem:
                    # A line that is cut again and again still brings the file, as long as something comes each time.
                    failures = 1 if have - before >= CHUNK else failures + 1
                    if failures >= wire.TRIES:
                        raise RefusedError(f"{target.name} failed {wire.TRIES} times, at last: {problem}", code) from None
                    wire.pause(failures, problem, target.name)
            out.flush()
            os.fsync(out.fileno())
        part.replace(target)
    except RefusedError as problem:
        if problem.code == LOCK:
            part.unlink(missing_ok=True)
        raise


def sha256_of(file: Path) -> str:
    """64 hex digits."""
    with file.open("rb") as data:
        return hashlib.file_digest(data, "sha256").hexdigest()


def demand_space(folder: Path, needed: int) -> None:
    """Refuse before the first byte what the disk cannot hold.

    Raises:
        RefusedError: there is less space.
    """
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise RefusedError(
            f"{folder} has {free >> 20} MiB free, {needed >> 20} MiB are needed: make the volume larger", ENVIRONMENT
        )


def _shown(size: int) -> str:
    """A size as people read it."""
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size} bytes"


class _RestartError(Exception):
    """The bytes so far are of no use."""
