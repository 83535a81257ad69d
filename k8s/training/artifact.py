"""Files as an OCI artifact in the environment's registry: the dataset of a run, or a base model.

Form: CNCF's ModelPack specification (modelpack/model-spec, docs/spec.md, v1); one layer is one file as it is. The same files
always give the same manifest, so its digest is known before it is pushed.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from common import console, host
from common.errors import RegistryError
from common.files import sha256_bytes
from k8s.pipeline.artifact import ARTIFACT, CONFIG, DATASET, FILEPATH, TITLE
from k8s.training.dataset import DataFile, Dataset
from oci.client import access
from oci.client.access import Access
from oci.client.blob import Blob
from oci.client.client import Client
from oci.client.patience import Patience
from oci.client.target import Registry
from oci.descriptor import MANIFEST, Descriptor, canonical
from oci.reference import ImageRef, short
from registry.send import Sender, Sent

# As k8s/pipeline/register.py names a run in its model's manifest.
_VERSION = "org.opencontainers.image.version"


@dataclass(frozen=True, slots=True)
class FileArtifact:
    """Files with their manifest.

    Attributes:
        reference: where it lies or will lie, by digest.
        files: its layers, and at the end its configuration.
        manifest: its bytes.
    """

    reference: ImageRef
    files: tuple[DataFile, ...]
    manifest: bytes


def of_dataset(dataset: Dataset, name: str, registry: str) -> FileArtifact:
    """The artifact of a dataset; nothing is sent.

    Args:
        dataset: its files.
        name: of the artifact.
        registry: the environment's, `host[:port][/path]`.
    """
    place = ImageRef.parse(f"{registry}/datasets/{name}")
    return assemble(place, {"name": name}, [(DATASET, one) for one in dataset.files])


def assemble(place: ImageRef, descriptor: Mapping[str, str], layers: Sequence[tuple[str, DataFile]]) -> FileArtifact:
    """The artifact of some files; nothing is sent.

    Args:
        place: its repository.
        descriptor: what its configuration says of it.
        layers: each file with its media type.
    """
    body = {
        "descriptor": dict(descriptor),
        # Raw files are their own content: what is hashed compressed and unpacked is the same.
        "modelfs": {"type": "layers", "diffIds": [one.digest for _, one in layers]},
        "config": {},
    }
    config = canonical(body)
    described = Descriptor(CONFIG, sha256_bytes(config), len(config)).json()
    listed = [
        {**Descriptor(kind, one.digest, one.size).json(), "annotations": {FILEPATH: one.path, TITLE: one.path}}
        for kind, one in layers
    ]
    manifest = canonical(
        {"schemaVersion": 2, "mediaType": MANIFEST, "artifactType": ARTIFACT, "config": described, "layers": listed}
    )
    own = DataFile("configuration", len(config), described["digest"], data=config)
    return FileArtifact(place.pin(sha256_bytes(manifest)), (*(one for _, one in layers), own), manifest)


def push(artifact: FileArtifact, policy: Patience | None = None, reached: Access | None = None) -> None:
    """Bring a dataset into its registry, and read it back.

    Args:
        artifact: to send.
        policy: bounds of waiting.
        reached: how the registry is reached; default: as PINWHEEL_REGISTRY says.

    Raises:
        RegistryError: the registry refuses, fails, or holds other bytes than were sent.
        BuildError: a file was changed since it was read.
        MissingEnvironmentError: the embedded registry cannot be started.
    """
    with writing(artifact.reference, policy, reached) as client:
        sent = send(client, artifact)
    console.done(f"dataset      {artifact.reference}: {sent}, read back")


@contextmanager
def writing(place: ImageRef, policy: Patience | None = None, reached: Access | None = None) -> Iterator[Client]:
    """A client of the registry of this place, that may write; the embedded one is started."""
    if place.registry == host.REGISTRY:
        host.start_registry()
    with Client(Registry(place.registry, "", reached or access.of_folder()), policy, writes=True) as client:
        client.prepare()
        yield client


def send(client: Client, artifact: FileArtifact, fix: str = "run it again") -> Sent:
    """Bring an artifact into its registry, and read its manifest back.

    It also gets a tag made of its digest: many registries take away what has none.

    Args:
        client: of the registry.
        artifact: what to send.
        fix: what the user can do where a file is another one than it was.

    Raises:
        RegistryError: the registry refuses, fails, or holds other bytes than were sent.
        BuildError: a file was changed since it was read.
    """
    ref = artifact.reference
    with ExitStack() as held:
        spare = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="pinwheel-")))
        blobs = []
        # A file that stands twice, under two names, is sent once.
        for number, one in enumerate({one.digest: one for one in artifact.files}.values()):
            source = one.source or spare / str(number)
            if one.source is None:
                source.write_bytes(one.data)
            blobs.append(held.enter_context(Blob(one.path, one.digest, one.size, source, fix=fix)))
        sent = Sender(client, ()).send(ref.repository, short(ref.digest), artifact.manifest, blobs)
    if client.manifest(ref.repository, ref.digest) != artifact.manifest:
        fix = "do not use it; something altered it on the way or in the registry"
        raise RegistryError("the registry does not hold what was pushed", where=str(ref), fix=fix)
    return sent


def model_reference(
    registry: str, name: str, version: str, policy: Patience | None = None, reached: Access | None = None
) -> str:
    """The model of a version, by digest, where the registry has one; or nothing.

    Args:
        registry: the environment's, `host[:port][/path]`.
        name: of the model.
        version: of its run.
        policy: bounds of waiting.
        reached: how the registry is reached; default: as PINWHEEL_REGISTRY says.

    Raises:
        RegistryError: the registry does not answer, or refuses.
    """
    ref = ImageRef.parse(f"{registry}/models/{name}")
    with Client(Registry(ref.registry, "", reached or access.of_folder()), policy) as client:
        found = client.find_manifest(ref.repository, version)
    return "" if found is None else str(ref.pin(sha256_bytes(found)))


def version_of(model: ImageRef, reached: Access, policy: Patience | None = None) -> str:
    """The run that a registered model is of; empty where its manifest names none.

    Args:
        model: by digest.
        reached: how the registry is reached.
        policy: bounds of waiting.

    Raises:
        RegistryError: the registry does not answer, refuses, or has no such model.
    """
    with Client(Registry(model.registry, "", reached), policy) as client:
        body = json.loads(client.manifest(model.repository, model.digest))
    annotations = body.get("annotations") if isinstance(body, dict) else None
    return str(annotations.get(_VERSION, "")) if isinstance(annotations, dict) else ""
