"""How large a layer is, or will be: one that was not made yet is estimated from the directories of its wheels in the store."""

from __future__ import annotations

import fnmatch
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass

from images import layer, spec
from images.plan import LayerPlan
from lockfiles import store
from lockfiles.model import BaseLock, Wheel
from oci.layout import Layout

# Fitted to the layers of train and api-cpu (docs/layers.md). Compressed bytes in the image for each byte that the wheel's own
# deflate left: Python source stands there with its bytecode, and zstd packs libraries tighter.
_SOURCE, _OTHER = 2.4, 0.93
# The same for tar: bytecode is a little larger than its source; each file has a header and is padded to 512 bytes.
_BYTECODE, _HEADER = 1.1, 768
# Where the wheel is not in the store, all its bytes together; and the debs of the base.
_WHEEL, _DEBS = 0.97, 0.83
_CONFIG = 1000
# Compressed bytes for each of a file of the repository: mostly source and text.
_TEXT = 0.3


@dataclass(frozen=True, slots=True)
class Size:
    """How large a layer is or will be.

    Attributes:
        compressed, unpacked: bytes; `unpacked` is 0 where nothing tells.
        digest: of the layer, where it was made; else the figures are estimates.
    """

    compressed: int
    unpacked: int
    digest: str = ""

    def shown(self, count: int) -> str:
        """One of the figures for people, in MB; an estimate is marked."""
        return f"{'' if self.digest else '~'}{count / 1e6:.1f}" if count else ""


def size(layout: Layout, one: LayerPlan, base: BaseLock | None) -> Size:
    """The size of a layer that was made, or what it will be."""
    if made := layer.noted(layout, one):
        return Size(made.size, made.unpacked, made.digest)
    if one.wheels:
        parts = [_estimate(wheel, dict(one.rules).get(wheel.name, spec.Rules()).left_out) for wheel in one.wheels]
        unpacked = sum(part.unpacked for part in parts) if all(part.unpacked for part in parts) else 0
        return Size(sum(part.compressed for part in parts), unpacked)
    if one.files:
        sizes = [file.size for file in one.files]
        return Size(round(_TEXT * sum(sizes)), sum(sizes) + _HEADER * len(sizes))
    if one.what == "base" and base:
        return Size(round(_DEBS * sum(deb.artifact.size for deb in base.debs)), 0)
    return Size(_CONFIG, 0)


def _estimate(wheel: Wheel, left_out: Iterable[str]) -> Size:
    if not store.has(wheel.artifact):
        return Size(round(_WHEEL * wheel.artifact.size), 0)
    patterns = tuple(left_out)
    compressed = unpacked = 0.0
    try:
        with zipfile.ZipFile(store.path(wheel.artifact)) as archive:
            for info in archive.infolist():
                if any(fnmatch.fnmatchcase(info.filename, pattern) for pattern in patterns):
                    continue
                source = info.filename.endswith(".py")
                compressed += info.compress_size * (_SOURCE if source else _OTHER)
                unpacked += info.file_size + _HEADER + (info.file_size * _BYTECODE + _HEADER if source else 0)
    except (OSError, zipfile.BadZipFile):
        # The build will say so, with what to do.
        return Size(round(_WHEEL * wheel.artifact.size), 0)
    return Size(round(compressed), round(unpacked))
