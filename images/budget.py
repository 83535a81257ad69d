"""How large an image may be: `budget` in its image.toml, compressed bytes of all layers. Growth is a decision, not an accident.

Written as `"3.00 GB"` or `"950 MB"`, in decimal units as registries and disks count.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from common import console
from common.errors import BuildError
from images.receipt import BuiltImage, BuiltLayer

_UNITS = {"MB": 1_000_000, "GB": 1_000_000_000}
_FORM = re.compile(r"([0-9]+(?:\.[0-9]+)?) (MB|GB)")
# From this share on the next release may not fit.
_TIGHT = 0.97
_NAMED = 5


def parse(text: str) -> int:
    """Bytes of a budget as image.toml has it.

    Raises:
        ValueError: it is no such thing.
    """
    found = _FORM.fullmatch(text)
    size = round(float(found[1]) * _UNITS[found[2]]) if found else 0
    if not size:
        raise ValueError(f'not a size: {text!r}; write "3.00 GB" or "950 MB"')
    return size


def shown(size: int, budget: int) -> str:
    """How much of a budget is used, for people."""
    return f"{console.size(size)} of {console.size(budget)} ({100 * size / budget:.1f} %)"


def tight(size: int, budget: int) -> bool:
    """Whether so much is used that it should be said."""
    return size > _TIGHT * budget


def check(image: BuiltImage, budget: int, before: Iterable[BuiltImage]) -> None:
    """Refuse an image that is larger than its budget; warn of one that nearly is.

    Args:
        image: with all of its layers made.
        budget: bytes.
        before: the images of the build before; with this one's it is compared to say what grew.

    Raises:
        BuildError: it is too large; naming the layers to look at.
    """
    if image.size > budget:
        old = next((one.layers for one in before if one.name == image.name), ())
        raise BuildError(
            f"{image.name} is {shown(image.size, budget)}: {_largest(image.layers, old)}",
            where=f"images/{image.role}/image.toml",
            fix="raise `budget` if that is meant; else leave files out ([[leave_out]]) or pin smaller versions",
        )
    if tight(image.size, budget):
        what = f"{image.name} is {shown(image.size, budget)} of its budget"
        console.warn(f"{what}: the next release may not fit; leave files out, or raise it in images/{image.role}/image.toml")


def _largest(layers: tuple[BuiltLayer, ...], old: tuple[BuiltLayer, ...]) -> str:
    """What grew most since the build before; without one, or when nothing did, what is largest."""
    sizes = {_name(layer): layer.size for layer in old}
    growth = sorted((sizes.get(_name(layer), 0) - layer.size, layer.what) for layer in layers)[:_NAMED]
    if old and growth[0][0] >= 0:
        return _largest(layers, ())
    parts = [f"{what} {'+' if old else ''}{console.size(-less)}" for less, what in growth if less < 0]
    return f"{'grown most' if old else 'largest'}: {', '.join(parts)}"


def _name(layer: BuiltLayer) -> str:
    """What stays of a layer's name when its version or the number of its wheels changes."""
    return layer.what.partition(":")[0] if layer.what.startswith("bucket ") else layer.what.partition(" ")[0]
