"""A Docker Engine as far as smoke asks it: keeps what it is given and refuses what an engine would refuse."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable
from typing import Any

import docker.errors

from common.files import sha256_bytes


class Thing:
    """A container or a volume."""

    def __init__(self, home: list[Thing], name: str, labels: dict[str, str], **arguments: Any) -> None:
        self.home, self.name, self.labels, self.arguments = home, name, labels, arguments
        self.attrs: dict[str, Any] = {"Labels": labels}
        self.archives: list[tuple[str, bytes]] = []

    def remove(self, **_: Any) -> None:
        self.home.remove(self)

    def put_archive(self, path: str, data: bytes) -> bool:
        self.archives.append((path, data))
        return True


class Things:
    """`client.containers` or `client.volumes`."""

    def __init__(self) -> None:
        self.all: list[Thing] = []

    def create(self, name: str, *, labels: dict[str, str], **arguments: Any) -> Thing:
        self.all.append(Thing(self.all, name, labels, **arguments))
        return self.all[-1]

    def list(self, *, filters: dict[str, str], **_more: Any) -> list[Thing]:
        name, _, value = filters["label"].partition("=")
        return [thing for thing in self.all if name in thing.labels and value in {"", thing.labels[name]}]


class Image:
    """An image as docker-py shows it."""

    def __init__(self, digest: str, config: dict[str, Any]) -> None:
        self.id: str = digest
        self.attrs: dict[str, Any] = {"Config": config}


class Images:
    """`client.images` over a content store: a load needs every blob, sent now or before."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.names: dict[str, str] = {}
        self.received: list[set[str]] = []
        self.wrong_digest = False
        self.full = False

    def get(self, name: str) -> Image:
        digest = self.names.get(name, name)
        if digest not in self.names.values():
            raise docker.errors.ImageNotFound(name)
        manifest = json.loads(self.blobs[digest])
        config = json.loads(self.blobs[manifest["config"]["digest"]])["config"]
        return Image("sha256:" + "0" * 64 if self.wrong_digest else digest, config)

    def load(self, data: Iterable[bytes]) -> list[Image]:
        with tarfile.open(fileobj=io.BytesIO(b"".join(data))) as tar:
            files = {member.name: tar.extractfile(member).read() for member in tar.getmembers()}  # type: ignore[union-attr]
        blobs = {sha256_bytes(data): data for name, data in files.items() if name.startswith("blobs/")}
        assert {name for name in files if name.startswith("blobs/")} == {f"blobs/{d.replace(':', '/')}" for d in blobs}
        self.received.append(set(blobs))
        if self.full:
            raise docker.errors.ImageLoadError("write /var/lib: no space left on device")
        self.blobs |= blobs
        (entry,) = json.loads(files["index.json"])["manifests"]
        manifest = json.loads(self.blobs[entry["digest"]])
        for blob in [manifest["config"], *manifest["layers"]]:
            if blob["digest"] not in self.blobs:
                raise docker.errors.ImageLoadError(f"content digest {blob['digest']}: not found")
        self.names[entry["annotations"]["io.containerd.image.name"]] = entry["digest"]
        return [self.get(entry["digest"])]


class SimulatedEngine:
    """What `docker.from_env()` gives."""

    def __init__(self, **info: Any) -> None:
        self.images, self.containers, self.volumes = Images(), Things(), Things()
        self._info = {"ServerVersion": "26.1.5", "DockerRootDir": "/nowhere", **info}

    def info(self) -> dict[str, Any]:
        return self._info
