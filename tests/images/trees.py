"""File trees, read from the layers of an OCI layout or from a tar stream; of a file only its digest is kept."""

from __future__ import annotations

import hashlib
import re
import struct
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, NamedTuple

import zstandard

from common.files import CHUNK
from oci.layout import Layout

_KINDS = {tarfile.REGTYPE: "file", tarfile.DIRTYPE: "folder", tarfile.SYMTYPE: "link"}


class Entry(NamedTuple):
    """One path of a tree; of a `.pyc` the digest is that of its normal form, see `Bytecode`."""

    kind: str
    mode: str
    uid: int
    gid: int
    size: int
    sha256: str
    target: str


@dataclass
class Tree:
    """A file tree.

    Attributes:
        entries: by path, without a leading slash.
        kept: the bytes of some files.
    """

    entries: dict[str, Entry] = field(default_factory=dict)
    kept: dict[str, bytes] = field(default_factory=dict)

    def add(self, tar: tarfile.TarFile, keep: re.Pattern[str], bytecode: Bytecode | None = None) -> None:
        """Lay a layer over the tree.

        Args:
            tar: the layer.
            keep: matches the paths of files whose bytes are kept.
            bytecode: brings .pyc into their normal form; without it they are files as others.
        """
        for member in tar:
            path = member.name.removeprefix("./").rstrip("/")
            if path in ("", "."):
                continue
            assert not path.rpartition("/")[2].startswith(".wh."), f"{path} takes a file away; this reader does not"
            before = self.entries.get(path)
            assert not before or (before.kind == "folder") == member.isdir(), f"{path} is a folder in one layer only"
            if member.islnk():
                self.entries[path] = self.entries[member.linkname.removeprefix("./").removeprefix("/")]
                continue
            size, digest = 0, ""
            if member.isreg():
                code = path.endswith(".pyc") and bytecode is not None
                kept: list[bytes] | None = [] if keep.fullmatch(path) or code else None
                size, digest = _digest(tar, member, kept)
                if bytecode is not None and kept is not None and code:
                    size, digest = 0, bytecode.normal(b"".join(kept))
                elif kept is not None:
                    self.kept[path] = b"".join(kept)
            target = member.linkname if member.issym() else ""
            self.entries[path] = Entry(
                _KINDS[member.type], oct(member.mode & 0o7777), member.uid, member.gid, size, digest, target
            )


class Bytecode:
    """An interpreter of the image that brings bytecode into a normal form.

    What marshal writes depends on which strings the compiling process happened to hold otherwise: it marks those that others
    refer to as well. Read and written again in marshal's version 2, which knows no such marks, equal code gives equal bytes.
    The 16 bytes before the code (PEP 552: magic number, flags, hash of the source) count as they are.
    """

    _WORKER = r"""
import hashlib, marshal, struct, sys
while head := sys.stdin.buffer.read(4):
    data = sys.stdin.buffer.read(*struct.unpack(">I", head))
    code = marshal.dumps(marshal.loads(data[16:]), 2)
    sys.stdout.buffer.write(hashlib.sha256(data[:16] + code).digest())
    sys.stdout.buffer.flush()
"""

    def __init__(self, root: Path) -> None:
        libraries = ":".join(str(root / folder) for folder in ("lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"))
        argv = [str(root / "lib64/ld-linux-x86-64.so.2"), "--library-path", libraries, str(root / "usr/bin/python3.11")]
        env = {"PYTHONHOME": str(root / "usr"), "PYTHONHASHSEED": "0"}
        self._process = subprocess.Popen(
            [*argv, "-S", "-s", "-c", self._WORKER], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def __enter__(self) -> Bytecode:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._process.communicate()

    def normal(self, pyc: bytes) -> str:
        """The digest of its normal form."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(struct.pack(">I", len(pyc)) + pyc)
        self._process.stdin.flush()
        digest = self._process.stdout.read(32)
        assert len(digest) == 32, "no bytecode of the image's Python"
        return digest.hex()


@contextmanager
def layer(layout: Layout, digest: str) -> Iterator[tarfile.TarFile]:
    """A layer of a layout, to be read once and in order."""
    with (
        layout.blob(digest).open("rb") as blob,
        zstandard.ZstdDecompressor().stream_reader(blob, read_across_frames=True) as stream,
        tarfile.open(fileobj=stream, mode="r|", bufsize=CHUNK) as tar,
    ):
        yield tar


def of_image(layout: Layout, manifest: str, keep: re.Pattern[str], root: Path) -> Tree:
    """The tree of an image in a layout.

    Args:
        layout: holds the image.
        manifest: the digest of its manifest.
        keep: see `Tree.add`.
        root: of the base, whose interpreter reads bytecode.
    """
    tree = Tree()
    with Bytecode(root) as bytecode:
        for described in layout.read(manifest)["layers"]:
            with layer(layout, described["digest"]) as tar:
                tree.add(tar, keep, bytecode)
    return tree


def of_stream(stream: IO[bytes], keep: re.Pattern[str], root: Path) -> Tree:
    """The tree of a tar that comes in as one stream; arguments as for `of_image`."""
    tree = Tree()
    with Bytecode(root) as bytecode, tarfile.open(fileobj=stream, mode="r|", bufsize=CHUNK) as tar:
        tree.add(tar, keep, bytecode)
    return tree


def _digest(tar: tarfile.TarFile, member: tarfile.TarInfo, kept: list[bytes] | None) -> tuple[int, str]:
    file = tar.extractfile(member)
    assert file is not None
    digest = hashlib.sha256()
    while chunk := file.read(CHUNK):
        digest.update(chunk)
        if kept is not None:
            kept.append(chunk)
    return member.size, digest.hexdigest()
