"""Sigstore bundles (github.com/sigstore/protobuf-specs, v0.3) as referrers of an image, as cosign 3 writes them.

A manifest of one layer, the bundle, names the image as its `subject` (OCI image spec 1.1). The registry lists it by its
referrers API; where it lacks that, an index under the tag `sha256-<hex>` does (OCI distribution spec 1.1, "Referrers Tag
Schema").
"""

from __future__ import annotations

import json
from typing import Any

from oci import envelope as dsse
from oci.descriptor import MANIFEST, Descriptor, canonical
from oci.envelope import Envelope

TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
# What every version's media type begins with.
_ANY_VERSION = "application/vnd.dev.sigstore.bundle"
EMPTY, NOTHING = "application/vnd.oci.empty.v1+json", b"{}"


def make(envelope: Envelope) -> bytes:
    """The bundle of an envelope that a key signed, without an entry of a transparency log."""
    # The hint is for people who have many keys.
    material = {"publicKey": {"hint": ""}}
    return canonical({"mediaType": TYPE, "verificationMaterial": material, "dsseEnvelope": json.loads(envelope.json())})


def manifest(subject: Descriptor, empty: Descriptor, bundle: Descriptor, kind: str) -> dict[str, Any]:
    """The manifest that refers to an image.

    Args:
        subject: the image's manifest.
        empty: the configuration, `NOTHING`.
        bundle: as `make` makes it.
        kind: the statement's predicate type.
    """
    return {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": TYPE,
        "config": empty.json(),
        "layers": [bundle.json()],
        "annotations": {"dev.sigstore.bundle.content": "dsse-envelope", "dev.sigstore.bundle.predicateType": kind},
        "subject": subject.json(),
    }


def may_be(descriptor: dict[str, Any]) -> bool:
    """Whether a listed referrer may hold a bundle; cosign itself writes the type of the empty configuration into a list."""
    said = descriptor.get("artifactType")
    return not said or said == EMPTY or str(said).startswith(_ANY_VERSION)


def holds(layer: Any) -> bool:
    """Whether a layer of a referrer is a bundle."""
    return isinstance(layer, dict) and str(layer.get("mediaType")).startswith(_ANY_VERSION)


def parse(data: bytes) -> Envelope:
    """The envelope of a bundle.

    Raises:
        ValueError: it is none.
    """
    try:
        return dsse.parse(json.dumps(dsse.read_json(data)["dsseEnvelope"]).encode())
    except (KeyError, TypeError, RecursionError) as problem:
        raise ValueError(f"no bundle: {type(problem).__name__}") from None
