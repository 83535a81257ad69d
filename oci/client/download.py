"""Fetches a file over the network: whole and checked, or not at all; it can be resumed."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from common.errors import LockError
from oci.client.answer import CHUNK, Stream
from oci.client.patience import Attempts, TransientError
from oci.client.target import host_of

# The ending of a file's name while it is still being fetched.
PART = ".part"
# Seconds between two reports of a long download.
_EVERY = 15.0


class _RestartError(Exception):
    """The bytes so far are of no use: begin again."""


def download(
    ask: Callable[[int], AbstractContextManager[Stream]],
    target: Path,
    size: int,
    sha256: str,
    attempts: Attempts,
    tell: Callable[[str], None],
) -> None:
    """Fetch a file, whole or not at all; continues what a killed run left of it.

    Args:
        ask: asks for the bytes from an offset on (RFC 9110, 14.2); the answer's status is 200, 206 or 416.
        target: the file; it appears only when size and digest are right.
        size: bytes.
        sha256: 64 hex digits.
        attempts: counts failures; a connection that is cut again and again still brings the file, as long as more bytes come.
        tell: called now and then with a line about the progress.

    Raises:
        RegistryError: the server fails.
        LockError: it gives other bytes; they are removed.
    """
    part = target.with_name(target.name + PART)
    part.parent.mkdir(parents=True, exist_ok=True)
    try:
        _fetch(ask, part, target.name, size, sha256, attempts, tell)
        part.replace(target)
    except LockError:
        part.unlink(missing_ok=True)
        raise


def _fetch(
    ask: Callable[[int], AbstractContextManager[Stream]],
    part: Path,
    name: str,
    size: int,
    sha256: str,
    attempts: Attempts,
    tell: Callable[[str], None],
) -> None:
    with open(os.open(part, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644), "rb+") as out:
        digest, have = hashlib.sha256(), 0
        while data := out.read(CHUNK):
            digest.update(data)
            have += len(data)
        # An earlier run may have fetched another version: if its bytes turn out wrong, try once more without them.
        inherited, reported = have > 0, time.monotonic()
        while True:
            try:
                if have > size:
                    raise _RestartError
                if have < size:
                    with ask(have) as stream:
                        _expect_rest(stream, name, size, have)
                        for data in stream.chunks(size - have):
                            out.write(data)
                            digest.update(data)
                            have += len(data)
                            if time.monotonic() > reported + _EVERY:
                                reported = time.monotonic()
                                tell(f"{name}: {have / 1e6:.0f} of {size / 1e6:.0f} MB")
                attempts.reached(have)
                if have < size:
                    raise TransientError("the connection was cut")
                if digest.hexdigest() == sha256:
                    break
                if not inherited:
                    raise LockError(f"{name}: the bytes are not those of sha256 {sha256}", where=str(part.parent))
                raise _RestartError
            except _RestartError:
                inherited = False
                out.seek(0)
                out.truncate()
                digest, have = hashlib.sha256(), 0
                attempts.failed(TransientError("the server gives no range and no whole file"))
            except TransientError as problem:
                attempts.reached(have)
                attempts.failed(problem)
        out.flush()
        os.fsync(out.fileno())


def _expect_rest(stream: Stream, name: str, size: int, have: int) -> None:
    """Check that an answer is the rest of the file.

    Raises:
        LockError: it is another file.
        _RestartError: it begins somewhere else.
    """
    if have and not stream.header("Content-Range").startswith(f"bytes {have}-"):
        raise _RestartError
    length = stream.header("Content-Length")
    if stream.header("Content-Encoding") or (length.isdecimal() and int(length) != size - have):
        raise LockError(f"{name}: {host_of(stream.url)} gives another size than {size}")
