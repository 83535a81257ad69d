"""A double, an image to push into it, and Docker's configuration out of the way."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from common.files import sha256_bytes
from oci.client.blob import Blob
from oci.client.client import Client
from oci.client.patience import Patience
from oci.client.target import Registry
from oci.descriptor import CONFIG, LAYER, MANIFEST, Descriptor, canonical
from oci.layout import Layout
from registry.send import Sender, Sent
from tests.oci.double import Double, serving

QUICK = Patience(tries=4, pause=0.01, longest=0.05, connect=5, read=5, commit=5, chunk=1 << 16, readable=0.3)


@pytest.fixture(autouse=True)
def docker_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Docker's configuration of this test alone; there is none yet."""
    folder = tmp_path / "docker"
    folder.mkdir()
    monkeypatch.setenv("DOCKER_CONFIG", str(folder))
    return folder / "config.json"


@pytest.fixture
def double() -> Iterator[Double]:
    with serving() as state:
        yield state


@dataclass
class Image:
    """An image in a layout, its layers' bytes made from numbers."""

    layout: Layout
    layers: list[bytes]
    manifest: bytes = b""
    digests: list[str] = field(default_factory=list)

    def write(self) -> Image:
        # Not by Layout.add, which waits for the disk.
        self.layout.blobs.mkdir(parents=True, exist_ok=True)
        config, *layers = (
            self._add(kind, data)
            for kind, data in [
                (CONFIG, f'{{"os":"linux","n":{len(self.layers)}}}'.encode()),
                *((LAYER, d) for d in self.layers),
            ]
        )
        body = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config.json(), "layers": [one.json() for one in layers]}
        self.digests = [config.digest, *(one.digest for one in layers)]
        self.manifest = canonical(body)
        return self

    def _add(self, kind: str, data: bytes) -> Descriptor:
        digest = sha256_bytes(data)
        self.layout.blob(digest).write_bytes(data)
        return Descriptor(kind, digest, len(data))


def noise(size: int, seed: int = 0) -> bytes:
    """Bytes that differ everywhere, the same every time."""
    blocks = (hashlib.sha512(f"{seed} {n}".encode()).digest() for n in range(size // 64 + 1))
    return b"".join(blocks)[:size]


@pytest.fixture
def image(tmp_path: Path) -> Callable[..., Image]:
    return lambda *layers: Image(Layout(tmp_path / "oci"), list(layers)).write()


def send(
    address: str, image: Image, *, repository: str = "team/small", patience: Patience = QUICK, others: tuple[str, ...] = ()
) -> Sent:
    """Push an image as `invoke push` does, without what surrounds it."""
    with ExitStack() as held:
        client = held.enter_context(Client(Registry.parse(address), patience, writes=True))
        body = json.loads(image.manifest)
        blobs = [
            held.enter_context(Blob(f"layer {n}", one["digest"], one["size"], image.layout.blob(one["digest"])))
            for n, one in enumerate([body["config"], *body["layers"]])
        ]
        return Sender(client, others).send(repository, "1", image.manifest, blobs)
