"""Reads what is attached to one image, within bounds: whoever may write to its repository could list endlessly many things."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from common.errors import RegistryError
from oci.client.client import Client
from oci.client.patience import UnusableError
from oci.reference import check_digest

# Manifests and blobs: a scan every day for some years. A longer list is refused, never cut: its end could hide a failed result.
MOST = 2000
# Bytes of one blob, and of all together. An SBOM takes half a megabyte; a larger one is not ours and takes no proof away.
_LARGEST, MOST_BYTES = 64 << 20, 1 << 30
_FIX = "look at what is attached: `cosign tree` lists it"


@dataclass
class Reading:
    """Reads from one repository, within bounds: whoever may write to it could list endlessly many things.

    Attributes:
        client: of the registry.
        repository: the whole path within it.
        image: the digest of what it is all attached to.
        things: how many were asked for so far.
        size: bytes of all of them.
    """

    client: Client
    repository: str
    image: str
    things: int = 0
    size: int = 0

    def manifest(self, reference: str) -> dict[str, Any] | None:
        """A manifest; None when there is none.

        Raises:
            UnusableError: it is none, or too large.
        """
        data = self.client.find_manifest(self.repository, reference, beside=self.image)
        if data is None:
            return None
        self._count(len(data))
        try:
            body = json.loads(data)
        except (ValueError, RecursionError):
            body = None
        if not isinstance(body, dict):
            raise UnusableError(f"{reference} is no manifest", where=self.repository, fix=_FIX, why="it is no manifest")
        return body

    def blob(self, layer: Any) -> bytes:
        """The bytes of one attached blob.

        Raises:
            UnusableError: it is not to be had as its descriptor says, or larger than any proof.
        """
        descriptor = layer if isinstance(layer, dict) else {}
        digest, size = checked(descriptor), descriptor.get("size")
        if type(size) is not int or size < 0:
            raise UnusableError("it names no size")
        if size > _LARGEST:
            raise UnusableError("too large to be proof")
        self._count(size)
        return self.client.read_blob(self.repository, digest, size)

    def _count(self, size: int) -> None:
        self.things, self.size = self.things + 1, self.size + size
        if self.things > MOST or self.size > MOST_BYTES:
            what = f"more than {MOST} things, or {MOST_BYTES >> 20} MiB, are attached to one image"
            raise RegistryError(what, where=f"{self.repository}@{self.image}", fix=_FIX)


def checked(descriptor: dict[str, Any]) -> str:
    """The digest that a descriptor names, checked, because it becomes part of an address.

    Raises:
        UnusableError: it is no SHA-256.
    """
    try:
        return check_digest(str(descriptor.get("digest")))
    except ValueError:
        raise UnusableError("its digest is no SHA-256") from None


def named(descriptor: Any, why: str) -> str:
    """What something that is left out says of itself, and why it is; safe to print: strangers wrote it."""
    said = descriptor if isinstance(descriptor, dict) else {}
    text = f"{said.get('digest')!s:.160}, {said.get('mediaType')!s:.80}, {said.get('size')!s:.20} bytes: {why}"
    return "".join(letter if letter.isprintable() else "�" for letter in text)
