"""Blobs that a thin build left in a registry: mounted at the target, or copied from there; made here when they are gone."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from common import console, paths
from common.errors import BuildError
from images import layer, receipt, spec
from images.build import build
from images.inventory import Offer
from images.receipt import BuildReceipt, BuiltLayer
from images.recipe import recipe_of
from lockfiles import lockfile
from oci.client.blob import Blob
from oci.client.client import Client
from oci.client.patience import Patience
from oci.client.target import Registry
from oci.layout import Layout


@dataclass(frozen=True, slots=True)
class Hole:
    """A blob that is not in the layout.

    Attributes:
        what: its content, for people.
        digest: of it.
        size: bytes.
        host: of the registry that has it.
        repository: the whole path there.
        patience: for that registry.
    """

    what: str
    digest: str
    size: int
    host: str
    repository: str
    patience: Patience

    @contextmanager
    def opened(self) -> Iterator[Blob]:
        """Fetch it into a file of its own, for as long as the block runs.

        Raises:
            RegistryError: the registry fails, or lacks it.
            LockError: it gives other bytes.
        """
        with tempfile.TemporaryDirectory(dir=paths.dist(), prefix=".hole-") as scratch:
            file = Path(scratch) / self.digest.removeprefix("sha256:")
            with Client(Registry.parse(self.host), self.patience) as client:
                client.download(self.repository, self.digest, self.size, file)
            with Blob(self.what, self.digest, self.size, file) as blob:
                yield blob


def of(one: BuiltLayer, patience: Patience) -> Hole | None:
    """The hole that a thin build left for a layer; None where its blob lies in the layout."""
    if not one.source or Layout(receipt.layout()).has(one.digest, one.size):
        return None
    host, _, repository = one.source.partition("/")
    return Hole(one.what, one.digest, one.size, host, repository, patience)


def mended(built: BuildReceipt, patience: Patience) -> BuildReceipt:
    """Make what the registry collected since the build; returns the receipt of that, of the same images.

    Raises:
        RegistryError: a registry that a hole names does not answer, or refuses.
        BuildError: what is made is not what was built before, as specs and locks moved since.
    """
    holes = {hole.digest: hole for image in built.images for one in image.layers if (hole := of(one, patience))}
    gone = set[str]()
    for host in {hole.host for hole in holes.values()}:
        there = [hole for hole in holes.values() if hole.host == host]
        with Client(Registry.parse(host), patience) as client, ThreadPoolExecutor(patience.parallel) as pool:
            client.prepare()
            held = pool.map(lambda hole: client.exists(hole.repository, hole.digest, hole.size), there)
            gone |= {hole.digest for hole, has in zip(there, held, strict=True) if not has}
    if not gone:
        return built
    for digest in sorted(gone):
        console.warn(f"{holes[digest].what}: {holes[digest].host} no longer has {digest}; it is made here")
    layout, offers = Layout(receipt.layout()), dict[str, Offer]()
    for image in built.images:
        for plan in recipe_of(spec.read(image.role), lockfile.read_base()).plans:
            if (one := layer.made(plan)) and one.digest in holes.keys() - gone:
                place = f"{holes[one.digest].host}/{holes[one.digest].repository}"
                offers[plan.key] = Offer(one, layer.listing(layout, one), place)
    again = build(
        [image.role for image in built.images],
        donor=lambda wanted: {key: offer for key, offer in offers.items() if key in wanted},
    )
    if [image.digest for image in again.images] != [image.digest for image in built.images]:
        what = "the images that were built are others than the ones to push: specs, locks or files moved in between"
        raise BuildError(what, where=paths.shown(receipt.path()), fix="push again")
    return again
