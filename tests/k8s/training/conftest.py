"""An experiment of a temporary checkout: its file, its data, and a lock of base models."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from common import paths
from k8s.objects import strict_yaml
from k8s.objects.manifests import Manifest
from k8s.rollouts.kubectl import Patience
from k8s.training import experiment, keys, submit
from k8s.training.experiment import Experiment
from k8s.training.keys import Known
from k8s.training.names import NAMESPACE
from k8s.training.receipt import TrainingReceipt
from lockfiles.models import lockfile as models_lock
from lockfiles.models.lockfile import ModelsLock, PinnedFile, PinnedModel
from tests.k8s.conftest import Checkout
from tests.k8s.simulator.apiserver import ApiServer
from tests.k8s.simulator.argo import Controller
from tests.k8s.simulator.discovery import Key
from tests.k8s.simulator.steps import BRIEF
from tests.oci.real import RealRegistry

EXAMPLE = paths.ROOT / "experiments" / "example" / "tiny"
FILE = "experiments/example/tiny/sft.yaml"
BASE = PinnedModel(
    "tiny", "maker/tiny-base", "main", "c0ffee" * 6 + "c0ff", "sha256:1", (PinnedFile("config.json", 2, "a" * 64),)
)


@dataclass
class Lab:
    """A checkout with one experiment, by itself: the shipped example."""

    root: Path
    known: Known

    @property
    def file(self) -> Path:
        return self.root / FILE

    @property
    def data(self) -> Path:
        return self.file.parent / "data"

    def config(self) -> dict[str, Any]:
        body = yaml.safe_load(self.file.read_text())
        assert isinstance(body, dict)
        return body

    def say(self, **keys: Any) -> None:
        """Set keys; None takes one out."""
        body = {**self.config(), **keys}
        self.file.write_text(strict_yaml.dump([{key: value for key, value in body.items() if value is not None}]))

    def info(self, **entry: Any) -> None:
        """Change the entry of the dataset; None takes a key out."""
        body = json.loads((self.data / "dataset_info.json").read_text())
        body["questions"] |= entry
        body["questions"] = {key: value for key, value in body["questions"].items() if value is not None}
        (self.data / "dataset_info.json").write_text(json.dumps(body))

    def rows(self, *rows: Any, name: str = "questions.json") -> None:
        (self.data / name).write_text(json.dumps(list(rows)))

    def lock(self, *models: PinnedModel) -> None:
        models_lock.write_lock(ModelsLock("2026-01-02", models))

    def read(self, path: str = FILE) -> Experiment:
        return experiment.read(path, self.known)


@pytest.fixture(scope="session")
def known() -> Known:
    """What the locked wheels say, read once. They are fetched when the store has them not: for tests that are marked `host`."""
    return keys.known()


@pytest.fixture
def lab(known: Known, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    shutil.copytree(EXAMPLE, tmp_path / "experiments" / "example" / "tiny")
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    monkeypatch.setattr(paths, "LOCKFILES", tmp_path / "lockfiles")
    monkeypatch.chdir(tmp_path)
    made = Lab(tmp_path, known)
    made.lock(BASE)
    return made


@pytest.fixture
def cluster(checkout: Checkout, lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    """A cluster that nothing was deployed to, for the training part of the set."""
    with ApiServer() as api:
        monkeypatch.setenv("KUBECONFIG", str(api.kubeconfig(tmp_path / "kubeconfig", "staging")))
        monkeypatch.setenv("KUBECACHEDIR", str(tmp_path / "kube-cache"))
        yield api


@dataclass
class Site:
    """A cluster that this checkout was deployed to, as far as a run needs it, and the registry of its environment."""

    api: ApiServer
    registry: RealRegistry
    lab: Lab
    checkout: Checkout

    def go(self, patience: Patience = BRIEF, **options: Any) -> TrainingReceipt:
        return submit.train(FILE, "staging", patience=patience, **options)

    def controller(self, version: str) -> Controller:
        return Controller(self.api, version)

    def workflows(self) -> list[str]:
        return [key[3] for key in self.api.objects if key[1] == "Workflow"]

    def needed(self) -> tuple[Manifest, ...]:
        """The set's own objects in the namespace, and the namespace."""
        rendered, found = self.checkout.check("staging")
        assert not found, [one.text() for one in found]
        return tuple(one for one in rendered.objects if NAMESPACE in (one.namespace, one.name))

    def deploy(self) -> None:
        namespaces = [one for one in self.needed() if one.kind == "Namespace"]
        for one in (*namespaces, *(one for one in self.needed() if one.kind in {"ConfigMap", "WorkflowTemplate"})):
            code, said = self.api.apply(_key(one), one.body, "pinwheel", force=False, dry_run=False)
            assert code == 201, said
        self.secret("model-signing-key", "model.key")
        self.secret("model-registry", ".dockerconfigjson")

    def secret(self, name: str, *keys: str) -> None:
        body = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name, "namespace": NAMESPACE},
            "data": dict.fromkeys(keys, "c2VjcmV0"),
        }
        code, said = self.api.create(("v1", "Secret", NAMESPACE, name), body, "test")
        assert code == 201, said


def _key(one: Manifest) -> Key:
    return (one.api_version, one.kind, one.namespace, one.name)


@pytest.fixture
def site(cluster: ApiServer, checkout: Checkout, lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    # Reading the wheels takes a second.
    monkeypatch.setattr(keys, "known", lambda: lab.known)
    registry = RealRegistry(tmp_path / "registry")
    registry.start()
    for name in ("local", "rendered", "staging"):
        file = checkout.root / "k8s" / "envs" / f"{name}.yaml"
        file.write_text(re.sub(r"(?m)^registry: .*$", f"registry: {registry.address}/llm", file.read_text()))
    made = Site(cluster, registry, lab, checkout)
    made.deploy()
    yield made
    registry.stop()
