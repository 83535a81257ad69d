"""A source tree as a source archive (.tar.gz, PEP 517) whose bytes follow from the files alone, on every machine."""

from __future__ import annotations

import io
import stat
import struct
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from common.errors import LockError, MissingEnvironmentError
from common.run import run
from lockfiles.debian import rootfs

_BLOCK = 0xFFFF
# Leftovers of builds and tools, in a folder that git does not tell about.
_LEFT = ("__pycache__", "build", "dist", "node_modules", "venv")


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of a tree.

    Attributes:
        path: below its root, with `/`.
        data: its bytes; empty for a link.
        link: where a symbolic link leads; empty for a file.
        runs: whether it may be executed.
    """

    path: str
    data: bytes = b""
    link: str = ""
    runs: bool = False


def pack(name: str, version: str, entries: list[Entry]) -> tuple[str, bytes]:
    """File name and bytes of the source archive of a tree.

    Where the tree has no PKG-INFO, as an sdist must, it gets one: from it a backend that would ask git knows the version.
    """
    top = f"{name.replace('-', '_')}-{version}"
    if "PKG-INFO" not in {entry.path for entry in entries}:
        about = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        entries = [*entries, Entry("PKG-INFO", about.encode())]
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for entry in sorted(entries, key=lambda entry: entry.path):
            info = tarfile.TarInfo(f"{top}/{entry.path}")
            info.mtime, info.mode, info.size = rootfs.EPOCH, 0o755 if entry.runs else 0o644, len(entry.data)
            if entry.link:
                info.type, info.linkname = tarfile.SYMTYPE, entry.link
            archive.addfile(info, io.BytesIO(entry.data))
    return f"{top}.tar.gz", _gzip(held.getvalue())


def _gzip(data: bytes) -> bytes:
    """A gzip member (RFC 1952) of stored blocks (RFC 1951, 3.2.4): what zlib makes of the same bytes depends on its version."""
    parts = [b"\x1f\x8b\x08\0\0\0\0\0\0\xff"]
    for start in range(0, len(data), _BLOCK):
        block = data[start : start + _BLOCK]
        last = start + _BLOCK >= len(data)
        parts += [struct.pack("<BHH", last, len(block), len(block) ^ 0xFFFF), block]
    return b"".join([*parts, struct.pack("<II", zlib.crc32(data), len(data) & 0xFFFFFFFF)])


def of_folder(folder: Path) -> list[Entry]:
    """The files of a folder: in a git checkout those that git does not ignore, else all but hidden ones and leftovers.

    Raises:
        LockError: it holds something that is neither a file nor a link.
    """
    listed = _of_git(folder) or sorted(_walk(folder))
    entries = []
    for path in listed:
        file = folder / path
        if file.is_symlink():
            entries.append(Entry(path, link=str(file.readlink())))
        elif file.is_file():
            entries.append(Entry(path, file.read_bytes(), runs=bool(file.stat().st_mode & stat.S_IXUSR)))
        elif file.exists():
            fix = "a repository inside of it is not pinned: put plain files there"
            raise LockError(f"{path!r} is no plain file", where=str(folder), fix=fix)
    return entries


def of_tar(file: Path) -> list[Entry]:
    """The files of a tar archive."""
    entries = []
    with tarfile.open(file) as archive:
        for member in archive:
            if member.issym():
                entries.append(Entry(member.name, link=member.linkname))
            elif member.isreg() and (data := archive.extractfile(member)):
                entries.append(Entry(member.name, data.read(), runs=bool(member.mode & stat.S_IXUSR)))
    return entries


def _of_git(folder: Path) -> list[str]:
    """What git tracks there, and what it would; nothing outside git."""
    argv: list[str | Path] = [
        "git",
        "-c",
        "safe.directory=*",
        "-C",
        folder,
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
    ]
    try:
        said = run(argv)
    except MissingEnvironmentError:
        return []
    return sorted(set(filter(None, said.stdout.split("\0")))) if said.code == 0 else []


def _walk(folder: Path) -> Iterator[str]:
    for file in folder.rglob("*"):
        path = file.relative_to(folder)
        if any(part.startswith(".") or part in _LEFT or part.endswith(".egg-info") for part in path.parts):
            continue
        if file.is_symlink() or not file.is_dir():
            yield path.as_posix()
