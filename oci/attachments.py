"""Where proof lies in a registry: read in both forms that exist, written as cosign's tags, which every registry can hold.

Tags: `sha256-<hex>.sig` holds signatures, `.att` attestations, a layer each. Referrers: see `bundle`; they are written where
a tag cannot be moved. Nothing read here is trusted yet: `verify` checks the signatures. Whatever cannot be read is left out
and named, for strangers attach things, too; where a list is longer than is worked through, nothing is passed over in silence.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from common.errors import RegistryError
from common.files import sha256_bytes
from oci import bundle, statement
from oci import envelope as dsse
from oci.client.blob import Blob
from oci.client.client import Client, FixedTagError
from oci.client.patience import UnusableError
from oci.descriptor import CONFIG, INDEX, MANIFEST, Descriptor, canonical
from oci.envelope import SIMPLE, Envelope
from oci.reading import MOST, Reading, checked, named

DSSE = "application/vnd.dsse.envelope.v1+json"
_SIGNATURE = "dev.cosignproject.cosign/signature"
# Lines about what is left out.
_SHOWN = 5
# The other kinds are not kept in memory.
_KINDS = frozenset({statement.SIGNATURE, statement.SBOM, statement.PROVENANCE, statement.SMOKE})


@dataclass(frozen=True, slots=True)
class Attached:
    """A signature or a statement that is attached to an image.

    Attributes:
        envelope: its content; None when it cannot be read, or is a statement of a kind that nobody here asks for.
        tag: `sig` or `att` if it lies in one of cosign's tags; else empty.
        layer: its descriptor in that tag's manifest.
        left_out: where it cannot be had: its digest, type and size as it says, and why.
    """

    envelope: Envelope | None
    tag: str = ""
    layer: dict[str, Any] | None = None
    left_out: str = ""


def read(client: Client, repository: str, digest: str, tags: Sequence[str] = ("sig", "att")) -> list[Attached]:
    """Everything that is attached to an image, in the registry's order.

    Args:
        client: of the registry.
        repository: the whole path within it.
        digest: of the image.
        tags: the ones of cosign's tags that are read; referrers are read always.

    Raises:
        RegistryError: the registry cannot be read, or more is attached than is worked through.
    """
    reading = Reading(client, repository, digest)
    return [*(item for tag in tags for item in _tagged(reading, tag)), *_bundles(reading)]


def left_out(attached: Sequence[Attached]) -> list[str]:
    """A line for each thing that was left out; of many, the first ones."""
    lines = [f"left out, it cannot be read: {item.left_out}" for item in attached if item.left_out]
    more = len(lines) - _SHOWN
    return lines if more <= 0 else [*lines[:_SHOWN], f"{more} more things that are attached cannot be read"]


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
        FixedTagError: the tag cannot be moved.
        RegistryError: the registry refuses or fails.
    """
    added = [_layer(client, repository, envelope) for envelope in new]
    try:
        _put_tag(client, repository, _tag(digest, tag), kept, added)
    except RegistryError:
        # A registry takes no list that names what it does not have, for example.
        readable = [item for item in kept if not item.left_out]
        if len(readable) == len(kept):
            raise
        _put_tag(client, repository, _tag(digest, tag), readable, added)


def refer(client: Client, repository: str, digest: str, envelopes: Sequence[Envelope], fixed: FixedTagError) -> None:
    """Attach statements by manifests that name the image as their subject: no tag is moved where the registry lists such.

    Args:
        client: of the registry.
        repository: the whole path within it.
        digest: of the image.
        envelopes: of the statements.
        fixed: why they are not in one of cosign's tags.

    Raises:
        RegistryError: the registry takes them neither here nor there.
    """
    try:
        _refer(client, repository, digest, envelopes)
    except RegistryError as problem:
        what = f"{fixed.what}; and attaching by digest instead failed: {problem.what}"
        raise RegistryError(what, where=problem.where, fix=fixed.fix) from None


def _refer(client: Client, repository: str, digest: str, envelopes: Sequence[Envelope]) -> None:
    image = client.manifest(repository, digest)
    subject = Descriptor(str(json.loads(image).get("mediaType", MANIFEST)), digest, len(image))
    empty = _put(client, repository, bundle.EMPTY, bundle.NOTHING)
    unlisted = []
    for envelope in envelopes:
        held = _put(client, repository, bundle.TYPE, bundle.make(envelope))
        body = bundle.manifest(subject, empty, held, str(json.loads(envelope.payload)["predicateType"]))
        data = canonical(body)
        described = Descriptor(MANIFEST, sha256_bytes(data), len(data)).json()
        if not client.put_manifest(repository, described["digest"], data):
            unlisted.append({**described, "artifactType": bundle.TYPE, "annotations": body["annotations"]})
    by_api = (client.referrers(repository, digest, MOST) or []) if unlisted else []
    unlisted = [entry for entry in unlisted if entry["digest"] not in {listed.get("digest") for listed in by_api}]
    if unlisted:
        # Whoever pushes keeps the list where the registry does not.
        present = Reading(client, repository, digest).manifest(_tag(digest)) or {"manifests": []}
        if not isinstance(present.get("manifests"), list):
            what = f"the tag {_tag(digest)} holds no list of referrers"
            raise RegistryError(what, where=repository, fix="remove that tag, then push again")
        entries = [*(entry for entry in present["manifests"] if isinstance(entry, dict)), *unlisted]
        index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}
        client.put_manifest(repository, _tag(digest), canonical(index), INDEX)


def _put_tag(client: Client, repository: str, tag: str, kept: Sequence[Attached], added: Sequence[dict[str, Any]]) -> None:
    layers = [*(item.layer for item in kept if item.layer is not None), *added]
    # As cosign writes it: an image configuration without content.
    config = {
        "architecture": "",
        "os": "",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [layer.get("digest") for layer in layers]},
    }
    config_descriptor = _put(client, repository, CONFIG, canonical(config)).json()
    body = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config_descriptor, "layers": layers}
    client.put_manifest(repository, tag, canonical(body))


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


def _tagged(reading: Reading, tag: str) -> list[Attached]:
    name = _tag(reading.image, tag)
    try:
        manifest = reading.manifest(name)
        if manifest is None:
            return []
        layers = manifest.get("layers")
        if not isinstance(layers, list):
            raise UnusableError("it lists no layers")
    except UnusableError as problem:
        return [Attached(None, tag, left_out=f"the tag {name}: {problem.why}")]
    # As cosign does: the tag decides how the content is signed.
    return [_attached(reading, layer, tag, _plain if tag == "sig" else lambda _, data: dsse.parse(data)) for layer in layers]


def _attached(reading: Reading, layer: Any, tag: str, parse: Callable[[dict[str, Any], bytes], Envelope]) -> Attached:
    try:
        data = reading.blob(layer)
    except UnusableError as problem:
        return Attached(None, tag, layer if isinstance(layer, dict) else None, named(layer, problem.why))
    try:
        envelope = parse(layer, data)
        known = envelope.payload_type == SIMPLE or statement.parse(envelope).kind in _KINDS
        return Attached(envelope if known else None, tag, layer)
    except (ValueError, AttributeError):
        return Attached(None, tag, layer)


def _plain(layer: dict[str, Any], data: bytes) -> Envelope:
    signature = (layer.get("annotations") or {}).get(_SIGNATURE, "")
    return Envelope(SIMPLE, data, (dsse.decode(signature),))


def _bundles(reading: Reading) -> list[Attached]:
    attached = []
    for descriptor in _referrers(reading):
        try:
            manifest = reading.manifest(checked(descriptor)) or {}
        except UnusableError as problem:
            attached.append(Attached(None, left_out=named(descriptor, problem.why)))
            continue
        subject, layers = manifest.get("subject"), manifest.get("layers")
        if isinstance(subject, dict) and subject.get("digest") == reading.image and isinstance(layers, list):
            # Without the referrers API, only the manifest tells the kind of a referrer.
            bundles = [layer for layer in layers if bundle.holds(layer)]
            attached += [_attached(reading, layer, "", lambda _, data: bundle.parse(data)) for layer in bundles]
    return attached


def _referrers(reading: Reading) -> list[dict[str, Any]]:
    """The referrers that may hold a bundle, by the API and by the tag that stands for it, each once."""
    listed = list(reading.client.referrers(reading.repository, reading.image, MOST) or [])
    try:
        by_tag = (reading.manifest(_tag(reading.image)) or {}).get("manifests")
    except UnusableError:
        # Not ours to mend: cosign reads nothing there, either.
        by_tag = None
    listed += [entry for entry in by_tag if isinstance(entry, dict)] if isinstance(by_tag, list) else []
    found = {str(entry.get("digest")): entry for entry in listed if bundle.may_be(entry)}
    return list(found.values())
