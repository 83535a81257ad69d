"""Zip archives, read strictly and fast: the central directory by `zipfile`, the entries by Intel's ISA-L.

Source of the format: PKWARE's APPNOTE.TXT 6.3. One archive has one reading here: what another reader might understand
differently (a name that is not the same in both headers, entries that overlap) is refused, not interpreted.
"""

from __future__ import annotations

import os
import stat
import struct
import zipfile
from collections.abc import Iterator
from typing import BinaryIO, cast
from zipfile import ZipInfo

from isal import igzip_lib, isal_zlib
from isal.igzip_lib import DECOMP_DEFLATE, IgzipDecompressor

from common.files import CHUNK

# What is read at once; deflate's ratio is at most 1032, so what comes of it is limited apart.
_READ = 1 << 18
# APPNOTE 4.3.7, up to the name.
_LOCAL = struct.Struct("<4s5H3L2H")
# 4.4.4. Encrypted, in any of three ways; how hard the compressor tried; sizes that follow the bytes; names in UTF-8.
_ENCRYPTED, _LEVEL, _FOLLOWED, _UTF8 = 0x2041, 0x6, 0x8, 0x800
_KNOWN = _LEVEL | _FOLLOWED | _UTF8
# 4.3.9: checksum and two sizes, of four or eight bytes, with or without a mark.
_DESCRIPTORS = (12, 16, 20, 24)
# 4.6.9: a name that some readers take instead of the header's.
_OTHER_NAME = 0x7075
# 4.3.12 and 4.3.16 up to names and comment; 4.3.14 and 4.3.15 together.
_CENTRAL, _END, _END64 = 46, struct.Struct("<4s4H2LH"), 56 + 20
# Bytes. The largest wheel in use unpacks to 1.7 GB and none to more than ten times its size; deflate could do 1032.
_LARGEST, _SMALL, _RATIO = 32 << 30, 64 << 20, 100
# Of what is read as a whole: METADATA, RECORD; the largest is 1.3 MB.
_WHOLE = 32 << 20
# A local header's own extra field is rarely longer; if it is, it is read apart.
_EXTRA = 128
# Typed as an exception, not as a class of them.
_InflateError = cast("type[Exception]", igzip_lib.IsalError)


class ArchiveError(ValueError):
    """The archive is broken, or can be understood in two ways.

    Attributes:
        path: of the entry; empty for the archive as a whole.
        why: goes on after the path.
    """

    def __init__(self, path: str, why: str) -> None:
        super().__init__(f"{path} {why}".strip())
        self.path, self.why = path, why


class Archive:
    """An open archive.

    Args:
        file: open; it is read by position, so that nothing else put in its place counts.

    Attributes:
        entries: its files by name, sorted; folders are left out.
        names: of all entries; folders end with a slash.

    Raises:
        ArchiveError: see there.
        zipfile.BadZipFile: it is no archive.
        OSError: it cannot be read.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        with zipfile.ZipFile(file) as directory:
            infos, end = directory.infolist(), directory.start_dir
        self.names = tuple(info.filename for info in infos)
        self.entries = _checked(infos)
        _check_amount(infos, os.fstat(file.fileno()).st_size)
        self._after = _places(infos, end)
        for info in infos:
            if info.is_dir():
                self._check_local(info, os.pread(file.fileno(), _LOCAL.size + len(_raw(info)), info.header_offset))
        _check_end(file.fileno(), infos, end)

    def read(self, path: str) -> bytes:
        """A whole file.

        Raises:
            KeyError: there is none.
            ArchiveError: as `chunks`; or it is too large to be held in memory.
        """
        if self.entries[path].file_size > _WHOLE:
            raise ArchiveError(path, "is too large for what it is")
        return b"".join(self.chunks(self.entries[path]))

    def chunks(self, info: ZipInfo) -> Iterator[bytes]:
        """The bytes of one file, in pieces of at most a MiB; its size and checksum are compared.

        Raises:
            ArchiveError: they are not what the directory says.
        """
        done, checksum = 0, 0
        for chunk in self._inflated(info):
            done += len(chunk)
            if done > info.file_size:
                raise ArchiveError(info.filename, "is longer than the archive says")
            checksum = isal_zlib.crc32(chunk, checksum)
            yield chunk
        if done != info.file_size:
            raise ArchiveError(info.filename, "is shorter than the archive says")
        if checksum != info.CRC:
            raise ArchiveError(info.filename, "does not have the archive's checksum")

    def _inflated(self, info: ZipInfo) -> Iterator[bytes]:
        packed = self._packed(info)
        if info.compress_type == zipfile.ZIP_STORED:
            yield from packed
            return
        inflate = IgzipDecompressor(DECOMP_DEFLATE)
        for data in packed:
            if inflate.eof:
                raise ArchiveError(info.filename, "has bytes after its end")
            try:
                chunk = inflate.decompress(data, CHUNK)
                while chunk:
                    yield chunk
                    chunk = b"" if inflate.needs_input or inflate.eof else inflate.decompress(b"", CHUNK)
            except _InflateError as problem:
                raise ArchiveError(info.filename, f"cannot be inflated: {problem}") from None
        if not inflate.eof or inflate.unused_data:
            raise ArchiveError(info.filename, "does not end where the archive says")

    def _packed(self, info: ZipInfo) -> Iterator[bytes]:
        """The bytes of one file as they are stored."""
        fd, at, name = self._file.fileno(), info.header_offset, len(_raw(info))
        head = os.pread(fd, min(_READ, _LOCAL.size + name + _EXTRA + info.compress_size), at)
        start = self._check_local(info, head)
        left = info.compress_size
        if first := head[start : start + left]:
            left -= len(first)
            yield first
        at += max(start, len(head))
        while left:
            data = os.pread(fd, min(_READ, left), at)
            if not data:
                raise ArchiveError(info.filename, "is cut off")
            at, left = at + len(data), left - len(data)
            yield data

    def _check_local(self, info: ZipInfo, head: bytes) -> int:
        """Compare the local header with the directory's; returns its length, which is where the bytes start."""
        if len(head) < _LOCAL.size:
            raise ArchiveError(info.filename, "is cut off")
        mark, _, flags, method, _, _, crc, packed, size, name, extra = _LOCAL.unpack_from(head)
        if (
            mark != b"PK\x03\x04"
            or head[_LOCAL.size : _LOCAL.size + name] != _raw(info)
            or (flags ^ info.flag_bits) & ~_LEVEL
            or method != info.compress_type
            or not _agree(info, crc, packed, size)
        ):
            raise ArchiveError(info.filename, "is described in two ways by the archive")
        start = _LOCAL.size + int(name) + int(extra)
        free = self._after[info.header_offset] - info.header_offset - start - info.compress_size
        if free < 0:
            raise ArchiveError(info.filename, "overlaps with what follows in the archive")
        if free not in (_DESCRIPTORS if flags & _FOLLOWED else (0,)):
            raise ArchiveError(info.filename, "is followed by bytes that belong to no file")
        return start


def _agree(info: ZipInfo, crc: int, packed: int, size: int) -> bool:
    # Nought where the truth follows the bytes (4.4.4), all ones where it is in the extra field (4.5.3).
    unknown = {0} if info.flag_bits & _FOLLOWED else set[int]()
    elsewhere = {0xFFFFFFFF, *unknown}
    return crc in {info.CRC, *unknown} and packed in {info.compress_size, *elsewhere} and size in {info.file_size, *elsewhere}


def _checked(infos: list[ZipInfo]) -> dict[str, ZipInfo]:
    entries: dict[str, ZipInfo] = {}
    for info in infos:
        if info.filename != info.orig_filename:
            raise ArchiveError(repr(info.orig_filename), "has a name that is cut or changed when it is read")
        if not info.filename:
            raise ArchiveError("", "a file in the archive has no name")
        if not (info.flag_bits & _UTF8 or info.filename.isascii()):
            raise ArchiveError(info.filename, "has a name that is not said to be UTF-8")
        if _OTHER_NAME in _extra_fields(info):
            raise ArchiveError(info.filename, "has a second name in its extra field")
        if info.is_dir():
            # Nothing deflates to two bytes.
            if info.file_size or info.compress_size > 2:
                raise ArchiveError(info.filename, "is a folder with bytes in it")
            if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFDIR):
                raise ArchiveError(info.filename, "is no folder")
            continue
        if info.filename in entries:
            raise ArchiveError(info.filename, "stands twice in the archive")
        if info.flag_bits & _ENCRYPTED:
            raise ArchiveError(info.filename, "is encrypted")
        if info.flag_bits & ~_KNOWN:
            raise ArchiveError(info.filename, f"has flags that no wheel needs: {info.flag_bits:#x}")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ArchiveError(info.filename, "is compressed otherwise than by deflate")
        if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG):
            raise ArchiveError(info.filename, "is no regular file")
        entries[info.filename] = info
    return dict(sorted(entries.items()))


def _check_amount(infos: list[ZipInfo], size: int) -> None:
    """Refuse what would fill a disk."""
    total = sum(info.file_size for info in infos)
    if total > _LARGEST or total > max(_SMALL, _RATIO * size):
        most = max(infos, key=lambda info: info.file_size)
        raise ArchiveError(most.filename, f"would unpack, with the rest, to {total} bytes out of {size}")


def _places(infos: list[ZipInfo], end: int) -> dict[int, int]:
    """Where what follows each entry begins; entries that share bytes, as bombs do, or reach into the directory are refused."""
    ordered = sorted(infos, key=lambda info: info.header_offset)
    if not ordered:
        raise ArchiveError("", "the archive holds nothing")
    if ordered[0].header_offset:
        raise ArchiveError(ordered[0].filename, "is preceded by bytes that belong to no file")
    afters = [*(info.header_offset for info in ordered[1:]), end]
    for info, after in zip(ordered, afters, strict=True):
        if info.header_offset + _LOCAL.size + info.compress_size > after:
            raise ArchiveError(info.filename, "overlaps with what follows in the archive")
    return {info.header_offset: after for info, after in zip(ordered, afters, strict=True)}


def _check_end(fd: int, infos: list[ZipInfo], start: int) -> None:
    """Refuse a directory after which there is anything but one end (4.3.14 to 4.3.16), which speaks of all entries."""
    size = sum(_CENTRAL + len(_raw(info)) + len(info.extra) + len(info.comment) for info in infos)
    tail = os.pread(fd, _END64 + _END.size + 1, start + size)
    if len(tail) not in (_END.size, _END64 + _END.size):
        raise ArchiveError("", "there are bytes after the archive's directory that belong to no file")
    mark, disk, first, here, count, _, _, comment = _END.unpack(tail[-_END.size :])
    counts = (len(infos), 0xFFFF) if len(tail) > _END.size else (len(infos),)
    if mark != b"PK\x05\x06" or disk or first or here not in counts or count not in counts or comment:
        raise ArchiveError("", "the archive's end does not fit its directory")


def _raw(info: ZipInfo) -> bytes:
    return info.orig_filename.encode("utf-8" if info.flag_bits & _UTF8 else "cp437")


def _extra_fields(info: ZipInfo) -> set[int]:
    found, rest = set(), info.extra
    while len(rest) >= 4:
        kind, size = struct.unpack_from("<2H", rest)
        found.add(kind)
        rest = rest[4 + size :]
    return found
