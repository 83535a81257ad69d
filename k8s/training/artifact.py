"""The dataset of a run as an OCI artifact in the environment's registry.

Form: CNCF's ModelPack specification (modelpack/model-spec, docs/spec.md, v1), here with layers of its dataset type alone; one
layer is one file as it is. The same files always give the same manifest, so its digest is known before it is pushed.
"""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from common import console, host
from common.errors import RegistryError
from common.files import sha256_bytes
from k8s.training.dataset import DataFile, Dataset
from oci.client import access
from oci.client.access import Access
from oci.client.blob import Blob
from oci.client.client import Client
from oci.client.patience import Patience
from oci.client.target import Registry
from oci.descriptor import MANIFEST, Descriptor, canonical
from oci.reference import ImageRef, short
from registry.send import Sender

ARTIFACT = "application/vnd.cncf.model.manifest.v1+json"
CONFIG = "application/vnd.cncf.model.config.v1+json"
DATASET = "application/vnd.cncf.model.dataset.v1.raw"
FILEPATH = "org.cncf.model.filepath"
# ORAS, and whatever follows it, names a file by this one.
_TITLE = "org.opencontainers.image.title"


@dataclass(frozen=True, slots=True)
class DatasetArtifact:
    """A dataset with its manifest.

    Attributes:
        reference: where it lies or will lie, by digest.
        files: its layers, and at the end its configuration.
        manifest: its bytes.
    """

    reference: ImageRef
    files: tuple[DataFile, ...]
    manifest: bytes


def of_dataset(dataset: Dataset, name: str, registry: str) -> DatasetArtifact:
    """The artifact of a dataset; nothing is sent.

    Args:
        dataset: its files.
        name: of the artifact.
        registry: the environment's, `host[:port][/path]`.
    """
    body = {
        "descriptor": {"name": name},
        # Raw files are their own content: what is hashed compressed and unpacked is the same.
        "modelfs": {"type": "layers", "diffIds": [one.digest for one in dataset.files]},
        "config": {},
    }
    config = canonical(body)
    described = Descriptor(CONFIG, sha256_bytes(config), len(config)).json()
    layers = [
        {**Descriptor(DATASET, one.digest, one.size).json(), "annotations": {FILEPATH: one.path, _TITLE: one.path}}
        for one in dataset.files
    ]
    manifest = canonical(
        {"schemaVersion": 2, "mediaType": MANIFEST, "artifactType": ARTIFACT, "config": described, "layers": layers}
    )
    reference = ImageRef.parse(f"{registry}/datasets/{name}").pin(sha256_bytes(manifest))
    own = DataFile("configuration", len(config), described["digest"], data=config)
    return DatasetArtifact(reference, (*dataset.files, own), manifest)


def push(artifact: DatasetArtifact, policy: Patience | None = None, reached: Access | None = None) -> None:
    """Bring the artifact into its registry, and read it back.

    It also gets a tag made of its digest: many registries take away what has none.

    Args:
        artifact: to send.
        policy: bounds of waiting.
        reached: how the registry is reached; default: as PINWHEEL_REGISTRY says.

    Raises:
        RegistryError: the registry refuses, fails, or holds other bytes than were sent.
        BuildError: a file was changed since it was read.
        MissingEnvironmentError: the embedded registry cannot be started.
    """
    ref = artifact.reference
    if ref.registry == host.REGISTRY:
        host.start_registry()
    with ExitStack() as held:
        spare = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="pinwheel-")))
        blobs = []
        # A file that stands twice, under two names, is sent once.
        for number, one in enumerate({one.digest: one for one in artifact.files}.values()):
            source = one.source or spare / str(number)
            if one.source is None:
                source.write_bytes(one.data)
            blobs.append(held.enter_context(Blob(one.path, one.digest, one.size, source)))
        client = held.enter_context(Client(Registry(ref.registry, "", reached or access.of_folder()), policy, writes=True))
        client.prepare()
        sent = Sender(client, ()).send(ref.repository, short(ref.digest), artifact.manifest, blobs)
        if client.manifest(ref.repository, ref.digest) != artifact.manifest:
            fix = "do not use it; something altered it on the way or in the registry"
            raise RegistryError("the registry does not hold the dataset that was pushed", where=str(ref), fix=fix)
    console.done(f"dataset      {ref}: {sent}, read back")


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
