"""Wheels made on the spot, good and bad, and reading back the layers they become."""

from __future__ import annotations

import base64
import hashlib
import io
import stat
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import zstandard

from images.spec import Rules
from images.tarball import LayerWriter
from images.wheels import install as wheels
from images.wheels.bytecode import Compiler
from images.wheels.install import Files
from lockfiles import store
from lockfiles.model import Artifact, Wheel


class NoBytecode(Compiler):
    """Stands in where a test is not about bytecode."""

    def __init__(self) -> None:
        pass

    def compile(self, name: str, source: bytes) -> bytes:
        return b""


def record_line(path: str, data: bytes) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
    return f'"{path}",sha256={digest},{len(data)}\n'


def make(
    folder: Path,
    files: Mapping[str, bytes],
    *,
    name: str = "one",
    version: str = "1.0",
    executable: tuple[str, ...] = (),
    record: str | None = None,
    extra: tuple[tuple[zipfile.ZipInfo, bytes], ...] = (),
    entry_points: str = "",
) -> Path:
    """Write a wheel; `record` replaces its RECORD, `extra` adds raw archive entries that RECORD does not know."""
    info = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    inside = dict(files)
    inside[f"{info}/METADATA"] = metadata.encode()
    inside[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    if entry_points:
        inside[f"{info}/entry_points.txt"] = entry_points.encode()
    lines = record if record is not None else "".join(record_line(p, d) for p, d in inside.items()) + f"{info}/RECORD,,\n"
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for inner, data in {**inside, f"{info}/RECORD": lines.encode()}.items():
            entry = zipfile.ZipInfo(inner)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = (stat.S_IFREG | (0o755 if inner in executable else 0o644)) << 16
            archive.writestr(entry, data)
        for entry, data in extra:
            archive.writestr(entry, data)
    return path


def stored(path: Path) -> Wheel:
    """Put a wheel into the store and describe it as a lock would."""
    data = path.read_bytes()
    name, version = path.name.split("-")[:2]
    artifact = Artifact(path.name, len(data), hashlib.sha256(data).hexdigest())
    if not store.has(artifact):
        store.add_file(artifact, path)
    return Wheel(name.replace("_", "-").lower(), version, artifact)


def layer_of(*paths: Path, compiler: Compiler | None = None, rules: dict[str, Rules] | None = None) -> tuple[bytes, Files]:
    """The tar of the layer that these wheels become, and what it says it holds."""
    out, files = io.BytesIO(), Files()
    writer = LayerWriter(out)
    for path in paths:
        wheel = stored(path)
        wheels.add(wheel, writer, compiler or NoBytecode(), files, rules=(rules or {}).get(wheel.name))
    writer.end()
    writer.close()
    return zstandard.ZstdDecompressor().decompress(out.getvalue(), max_output_size=1 << 30), files


def members(tar: bytes) -> dict[str, tarfile.TarInfo]:
    """A tar's entries by path."""
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        return {member.name: member for member in archive.getmembers()}


def content(tar: bytes, path: str) -> bytes:
    """One file of a tar."""
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        file = archive.extractfile(path)
        assert file is not None
        return file.read()
