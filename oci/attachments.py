"""Where proof lies in a registry: read in both forms that exist, written as cosign's tags, which every registry can hold.

Tags: `sha256-<hex>.sig` holds signatures, `.att` attestations, a layer each. Referrers: sigstore bundles whose manifest names
the image as its subject, listed by the referrers API or, where a registry lacks it, by an index under `sha256-<hex>` (OCI
distribution spec 1.1, "Referrers Tag Schema"). Nothing read here is trusted yet: `verify` checks the signatures.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from common.errors import RegistryError
from common.files import sha256_bytes
from oci import envelope as dsse
from oci.client.blob import Blob
from oci.client.client import Client
from oci.descriptor import CONFIG, MANIFEST, Descriptor, canonical
from oci.envelope import SIMPLE, Envelope
from oci.reference import check_digest

DSSE = "application/vnd.dsse.envelope.v1+json"
_BUNDLE = "application/vnd.dev.sigstore.bundle"
_SIGNATURE = "dev.cosignproject.cosign/signature"
# Far more than anybody attaches. A longer list is refused, never cut: its end could hide a failed result.
_MOST = 200
# Bytes of one blob, and of all together. An SBOM takes half a megabyte; a larger one is not ours and takes no proof away.
_LARGEST, _MOST_BYTES = 64 << 20, 256 << 20
_FIX = "look at what is attached: `cosign tree` lists it"


@dataclass(frozen=True, slots=True)
class Attached:
    """A signature or a statement that is attached to an image.

    Attributes:
        envelope: its content; None when it cannot be read.
        tag: `sig` or `att` if it lies in one of cosign's tags; else empty.
        layer: its descriptor in that tag's manifest.
        left_out: what it says of itself, where it is too large to be read.
    """

    envelope: Envelope | None
    tag: str = ""
    layer: dict[str, Any] | None = None
    left_out: str = ""


def read(client: Client, repository: str, digest: str) -> list[Attached]:
    """Everything that is attached to an image, in the registry's order.

    Raises:
        RegistryError: the registry cannot be read, or serves other bytes than it names.
    """
    reading = _Reading(client, repository, digest)
    return [*_tagged(reading, digest), *_bundles(reading, digest)]


def write(client: Client, repository: str, digest: str, tag: str, kept: Sequence[Attached], new: Sequence[Envelope]) -> None:
    """Replace the content of one of cosign's tags.

    Args:
        client: of the registry.
        repository: the whole path within it.
        digest: of the image.
        tag: `sig` or `att`.
        kept: the part of its present content that stays.
        new: the part that is added.

    Raises:
        RegistryError: the registry refuses or fails.
    """
    layers = [item.layer for item in kept if item.layer is not None] + [
        _layer(client, repository, envelope) for envelope in new
    ]
    # As cosign writes it: an image configuration without content.
    config = {
        "architecture": "",
        "os": "",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"] for layer in layers]},
    }
    config_descriptor = _put(client, repository, CONFIG, canonical(config)).json()
    body = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config_descriptor, "layers": layers}
    client.put_manifest(repository, _tag(digest, tag), canonical(body))


def _layer(client: Client, repository: str, envelope: Envelope) -> dict[str, Any]:
    if envelope.payload_type == SIMPLE:
        (signature,) = json.loads(envelope.json())["signatures"]
        descriptor = _put(client, repository, SIMPLE, envelope.payload).json()
        return {**descriptor, "annotations": {_SIGNATURE: signature["sig"]}}
    descriptor = _put(client, repository, DSSE, envelope.json()).json()
    kind = str(json.loads(envelope.payload)["predicateType"])
    return {**descriptor, "annotations": {_SIGNATURE: "", "predicateType": kind}}


def _put(client: Client, repository: str, kind: str, data: bytes) -> Descriptor:
    descriptor = Descriptor(kind, sha256_bytes(data), len(data))
    if not client.exists(repository, descriptor.digest, len(data)):
        with Blob("proof", descriptor.digest, len(data), data) as blob:
            client.upload(repository, blob, lambda _: None)
    return descriptor


def _tag(digest: str, ending: str = "") -> str:
    return digest.replace(":", "-") + (f".{ending}" if ending else "")


@dataclass
class _Reading:
    """Reads from one repository, within bounds: whoever may write to it could list endlessly many things.

    Attributes:
        client: of the registry.
        repository: the whole path within it.
        image: the digest of what it is all attached to.
        blobs: how many were read so far.
        size: bytes of all of them.
    """

    client: Client
    repository: str
    image: str
    blobs: int = 0
    size: int = 0

    def manifest(self, reference: str) -> dict[str, Any] | None:
        """A manifest; None when there is none."""
        data = self.client.find_manifest(self.repository, reference, beside=self.image)
        if data is None:
            return None
        try:
            body = json.loads(data)
        except (ValueError, RecursionError):
            body = None
        if not isinstance(body, dict):
            raise self.refused(f"{reference} is no manifest")
        return body

    def descriptors(self, manifest: dict[str, Any] | None, key: str) -> list[dict[str, Any]]:
        """The descriptors that a manifest or an index lists under a key."""
        listed = (manifest or {}).get(key) or []
        if not isinstance(listed, list) or not all(isinstance(entry, dict) for entry in listed) or len(listed) > _MOST:
            raise self.refused(f"a manifest lists under {key!r} something else than descriptors, or more than {_MOST}")
        return listed

    def blob(self, layer: dict[str, Any]) -> bytes:
        """The bytes of one attached blob."""
        digest = self.digest(layer)
        data = self.client.read_blob(self.repository, digest, _LARGEST)
        self.blobs, self.size = self.blobs + 1, self.size + len(data)
        if self.blobs > _MOST or self.size > _MOST_BYTES:
            raise self.refused(f"more than {_MOST} things, or {_MOST_BYTES >> 20} MiB, are attached to one image")
        return data

    def too_large(self, layer: dict[str, Any]) -> str:
        """What a blob that is not read says of itself; empty for one that is."""
        size = layer.get("size")
        if not isinstance(size, int) or size <= _LARGEST:
            return ""
        return f"{self.digest(layer)}, {str(layer.get('mediaType'))[:80]}, {size >> 20} MiB"

    def digest(self, descriptor: dict[str, Any]) -> str:
        """The digest that a descriptor names, checked, because it becomes part of an address."""
        try:
            return check_digest(str(descriptor.get("digest")))
        except ValueError as problem:
            raise self.refused(str(problem)) from None

    def refused(self, problem: str) -> RegistryError:
        """The error for attached content that cannot be read."""
        return RegistryError(problem, where=self.repository, fix=_FIX)


def _tagged(reading: _Reading, digest: str) -> list[Attached]:
    attached = []
    for tag in ("sig", "att"):
        for layer in reading.descriptors(reading.manifest(_tag(digest, tag)), "layers"):
            if large := reading.too_large(layer):
                attached.append(Attached(None, tag, layer, large))
                continue
            data = reading.blob(layer)
            try:
                # As cosign does: the tag decides how the content is signed.
                envelope: Envelope | None = _plain(layer, data) if tag == "sig" else dsse.parse(data)
            except (ValueError, AttributeError):
                envelope = None
            attached.append(Attached(envelope, tag, layer))
    return attached


def _plain(layer: dict[str, Any], data: bytes) -> Envelope:
    signature = (layer.get("annotations") or {}).get(_SIGNATURE, "")
    return Envelope(SIMPLE, data, (dsse.decode(signature),))


def _bundles(reading: _Reading, digest: str) -> list[Attached]:
    referrers = reading.client.referrers(reading.repository, digest, _MOST)
    if referrers is None:
        referrers = reading.descriptors(reading.manifest(_tag(digest)), "manifests")
    attached = []
    for descriptor in referrers:
        manifest = reading.manifest(reading.digest(descriptor)) or {}
        subject = manifest.get("subject")
        if not isinstance(subject, dict) or subject.get("digest") != digest:
            continue
        for layer in reading.descriptors(manifest, "layers"):
            # Without the referrers API, only the manifest tells the kind of a referrer.
            if not str(layer.get("mediaType")).startswith(_BUNDLE):
                continue
            if large := reading.too_large(layer):
                attached.append(Attached(None, left_out=large))
                continue
            try:
                body = dsse.read_json(reading.blob(layer))
                attached.append(Attached(dsse.parse(json.dumps(body["dsseEnvelope"]).encode())))
            except (ValueError, KeyError, TypeError, RecursionError):
                attached.append(Attached(None))
    return attached
