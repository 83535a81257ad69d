"""Where proof lies in a registry: read in both forms that there are, written in cosign's tags, which every registry has.

Tags: `sha256-<hex>.sig` holds signatures, `.att` attestations, a layer each. Referrers: sigstore bundles whose manifest names
the image as its subject, listed by the referrers API or, where a registry lacks it, by an index under `sha256-<hex>` (OCI
distribution spec 1.1, "Referrers Tag Schema"). Nothing read here is believed: `verify` looks at signatures.
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
# Far more than anybody attaches. More is refused, never cut off: behind what was cut a failed result could be hidden.
_MOST = 200
# The same in bytes, and of all blobs together: an SBOM takes half a megabyte.
_MOST_BYTES = 64 << 20
_FIX = "look at what is attached: `cosign tree` lists it"


@dataclass(frozen=True, slots=True)
class Attached:
    """One thing that is attached to an image.

    Attributes:
        envelope: what it says; None when it cannot be read.
        tag: `sig` or `att`, where it lies in one of cosign's tags; else empty.
        layer: its descriptor there.
    """

    envelope: Envelope | None
    tag: str = ""
    layer: dict[str, Any] | None = None


def read(client: Client, repository: str, digest: str) -> list[Attached]:
    """Everything that is attached to an image, in the registry's order.

    Raises:
        RegistryError: the registry cannot be read, or serves other bytes than it names.
    """
    reading = _Reading(client, repository)
    return [*_tagged(reading, digest), *_bundles(reading, digest)]


def write(client: Client, repository: str, digest: str, tag: str, kept: Sequence[Attached], new: Sequence[Envelope]) -> None:
    """Replace what one of cosign's tags holds.

    Args:
        client: of the registry.
        repository: the whole path within it.
        digest: of the image.
        tag: `sig` or `att`.
        kept: what it holds already and goes on holding.
        new: what is added.

    Raises:
        RegistryError: the registry refuses or fails.
    """
    layers = [one.layer for one in kept if one.layer is not None] + [_layer(client, repository, envelope) for envelope in new]
    # As cosign writes it: an image configuration that says nothing.
    config = {
        "architecture": "",
        "os": "",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [one["digest"] for one in layers]},
    }
    described = _put(client, repository, CONFIG, canonical(config)).json()
    body = {"schemaVersion": 2, "mediaType": MANIFEST, "config": described, "layers": layers}
    client.put_manifest(repository, _tag(digest, tag), canonical(body))


def _layer(client: Client, repository: str, envelope: Envelope) -> dict[str, Any]:
    if envelope.payload_type == SIMPLE:
        (signature,) = json.loads(envelope.json())["signatures"]
        described = _put(client, repository, SIMPLE, envelope.payload).json()
        return {**described, "annotations": {_SIGNATURE: signature["sig"]}}
    described = _put(client, repository, DSSE, envelope.json()).json()
    kind = str(json.loads(envelope.payload)["predicateType"])
    return {**described, "annotations": {_SIGNATURE: "", "predicateType": kind}}


def _put(client: Client, repository: str, kind: str, data: bytes) -> Descriptor:
    described = Descriptor(kind, sha256_bytes(data), len(data))
    if not client.exists(repository, described.digest, len(data)):
        with Blob("proof", described.digest, len(data), data) as blob:
            client.upload(repository, blob, lambda _: None)
    return described


def _tag(digest: str, ending: str = "") -> str:
    return digest.replace(":", "-") + (f".{ending}" if ending else "")


@dataclass
class _Reading:
    """Reads from one repository, within bounds: who runs a registry, or may write there, could list things without end.

    Attributes:
        client: of the registry.
        repository: the whole path within it.
        found: what is attached, so far.
        size: bytes of all blobs, so far.
    """

    client: Client
    repository: str
    found: int = 0
    size: int = 0

    def manifest(self, reference: str) -> dict[str, Any] | None:
        """A manifest; None when there is none."""
        data = self.client.find_manifest(self.repository, reference)
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
        """What a manifest or an index lists."""
        listed = (manifest or {}).get(key) or []
        if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed) or len(listed) > _MOST:
            raise self.refused(f"a manifest whose {key} are no descriptors, or more than {_MOST}")
        return listed

    def blob(self, layer: dict[str, Any]) -> bytes:
        """One thing that is attached."""
        digest = self.digest(layer)
        data = self.client.read_blob(self.repository, digest)
        self.found, self.size = self.found + 1, self.size + len(data)
        if self.found > _MOST or self.size > _MOST_BYTES:
            raise self.refused(f"more than {_MOST} things, or {_MOST_BYTES >> 20} MiB, are attached to one image")
        return data

    def digest(self, descriptor: dict[str, Any]) -> str:
        """What a descriptor names; it becomes part of an address."""
        try:
            return check_digest(str(descriptor.get("digest")))
        except ValueError as problem:
            raise self.refused(str(problem)) from None

    def refused(self, what: str) -> RegistryError:
        """What is attached cannot be worked through."""
        return RegistryError(what, where=self.repository, fix=_FIX)


def _tagged(reading: _Reading, digest: str) -> list[Attached]:
    found = []
    for tag in ("sig", "att"):
        for layer in reading.descriptors(reading.manifest(_tag(digest, tag)), "layers"):
            data = reading.blob(layer)
            try:
                # As cosign: where it lies says how it is signed.
                envelope: Envelope | None = _plain(layer, data) if tag == "sig" else dsse.parse(data)
            except (ValueError, AttributeError):
                envelope = None
            found.append(Attached(envelope, tag, layer))
    return found


def _plain(layer: dict[str, Any], data: bytes) -> Envelope:
    signature = (layer.get("annotations") or {}).get(_SIGNATURE, "")
    return Envelope(SIMPLE, data, (dsse.decode(signature),))


def _bundles(reading: _Reading, digest: str) -> list[Attached]:
    listed = reading.client.referrers(reading.repository, digest, _MOST)
    if listed is None:
        listed = reading.descriptors(reading.manifest(_tag(digest)), "manifests")
    found = []
    for one in listed:
        manifest = reading.manifest(reading.digest(one)) or {}
        subject = manifest.get("subject")
        if not isinstance(subject, dict) or subject.get("digest") != digest:
            continue
        for layer in reading.descriptors(manifest, "layers"):
            # Where there is no referrers API, what kind a referrer is stands only in its manifest.
            if not str(layer.get("mediaType")).startswith(_BUNDLE):
                continue
            try:
                body = dsse.read_json(reading.blob(layer))
                found.append(Attached(dsse.parse(json.dumps(body["dsseEnvelope"]).encode())))
            except (ValueError, KeyError, TypeError, RecursionError):
                found.append(Attached(None))
    return found
