"""The limit: reading, inflating, hashing and compressing the same bytes once, with no image around it.

    python -m bench.images.limit ROLE PROCESSES zlib|isal|isal+bytecode

Each wheel is one piece of work, the base's tar another, the heaviest first: read, sha256 of the file, inflated, sha256 of what
comes out, zstd, sha256 of that; nothing is written. Files that the image leaves out are left out here too. Prints one JSON
object: seconds of each kind, summed over the processes.
"""

from __future__ import annotations

import fnmatch
import functools
import hashlib
import json
import multiprocessing
import resource
import struct
import sys
import time
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import zstandard
from isal import isal_zlib

from common.files import CHUNK
from images import spec
from images.tarball import ZSTD_LEVEL
from images.wheels.bytecode import Compiler
from images.wheels.install import SITE
from lockfiles import lockfile, store
from lockfiles.debian import rootfs

# The ways to inflate: what anyone would write, what we use, and that with what an image needs beyond its files.
ZLIB, ISAL, BYTECODE = "zlib", "isal", "isal+bytecode"
WAYS = (ZLIB, ISAL, BYTECODE)
_INFLATERS: dict[str, Callable[[], Any]] = {
    ZLIB: functools.partial(zlib.decompressobj, wbits=-zlib.MAX_WBITS),
    ISAL: functools.partial(isal_zlib.decompressobj, wbits=-zlib.MAX_WBITS),
}
# Of a local file header (APPNOTE.TXT 4.3.7): the lengths of name and extra field stand at 26.
_LOCAL_HEADER = 30


class _Clock:
    """Seconds by kind of work, of this thread's processor."""

    def __init__(self) -> None:
        self.spent: Counter[str] = Counter()

    def __call__(self, kind: str, work: Callable[[Any], Any], data: object) -> Any:
        """Do a piece of work and book it."""
        started = time.thread_time()
        done = work(data)
        self.spent[kind] += time.thread_time() - started  # type: ignore[assignment]
        return done


def _wheel(way: str, path: Path, left_out: frozenset[str]) -> Counter[str]:
    inflater, clock = _INFLATERS[way.partition("+")[0]], _Clock()
    compressor = zstandard.ZstdCompressor(level=ZSTD_LEVEL, write_checksum=True).compressobj()
    whole, inner, outer = hashlib.sha256(), hashlib.sha256(), hashlib.sha256()
    sources = []
    with path.open("rb") as file:
        while chunk := clock("read", file.read, CHUNK):
            clock("sha256", whole.update, chunk)
        with zipfile.ZipFile(file) as archive:
            for info in sorted(archive.infolist(), key=lambda one: one.header_offset):
                if any(fnmatch.fnmatchcase(info.filename, pattern) for pattern in left_out):
                    continue
                code = bytearray() if way == BYTECODE and info.filename.endswith(".py") else None
                for piece in _inflated(file, info, inflater, clock):
                    clock("sha256", inner.update, piece)
                    clock("sha256", outer.update, clock("zstd", compressor.compress, piece))
                    if code is not None:
                        code += piece
                if code is not None:
                    sources.append((f"/{SITE}/{info.filename}", bytes(code)))
    if sources:
        _compile(sources, compressor, (inner, outer), clock)
    clock("sha256", outer.update, clock("zstd", compressor.flush, zstandard.COMPRESSOBJ_FLUSH_FINISH))
    return clock.spent


def _inflated(file: IO[bytes], info: zipfile.ZipInfo, inflater: Callable[[], Any], clock: _Clock) -> Iterator[bytes]:
    file.seek(info.header_offset)
    name, extra = struct.unpack("<HH", file.read(_LOCAL_HEADER)[26:30])
    file.seek(name + extra, 1)
    left, stream = info.compress_size, inflater() if info.compress_type == zipfile.ZIP_DEFLATED else None
    while left:
        if not (chunk := clock("read", file.read, min(CHUNK, left))):
            raise EOFError(info.filename)
        left -= len(chunk)
        yield clock("inflate", stream.decompress, chunk) if stream else chunk


def _compile(sources: list[tuple[str, bytes]], compressor: Any, digests: tuple[Any, Any], clock: _Clock) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with Compiler(rootfs.made(lockfile.read_base()).tree) as compiler:
        for name, source in sources:
            code = compiler.compile(name, source)
            clock("sha256", digests[0].update, code)
            clock("sha256", digests[1].update, clock("zstd", compressor.compress, code))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    clock.spent["bytecode"] += after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime  # type: ignore[assignment]


def _base(path: Path) -> Counter[str]:
    clock, inner, outer = _Clock(), hashlib.sha256(), hashlib.sha256()
    compressor = zstandard.ZstdCompressor(level=ZSTD_LEVEL, write_checksum=True).compressobj()
    with path.open("rb") as file:
        while chunk := clock("read", file.read, CHUNK):
            clock("sha256", inner.update, chunk)
            clock("sha256", outer.update, clock("zstd", compressor.compress, chunk))
    clock("sha256", outer.update, clock("zstd", compressor.flush, zstandard.COMPRESSOBJ_FLUSH_FINISH))
    return clock.spent


def _piece(way: str, piece: tuple[Path, frozenset[str] | None]) -> Counter[str]:
    path, left_out = piece
    return _base(path) if left_out is None else _wheel(way, path, left_out)


def main(role: str, processes: int, way: str) -> None:
    """Do it all and print what it took."""
    image = spec.read(role)
    pieces: list[tuple[Path, frozenset[str] | None]] = [(rootfs.made(lockfile.read_base()).tar, None)]
    for wheel in lockfile.read_set(image.set).wheels:
        pieces.append((store.path(wheel.artifact), image.rules(wheel.name).left_out))
    pieces.sort(key=lambda piece: -piece[0].stat().st_size)
    spent: Counter[str] = Counter()
    with multiprocessing.Pool(processes) as pool:
        for one in pool.imap_unordered(functools.partial(_piece, way), pieces):
            spent.update(one)
    print(json.dumps(spent))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
