"""Content descriptors, the media types that we write, and JSON in one form (OCI image spec 1.1, "Content Descriptors")."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+zstd"


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A blob's type, digest and size, as a manifest lists them."""

    media_type: str
    digest: str
    size: int

    def json(self) -> dict[str, Any]:
        """The descriptor's JSON form."""
        return {"mediaType": self.media_type, "digest": self.digest, "size": self.size}


def canonical(body: object) -> bytes:
    """JSON in the one form we write: sorted keys, no blanks."""
    return json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
