"""Folders that hold exactly the files they should: right files are kept, the rest is fetched."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from common.errors import MissingEnvironmentError
from common.files import sha256_file
from oci.client.download import PART

from .program import say

# How many files come at once.
_AT_ONCE = 4


@dataclass(frozen=True, slots=True)
class PinnedFile:
    """A file that must be in a folder.

    Attributes:
        path: below the folder; safe.
        size: bytes.
        sha256: 64 hex digits.
    """

    path: str
    size: int
    sha256: str


def gather(folder: Path, files: Sequence[PinnedFile], fetch: Callable[[PinnedFile, Path], None]) -> None:
    """Make a folder hold these files: right files are kept, the rest is fetched, several at once.

    Args:
        folder: may hold these files and parts of them, nothing else.
        files: the files.
        fetch: fetches a file to a path: whole and checked, or not at all.

    Raises:
        MissingEnvironmentError: there is no space for all.
        PinwheelError: a file cannot be fetched; any error of `fetch`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    missing = [file for file in files if not _is_right(folder / file.path, file)]
    parts = [folder / (file.path + PART) for file in missing]
    demand_space(folder, sum(file.size for file in missing) - sum(part.stat().st_size for part in parts if part.exists()))
    say(f"{len(files) - len(missing)} of {len(files)} files are here, {_size(sum(file.size for file in missing))} to fetch")
    pool = ThreadPoolExecutor(_AT_ONCE)
    try:
        fetched = pool.map(lambda file: fetch(file, folder / file.path), missing)
        for file, _ in zip(missing, fetched, strict=True):
            say(f"fetched {file.path}, {_size(file.size)}")
    finally:
        # After a failure nothing waits for the other files: the process ends.
        pool.shutdown(wait=False, cancel_futures=True)


def _is_right(file: Path, pinned: PinnedFile) -> bool:
    if file.is_symlink() or not file.is_file() or file.stat().st_size != pinned.size:
        return False
    if sha256_file(file) != f"sha256:{pinned.sha256}":
        return False
    file.with_name(file.name + PART).unlink(missing_ok=True)
    return True


def demand_space(folder: Path, needed: int) -> None:
    """Refuse, before the first byte is fetched, what the disk cannot hold.

    Raises:
        MissingEnvironmentError: there is less space.
    """
    free = shutil.disk_usage(folder).free
    if free < needed:
        what = f"{folder} has {free >> 20} MiB free, {needed >> 20} MiB are needed"
        raise MissingEnvironmentError(what, fix="make the volume larger")


def _size(size: int) -> str:
    """A size as people read it."""
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size} bytes"
