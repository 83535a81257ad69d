"""Inventories in a registry: put beside an image, and believed where its provenance, signed by a trusted key, names them.

The blob is held by a small artifact (OCI image spec 1.1, "Guidelines for Artifact Usage"), tag `sha256-<hex>.inventory`: a
registry's garbage collector keeps what a tag leads to. The tag is not asked when an inventory is read: the provenance decides.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from common import console
from common.files import sha256_bytes
from images import inventory, spec
from images.inventory import Donor, Offer
from images.layer import Layer
from lockfiles import images_lock
from lockfiles.images_lock import PinnedImage
from oci import attachments, statement
from oci.bundle import EMPTY, NOTHING
from oci.client.blob import Blob
from oci.client.client import Client, FixedTagError
from oci.client.patience import Patience, UnusableError
from oci.client.target import Registry
from oci.descriptor import MANIFEST, Descriptor, canonical
from oci.envelope import PublicKey, fingerprint
from oci.signature import by_key, signed_statements
from registry import provenance

_PATIENCE = Patience()
# Bytes; compressed.
_LARGEST = 64 << 20


def put(client: Client, repository: str, digest: str, data: bytes) -> None:
    """Put an inventory beside an image, unless it is there.

    Args:
        client: of the registry.
        repository: the whole path within it.
        digest: of the image.
        data: the inventory.

    Raises:
        RegistryError: the registry refuses or fails.
    """
    parts = []
    for kind, body in ((EMPTY, NOTHING), (inventory.TYPE, data)):
        parts.append(Descriptor(kind, sha256_bytes(body), len(body)))
        if not client.exists(repository, parts[-1].digest, len(body)):
            with Blob("inventory", parts[-1].digest, len(body), body) as blob:
                client.upload(repository, blob, lambda _: None)
    config, held = (part.json() for part in parts)
    manifest = canonical(
        {"schemaVersion": 2, "mediaType": MANIFEST, "artifactType": inventory.TYPE, "config": config, "layers": [held]}
    )
    try:
        client.put_manifest(repository, f"{digest.replace(':', '-')}.inventory", manifest)
    except FixedTagError:
        # It is found by digest all the same; a tag only keeps it from being collected.
        client.put_manifest(repository, sha256_bytes(manifest), manifest)


class _NoneError(Exception):
    """Why an image gives no layers."""


def donor(registry: str, key: PublicKey, roles: Collection[str]) -> Donor:
    """What gives the layers of the images that `lockfiles/images.lock` names, from a registry that has them.

    An image without an inventory, or whose inventory does not hold, gives none, and that is said.

    Args:
        registry: `host[:port][/path]`.
        key: who must have signed.
        roles: of the images to build: what was pushed of them is asked first, and no more is asked than is needed.

    Raises:
        UsageError: `registry` is no registry.
        LockError: images.lock was edited into something else.
    """
    target = Registry.parse(registry)
    names = {spec.read(role).name for role in roles}
    pinned = sorted(images_lock.read() if images_lock.path().exists() else (), key=lambda image: image.name not in names)

    def offers(wanted: frozenset[str]) -> dict[str, Offer]:
        found: dict[str, Offer] = {}
        if not pinned:
            console.warn("no inventory: lockfiles/images.lock names no image that was pushed; all layers are made here")
        with Client(target, _PATIENCE) as client:
            client.prepare()
            for image in pinned:
                if found.keys() >= wanted:
                    break
                try:
                    layers = _layers(client, image, key)
                except _NoneError as reason:
                    console.warn(f"{image.name}@{image.digest}: no inventory is believed: {reason}; it gives no layers")
                    continue
                open_ = [(one, text) for one, text in layers if one.key in wanted and one.key not in found]
                found |= _there(client, target.prefix + image.name, open_)
        return found

    return offers


def _there(client: Client, repository: str, layers: list[tuple[Layer, str]]) -> dict[str, Offer]:
    """Those of the layers whose blob the repository has."""
    with ThreadPoolExecutor(client.patience.parallel) as pool:
        held = list(pool.map(lambda pair: client.exists(repository, pair[0].digest, pair[0].size), layers))
    for (one, _), there in zip(layers, held, strict=True):
        if not there:
            console.warn(f"{one.what}: the registry no longer has {one.digest}; it is made here")
    place = f"{client.target.host}/{repository}"
    return {one.key: Offer(one, text, place) for (one, text), there in zip(layers, held, strict=True) if there}


def _layers(client: Client, image: PinnedImage, key: PublicKey) -> list[tuple[Layer, str]]:
    """The layers of an image by its inventory, which must be the one that its signed provenance names, and fit the image."""
    repository = client.target.prefix + image.name
    manifest = client.find_manifest(repository, image.digest)
    if manifest is None:
        raise _NoneError(f"{client.target.host}/{repository} has no such image")
    attached = attachments.read(client, repository, image.digest, ("att",))
    signed = signed_statements(attached, image.digest, by_key(key), statement.PROVENANCE)
    if not signed:
        raise _NoneError(f"it has no provenance that key {fingerprint(key)} signed")
    try:
        named = provenance.inventory(signed[-1][1].predicate)
        if named is None:
            raise _NoneError("its provenance names none: an older Pinwheel pushed it")
        digest, size = named
        if not 0 < size <= _LARGEST:
            raise ValueError(f"an inventory of {size} bytes")
        layers = inventory.read(client.read_blob(repository, digest, size))
        _check(client, repository, json.loads(manifest), [one for one, _ in layers])
    except UnusableError as problem:
        raise _NoneError(f"{problem.why} ({problem.what})") from None
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError, RecursionError) as problem:
        raise _NoneError(f"it is none: {problem}") from None
    return layers


def _check(client: Client, repository: str, body: dict[str, Any], layers: list[Layer]) -> None:
    """Refuse an inventory of other layers than the image has, or that says another diff_id than the image's configuration.

    Raises:
        ValueError: it is one.
    """
    config = json.loads(client.read_blob(repository, body["config"]["digest"], body["config"]["size"]))
    true = [(one["digest"], one["size"]) for one in body["layers"]]
    if [(one.digest, one.size) for one in layers] != true:
        raise ValueError("its layers are not those of the image")
    for one, diff_id in zip(layers, config["rootfs"]["diff_ids"], strict=True):
        if one.diff_id != diff_id:
            raise ValueError(f"it says diff_id {one.diff_id} of {one.what}, and the image's configuration {diff_id}")
