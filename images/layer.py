"""Layers in the making: each plan becomes a blob of the layout and a note of what it holds.

Notes lie beside the layout, `dist/layers/<key>.json`: a layer whose key is noted and whose blob is there is not made again.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from common.errors import MissingEnvironmentError
from common.files import CHUNK, write_whole
from images import wheel
from images.bytecode import Compiler
from images.layout import Layout
from images.plan import LayerPlan
from images.tarball import LayerWriter
from images.wheel import Files


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer that is in the layout.

    Attributes:
        what: for people.
        key: of its plan.
        digest: of the blob.
        diff_id: of the tar.
        size: of the blob.
        unpacked: of the tar.
        files: path in the image → (sha256, package), of what wheels brought; empty for base and config.
    """

    what: str
    key: str
    digest: str
    diff_id: str
    size: int
    unpacked: int
    files: Files


def noted(layout: Layout, plan: LayerPlan) -> Layer | None:
    """The layer, if it was made before and its blob is still there and whole in size."""
    try:
        body = json.loads(_note(layout, plan.key).read_text())
        layer = Layer(**{**body, "what": plan.what})
    except (OSError, ValueError, TypeError):
        return None
    return layer if layer.key == plan.key and layout.has(layer.digest, layer.size) else None


def make(layout: Layout, plan: LayerPlan, fill: Callable[[LayerWriter], Files]) -> Layer:
    """Write one layer and its note; nothing is kept if `fill` fails.

    Raises:
        BuildError, LockError: as `fill`.
        MissingEnvironmentError: the disk is full.
    """
    fd, name = tempfile.mkstemp(dir=layout.blobs, prefix=".layer-")
    try:
        with os.fdopen(fd, "wb") as out:
            writer = LayerWriter(out)
            files = fill(writer)
            digest, diff_id = writer.close()
        Path(name).chmod(0o644)
        Path(name).replace(layout.blob(digest))
        layer = Layer(plan.what, plan.key, digest, diff_id, writer.size, writer.unpacked, files)
        write_whole(_note(layout, plan.key), json.dumps(asdict(layer), sort_keys=True))
    except OSError as problem:
        fix = "free some (`dist/` and the cache may be deleted)"
        raise MissingEnvironmentError(
            f"a layer cannot be written: {problem.strerror}", where=str(layout.blobs), fix=fix
        ) from None
    finally:
        Path(name).unlink(missing_ok=True)
    return layer


def make_wheels(root: Path, plan: LayerPlan, tree: Path) -> Layer:
    """Make a layer of wheels; runs in a process of its own.

    Args:
        root: of the layout.
        plan: its wheels are in the store.
        tree: the base's root file system, whose interpreter compiles.
    """

    def fill(writer: LayerWriter) -> Files:
        files: Files = {}
        for one in plan.wheels:
            with Compiler(tree) as compiler:
                wheel.add(one, writer, compiler, files, dropped=plan.dropped, excused=plan.excused)
        writer.end()
        return files

    return make(Layout(root), plan, fill)


def make_from_tar(layout: Layout, plan: LayerPlan, tar: Path) -> Layer:
    """Make a layer of a tar made elsewhere, byte for byte."""

    def fill(writer: LayerWriter) -> Files:
        with tar.open("rb") as file:
            while chunk := file.read(CHUNK):
                writer.raw(chunk)
        return {}

    return make(layout, plan, fill)


def check_conflicts(layers: list[Layer]) -> None:
    """Refuse an image in which one path has different bytes in two layers.

    Raises:
        BuildError: naming the path and both packages.
    """
    seen: Files = {}
    for layer in layers:
        for path, (digest, package) in layer.files.items():
            other = seen.setdefault(path, (digest, package))
            if other[0] != digest:
                raise wheel.conflict(path, other[1], package)


def sweep(layout: Layout) -> int:
    """Remove layers that no listed image holds, notes first; returns the bytes freed."""
    needed = layout.referenced()
    for note in _notes(layout).glob("*.json"):
        if json.loads(note.read_text())["digest"] not in needed:
            note.unlink()
    return layout.sweep(needed)


def _notes(layout: Layout) -> Path:
    return layout.root.parent / "layers"


def _note(layout: Layout, key: str) -> Path:
    return _notes(layout) / f"{key}.json"
