"""A layer as it is written: a deterministic tar, compressed with zstd, hashed on both sides of the compressor.

Entries carry no user names, one time for all, and only permission bits; parents come before what they hold. The tar is fed
to the compressor in pieces of one size, so that its bytes do not depend on how they arrived.
"""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Iterable
from typing import IO

import zstandard

from lockfiles.debian.rootfs import EPOCH

# Level 3 is zstd's own default. See docs/adr/0004.
ZSTD_LEVEL = 3
ZSTD_VERSION = ".".join(map(str, zstandard.ZSTD_VERSION))
_PIECE = 1 << 20


class LayerWriteError(OSError):
    """The layer's own file cannot be written; every other OSError comes from what goes into it."""


class LayerWriter:
    """Writes one layer into an open file."""

    def __init__(self, out: IO[bytes]) -> None:
        self._out = out
        self._compressor = zstandard.ZstdCompressor(level=ZSTD_LEVEL, write_checksum=True).compressobj()
        self._inner, self._outer = hashlib.sha256(), hashlib.sha256()
        self._pending, self._filled = memoryview(bytearray(_PIECE)), 0
        self._folders: set[str] = set()
        self.size = 0
        self.unpacked = 0

    def raw(self, data: bytes) -> None:
        """Append bytes of a tar made elsewhere."""
        rest = memoryview(data)
        while room := min(_PIECE - self._filled, len(rest)):
            self._pending[self._filled : self._filled + room] = rest[:room]
            self._filled += room
            rest = rest[room:]
            if self._filled == _PIECE:
                self._flush()

    def file(self, path: str, size: int, chunks: Iterable[bytes], *, mode: int = 0o644, owner: int = 0) -> None:
        """Append a regular file and the folders above it.

        Args:
            path: in the image, relative to the root.
            size: bytes.
            chunks: its content.
            mode: permission bits.
            owner: user and group.

        Raises:
            ValueError: `chunks` hold another number of bytes than `size`.
        """
        self.parents(path)
        self.raw(_header(path, tarfile.REGTYPE, size, mode, owner=owner))
        written = 0
        for chunk in chunks:
            written += len(chunk)
            self.raw(chunk)
        if written != size:
            raise ValueError(f"{path}: {written} bytes instead of {size}")
        self.raw(bytes(-size % tarfile.BLOCKSIZE))

    def folder(self, path: str, *, mode: int = 0o755, owner: int = 0) -> None:
        """Append a folder, once."""
        self.parents(path)
        if path not in self._folders:
            self._folders.add(path)
            self.raw(_header(path, tarfile.DIRTYPE, 0, mode, owner=owner))

    def link(self, path: str, target: str) -> None:
        """Append a symbolic link."""
        self.parents(path)
        self.raw(_header(path, tarfile.SYMTYPE, 0, 0o777, target=target))

    def parents(self, path: str) -> None:
        """Append the folders above `path` that are not there yet."""
        above = path.rpartition("/")[0]
        if above and above not in self._folders:
            self.parents(above)
            self._folders.add(above)
            self.raw(_header(above, tarfile.DIRTYPE, 0, 0o755))

    def has_folder(self, path: str) -> bool:
        """Whether a folder of this path was written."""
        return path in self._folders

    def end(self) -> None:
        """Append tar's end mark, two zero blocks (POSIX.1-2017 pax, "ustar Interchange Format")."""
        self.raw(bytes(2 * tarfile.BLOCKSIZE))

    def diff_id(self) -> str:
        """The digest of the uncompressed bytes, all of which were given: none may follow."""
        self._flush()
        return f"sha256:{self._inner.hexdigest()}"

    def close(self) -> tuple[str, str]:
        """Finish; returns the digests of the compressed and of the uncompressed bytes."""
        diff_id = self.diff_id()
        self._emit(self._compressor.flush())
        return f"sha256:{self._outer.hexdigest()}", diff_id

    def _flush(self) -> None:
        piece, self._filled = self._pending[: self._filled], 0
        self._inner.update(piece)
        self.unpacked += len(piece)
        self._emit(self._compressor.compress(piece))

    def _emit(self, data: bytes) -> None:
        self._outer.update(data)
        self.size += len(data)
        try:
            self._out.write(data)
        except OSError as problem:
            raise LayerWriteError(problem.errno, problem.strerror) from None


def _header(path: str, kind: bytes, size: int, mode: int, *, target: str = "", owner: int = 0) -> bytes:
    info = tarfile.TarInfo(path + "/" if kind == tarfile.DIRTYPE else path)
    info.type, info.size, info.mode, info.mtime, info.linkname = kind, size, mode, EPOCH, target
    info.uid = info.gid = owner
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
