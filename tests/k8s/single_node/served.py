"""A small server of a model on the cluster of this machine, deployed by what deploys everything, and asked all the time."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common import single_node
from common.single_node import REGISTRY
from k8s import deploy
from k8s.envs import environment
from k8s.envs.environment import ClusterTarget
from k8s.pipeline.model_annotation import ANNOTATION, preflight
from k8s.rollouts import release
from k8s.rollouts.kubectl import Kubectl, Patience
from k8s.rollouts.receipt import DeployReceipt
from k8s.rollouts.release import Release
from lockfiles import images_lock
from lockfiles.images_lock import PinnedImage
from tests.k8s.pipeline.conftest import Run
from tests.waiting import eventually

NAMESPACE, NAME, TRIAL = "pinwheel-test-served", "server", preflight("server")
PATIENCE = Patience(rollout=150, settle=10, request=10, pause=0.5, hopeless=10, lease=6, away=300)
_SET, _ENVIRONMENT = (Path(__file__).with_name(name) for name in ("served_set.yaml", "served_environment.yaml"))


@dataclass
class Served:
    """The checkout, and what there is to deploy from it.

    Attributes:
        root: of the checkout.
        images: digests of two images that run.
        models: references of two models that are signed by the key that the pods trust, and of one that is not.
    """

    root: Path
    images: tuple[str, str]
    models: tuple[str, str, str] = field(init=False)

    def __post_init__(self) -> None:
        self.kubectl = Kubectl(ClusterTarget("pinwheel", kubeconfig=str(single_node.kubeconfig())), PATIENCE)
        made = []
        for name, key in (("first", "own"), ("second", "own"), ("unsigned", "other")):
            folder = self.root / name
            folder.mkdir()
            run = Run(folder, f"{REGISTRY}/test/{name}").write().export()
            run.put("export/generation_config.json", json.dumps({"of": name}).encode())
            made.append(run.register(key))
            self.trusted = (folder / "own.pub").read_bytes()
        self.models = (made[0], made[1], made[2])
        (self.root / "k8s" / "envs").mkdir(parents=True)
        (self.root / "k8s" / "manifests").mkdir()
        shutil.copyfile(single_node.registry_authority(), self.root / "registry.crt")

    def trust(self) -> None:
        """The namespace and the Secret that nobody deploys."""
        name = {"name": "model-trust", "namespace": NAMESPACE}
        secret = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": name,
            "data": {"model.pub": b64encode(self.trusted).decode()},
        }
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}}
        text = "---\n".join(map(json.dumps, (space, secret)))
        # One of an earlier run may still be on its way out.
        eventually(lambda: not self.kubectl.apply(text, part="test").code, "the namespace is made")

    def say(self, *, image: str = "", model: str = "", ca: str = "", more: str = "", **words: str) -> None:
        """Make the checkout say this; what is left out as it was at first."""
        text = _SET.read_text().replace("@NS@", NAMESPACE)
        for old, new in words.items():
            assert old in text
            text = text.replace(old, new)
        (self.root / "k8s" / "manifests" / "set.yaml").write_text(text)
        values = {
            "NS": NAMESPACE,
            "REGISTRY": f"{REGISTRY}/test",
            "CA": ca or str(self.root / "registry.crt"),
            "MODEL": model or self.models[0],
        }
        text = _ENVIRONMENT.read_text() + more
        for name, value in values.items():
            text = text.replace(f"@{name}@", value)
        (self.root / "k8s" / "envs" / "served.yaml").write_text(text)
        images_lock.path().unlink(missing_ok=True)
        images_lock.write([PinnedImage("light", image or self.images[0], "1")])

    def go(self, *, patience: Patience = PATIENCE, wait: bool = False) -> DeployReceipt:
        assert environment.load("served").registry == f"{REGISTRY}/test"
        return deploy.deploy("served", yes=True, wait=wait, patience=patience)

    # --- what is there ---

    def get(self, resource: str, name: str) -> dict[str, Any]:
        body = self.kubectl.get(resource, NAMESPACE, name)
        assert body, f"no {resource} {name}"
        return body

    def pods(self, app: str) -> list[dict[str, Any]]:
        answer = self.kubectl.request(["get", "pods", "-n", NAMESPACE, "-l", f"app={app}", "-o", "json"])
        assert not answer.code, answer.stderr
        found: list[dict[str, Any]] = json.loads(answer.stdout)["items"]
        return found

    def serving(self) -> tuple[str, str, str]:
        """What runs: the pod, its image and its model."""
        (pod,) = (one for one in self.pods(NAME) if not one["metadata"].get("deletionTimestamp"))
        image = pod["spec"]["containers"][0]["image"].rpartition("@")[2]
        return pod["metadata"]["uid"], image, pod["metadata"]["annotations"][ANNOTATION]

    def releases(self) -> tuple[Release, ...]:
        """What the record says."""
        return release.read(self.kubectl, environment.load("served"), NAMESPACE).releases

    def answers(self) -> bool:
        path = f"/api/v1/namespaces/{NAMESPACE}/services/http:{NAME}:http/proxy/inference.yaml"
        answer = self.kubectl.call(["get", "--raw", path, "--request-timeout=5s"], tries=1)
        return "model_name_or_path" in answer.stdout

    def at_rest(self) -> None:
        """Wait until nothing of a preflight is left but what the set says."""
        body = self.get("deployments.apps", TRIAL)
        assert body["spec"]["replicas"] == 0
        assert ANNOTATION not in body["spec"]["template"]["metadata"].get("annotations", {})
        eventually(lambda: not self.pods(TRIAL), "the preflight's pod goes")

    @contextmanager
    def answering(self) -> Iterator[None]:
        """What serves in the block is the same pod as before, and answers whenever it is asked."""
        before, config = self.serving(), self.get("configmaps", "pinwheel-registry")["data"]
        policy = self.get("networkpolicies", "fetch")["spec"]
        answers: list[bool] = []
        ended = threading.Event()

        def ask() -> None:
            while not ended.wait(0.5):
                answers.append(self.answers())

        asking = threading.Thread(target=ask)
        asking.start()
        try:
            yield
        finally:
            ended.set()
            asking.join()
        assert answers
        assert all(answers), answers
        assert self.serving() == before
        assert self.get("configmaps", "pinwheel-registry")["data"] == config
        assert self.get("networkpolicies", "fetch")["spec"] == policy


@contextmanager
def proxy() -> Iterator[str]:
    """`kubectl proxy`; its address."""
    argv = [str(single_node.kubectl()), f"--kubeconfig={single_node.kubeconfig()}", "proxy", "--port=0"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        try:
            yield f"http://{line.split()[-1]}"
        finally:
            process.terminate()
