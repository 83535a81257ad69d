"""Layers in the making: each plan becomes a blob of the layout and a note of what it holds.

Notes lie beside the layout, `dist/layers/<key>.json`: a layer whose key is noted and whose blob is there is not made again.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from common.errors import BuildError, MissingEnvironmentError
from common.files import CHUNK, write_whole
from images import wheel
from images.bytecode import Compiler
from images.layout import Layout
from images.plan import LayerPlan
from images.spec import Conflict
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


def make_from_tar(layout: Layout, plan: LayerPlan, tar: Path, digest: str) -> Layer:
    """Make a layer of a tar made elsewhere, byte for byte.

    Raises:
        BuildError: the tar's bytes are not those of `digest`; nothing is kept.
    """

    def fill(writer: LayerWriter) -> Files:
        with tar.open("rb") as file:
            while chunk := file.read(CHUNK):
                writer.raw(chunk)
        if writer.diff_id() != digest:
            raise BuildError(
                "the base was altered on disk", where=str(tar), fix="remove its folder and run `invoke build` again"
            )
        return {}

    return make(layout, plan, fill)


def check_conflicts(layers: list[Layer], conflicts: Iterable[Conflict] = ()) -> None:
    """Refuse an image in which two layers disagree about a path, or a stated conflict was not settled as stated.

    Raises:
        BuildError: naming the path and the packages.
    """
    seen: Files = {}
    for layer in layers:
        for path, (state, package) in layer.files.items():
            other = seen.setdefault(path, (state, package))
            if other[0] != state:
                raise wheel.conflict(path, other[1], package)
    for path, (_, package) in seen.items():
        above = path.rpartition("/")[0]
        while above:
            if above in seen:
                raise wheel.conflict(above, seen[above][1], package)
            above = above.rpartition("/")[0]
    for stated in conflicts:
        if seen.get(stated.path, ("", ""))[1] != stated.keep:
            raise BuildError(f"{stated.keep} does not bring the file it is to keep", where=stated.path, fix="mend image.toml")


def sweep(layout: Layout) -> int:
    """Remove layers that no listed image holds, notes first; returns the bytes freed. Only under the build's lock."""
    needed = layout.referenced()
    for note in _notes(layout).glob("*.json"):
        if _digest(note) not in needed:
            note.unlink()
    # What builds left that were killed; the caller holds the lock, so none is running.
    for unfinished in [*layout.blobs.glob(".*"), *_notes(layout).glob(".*")]:
        unfinished.unlink()
    return layout.sweep(needed)


def _digest(note: Path) -> str:
    try:
        return str(json.loads(note.read_text())["digest"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _notes(layout: Layout) -> Path:
    return layout.root.parent / "layers"


def _note(layout: Layout, key: str) -> Path:
    return _notes(layout) / f"{key}.json"
