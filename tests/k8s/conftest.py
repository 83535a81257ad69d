"""A checkout of the stage in a temporary folder: its own environments, manifests, lock and dist."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from common import paths
from k8s.envs import environment
from k8s.envs.environment import Environment
from k8s.objects.findings import Finding
from k8s.prepare import checked
from k8s.prepare.rendered import RenderedSet
from lockfiles import images_lock
from lockfiles.images_lock import PinnedImage
from lockfiles.model import Gpu
from tests.k8s.prepare import models
from tests.k8s.simulator import places
from tests.k8s.simulator.apiserver import VERSIONS, ApiServer
from tests.set_locks import ASKED

REPO = paths.K8S


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "anywhere: a deploy scenario that runs on a real cluster too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """On a real cluster only the scenarios that need no injected fault run; the others are counted."""
    if not places.named():
        return
    kept = [one for one in items if one.get_closest_marker("anywhere")]
    left = [one for one in items if not one.get_closest_marker("anywhere")]
    items[:] = kept
    config.hook.pytest_deselected(items=left)
    count = sum(one.path.name.startswith("test_cluster") for one in left)
    print(f"\n{count} scenarios need faults that only the simulator has: left out")


OLD, NEW, CPU = ("sha256:" + letter * 64 for letter in "abc")
API = "llama-factory-api"
NEEDS: Mapping[str, Gpu] = {f"llama-factory-{role}": gpu for role, gpu in ASKED.items()}


@dataclass
class Checkout:
    root: Path

    @property
    def manifests(self) -> Path:
        return self.root / "k8s" / "manifests"

    def lock(self, digests: Mapping[str, str], needs: Mapping[str, Gpu] = NEEDS) -> None:
        images_lock.path().unlink(missing_ok=True)
        asked = {name: (gpu.driver, gpu.compute) for name, gpu in needs.items()}
        images_lock.write(PinnedImage(name, digest, "0.9.5", *asked.get(name, ())) for name, digest in digests.items())

    def edit(self, file: str, old: str, new: str, *, count: int = 1) -> None:
        """Change one place of a manifest of the good set; that the place exists is part of the test."""
        place = next(self.manifests.rglob(file))
        text = place.read_text()
        assert old in text, f"{file} holds no {old!r}"
        place.write_text(text.replace(old, new, count))

    def keep(self, part: str) -> None:
        """Leave one folder of the manifests, for tests of what is done with a set, whatever it holds."""
        for folder in self.manifests.iterdir():
            if folder.name != part:
                shutil.rmtree(folder)

    def add(self, text: str) -> None:
        (self.manifests / "added.yaml").write_text(text)

    def check(self, env: str | Environment = "staging") -> tuple[RenderedSet, tuple[Finding, ...]]:
        one = environment.load(env) if isinstance(env, str) else env
        return checked.check([self.manifests], one, checked.locked_images(required=False))

    def findings(self, env: str | Environment = "staging") -> list[str]:
        return [finding.text() for finding in self.check(env)[1]]


@pytest.fixture
def kubernetes() -> str:
    """The version of the cluster; a module may ask for others."""
    return VERSIONS[0]


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kubernetes: str) -> Checkout:
    shutil.copytree(REPO / "manifests", tmp_path / "k8s" / "manifests")
    shutil.copytree(REPO / "envs", tmp_path / "k8s" / "envs")
    for name in ("local", "rendered", "staging"):
        # These digests are of no image; the gate has tests of its own.
        file = tmp_path / "k8s" / "envs" / f"{name}.yaml"
        file.write_text(re.sub(r"(?m)^proof:\n(  .*\n)+", "proof: none\n", file.read_text()))
    for file in (tmp_path / "k8s" / "envs").iterdir():
        text = file.read_text().replace(f'kubernetes: "{VERSIONS[0]}"', f'kubernetes: "{kubernetes}"')
        # What the project's environments set is tested with the project's set; a test's own may lack what they name.
        text = re.sub(r"(?m)^(?:sizes|replicas|hosts):\n(?:  .*\n)+", "", text)
        # The keys of who deploys are nobody's yet: each checkout signs with a pair of its own.
        file.write_text(re.sub(r"(?m)^deploy-keys: .*\n", "", text) if file.stem != "production" else text)
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    monkeypatch.setattr(paths, "K8S", tmp_path / "k8s")
    monkeypatch.setattr(paths, "LOCKFILES", tmp_path / "lockfiles")
    monkeypatch.setenv("PINWHEEL_DIST", str(tmp_path / "dist"))
    made = Checkout(tmp_path)
    made.lock({API: OLD, f"{API}-cpu": CPU, "llama-factory-train": NEW})
    return made


@pytest.fixture
def server(checkout: Checkout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kubernetes: str) -> Iterator[ApiServer]:
    """A cluster for the inference part of the set: one namespace and one workload are enough to go wrong in every way."""
    checkout.keep("inference")
    models.named(checkout.root, "staging")
    with ApiServer(version=kubernetes) as api:
        monkeypatch.setenv("KUBECONFIG", str(api.kubeconfig(tmp_path / "kubeconfig", "staging")))
        # kubectl keeps what it discovered; another test's server may get the same port.
        monkeypatch.setenv("KUBECACHEDIR", str(tmp_path / "kube-cache"))
        yield api
