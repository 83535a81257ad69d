"""One image out of the OCI layout, as the tar stream that `docker load` reads.

The stream is made while it is sent: no copy of the image is ever written, and no more than a chunk is held in memory.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from common.errors import SmokeError
from common.files import CHUNK
from images.receipt import BuiltImage

# Images that Pinwheel loads into an engine carry this registry in their name, which no one can pull from.
REGISTRY = "pinwheel.local"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"


@dataclass(frozen=True, slots=True)
class Entry:
    """One member of the stream: bytes at hand, or a blob of the layout.

    Attributes:
        name: path within the tar.
        size: bytes.
        data: the content; None when it lies in `file`.
        file: the blob; None when `data` is the content.
    """

    name: str
    size: int
    data: bytes | None = None
    file: Path | None = None


def local_name(image: BuiltImage) -> str:
    """The name an image has in the engine."""
    return f"{REGISTRY}/{image.name}:{image.version}"


def entries(image: BuiltImage, layout: Path, *, without: frozenset[str] = frozenset()) -> tuple[Entry, ...]:
    """What the stream holds, in its order: the two files of a layout, then every blob once, sorted by digest.

    Args:
        image: the image.
        layout: the OCI layout that holds its blobs.
        without: digests of layers that the engine holds already.

    Raises:
        SmokeError: a blob is missing or has another size than the receipt says.
    """
    manifest = _blob(layout, image.digest)
    index = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [
            {
                "mediaType": _MANIFEST,
                "digest": image.digest,
                "size": manifest.size,
                # containerd's own annotation: the full name under which the engine lists the image.
                "annotations": {"io.containerd.image.name": local_name(image)},
            }
        ],
    }
    blobs = [manifest, _blob(layout, image.config_digest)]
    for layer in {layer.digest: layer for layer in image.layers}.values():
        if layer.digest not in without:
            blobs.append(_blob(layout, layer.digest, layer.size))
    return (
        _bytes("oci-layout", {"imageLayoutVersion": "1.0.0"}),
        _bytes("index.json", index),
        *sorted(blobs, key=lambda entry: entry.name),
    )


def stream(members: tuple[Entry, ...], sent: Callable[[int], None]) -> Iterator[bytes]:
    """The tar, chunk by chunk; the same members always give the same bytes.

    Args:
        members: what it holds.
        sent: told the number of content bytes of every chunk.

    Raises:
        SmokeError: a blob changed its size meanwhile.
    """
    for entry in members:
        header = tarfile.TarInfo(entry.name)
        header.size, header.mode = entry.size, 0o644
        yield header.tobuf(tarfile.PAX_FORMAT)
        count = 0
        for chunk in _content(entry):
            count += len(chunk)
            sent(len(chunk))
            yield chunk
        if count != entry.size:
            raise SmokeError(f"{entry.name} has {count} bytes instead of {entry.size}", fix="run `invoke build` again")
        yield b"\0" * (-count % tarfile.BLOCKSIZE)
    yield b"\0" * (2 * tarfile.BLOCKSIZE)


def _content(entry: Entry) -> Iterator[bytes]:
    if entry.data is not None:
        yield entry.data
    elif entry.file is not None:
        with entry.file.open("rb") as file:
            while chunk := file.read(CHUNK):
                yield chunk


def _bytes(name: str, body: object) -> Entry:
    data = json.dumps(body, sort_keys=True, separators=(",", ":")).encode()
    return Entry(name, len(data), data=data)


def _blob(layout: Path, digest: str, size: int | None = None) -> Entry:
    name = f"blobs/{digest.replace(':', '/')}"
    file = layout / name
    try:
        actual = file.stat().st_size
    except OSError:
        raise SmokeError(f"blob {digest} is not in the layout", where=str(layout), fix="run `invoke build` again") from None
    if size is not None and actual != size:
        raise SmokeError(
            f"blob {digest} has {actual} bytes, the build receipt says {size}", where=str(file), fix="run `invoke build` again"
        )
    return Entry(name, actual, file=file)
