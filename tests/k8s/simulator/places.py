"""Where the scenarios that need no injected fault run: the simulator, or a real cluster that somebody named.

`invoke test --cluster CONTEXT --images A,B` names one: a context of the kubeconfig, and two images by digest that the cluster
can pull and whose containers stay up as an unprivileged user with a read-only root (two versions of a pause image will do).
Each test makes a namespace of its own, `pinwheel-test-…`, and removes it.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.run import run
from k8s import deploy
from k8s.envs import environment
from k8s.envs.environment import ClusterTarget
from k8s.objects import schema
from k8s.rollouts import release
from k8s.rollouts.kubectl import Kubectl, Patience
from k8s.rollouts.receipt import DeployReceipt
from k8s.rollouts.release import History
from tests.k8s.simulator.apiserver import ApiServer
from tests.k8s.simulator.controller import Trouble

CONTEXT, IMAGES = "PINWHEEL_TEST_CLUSTER", "PINWHEEL_TEST_IMAGES"
PREFIX = "pinwheel-test-"
ABSENT = "sha256:" + "f" * 64
_DOUBLE = tuple(f"registry.example.com/pause@sha256:{letter * 64}" for letter in "12")
_SET, _ENVIRONMENT = (Path(__file__).with_name(name) for name in ("place_set.yaml", "place_environment.yaml"))


@dataclass(frozen=True, slots=True)
class Place:
    """A cluster with a namespace for one test.

    Attributes:
        context: of the kubeconfig.
        namespace: of this test alone.
        images: two that run there.
        root: the checkout.
        patience: for this cluster.
        kubernetes: its version, or the newest that there is a schema for.
    """

    context: str
    namespace: str
    images: tuple[str, str]
    root: Path
    patience: Patience
    kubernetes: str

    @property
    def kubectl(self) -> Kubectl:
        return Kubectl(ClusterTarget(self.context), self.patience)

    def write(self, image: str, greeting: str = "hello", more: str = "") -> None:
        """Make the checkout say this."""
        folder = self.root / "k8s" / "manifests"
        folder.mkdir(parents=True, exist_ok=True)
        values = {"NS": self.namespace, "IMAGE": image, "GREETING": greeting}
        (folder / "set.yaml").write_text(_filled(_SET.read_text() + more, values))
        values = {"NS": self.namespace, "CONTEXT": self.context, "KUBERNETES": self.kubernetes}
        (self.root / "k8s" / "envs").mkdir(exist_ok=True)
        (self.root / "k8s" / "envs" / "named.yaml").write_text(_filled(_ENVIRONMENT.read_text(), values))

    def go(self, *, dry_run: bool = False, prune: bool = False) -> DeployReceipt:
        return deploy.deploy("named", yes=True, dry_run=dry_run, prune=prune, patience=self.patience)

    def get(self, resource: str, name: str) -> dict[str, Any] | None:
        return self.kubectl.get(resource, self.namespace, name)

    def running(self) -> str:
        """The image of the Deployment, once the newest pods of it run."""
        body = self.get("deployments.apps", "web")
        assert body
        assert body["status"]["observedGeneration"] == body["metadata"]["generation"]
        assert body["status"]["availableReplicas"] == 1
        found = body["spec"]["template"]["spec"]["containers"][0]["image"]
        assert isinstance(found, str)
        return found

    def record(self) -> History:
        return release.read(self.kubectl, environment.load("named"), self.namespace)


def _filled(text: str, values: dict[str, str]) -> str:
    """The text with `@NAME@` replaced by the value of NAME."""
    for name, value in values.items():
        text = text.replace(f"@{name}@", value)
    return text


def named() -> str:
    """The context of the real cluster that the tests run on; empty: on the simulator."""
    return os.environ.get(CONTEXT, "")


def _version(context: str) -> str:
    said = run(["kubectl", "--context", context, "version", "-o", "json"], timeout=30, missing="install kubectl")
    server = json.loads(said.stdout)["serverVersion"]
    found = f"{server['major']}.{re.sub(r'[^0-9]', '', server['minor'])}"
    return found if found in schema.versions() else schema.versions()[-1]


@contextmanager
def place(root: Path, version: str, namespace: str, set_variable: Callable[[str, str], None]) -> Iterator[Place]:
    """A cluster for one test.

    Args:
        root: where its checkout is made.
        version: of the simulator; a real cluster has its own.
        namespace: that does not exist yet.
        set_variable: of the environment, for this test.
    """
    assert namespace.startswith(PREFIX)
    if context := named():
        images = os.environ.get(IMAGES, "").split(",")
        assert len(images) == 2, f"{IMAGES} names two images"
        patience = Patience(rollout=180, settle=30, hopeless=20)
        one = Place(context, namespace, (images[0], images[1]), root, patience, _version(context))
        try:
            yield one
        finally:
            one.kubectl.delete(f"apiVersion: v1\nkind: Namespace\nmetadata: {{name: {namespace}}}\n")
        return
    brief = Patience(rollout=20, settle=3, request=5, pause=0.05, tries=3, lease=6, hopeless=0.5)
    with ApiServer(version=version) as api:
        api.troubles = {ABSENT: Trouble("ErrImagePull", "manifest unknown")}
        api.silent_failure = True
        set_variable("KUBECONFIG", str(api.kubeconfig(root / "kubeconfig", "simulator")))
        set_variable("KUBECACHEDIR", str(root / "kube-cache"))
        yield Place("simulator", namespace, (_DOUBLE[0], _DOUBLE[1]), root, brief, version)
