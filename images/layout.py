"""An OCI image layout on disk (OCI image spec 1.1, "Image Layout"): blobs by digest and an index.

Several images share one layout and with it their layers. A blob gets its name only when it is whole, the index is replaced
at the end: at any moment the layout is valid.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import BuildError
from common.files import sha256_bytes, write_whole

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+zstd"
REF_NAME = "org.opencontainers.image.ref.name"


@dataclass(frozen=True, slots=True)
class Descriptor:
    """What a manifest says of a blob (OCI image spec, "Content Descriptors")."""

    media_type: str
    digest: str
    size: int

    def json(self) -> dict[str, Any]:
        """The descriptor's JSON form."""
        return {"mediaType": self.media_type, "digest": self.digest, "size": self.size}


def canonical(body: dict[str, Any]) -> bytes:
    """JSON in the one form we write: sorted keys, no blanks."""
    return json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


class Layout:
    """A layout in a folder, made when missing."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.blobs = root / "blobs" / "sha256"

    def create(self) -> None:
        """Make the folders and the marker file of a layout."""
        self.blobs.mkdir(parents=True, exist_ok=True)
        write_whole(self.root / "oci-layout", canonical({"imageLayoutVersion": "1.0.0"}))
        if not (self.root / "index.json").exists():
            self._write_index([])

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
        except (FileNotFoundError, ValueError, KeyError):
            return []
        return entries

    def publish(self, manifest: Descriptor, name: str, version: str) -> None:
        """List a manifest in the index as `name:version`; an older one of that name is unlisted."""
        entry = {**manifest.json(), "annotations": {REF_NAME: f"{name}:{version}"}}
        others = [m for m in self.manifests() if m.get("annotations", {}).get(REF_NAME, "").partition(":")[0] != name]
        self._write_index([*others, entry])

    def referenced(self) -> set[str]:
        """Digests of all blobs that the listed images consist of."""
        found: set[str] = set()
        for entry in self.manifests():
            manifest = self.read(entry["digest"])
            found |= {entry["digest"], manifest["config"]["digest"], *(layer["digest"] for layer in manifest["layers"])}
        return found

    def sweep(self, keep: set[str]) -> int:
        """Remove blobs other than those of `keep`; returns the bytes freed."""
        freed = 0
        for file in self.blobs.iterdir():
            # Unfinished files of a running build start with a dot.
            if not file.name.startswith(".") and f"sha256:{file.name}" not in keep:
                freed += file.stat().st_size
                file.unlink()
        return freed

    def _write_index(self, entries: list[dict[str, Any]]) -> None:
        entries = sorted(entries, key=lambda entry: str(entry["annotations"][REF_NAME]))
        write_whole(self.root / "index.json", canonical({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}))
