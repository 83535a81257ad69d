"""Fine-tunes that follow each other: a model of a registry, by digest; and code that a configuration names."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from common import offline, paths
from common.errors import LockError, MissingEnvironmentError, RegistryError, UsageError
from common.files import sha256_bytes
from lockfiles import models
from lockfiles.models import inputs as models_in
from oci.descriptor import MANIFEST
from tests.lockfiles.hub_server import Files, HubServer
from tests.lockfiles.models.steps import ASKED, DATA, REPO, lock, locked_files, tree
from tests.oci.double import Double, serving

KIND = "application/vnd.cncf.model.{}.v1.raw"
TRAINING = {"training/run.json": b"{}", "logs/train.log": b"loss"}


@pytest.fixture
def registry(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Double]:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    with serving() as state:
        yield state


def register(registry: Double, files: Files, *, kind: str = "application/vnd.cncf.model.manifest.v1+json") -> str:
    """Put a model there as the step `register` does; returns its reference."""
    layers = []
    for path, data in sorted({**files, **TRAINING}.items()):
        media = KIND.format(
            "doc" if path in {*TRAINING, "README.md"} else "weight" if "safetensors" in path else "weight.config"
        )
        registry.blobs["models/ours"][sha256_bytes(data)] = data
        annotations = {"org.cncf.model.filepath": path}
        layers.append({"mediaType": media, "digest": sha256_bytes(data), "size": len(data), "annotations": annotations})
    body = json.dumps({"schemaVersion": 2, "mediaType": MANIFEST, "artifactType": kind, "layers": layers}).encode()
    registry.manifests["models/ours"][sha256_bytes(body)] = (MANIFEST, body)
    return f"{registry.address}/models/ours@{sha256_bytes(body)}"


def asked(reference: str, more: str = "") -> str:
    return f'[models.next]\nartifact = "{reference}"\n{more}'


def test_a_model_of_a_registry_is_locked_and_laid_out_like_any_other(registry: Double, tmp_path: Path) -> None:
    model = lock(asked(register(registry, DATA)))
    assert locked_files(model) == set(DATA)
    assert model.repo == ""
    text = (paths.LOCKFILES / "models.lock").read_text()
    assert "127.0.0.1" not in text
    assert models.check() == "models.lock fits models.in: next"
    models.fetch()
    models.lay_out("next", tmp_path / "out")
    assert tree(tmp_path / "out") == DATA


def test_what_is_in_the_store_asks_no_registry(registry: Double) -> None:
    lock(asked(register(registry, DATA)))
    models.fetch()
    registry.asked.clear()
    models.fetch()
    with offline.forced(wanted=True):
        models.fetch()
    assert registry.asked == []
    shutil.rmtree(paths.cache())
    with offline.forced(wanted=True), pytest.raises(MissingEnvironmentError, match="the model next from its registry"):
        models.fetch()
    models.fetch()


def test_other_bytes_of_the_registry_are_refused(registry: Double) -> None:
    reference = register(registry, DATA)
    lock(asked(reference))
    shutil.rmtree(paths.cache())
    data = DATA["tokenizer.json"]
    registry.blobs["models/ours"][sha256_bytes(data)] = data[:-1] + b"x"
    with pytest.raises((LockError, RegistryError)):
        models.fetch()


def test_what_is_no_model_or_not_there_is_refused(registry: Double) -> None:
    with pytest.raises(LockError, match="what lies there is no model"):
        lock(asked(register(registry, DATA, kind="application/vnd.example")))
    with pytest.raises(RegistryError):
        lock(asked(f"{registry.address}/models/ours@sha256:{'0' * 64}"))
    with pytest.raises(LockError, match="holds the file '../evil.json'"):
        lock(asked(register(registry, {**DATA, "../evil.json": b"{}"})))


@pytest.mark.parametrize(
    "value", ["registry.example.com/models/ours:v1", "models", "", "https://registry.example.com/x", "x@sha256:1"]
)
def test_a_model_of_a_registry_without_a_digest_is_refused(folder: Path, value: str) -> None:
    (folder / "models.in").write_text(asked(value))
    with pytest.raises(UsageError, match="not a model of a registry, by digest"):
        models_in.read_input()


AUTO = {"auto_map": {"AutoConfig": "configuration_tiny.TinyConfig", "AutoModelForCausalLM": "modeling_tiny.TinyLM"}}


@pytest.mark.parametrize(
    ("files", "more", "expected"),
    [
        ({"config.json": AUTO}, "", "config.json names code that is not locked: configuration_tiny.py, modeling_tiny.py"),
        ({"config.json": AUTO}, 'allow = ["*.py"]\nreason = "read"\n', ""),
        (
            {"config.json": {"auto_map": {"AutoModel": "acme/code--modeling_far.Far"}}},
            "",
            "code in another repository, which is not locked: acme/code",
        ),
        ({"tokenizer_config.json": {"auto_map": {"AutoTokenizer": ["tok_tiny.Tok", None]}}}, "", "not locked: tok_tiny.py"),
        ({"config.json": {"auto_map": {"AutoModel": "modeling_gone.Gone"}}}, "", "modeling_gone.py is not there at all"),
        ({"config.json": {"auto_map": 1}}, "", ""),
        ({"config.json": {}}, "", ""),
        ({"config.json": []}, "", ""),
    ],
)
def test_code_that_a_configuration_names_is_said(
    server: HubServer, capsys: pytest.CaptureFixture[str], files: dict[str, object], more: str, expected: str
) -> None:
    code = {"configuration_tiny.py": b"", "modeling_tiny.py": b"", "tok_tiny.py": b""}
    server.push(REPO, {**DATA, **code, **{path: json.dumps(body).encode() for path, body in files.items()}})
    lock(ASKED + more)
    said = " ".join(capsys.readouterr().err.split())
    assert (expected in said) if expected else "names code" not in said
