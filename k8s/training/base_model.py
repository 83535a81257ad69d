"""A pinned base model as an artifact in the environment's registry, `<registry>/models/base/<name>`: signed, named by digest.

One layer is one file as it is, so that a blob's digest is the sha256 of the lock: the download step asks for these alone.
"""

from __future__ import annotations

from common import console
from common.errors import UsageError
from k8s.envs import environment
from k8s.envs.environment import Environment
from k8s.pipeline.artifact import DOC, WEIGHT, WEIGHT_CONFIG
from k8s.training import artifact
from k8s.training.artifact import FileArtifact
from k8s.training.dataset import DataFile
from lockfiles import models, store
from lockfiles.models.lockfile import PinnedModel
from oci import attachments, envelope, signature
from oci.client.patience import Patience
from oci.reference import ImageRef
from registry import signer

_DOCUMENTS = (".md", "LICENSE", "NOTICE")
_SETTINGS = (".json", ".txt", ".model", ".tiktoken", ".jinja")


def repository(model: PinnedModel, registry: str) -> ImageRef:
    """Where a base model lies in a registry, if it is there.

    Args:
        model: as it is locked.
        registry: the environment's, `host[:port][/path]`.

    Raises:
        UsageError: its name cannot be part of a repository's.
    """
    try:
        return ImageRef.parse(f"{registry}/models/base/{model.name}")
    except ValueError:
        fix = "rename it in lockfiles/models.in: letters and digits, with single `.`, `_` or `-` between them"
        raise UsageError(f"{model.name!r} cannot be part of a name in a registry", fix=fix) from None


def of_model(model: PinnedModel, registry: str) -> FileArtifact:
    """The artifact of a model whose files are in the store; nothing is sent. It depends on the lock alone.

    Raises:
        UsageError: its name cannot be part of a repository's.
    """
    layers = [
        (_kind(file.path), DataFile(file.path, file.size, f"sha256:{file.sha256}", store.path(file.artifact)))
        for file in model.files
    ]
    return artifact.assemble(repository(model, registry), {"name": model.name, "revision": model.commit}, layers)


def push_to(env_name: str, name: str, *, key: str = "") -> str:
    """Copy a pinned model, fetched before, into an environment's registry.

    Args:
        env_name: one of `k8s/envs/`.
        name: the model's.
        key: to sign with, as for `invoke push`.

    Returns:
        the outcome in a few words.

    Raises:
        UsageError: there is no such environment, model or key.
        LockError: models.lock is missing or was edited.
        MissingEnvironmentError: cosign is missing or cannot use the key.
        RegistryError: the registry refuses, fails, or does not hold what was pushed.
        BuildError: a file of the store was altered.
    """
    return push(models.pinned(name), environment.load(env_name), key=key)


def push(model: PinnedModel, env: Environment, *, key: str = "", policy: Patience | None = None) -> str:
    """As `push_to`, of a model and an environment that were read."""
    own = signer.signer(key)
    made = of_model(model, env.registry)
    ref = made.reference
    with artifact.writing(ref, policy, env.network.access()) as client:
        there = [one.path for one in made.files if client.exists(ref.repository, one.digest, one.size)]
        if there:
            console.info(f"there already: {', '.join(there)}")
        sent = artifact.send(client, made, fix="`invoke store --verify` removes it; then fetch it again")
        attached = attachments.read(client, ref.repository, ref.digest, ("sig",))
        if not signature.is_signed(attached, ref, own.public):
            signature.attach(client, ref, attached, own.sign)
        signature.verify(client, ref, own.public)
    console.done(f"base model   {ref}: {sent}, read back, signed")
    return f"{model.name} at {model.at} is in the registry as {ref}, signed by key {envelope.fingerprint(own.public)}"


def ensure(model: PinnedModel, env: Environment) -> None:
    """Bring a model that is on no hub into the registry, if it is not there: the pods get it nowhere else.

    Raises:
        PinwheelError: as `push_to`; or its files cannot be fetched.
    """
    if model.repo:
        return
    models.fetch([model.name])
    ref = of_model(model, env.registry).reference
    with artifact.writing(ref, reached=env.network.access()) as client:
        there = client.find_manifest(ref.repository, ref.digest) is not None
    if there:
        console.done(f"base model   {ref}: there already")
    else:
        push(model, env)


def _kind(path: str) -> str:
    """The media type of a file; what is neither a document nor settings is loaded as weights."""
    return DOC if path.endswith(_DOCUMENTS) else WEIGHT_CONFIG if path.endswith(_SETTINGS) else WEIGHT
