"""`invoke push`: built images into a registry, each digest read back before it is recorded.

The registry's own report of success is not trusted: tag and digest are read back and hashed, once by the client that pushed
and once by skopeo, which shares no code with it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

from common import console, host
from common.errors import BuildError, RegistryError, UsageError
from common.files import sha256_bytes
from images import receipt
from images.receipt import BuiltImage
from lockfiles import images_lock
from lockfiles.images_lock import PinnedImage
from oci.client.auth import RefusedError
from oci.client.blob import Blob
from oci.client.client import Client
from oci.client.patience import Patience, settled
from oci.client.target import Registry
from oci.layout import Layout
from oci.reference import ImageRef
from registry import holes, limits, skopeo
from registry.holes import Hole
from registry.send import Sender

# Seconds for skopeo to read a manifest, its retries included.
_PATIENCE = Patience(warn=console.warn)
_FORBIDDEN = 403


@dataclass(frozen=True, slots=True)
class _Parcel:
    """An image whose manifest is read and whose blobs are open, but for the holes of a thin build."""

    image: BuiltImage
    manifest: bytes
    blobs: tuple[Blob | Hole, ...]


def push(registry: str, proven: frozenset[str]) -> str:
    """Push every built image, read its digest back, and record it in `lockfiles/images.lock`.

    Args:
        registry: `host[:port][/path]`; empty: the embedded one, started when it does not run.
        proven: digests that passed the smoke ladder; others are pushed with a warning.

    Returns:
        the outcome in a few words.

    Raises:
        BuildError: nothing was built, or the layout lost or altered a blob; of the image concerned no manifest is sent.
        RegistryError: the registry refuses, fails, or holds another digest than was pushed; nothing is recorded. Or the one
            that a thin build left blobs in does not give them.
        UsageError: `registry` is no registry.
        LockError: `lockfiles/images.lock` was edited into something else; nothing is sent.
    """
    target = Registry.parse(registry or host.default_registry())
    if target.host.startswith("["):
        fix = "give the registry a name, in /etc/hosts for example"
        raise UsageError("skopeo, which reads back what was pushed, takes no IPv6 address", where=target.host, fix=fix)
    # Find out before anything is sent whether the lock is readable.
    pinned = images_lock.read() if images_lock.path().exists() else ()
    with ExitStack() as resources:
        # No build removes blobs while the files are opened; once they are open, it may do so while they are sent.
        with Layout(receipt.layout()).reading():
            built = holes.mended(receipt.read(), _PATIENCE)
            parcels = [_open(resources, target, image) for image in built.images]
        if target.host == host.REGISTRY:
            host.start_registry()
        names = dict.fromkeys([*(image.name for image in built.images), *(image.name for image in pinned)])
        client = resources.enter_context(Client(target, _PATIENCE, writes=True))
        client.prepare()
        # Both readers, before the first byte is sent; our own client says more of what is wrong.
        for parcel in parcels:
            ref, hidden = target.ref(parcel.image.name, parcel.image.version), False
            try:
                client.find_manifest(ref.repository, ref.tag)
            except RefusedError as problem:
                # Some hide with 403 that there is no such tag.
                hidden = problem.status == _FORBIDDEN
                if not hidden:
                    raise
            skopeo.check(target, ref, hidden=hidden)
        sender = Sender(client, [target.prefix + name for name in names])
        for parcel in parcels:
            if parcel.image.digest not in proven:
                console.warn(
                    f"{parcel.image.name}@{parcel.image.digest} is not proven: no passed smoke run of this digest"
                    " (run `invoke smoke` first)"
                )
            _push(client, sender, parcel)
    images_lock.write(
        PinnedImage(image.name, image.digest, image.version, image.driver, image.compute) for image in built.images
    )
    console.done(f"recorded {len(built.images)} digests in lockfiles/images.lock")
    return (
        f"{len(built.images)} digests at {target.host}/{target.prefix}, {sum(i.digest in proven for i in built.images)} proven"
    )


def _open(resources: ExitStack, target: Registry, image: BuiltImage) -> _Parcel:
    """Open all files of an image, and refuse an image that the registry is known not to take."""
    layout = Layout(receipt.layout())
    body = layout.read(image.digest)
    layers = {layer.digest: layer for layer in image.layers}
    names = {digest: layer.what for digest, layer in layers.items()}
    parts = [("configuration", body["config"]), *((names.get(layer["digest"], "?"), layer) for layer in body["layers"])]
    # A blob that a manifest lists twice is sent once.
    unique = {part["digest"]: (what, part) for what, part in parts}
    blobs: list[Blob | Hole] = []
    for digest, (what, part) in unique.items():
        hole = holes.of(layers[digest], _PATIENCE) if digest in layers else None
        blobs.append(hole or resources.enter_context(Blob(what, digest, part["size"], layout.blob(digest))))
    manifest = layout.blob(image.digest).read_bytes()
    if sha256_bytes(manifest) != image.digest:
        raise BuildError("a manifest was altered", where=str(layout.blob(image.digest)), fix="run `invoke build` again")
    limits.check(target.host, len(manifest), [(what, part["size"]) for what, part in parts[1:]])
    return _Parcel(image, manifest, tuple(blobs))


def _push(client: Client, sender: Sender, parcel: _Parcel) -> None:
    image, target = parcel.image, client.target
    ref = target.ref(image.name, image.version)
    console.info(f"pushing {image.name}, {console.size(image.size)}")
    began = time.monotonic()
    sent = sender.send(ref.repository, ref.tag, parcel.manifest, parcel.blobs)
    console.done(f"{image.name}: {sent}  ({console.seconds(time.monotonic() - began)})")
    for reference in (ref, ref.pin(image.digest)):
        readers: dict[str, Callable[[ImageRef], str]] = {
            "our client": lambda at: sha256_bytes(client.manifest(at.repository, at.digest or at.tag)),
            "skopeo": lambda at: skopeo.digest(target, at),
        }
        for reader, read in readers.items():
            actual = settled(partial(read, reference), image.digest, client.patience)
            if actual != image.digest:
                raise RegistryError(
                    f"{reference} holds {actual}, but {image.digest} was pushed",
                    where=f"{ref}, read by {reader}",
                    fix="do not use this tag; something altered it on the way or in the registry",
                )
    console.done(f"{ref.pin(image.digest)} read back by tag and by digest, twice each")
