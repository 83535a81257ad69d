"""Zip archives written field by field (APPNOTE 6.3, 4.3.7 to 4.3.16), so that each field can lie; and wheels made of them."""

from __future__ import annotations

import hashlib
import stat
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lockfiles import store
from lockfiles.model import Artifact
from tests.images.wheels.wheels import record_line

UTF8 = 0x800
FILE = stat.S_IFREG | 0o644
INFO = "one-1.0.dist-info"


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry; what is not given is told truly.

    Attributes:
        name: in both headers, unless `local_name` is given.
        data: unpacked.
        mode: type and permissions, Unix.
        method: 8 deflates; any other number stores.
        flags: in both headers, unless `local_flags` is given.
        packed: the bytes in the archive, instead of those that `data` makes.
        size, packed_size, crc, offset: what the central directory claims.
        local_size: what the local header claims.
        extra: the central directory's extra field.
        gap: bytes before the local header.
        hidden: leave it out of the central directory.
        ghost: put no local header and no bytes into the archive.
    """

    name: str | bytes
    data: bytes = b""
    mode: int = FILE
    method: int = 8
    flags: int = UTF8
    local_name: str | bytes | None = None
    local_flags: int | None = None
    packed: bytes | None = None
    size: int | None = None
    packed_size: int | None = None
    crc: int | None = None
    offset: int | None = None
    local_size: int | None = None
    extra: bytes = b""
    gap: bytes = b""
    hidden: bool = False
    ghost: bool = False


def deflated(data: bytes) -> bytes:
    """A raw deflate stream (RFC 1951)."""
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


def archive(
    entries: Iterable[Entry],
    *,
    before: bytes = b"",
    after: bytes = b"",
    comment: bytes = b"",
    count: int | None = None,
    disk: int = 0,
) -> bytes:
    """An archive; `count` and `disk` are what its end claims, `before` and `after` lie around it."""
    body, central, number = bytearray(), bytearray(), 0
    for one in entries:
        name, local = _raw(one.name), _raw(one.name if one.local_name is None else one.local_name)
        packed = one.packed if one.packed is not None else deflated(one.data) if one.method == 8 else one.data
        crc = zlib.crc32(one.data) if one.crc is None else one.crc
        size = len(one.data) if one.size is None else one.size
        packed_size = len(packed) if one.packed_size is None else one.packed_size
        body += one.gap
        offset = len(body) if one.offset is None else one.offset
        if not one.ghost:
            flags = one.flags if one.local_flags is None else one.local_flags
            told = size if one.local_size is None else one.local_size
            head = (b"PK\3\4", 20, flags, one.method, 0, 0x21, crc, packed_size & 0xFFFFFFFF, told & 0xFFFFFFFF, len(local), 0)
            body += struct.pack("<4s5H3I2H", *head) + local + packed
        if not one.hidden:
            number += 1
            made, needed = 0x0314, 20
            sizes = (crc, packed_size, size, len(name), len(one.extra), 0, 0, 0, one.mode << 16, offset)
            kind = (b"PK\1\2", made, needed, one.flags, one.method, 0, 0x21)
            central += struct.pack("<4s6H3I5H2I", *kind, *sizes) + name + one.extra
    said = number if count is None else count
    end = struct.pack("<4s4H2IH", b"PK\5\6", disk, disk, said, said, len(central), len(body), len(comment))
    return before + bytes(body + central) + end + comment + after


def _raw(name: str | bytes) -> bytes:
    return name if isinstance(name, bytes) else name.encode("utf-8", "surrogateescape")


METADATA = b"Metadata-Version: 2.1\nName: one\nVersion: 1.0\n"
WHEEL = b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
GOOD = {"one/a.py": b"a = 1\n"}


def entries(
    files: Mapping[str, bytes] = GOOD,
    *,
    extra: Iterable[Entry] = (),
    info: str = INFO,
    metadata: bytes = METADATA,
    entry_points: str | bytes = "",
    record: str | bytes | None = None,
    rows: str = "",
) -> list[Entry]:
    """The entries of a wheel; RECORD tells the truth of `files` and `extra` and adds `rows`, unless `record` replaces it."""
    inside = {**files, f"{info}/METADATA": metadata, f"{info}/WHEEL": WHEEL}
    if entry_points:
        inside[f"{info}/entry_points.txt"] = entry_points.encode() if isinstance(entry_points, str) else entry_points
    all_of_it = [*(Entry(path, data) for path, data in inside.items()), *extra]
    if record is None:
        listed = {one.name if isinstance(one.name, str) else one.name.decode("latin-1"): one.data for one in all_of_it}
        record = "".join(record_line(path, data) for path, data in listed.items() if not path.endswith("/"))
        record += f"{rows}{info}/RECORD,,\n"
    raw = record.encode("utf-8", "surrogateescape") if isinstance(record, str) else record
    return [*all_of_it, Entry(f"{info}/RECORD", raw)]


def save(folder: Path, data: bytes, name: str = "one-1.0-py3-none-any.whl") -> Path:
    """Write an archive as a wheel."""
    path = folder / name
    path.write_bytes(data)
    return path


@contextmanager
def placed(path: Path) -> Iterator[None]:
    """Have a wheel in the store for a while, without the store's care for the disk: thousands of them are made."""
    data = path.read_bytes()
    place = store.path(Artifact(path.name, len(data), hashlib.sha256(data).hexdigest()))
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(data)
    try:
        yield
    finally:
        place.unlink(missing_ok=True)
