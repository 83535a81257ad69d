"""An OCI image layout on disk (OCI image spec 1.1, "Image Layout"): blobs by digest and an index.

Several images share one layout and with it their layers. A blob gets its name only when it is whole and on disk, the index is
replaced when all that it names is there: at any moment the layout is valid. Who reads blobs holds `reading()`, and nothing is
removed meanwhile.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from common.errors import BuildError
from common.files import PART, sha256_bytes, sync_folder, write_whole
from oci.descriptor import INDEX, Descriptor, canonical

REF_NAME = "org.opencontainers.image.ref.name"
# A layer in the making, in the folder of the blobs.
UNFINISHED = ".layer-"


class Layout:
    """A layout in a folder, made when missing."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.blobs = root / "blobs" / "sha256"

    def create(self) -> None:
        """Make the folders and the marker file of a layout; unlist images that lack a blob, which someone removed by hand."""
        self.blobs.mkdir(parents=True, exist_ok=True)
        marker = canonical({"imageLayoutVersion": "1.0.0"})
        if not (self.root / "oci-layout").exists() or (self.root / "oci-layout").read_bytes() != marker:
            write_whole(self.root / "oci-layout", marker)
        listed = self.manifests()
        whole = [entry for entry in listed if self._is_whole(entry)]
        if whole != listed or not (self.root / "index.json").exists():
            self._write_index(whole)

    def blob(self, digest: str) -> Path:
        """Where the blob lies or would lie."""
        return self.blobs / digest.removeprefix("sha256:")

    def has(self, digest: str, size: int) -> bool:
        """Whether the blob is there, by name and size."""
        try:
            return self.blob(digest).stat().st_size == size
        except FileNotFoundError:
            return False

    def add(self, media_type: str, data: bytes) -> Descriptor:
        """Store a small blob."""
        digest = sha256_bytes(data)
        if not self.has(digest, len(data)):
            write_whole(self.blob(digest), data)
        return Descriptor(media_type, digest, len(data))

    def read(self, digest: str) -> dict[str, Any]:
        """A JSON blob: a manifest or a configuration.

        Raises:
            BuildError: it is missing or altered.
        """
        try:
            data = self.blob(digest).read_bytes()
        except FileNotFoundError:
            raise BuildError("a blob is missing", where=str(self.blob(digest)), fix="run `invoke build` again") from None
        if sha256_bytes(data) != digest:
            raise BuildError("a blob was altered", where=str(self.blob(digest)), fix="remove it and run `invoke build` again")
        body: dict[str, Any] = json.loads(data)
        return body

    def manifests(self) -> list[dict[str, Any]]:
        """The index's entries."""
        try:
            entries: list[dict[str, Any]] = json.loads((self.root / "index.json").read_text())["manifests"]
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return []
        return entries

    def publish(self, manifest: Descriptor, name: str, version: str) -> None:
        """List a manifest in the index as `name:version`; an older one of that name is unlisted."""
        entry = {**manifest.json(), "annotations": {REF_NAME: f"{name}:{version}"}}
        listed = self.manifests()
        others = [item for item in listed if _image_name(item).partition(":")[0] != name]
        if entry not in listed or len(listed) != len(others) + 1:
            self._write_index([*others, entry])

    def lists(self, name: str, version: str, layers: list[str]) -> bool:
        """Whether the index lists an image of that name and version with these layers."""
        for entry in self.manifests():
            if _image_name(entry) == f"{name}:{version}":
                return [layer["digest"] for layer in self.read(entry["digest"])["layers"]] == layers
        return False

    def named(self, name: str) -> str | None:
        """The digest of the image of that name, whatever its version; None where none is listed."""
        return next((str(entry["digest"]) for entry in self.manifests() if _image_name(entry).partition(":")[0] == name), None)

    def referenced(self) -> set[str]:
        """Digests of all blobs that the listed images consist of."""
        digests: set[str] = set()
        for entry in self.manifests():
            manifest = self.read(entry["digest"])
            # An entry of another program may be an index, or name no image.
            parts = [manifest.get("config"), *manifest.get("layers", []), *manifest.get("manifests", [])]
            digests |= {entry["digest"], *(part["digest"] for part in parts if part)}
        return digests

    @contextmanager
    def reading(self) -> Iterator[None]:
        """No blob vanishes while the block runs; any number of readers at once. A build goes on meanwhile."""
        with self._readers() as fd:
            fcntl.flock(fd, fcntl.LOCK_SH)
            yield

    @contextmanager
    def sweeping(self) -> Iterator[bool]:
        """Yields whether blobs may be removed: True when nobody reads them; then nobody can begin to while the block runs."""
        with self._readers() as fd:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                unread = True
            except BlockingIOError:
                unread = False
            yield unread

    def clear(self) -> None:
        """Remove the unfinished files of a killed build. Call it only under the build's lock."""
        for unfinished in [*self.root.glob(f".*{PART}"), *self.blobs.glob(f".*{PART}"), *self.blobs.glob(f"{UNFINISHED}*")]:
            unfinished.unlink(missing_ok=True)

    def sweep(self, keep: set[str]) -> int:
        """Remove blobs other than those of `keep`; returns the bytes freed. Only within `sweeping()`."""
        freed = 0
        for file in self.strays(keep):
            freed += file.stat().st_size
            file.unlink()
        return freed

    def strays(self, keep: set[str]) -> list[Path]:
        """The blobs that are not among `keep`. Unfinished files, whose names start with a dot, do not count as blobs."""
        return [blob for blob in self.blobs.iterdir() if not blob.name.startswith(".") and f"sha256:{blob.name}" not in keep]

    def _is_whole(self, entry: dict[str, Any]) -> bool:
        try:
            manifest = self.read(entry["digest"])
            return all(self.has(part["digest"], part["size"]) for part in (manifest["config"], *manifest["layers"]))
        except (BuildError, ValueError, KeyError, TypeError):
            return False

    @contextmanager
    def _readers(self) -> Iterator[int]:
        file = self.root.with_name(f".{self.root.name}.readers")
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            fd = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
        except PermissionError:
            # Another user's layout: a shared lock needs no more than to read.
            fd = os.open(file, os.O_RDONLY)
        try:
            yield fd
        finally:
            os.close(fd)

    def _write_index(self, entries: list[dict[str, Any]]) -> None:
        # The blobs must be on disk before the index that names them.
        sync_folder(self.blobs)
        entries = sorted(entries, key=lambda entry: (_image_name(entry), str(entry["digest"])))
        write_whole(self.root / "index.json", canonical({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}))


def _image_name(entry: dict[str, Any]) -> str:
    """The `name:version` of an image in the index; empty for an entry that another program listed without a name."""
    return str(entry.get("annotations", {}).get(REF_NAME, ""))
