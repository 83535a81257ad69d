"""Images of one static program and nothing else, in one archive that `ctr images import` reads."""

from __future__ import annotations

import tarfile
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from common.files import CHUNK, replacing, write_whole
from images.tarball import LayerWriter
from oci.descriptor import CONFIG, INDEX, LAYER, MANIFEST, Descriptor, canonical
from oci.layout import Layout

# What containerd calls an image in an archive (containerd's images/annotations.go).
_NAME = "io.containerd.image.name"


@dataclass(frozen=True, slots=True)
class ScratchImage:
    """An image to be made.

    Attributes:
        reference: its name, tag included.
        program: the static program; it goes to `/bin/` under its own name and is what the image runs.
        user: the number of the user it runs as.
        files: more files, their contents by path.
    """

    reference: str
    program: Path
    user: int
    files: tuple[tuple[str, str], ...] = ()


def write(archive: Path, images: Iterable[ScratchImage]) -> None:
    """Write the images into `archive`, a tar of an OCI layout. The same programs give the same bytes."""
    with tempfile.TemporaryDirectory(dir=archive.parent, prefix=".images-") as folder:
        layout = Layout(Path(folder) / "oci")
        layout.create()
        entries = [{**_make(layout, image).json(), "annotations": {_NAME: image.reference}} for image in images]
        write_whole(layout.root / "index.json", canonical({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}))
        with replacing(archive) as out, tarfile.open(fileobj=out, mode="w") as tar:
            for file in sorted(path for path in layout.root.rglob("*") if path.is_file()):
                tar.add(file, str(file.relative_to(layout.root)), filter=_plain)


def _make(layout: Layout, image: ScratchImage) -> Descriptor:
    unfinished = layout.blobs / ".layer"
    with unfinished.open("wb") as out, image.program.open("rb") as program:
        layer = LayerWriter(out)
        chunks = iter(lambda: program.read(CHUNK), b"")
        path = f"bin/{image.program.name}"
        layer.file(path, image.program.stat().st_size, chunks, mode=0o755)
        for name, text in image.files:
            layer.file(name, len(text.encode()), [text.encode()])
        layer.folder("tmp", owner=image.user)
        layer.end()
        digest, diff_id = layer.close()
    unfinished.replace(layout.blob(digest))
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Entrypoint": [f"/{path}"], "User": str(image.user), "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
    }
    body = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": layout.add(CONFIG, canonical(config)).json(),
        "layers": [Descriptor(LAYER, digest, layer.size).json()],
    }
    return layout.add(MANIFEST, canonical(body))


def _plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = entry.mtime = 0
    entry.uname = entry.gname = ""
    return entry
