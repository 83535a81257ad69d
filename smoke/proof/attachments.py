"""Where proof lies in a registry: read in both forms that there are, written in cosign's tags, which every registry has.

Tags: `sha256-<hex>.sig` holds signatures, `.att` attestations, a layer each. Referrers: sigstore bundles whose manifest names
the image as its subject, listed by the referrers API or, where a registry lacks it, by an index under `sha256-<hex>` (OCI
distribution spec 1.1, "Referrers Tag Schema"). Nothing read here is believed: `verify` looks at signatures.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import RegistryError
from common.files import sha256_bytes
from common.refs import check_digest
from images.layout import CONFIG, MANIFEST, Descriptor, canonical
from images.registry.blob import Blob
from images.registry.client import Client
from smoke.proof import dsse
from smoke.proof.dsse import SIMPLE, Envelope

DSSE = "application/vnd.dsse.envelope.v1+json"
_BUNDLE = "application/vnd.dev.sigstore.bundle"
_SIGNATURE = "dev.cosignproject.cosign/signature"
# Far more than anybody attaches; a registry that lists more is not worked through.
_MOST = 200
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
    return [*_tagged(client, repository, digest), *_bundles(client, repository, digest)]


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
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "blob"
            file.write_bytes(data)
            with Blob("proof", described.digest, len(data), file) as blob:
                client.upload(repository, blob, lambda _: None)
    return described


def _tag(digest: str, ending: str = "") -> str:
    return digest.replace(":", "-") + (f".{ending}" if ending else "")


def _tagged(client: Client, repository: str, digest: str) -> list[Attached]:
    found = []
    for tag in ("sig", "att"):
        manifest = _manifest(client, repository, _tag(digest, tag))
        for layer in _descriptors(manifest, "layers", repository):
            data = _blob(client, repository, layer)
            try:
                if layer.get("mediaType") == SIMPLE:
                    signature = (layer.get("annotations") or {}).get(_SIGNATURE, "")
                    envelope: Envelope | None = Envelope(SIMPLE, data, (dsse.decode(signature),))
                else:
                    envelope = dsse.parse(data)
            except (ValueError, AttributeError):
                envelope = None
            found.append(Attached(envelope, tag, layer))
    return found


def _bundles(client: Client, repository: str, digest: str) -> list[Attached]:
    listed = client.referrers(repository, digest)
    if listed is None:
        listed = _descriptors(_manifest(client, repository, _tag(digest)), "manifests", repository)
    found = []
    for one in listed[:_MOST]:
        manifest = _manifest(client, repository, _checked(one, repository)) or {}
        subject = manifest.get("subject")
        if not isinstance(subject, dict) or subject.get("digest") != digest:
            continue
        for layer in _descriptors(manifest, "layers", repository):
            # Where there is no referrers API, what kind a referrer is stands only in its manifest.
            if not str(layer.get("mediaType")).startswith(_BUNDLE):
                continue
            try:
                body = json.loads(_blob(client, repository, layer))
                found.append(Attached(dsse.parse(json.dumps(body["dsseEnvelope"]).encode())))
            except (ValueError, KeyError, TypeError, RecursionError):
                found.append(Attached(None))
    return found


def _manifest(client: Client, repository: str, reference: str) -> dict[str, Any] | None:
    data = client.find_manifest(repository, reference)
    if data is None:
        return None
    if reference.startswith("sha256:") and sha256_bytes(data) != reference:
        raise _refused(repository, f"the registry serves other bytes for {reference}")
    try:
        body = json.loads(data)
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise _refused(repository, f"{reference} is no manifest")
    return body


def _descriptors(manifest: dict[str, Any] | None, key: str, repository: str) -> list[dict[str, Any]]:
    listed = (manifest or {}).get(key) or []
    if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed) or len(listed) > _MOST:
        raise _refused(repository, f"a manifest whose {key} are no descriptors, or more than {_MOST}")
    return listed


def _blob(client: Client, repository: str, layer: dict[str, Any]) -> bytes:
    digest = _checked(layer, repository)
    data = client.read_blob(repository, digest)
    if sha256_bytes(data) != digest:
        raise _refused(repository, f"the registry serves other bytes for {digest}")
    return data


def _checked(descriptor: dict[str, Any], repository: str) -> str:
    # It becomes part of an address.
    try:
        return check_digest(str(descriptor.get("digest")))
    except ValueError as problem:
        raise _refused(repository, str(problem)) from None


def _refused(repository: str, what: str) -> RegistryError:
    return RegistryError(what, where=repository, fix=_FIX)
