"""Models of a registry: what a training registered, or `invoke model --push` copied there, by the digest of its manifest.

The form is CNCF's ModelPack (modelpack/model-spec, docs/spec.md, v1): a layer is a file as it is, so its digest is the file's
sha256. Documents of how it was trained (`training/`, `logs/`) lie beside the model and are no part of what a loader reads.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common.errors import LockError
from common.files import sha256_bytes
from common.offline import FIX, demand_network
from lockfiles import store
from lockfiles.models.hub import HubFile, Snapshot, check_paths
from lockfiles.models.inputs import ModelInput
from lockfiles.models.lockfile import PinnedFile
from oci.client.client import Client
from oci.client.target import Registry
from oci.reference import ImageRef

_ARTIFACT = "application/vnd.cncf.model.manifest.v1+json"
_DOCUMENT = "application/vnd.cncf.model.doc.v1.raw"
_FILEPATH = "org.cncf.model.filepath"


class Registered:
    """A model of a registry.

    Args:
        name: ours for it.
        place: where it lies, by digest.
        client: of that registry.
    """

    def __init__(self, name: str, place: ImageRef, client: Client) -> None:
        self._name, self._place, self._client = name, place, client

    def snapshot(self) -> Snapshot:
        """Its files.

        Raises:
            LockError: what lies there is no model, or holds a file that must not be laid out.
            RegistryError: the registry does not answer, refuses, or has no such model.
        """
        data = self._client.manifest(self._place.repository, self._place.digest)
        called, fix = f"the model {self._name}", "name the digest of a model's manifest, as `register` printed it"
        if sha256_bytes(data) != self._place.digest:
            raise LockError(f"{called}: the registry serves another manifest", where=str(self._place), fix="do not use it")
        try:
            body = json.loads(data)
            if body["artifactType"] != _ARTIFACT:
                raise ValueError(body["artifactType"])
            files = [
                HubFile(str(layer["annotations"][_FILEPATH]), int(layer["size"]), str(layer["digest"]).removeprefix("sha256:"))
                for layer in body["layers"]
                if layer["mediaType"] != _DOCUMENT or "/" not in layer["annotations"][_FILEPATH]
            ]
        except (ValueError, KeyError, TypeError) as problem:
            what = f"{called}: what lies there is no model ({type(problem).__name__} {problem})"
            raise LockError(what, where=str(self._place), fix=fix) from None
        files.sort(key=lambda file: file.path)
        check_paths(called, [file.path for file in files])
        return Snapshot(self._name, "", tuple(files))

    def start(self, _: Snapshot, file: HubFile, count: int) -> bytes:
        """The first bytes of a file, or all, where it is shorter; the whole file comes into the store."""
        pinned = PinnedFile(file.path, file.size, file.sha256)
        self.bring(pinned)
        with store.opened(pinned.artifact) as opened:
            return opened.read(count)

    def digest(self, _: Snapshot, file: HubFile) -> str:
        """The sha256 of a file; 64 hex digits."""
        return file.sha256

    def bring(self, file: PinnedFile) -> None:
        """Bring a file into the store, verified.

        Raises:
            LockError: the registry has other bytes.
            RegistryError: it does not answer, refuses, or does not have the file.
        """
        if store.has(file.artifact):
            return
        with tempfile.TemporaryDirectory(prefix="pinwheel-model-") as scratch:
            target = Path(scratch) / "file"
            self._client.download(self._place.repository, f"sha256:{file.sha256}", file.size, target)
            store.add_file(file.artifact, target, fix="the registry has other bytes than its manifest says: do not use it")


@contextmanager
def opened(wanted: ModelInput) -> Iterator[Registered]:
    """The model that an input names by its place in a registry.

    Raises:
        MissingEnvironmentError: this run is offline, or the access to the registry is not as it should be.
    """
    demand_network(f"fetching the model {wanted.name} from its registry", fix=FIX)
    place = ImageRef.parse(wanted.artifact)
    with Client(Registry(place.registry, "")) as client:
        yield Registered(wanted.name, place, client)
