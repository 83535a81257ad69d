"""What differs between two builds of one image: which layer, which file, which attribute.

Both tars are read as streams: a table of what they hold is kept, never their content.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import IO, Any

import zstandard

from common.files import CHUNK
from images.receipt import BuiltImage, BuiltLayer
from oci.layout import Layout

# What follows from a layer that differs, and is no difference of its own.
_FOLLOWS = ("layers", "config.digest", "config.size", "rootfs.diff_ids")
# For so many files of a layer is it looked up where their contents part; each costs another pass.
_LOCATED = 5


@dataclass(frozen=True, slots=True)
class _Member:
    """One entry of a tar; the order of the fields is that in which differences are told."""

    type: str
    mode: str
    mtime: float
    uid: int
    gid: int
    owner: str
    group: str
    link: str
    pax: tuple[tuple[str, str], ...]
    size: int
    content: str
    at: int


def images(first: Layout, one: BuiltImage, second: Layout, other: BuiltImage) -> Iterator[str]:
    """Say what differs between two builds of an image, layers first; nothing where their digests are equal.

    Args:
        first: the layout that holds `one`.
        one: as the first build made it.
        second: the layout that holds `other`.
        other: as the second build made it.
    """
    same = all((a.digest, a.diff_id) == (b.digest, b.diff_id) for a, b in zip(one.layers, other.layers, strict=True))
    for left, right in zip(one.layers, other.layers, strict=True):
        for difference in layers(first, left, second, right):
            yield f"layer {left.what!r}: {difference}"
    for what, left_digest, right_digest in (
        ("configuration", one.config_digest, other.config_digest),
        ("manifest", one.digest, other.digest),
    ):
        if left_digest != right_digest:
            for key, before, after in _json("", first.read(left_digest), second.read(right_digest)):
                if same or not key.startswith(_FOLLOWS):
                    yield f"{what}: {key} is {before}, then {after}"


def layers(first: Layout, one: BuiltLayer, second: Layout, other: BuiltLayer) -> Iterator[str]:
    """Say what differs between two blobs; nothing where their digests are equal."""
    if one.digest == other.digest:
        if one.diff_id != other.diff_id:
            yield f"its tar was noted as {one.diff_id}, then as {other.diff_id}"
        return
    if one.diff_id == other.diff_id:
        yield f"only the compressed form differs, the tar is {one.diff_id} in both: zstd's version, level or pieces"
        return
    left, right = first.blob(one.digest), second.blob(other.digest)
    members = _members(left, right)
    if first_difference := next(members, ""):
        yield first_difference
        yield from members
    else:
        # Every entry reads the same: what is left is how tar wrote it down.
        with _tar(left) as a, _tar(right) as b:
            yield f"the tar's own form differs, headers or padding, from byte {_offset(a, b)} on"


def _members(left: Path, right: Path) -> Iterator[str]:
    before, after = _table(left), _table(right)
    located = 0
    for path in sorted(before.keys() | after.keys()):
        one, other = before.get(path), after.get(path)
        if one is None or other is None:
            yield f"{path} is only in the {'second' if one is None else 'first'}"
            continue
        for field in fields(_Member)[:-1]:
            a, b = getattr(one, field.name), getattr(other, field.name)
            if a == b:
                continue
            if field.name != "content":
                yield f"{path}: {field.name} is {a!r}, then {b!r}"
            elif located == _LOCATED:
                yield f"{path}: content differs"
            else:
                located += 1
                with _tar(left) as x, _tar(right) as y:
                    _skip(x, one.at)
                    _skip(y, other.at)
                    yield f"{path}: content differs from byte {min(_offset(x, y), one.size, other.size)} on"
    common = ([p for p in before if p in after], [p for p in after if p in before])
    for one_path, other_path in zip(*common, strict=True):
        if one_path != other_path:
            yield f"order: {one_path} stands where {other_path} stands in the second"
            return


def _table(blob: Path) -> dict[str, _Member]:
    """A layer's entries by path, in the tar's order; a path that stands twice gets a number."""
    found: dict[str, _Member] = {}
    with _tar(blob) as stream, tarfile.open(fileobj=stream, mode="r|") as tar:
        for member in tar:
            content = hashlib.sha256()
            if member.isreg() and (file := tar.extractfile(member)):
                while chunk := file.read(CHUNK):
                    content.update(chunk)
            numbers = itertools.count(2)
            path = member.name
            while path in found:
                path = f"{member.name} (no. {next(numbers)})"
            found[path] = _Member(
                type=_TYPES.get(member.type, repr(member.type)),
                mode=f"{member.mode:04o}",
                mtime=member.mtime,
                uid=member.uid,
                gid=member.gid,
                owner=member.uname,
                group=member.gname,
                link=member.linkname,
                pax=tuple(sorted(member.pax_headers.items())),
                size=member.size,
                content=content.hexdigest(),
                at=member.offset_data,
            )
    return found


_TYPES = {
    tarfile.REGTYPE: "file",
    tarfile.DIRTYPE: "folder",
    tarfile.SYMTYPE: "symbolic link",
    tarfile.LNKTYPE: "hard link",
}


@contextmanager
def _tar(blob: Path) -> Iterator[IO[bytes]]:
    with blob.open("rb") as file, zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True) as stream:
        # Its read() gives what was asked for, short only at the end: two streams stay in step.
        yield io.BufferedReader(stream, CHUNK)


def _skip(stream: IO[bytes], count: int) -> None:
    while count and (chunk := stream.read(min(CHUNK, count))):
        count -= len(chunk)


def _offset(left: IO[bytes], right: IO[bytes]) -> int:
    """How many bytes two streams have in common from where they stand."""
    done = 0
    while True:
        a, b = left.read(CHUNK), right.read(CHUNK)
        if a != b or not a:
            return done + next((n for n, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
        done += len(a)


def _json(at: str, one: Any, other: Any) -> Iterator[tuple[str, str, str]]:
    """The keys, `history[2].created_by`, at which two JSON values differ, and both values."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in sorted(one.keys() | other.keys()):
            name = f"{at}.{key}" if at else key
            if key in one and key in other:
                yield from _json(name, one[key], other[key])
            else:
                yield (name, repr(one[key]), "missing") if key in one else (name, "missing", repr(other[key]))
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for number, (a, b) in enumerate(zip(one, other, strict=True)):
            yield from _json(f"{at}[{number}]", a, b)
    elif one != other:
        yield at, repr(one), repr(other)
