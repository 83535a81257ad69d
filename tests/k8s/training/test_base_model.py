"""Base models in a registry: from the lock into the registry, signed; and from there to the pods."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from common import paths
from common.errors import BuildError, PolicyError, UsageError
from common.files import sha256_bytes
from k8s.envs import environment
from k8s.envs.environment import Environment
from k8s.pipeline import artifact as pods_artifact
from k8s.pipeline import download
from k8s.pipeline.experiment import Base
from k8s.pipeline.files import PinnedFile as PodsFile
from k8s.training import base_model
from lockfiles import models, store
from lockfiles.models import demonstration
from lockfiles.models.lockfile import PinnedFile, PinnedModel
from oci import envelope, signature
from oci.client.client import Client
from oci.client.target import Registry
from oci.envelope import PublicKey
from registry import signer
from tests.lockfiles.models.steps import lock, tree
from tests.oci.conftest import QUICK
from tests.oci.double import Double, serving

PATH = "llm/models/base/tiny"


@dataclass(frozen=True)
class Key:
    """A key to sign with, without cosign."""

    private: ec.EllipticCurvePrivateKey

    @property
    def public(self) -> PublicKey:
        return self.private.public_key()

    def sign(self, data: bytes) -> bytes:
        return envelope.sign(self.private, data)


OWN = Key(ec.generate_private_key(ec.SECP256R1()))


@pytest.fixture
def double(own_folders: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Double]:
    monkeypatch.setenv("DOCKER_CONFIG", str(own_folders))
    with serving() as state:
        yield state


@pytest.fixture
def model(own_folders: Path, monkeypatch: pytest.MonkeyPatch) -> PinnedModel:
    """The demonstration's, locked and in the store, and a key to sign with."""
    (own_folders / "lockfiles").mkdir()
    monkeypatch.setattr(paths, "ROOT", own_folders)
    monkeypatch.setattr(paths, "LOCKFILES", own_folders / "lockfiles")
    monkeypatch.setenv("PINWHEEL_OFFLINE", "1")
    monkeypatch.delenv("PINWHEEL_MIRROR", raising=False)
    monkeypatch.setattr(signer, "signer", lambda _="": OWN)
    monkeypatch.setattr(download, "PATIENCE", QUICK)
    locked = lock('[models.tiny]\nmade = "demonstration"\n')
    models.fetch()
    return locked


def environment_of(double: Double) -> Environment:
    text = f"target: {{cluster: {{context: c}}}}\nregistry: {double.address}/llm\nkubernetes: '1.32'\nproof: none\n"
    return environment.parse(text, "e", "e.yaml")


def push(model: PinnedModel, double: Double) -> str:
    return base_model.push(model, environment_of(double), policy=QUICK)


def test_the_pods_get_from_the_registry_what_was_pushed(model: PinnedModel, double: Double, tmp_path: Path) -> None:
    push(model, double)
    files = tuple(PodsFile(file.path, file.size, file.sha256) for file in model.files)
    base = Base(model.name, model.repo, model.commit, files)
    download.base_model(base, base_model.repository(model, f"{double.address}/llm"), tmp_path / "base")
    assert tree(tmp_path / "base") == demonstration.files()


def test_the_manifest_is_that_of_a_model_each_file_a_blob_by_its_own_hash(model: PinnedModel, double: Double) -> None:
    push(model, double)
    made = base_model.of_model(model, f"{double.address}/llm")
    _, manifest = double.manifests[PATH][made.reference.digest]
    parsed = pods_artifact.parse(manifest, "it")
    assert {layer.path: layer.digest for layer in parsed.layers} == {f.path: f"sha256:{f.sha256}" for f in model.files}
    kinds = {layer.path: layer.kind for layer in parsed.layers}
    assert kinds["model.safetensors"] == pods_artifact.WEIGHT
    assert kinds["config.json"] == kinds["tokenizer.json"] == kinds["chat_template.jinja"] == pods_artifact.WEIGHT_CONFIG
    assert kinds["README.md"] == pods_artifact.DOC
    # A tag made of the digest: many registries take away what has none.
    assert double.manifests[PATH][made.reference.digest.removeprefix("sha256:")[:12]][1] == manifest


def test_the_same_lock_has_the_same_digest_in_every_registry(model: PinnedModel) -> None:
    one, other = (base_model.of_model(model, place).reference for place in ("a.example.com/llm", "b.example.com"))
    assert one.digest == other.digest
    assert str(other).startswith("b.example.com/models/base/tiny@sha256:")


def test_it_is_signed_for_exactly_this_digest_and_place(model: PinnedModel, double: Double) -> None:
    push(model, double)
    ref = base_model.of_model(model, f"{double.address}/llm").reference
    with Client(Registry(double.address, ""), QUICK) as client:
        signature.verify(client, ref, OWN.public)
        with pytest.raises(PolicyError, match="no signature of it is by the key"):
            signature.verify(client, ref, ec.generate_private_key(ec.SECP256R1()).public_key())
        # The same bytes and signature elsewhere are another model.
        double.blobs["llm/models/base/other"] = double.blobs[PATH]
        double.manifests["llm/models/base/other"] = double.manifests[PATH]
        elsewhere = base_model.repository(PinnedModel("other", "", "", "", "", ()), f"{double.address}/llm").pin(ref.digest)
        with pytest.raises(PolicyError, match="which is another one"):
            signature.verify(client, elsewhere, OWN.public)


def test_a_second_push_sends_nothing_and_says_what_was_there(
    model: PinnedModel, double: Double, capsys: pytest.CaptureFixture[str]
) -> None:
    push(model, double)
    assert "there already" not in capsys.readouterr().out
    before = double.received
    push(model, double)
    assert double.received == before
    said = capsys.readouterr().out
    assert "there already: README.md, chat_template.jinja, config.json" in said
    assert "0 B sent" in said


def test_a_file_that_was_altered_in_the_store_is_not_pushed(model: PinnedModel, double: Double) -> None:
    (config,) = (file.artifact for file in model.files if file.path == "config.json")
    data = store.path(config).read_bytes()
    store.path(config).chmod(0o644)
    store.path(config).write_bytes(data[:-2] + b"?\n")
    with pytest.raises(BuildError, match=r"config\.json.* was altered.*`invoke store --verify`"):
        push(model, double)
    assert not double.manifests[PATH]


@pytest.mark.parametrize("name", ["a..b", "a-", "a.", "a._b"])
def test_a_name_that_no_repository_can_have_is_refused(name: str) -> None:
    odd = PinnedModel(name, "", "", "0" * 64, "", (PinnedFile("config.json", 2, "0" * 64),))
    with pytest.raises(UsageError, match=r"cannot be part of a name in a registry: rename it in lockfiles/models\.in"):
        base_model.repository(odd, "registry.example.com/llm")


def test_a_training_brings_a_model_that_is_on_no_hub_by_itself_and_once(
    model: PinnedModel, double: Double, monkeypatch: pytest.MonkeyPatch
) -> None:
    base_model.ensure(model, environment_of(double))
    assert set(double.blobs[PATH]) >= {f"sha256:{file.sha256}" for file in model.files}
    # Who may train need not be who signs.
    monkeypatch.setattr(signer, "signer", lambda _="": pytest.fail("a key was asked for"))
    before = double.received
    base_model.ensure(model, environment_of(double))
    assert double.received == before


def test_a_training_pushes_no_model_that_is_on_a_hub(double: Double, model: PinnedModel) -> None:
    base_model.ensure(PinnedModel("base", "maker/base", "main", "c" * 40, "", model.files), environment_of(double))
    assert not double.asked


def test_a_pickle_that_was_allowed_is_kept_as_weights(own_folders: Path) -> None:
    files = tuple(PinnedFile(path, 1, sha256_bytes(path.encode())[7:]) for path in ("a.bin", "LICENSE", "sub/vocab.txt"))
    made = base_model.of_model(PinnedModel("tiny", "", "", "0" * 64, "", files), "registry.example.com")
    with pytest.raises(PolicyError, match=r"'a.bin': it is neither safetensors nor a configuration"):
        pods_artifact.parse(made.manifest, "it")
