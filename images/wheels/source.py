"""A wheel as `installer` reads it: out of a strict archive, every file checked against RECORD on its way.

Source of the format: the binary distribution format (packaging.python.org, "The .dist-info directory").
"""

from __future__ import annotations

import base64
import hashlib
import posixpath
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import BinaryIO, cast

from installer.sources import WheelContentElement, WheelSource

from images.spec import Rules
from images.wheels import conformance
from images.wheels.conformance import refused, unrecorded
from images.wheels.zip_archive import Archive
from lockfiles.model import Wheel

# "sha256 or better" (binary distribution format, "The .dist-info directory").
_ALGORITHMS = ("sha256", "sha384", "sha512")


class Source(WheelSource):
    """A wheel of the store; its entries in sorted order, each checked against RECORD while it is read."""

    def __init__(self, archive: Archive, wheel: Wheel, rules: Rules) -> None:
        super().__init__(*wheel.artifact.file.split("-")[:2])
        self._archive, self._wheel, self._rules = archive, wheel, rules
        self._dist_info = self._one_dist_info()
        conformance.check_names(wheel, archive.names, self.data_dir)
        for name, check in (("METADATA", conformance.check_identity), ("entry_points.txt", conformance.check_entry_points)):
            path = f"{self._dist_info}/{name}"
            if path in archive.entries:
                check(wheel, path, archive.read(path))
            elif name == "METADATA":
                raise refused(wheel, path, "is missing")
        self.met: set[str] = set()

    def _one_dist_info(self) -> str:
        folders = {path.partition("/")[0] for path in self._archive.entries}
        found = sorted(folder for folder in folders if folder.endswith(".dist-info"))
        if len(found) != 1:
            held = " and ".join(found) or "nothing"
            raise refused(self._wheel, "the archive", f"holds {held} where one .dist-info belongs")
        name, _, version = found[0].removesuffix(".dist-info").rpartition("-")
        if not conformance.is_of(self._wheel, name, version):
            raise refused(self._wheel, found[0], "is of another package than the file's name says")
        return found[0]

    @property
    def dist_info_dir(self) -> str:
        """See WheelSource."""
        return self._dist_info

    @property
    def data_dir(self) -> str:
        """See WheelSource."""
        return self.dist_info_dir.removesuffix(".dist-info") + ".data"

    @property
    def dist_info_filenames(self) -> list[str]:
        """See WheelSource."""
        folder = self.dist_info_dir + "/"
        return [path.removeprefix(folder) for path in self._archive.entries if path.startswith(folder)]

    def read_dist_info(self, filename: str) -> str:
        """See WheelSource."""
        return self._archive.read(f"{self.dist_info_dir}/{filename}").decode()

    def get_contents(self) -> Iterator[WheelContentElement]:
        """See WheelSource."""
        record_path = posixpath.join(self.dist_info_dir, "RECORD")
        entries = self._archive.entries
        if record_path not in entries:
            raise refused(self._wheel, record_path, "is missing")
        records = conformance.read_record(self._wheel, record_path, self._archive.read(record_path))
        # Signatures of a RECORD cannot stand in it (same specification, "The .dist-info directory").
        unlisted = {record_path, f"{record_path}.jws", f"{record_path}.p7s"}
        self._check_record(records, unlisted)
        for path, info in entries.items():
            if path == record_path or self._left_out(path):
                continue
            record = records.get(path, (path, "", ""))
            if path in self._rules.excused:
                record = (path, "", "")
            entry = Entry(self._archive.chunks(info), info.file_size, record, self._wheel)
            yield record, cast(BinaryIO, entry), bool(info.external_attr >> 16 & 0o111)

    def _check_record(self, records: Mapping[str, tuple[str, str, str]], unlisted: set[str]) -> None:
        """Refuse a RECORD that says too little or too much of some file, unless the image's spec accepts it by name."""
        entries, wrong = self._archive.entries, dict[str, str]()
        for path in entries.keys() | records.keys():
            if path in self._rules.excused:
                self.met.add(path)
            elif path in unlisted:
                continue
            elif path not in records:
                wrong[path] = "is not in RECORD"
            elif path not in entries:
                wrong[path] = "is in RECORD but not in the archive"
            elif not records[path][1]:
                wrong[path] = "has no hash in RECORD"
        if wrong:
            first = min(wrong)
            raise unrecorded(self._wheel, first, wrong[first], sorted(wrong)[1:])

    def _left_out(self, path: str) -> bool:
        matching = [pattern for pattern in self._rules.left_out if fnmatchcase(path, pattern)]
        self.met.update(matching)
        return bool(matching)


class Entry:
    """A file of a wheel, its size known, compared with RECORD at its end.

    Attributes:
        size: in bytes.
        sha256: of what `chunks` gave, once it has given all.
    """

    def __init__(self, stream: Iterator[bytes], size: int, record: tuple[str, str, str], wheel: Wheel) -> None:
        self.size, self.sha256 = size, b""
        self._stream, self._record, self._wheel = stream, record, wheel

    def recorded(self) -> bytes:
        """The sha256 that RECORD has for the file; empty where it has none."""
        algorithm, _, digest = self._record[1].partition("=")
        try:
            return base64.urlsafe_b64decode(f"{digest}==") if algorithm == "sha256" else b""
        except ValueError:
            return b""

    def chunks(self) -> Iterator[bytes]:
        """The bytes.

        Raises:
            BuildError: they are not what RECORD says.
        """
        path, expected, size = self._record
        algorithm = expected.partition("=")[0] or "sha256"
        if algorithm not in _ALGORITHMS:
            raise unrecorded(self._wheel, path, f"has a {algorithm} hash in RECORD, which proves nothing")
        # Mostly one and the same: no byte is hashed twice then.
        ours = hashlib.sha256()
        theirs = ours if algorithm == "sha256" else hashlib.new(algorithm)
        for chunk in self._stream:
            ours.update(chunk)
            if theirs is not ours:
                theirs.update(chunk)
            yield chunk
        self.sha256 = ours.digest()
        actual = encoded(theirs.digest())
        if expected and (actual != expected.partition("=")[2].rstrip("=") or size not in ("", str(self.size))):
            raise unrecorded(self._wheel, path, "is not what RECORD says")


def encoded(digest: bytes) -> str:
    """A hash as RECORD writes it."""
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
