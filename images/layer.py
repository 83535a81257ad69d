"""Layers in the making: each plan becomes a blob of the layout and a note of what it holds.

Notes lie beside the layout, `dist/layers/<key>.json`. A layer whose key is noted and whose blob is there is not made again, if
this machine made it, or took it from a signed inventory: the cache says so, `made/<key>.json`. Who can write to `dist/` alone
can put no layer of theirs there.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Collection, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from common import console, ownership, paths
from common.errors import BuildError, MissingEnvironmentError
from common.files import CHUNK, FULL, PART, settle, sha256_bytes, write_whole
from common.reader import record
from images import files
from images.plan import LayerPlan
from images.spec import Conflict
from images.tarball import LayerWriteError, LayerWriter
from images.wheels import install
from images.wheels.bytecode import Compiler
from images.wheels.install import Files
from lockfiles import policy
from oci.layout import UNFINISHED, Layout


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer that was made: it is in the layout, or, where a signed inventory named it, in a registry.

    Attributes:
        what: for people.
        key: of its plan.
        digest: of the blob.
        diff_id: of the tar.
        size: of the blob.
        unpacked: of the tar.
        listing: digest of the second line of its note, which names its files.
    """

    what: str
    key: str
    digest: str
    diff_id: str
    size: int
    unpacked: int
    listing: str


# The note of a layer has two lines: the layer, and the files in it. The second is long, and seldom asked for.
def noted(layout: Layout, plan: LayerPlan, elsewhere: Collection[str] = ()) -> Layer | None:
    """The layer, if it was made before and its blob is still there and whole in size.

    Its bytes are not hashed, which would take longer than the whole of most builds: `invoke push` hashes what it sends.

    Args:
        layout: that holds it.
        plan: of the layer.
        elsewhere: keys of layers whose blob may be missing: a registry has it.
    """
    try:
        layer = Layer(**{**_head(_note(layout, plan.key)), "what": plan.what})
    except (OSError, ValueError, TypeError):
        return None
    there = plan.key in elsewhere or layout.has(layer.digest, layer.size)
    return layer if there and layer == made(plan) else None


def made(plan: LayerPlan) -> Layer | None:
    """The layer as this machine made it of this plan, or took it from a signed inventory, whatever lies in `dist/`.

    None where it did neither.

    Raises:
        MissingEnvironmentError: somebody else could have written the cache.
    """
    try:
        with os.fdopen(ownership.opened(_record(plan.key)), "rb") as file:
            layer = record(Layer, json.loads(file.read()))
    except (OSError, ValueError):
        return None
    return replace(layer, what=plan.what) if layer.key == plan.key else None


def held(layout: Layout, layer: Layer) -> Files:
    """What wheels brought into a layer, or the debs into the base; nothing for files and config.

    Raises:
        BuildError: its note was altered.
    """
    body = json.loads(listing(layout, layer))
    return {path: (state, package) for path, (state, package) in body.items()}


def listing(layout: Layout, layer: Layer) -> str:
    """The second line of a layer's note: `held` as JSON.

    Raises:
        BuildError: it was altered.
    """
    note = _note(layout, layer.key)
    try:
        text = note.read_text().split("\n")[1]
    except (OSError, ValueError, IndexError):
        text = ""
    if sha256_bytes(text.encode()) != layer.listing:
        raise BuildError("the note of a layer was altered", where=str(note), fix="remove it and run `invoke build` again")
    return text


def keep(layout: Layout, layer: Layer, text: str) -> None:
    """Write the note of a layer, and the record that this machine takes it for what its key says.

    Args:
        layout: beside which the note lies.
        layer: as it was made here, or as a signed inventory has it.
        text: the second line of the note.
    """
    write_whole(_note(layout, layer.key), f"{json.dumps(asdict(layer), sort_keys=True)}\n{text}")
    _remember(layer)


def forget(layout: Layout, keys: Iterable[str]) -> None:
    """Remove what `keep` wrote of layers."""
    for key in keys:
        for file in (_note(layout, key), _record(key)):
            file.unlink(missing_ok=True)


def make(layout: Layout, plan: LayerPlan, fill: Callable[[LayerWriter], Files]) -> Layer:
    """Write one layer and its note; nothing is kept if `fill` fails.

    Raises:
        BuildError, LockError: as `fill`.
        MissingEnvironmentError: the disk is full.
    """
    fd, name = tempfile.mkstemp(dir=layout.blobs, prefix=UNFINISHED)
    try:
        with os.fdopen(fd, "wb") as out:
            writer = LayerWriter(out)
            text = json.dumps(fill(writer), sort_keys=True)
            digest, diff_id = writer.close()
            settle(out)
        Path(name).replace(layout.blob(digest))
        layer = Layer(plan.what, plan.key, digest, diff_id, writer.size, writer.unpacked, sha256_bytes(text.encode()))
        keep(layout, layer, text)
    except OSError as problem:
        full = isinstance(problem, LayerWriteError) or problem.errno in FULL
        raise MissingEnvironmentError(
            f"a layer cannot be written: {problem.strerror}",
            where=str(layout.blobs if full else problem.filename or layout.blobs),
            fix="free some (`dist/` and the cache may be deleted)" if full else "look at its permissions and at the machine",
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
        brought: Files = {}
        rules = dict(plan.rules)
        with Compiler(tree) as compiler:
            for one in plan.wheels:
                compiler.fresh()
                install.add(one, writer, compiler, brought, rules=rules.get(one.name))
                policy.check_bytes(one)
        writer.end()
        return brought

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
        return files.of_base(tar)

    return make(layout, plan, fill)


def check_conflicts(layers: Iterable[Files], conflicts: Iterable[Conflict] = ()) -> None:
    """Refuse an image in which two layers disagree about a path, or a stated conflict was not settled as stated.

    Args:
        layers: what each of them holds.
        conflicts: those that the image's spec states.

    Raises:
        BuildError: naming the path and the packages.
    """
    seen: Files = {}
    for layer in layers:
        for path, (state, package) in layer.items():
            other = seen.setdefault(path, (state, package))
            if other[0] != state:
                raise install.conflict(path, other[1], package)
    folders = {path.rpartition("/")[0]: package for path, (_, package) in seen.items()}
    for folder, package in list(folders.items()):
        while folder := folder.rpartition("/")[0]:
            folders.setdefault(folder, package)
    for path in sorted(folders.keys() & seen.keys()):
        raise install.conflict(path, seen[path][1], folders[path])
    for stated in conflicts:
        if seen.get(stated.path, ("", ""))[1] != stated.keep:
            raise BuildError(f"{stated.keep} does not bring the file it is to keep", where=stated.path, fix="mend image.toml")


def sweep(layout: Layout) -> int:
    """Remove layers that no listed image holds, notes first; returns the bytes freed. Only under the build's lock.

    While another process reads the layout, all of them stay.
    """
    with layout.sweeping() as alone:
        if not alone:
            console.info("another process reads the layout: layers that no image holds any more stay for now")
            return 0
        needed = layout.referenced()
        # Notes are large: they are read only where there is something to remove.
        if not layout.strays(needed):
            return 0
        for note in _notes(layout).glob("*.json"):
            if _digest(note) not in needed:
                note.unlink()
        return layout.sweep(needed)


def clear(layout: Layout) -> None:
    """Remove what a killed build left half written. Only under the build's lock."""
    layout.clear()
    for unfinished in _notes(layout).glob(f".*{PART}"):
        unfinished.unlink(missing_ok=True)


def _digest(note: Path) -> str:
    try:
        return str(_head(note)["digest"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _head(note: Path) -> dict[str, Any]:
    with note.open() as file:
        body: dict[str, Any] = json.loads(file.readline())
    return body


def _record(key: str) -> Path:
    return paths.cache("made", f"{key}.json")


def _remember(layer: Layer) -> None:
    file = _record(layer.key)
    file.parent.mkdir(parents=True, exist_ok=True)
    # Half of it is no record, and the layer is made again: nothing waits for the disk here.
    with os.fdopen(ownership.opened(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), "w") as out:
        json.dump(asdict(layer), out)


def _notes(layout: Layout) -> Path:
    return layout.root.parent / "layers"


def _note(layout: Layout, key: str) -> Path:
    return _notes(layout) / f"{key}.json"
