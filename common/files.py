"""Writes files whole or not at all, and computes their digests."""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

CHUNK = 1 << 20
# Errors of a full disk, quota or limit.
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
# The ending of a file's name while it is written; the name then starts with a dot.
PART = ".part"


@contextmanager
def replacing(path: Path, mode: int = 0o644) -> Iterator[IO[bytes]]:
    """Open a new file that takes the place of `path` when the block ends well, and vanishes when it does not.

    The bytes are on disk before the name is, and the name before this returns: a crash leaves the old file or the new one,
    never half of one, and what was written first is there first.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    fd, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=PART)
    try:
        with os.fdopen(fd, "wb") as out:
            yield out
            settle(out, mode)
        Path(name).replace(path)
        sync_folder(path.parent)
    except BaseException as problem:
        Path(name).unlink(missing_ok=True)
        if isinstance(problem, OSError) and problem.errno in FULL:
            # The error of a failed write does not name the file.
            problem.filename = str(path)
        raise


def settle(out: IO[bytes], mode: int = 0o644) -> None:
    """Bring an open file to its mode and onto the disk: from here on it may get its name."""
    out.flush()
    os.fchmod(out.fileno(), mode)
    os.fsync(out.fileno())


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder onto the disk (fsync(2), "does not necessarily ensure that the entry in the directory")."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_whole(path: Path, data: bytes | str, mode: int = 0o644) -> None:
    """Write `data` to `path`, whole or not at all."""
    with replacing(path, mode) as out:
        out.write(data.encode() if isinstance(data, str) else data)


def sha256_bytes(data: bytes) -> str:
    """`sha256:…` of `data`."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """`sha256:…` of the file's bytes.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


def unsafe_path(path: str, longest: int) -> str:
    """Why a path that a stranger names must not be written below a folder, or nothing.

    Args:
        path: relative, with `/` between its parts.
        longest: bytes that it may have.
    """
    if not path or len(path.encode(errors="replace")) > longest:
        return f"it is empty, or longer than {longest} bytes"
    if not path.isprintable() or "\\" in path:
        return "it holds a backslash or an unprintable character"
    if any(part in {"", ".", ".."} for part in path.split("/")):
        return "it is absolute, or leads elsewhere"
    return ""
