"""What a pushed image's layers hold, for builds elsewhere that take them instead of making them.

An inventory is the notes of an image's layers, from the bottom up, as one zstd frame: for each layer a line with key, digest,
diff_id, sizes and the digest of the next line, and the next line, which names its files: of wheels each with its sha256 and
package, of the base each path with its state. JSON, keys sorted; the same layers give the same bytes. The image's provenance,
which is signed, names the inventory's digest.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass

import zstandard

from common.files import sha256_bytes
from common.reader import record
from images import layer
from images.layer import Layer
from images.recipe import Recipe
from images.tarball import ZSTD_LEVEL
from oci.layout import Layout
from oci.reference import check_digest

TYPE = "application/vnd.pinwheel.inventory.v1.jsonl+zstd"
# Bytes. The largest in use has 25 MB, 5 MB of them compressed.
_LARGEST = 1 << 29


@dataclass(frozen=True, slots=True)
class Offer:
    """A layer that need not be made.

    Attributes:
        layer: what a signed inventory says of it.
        listing: its files, as the second line of its note.
        place: the repository that has its blob, `host[:port]/path`.
    """

    layer: Layer
    listing: str
    place: str


# Keys of layers that are wanted → those of them that need not be made, by key.
Donor = Callable[[frozenset[str]], dict[str, Offer]]


def make(layout: Layout, recipe: Recipe) -> bytes:
    """The inventory of an image, all of whose layers this machine has records of.

    Raises:
        BuildError: a note is not what the record says.
    """
    lines = []
    for plan in recipe.plans:
        if (found := layer.made(plan)) is not None:
            lines += [json.dumps(asdict(found), sort_keys=True), layer.listing(layout, found)]
    return zstandard.ZstdCompressor(level=ZSTD_LEVEL).compress("\n".join(lines).encode())


def read(data: bytes) -> list[tuple[Layer, str]]:
    """The layers of an inventory with their listings.

    Raises:
        ValueError: it is none.
    """
    try:
        with zstandard.ZstdDecompressor().stream_reader(data) as stream:
            text = stream.read(_LARGEST + 1)
    except zstandard.ZstdError as problem:
        raise ValueError(str(problem)) from None
    lines = text.decode().split("\n")
    if len(text) > _LARGEST or len(lines) % 2:
        raise ValueError("it is too large, or cut")
    found = []
    for head, listing in zip(lines[::2], lines[1::2], strict=True):
        try:
            one = record(Layer, json.loads(head))
            check_digest(one.digest), check_digest(one.diff_id)
        except (KeyError, TypeError, AttributeError, RecursionError) as problem:
            raise ValueError(f"a line is none of a layer: {problem}") from None
        if sha256_bytes(listing.encode()) != one.listing:
            raise ValueError(f"the files of the layer {one.what!r} are others than it says")
        found.append((one, listing))
    return found
