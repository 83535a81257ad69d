"""What the scheduler and the autoscaler of a real cluster make of the set: on a pretended GPU node, and on a real metric."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from common import paths
from common.single_node import REGISTRY
from k8s.envs import environment
from k8s.pipeline.pod_reasons import Endings, problems
from k8s.prepare import checked
from k8s.prepare.gpu_nodes import DRIVER, MAJOR, MINOR
from lockfiles.images_lock import PinnedImage
from tests.k8s.single_node import light_image
from tests.k8s.single_node.served import Served
from tests.waiting import eventually

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.skipif(os.geteuid() != 0, reason="a cluster needs root")]
SPACE, NAME = "pinwheel-test-scheduling", "llama-factory-inference"
# The served fixture points at a checkout of its own.
OURS = {name: getattr(paths, name) for name in ("ROOT", "K8S", "LOCKFILES")}
NEEDS = {"driver": 580, "compute": ("7.5", "8.0", "8.6", "9.0", "10.0", "12.0")}
# Burns until the file is there.
PROGRAM = "import pathlib, time\nwhile not pathlib.Path('/tmp/rest').exists(): pass\ntime.sleep(86400)"


@pytest.fixture
def space(served: Served) -> Iterator[Served]:
    body = json.dumps({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SPACE}})
    eventually(lambda: not served.kubectl.apply(body, part="test").code, "the namespace is made")
    yield served
    served.kubectl.delete(body)


def asked(served: Served, *arguments: str, body: object = None) -> str:
    answer = served.kubectl.request(list(arguments), stdin=None if body is None else json.dumps(body))
    assert not answer.code, answer.stderr
    return answer.stdout


def listed(served: Served, what: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(asked(served, "get", what, "-n", SPACE, "-o", "json"))["items"]
    return found


def of_staging(kind: str) -> dict[str, Any]:
    """An object of what serves, as it would be sent to staging, but to another namespace."""
    pinned = {
        name: PinnedImage(name, "sha256:" + "a" * 64, "1", **NEEDS)  # type: ignore[arg-type]
        for name in ("llama-factory-train", "llama-factory-api")
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, place in OURS.items():
            patch.setattr(paths, name, place)
        rendered = checked.from_git(environment.load("staging"), pinned, lambda *_: {})
    (found,) = (one.body for one in rendered.objects if (one.kind, one.name) == (kind, NAME))
    body: dict[str, Any] = json.loads(json.dumps(found))
    body["metadata"]["namespace"] = SPACE
    return body


def node(name: str, *, driver: int, gpus: int) -> dict[str, Any]:
    """A node that is there by its word alone, as GPU operators label and taint theirs; nothing ever runs on it."""
    resources = {"cpu": "64", "memory": "512Gi", "ephemeral-storage": "2Ti", "pods": "100", "nvidia.com/gpu": str(gpus)}
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "lastHeartbeatTime": now, "lastTransitionTime": now}
    labels = {DRIVER: str(driver), MAJOR: "9", MINOR: "0", "nvidia.com/gpu.present": "true", "kubernetes.io/os": "linux"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels},
        "spec": {"taints": [{"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}]},
        "status": {"capacity": resources, "allocatable": resources, "conditions": [ready]},
    }


def test_what_serves_lands_on_a_gpu_node_whose_driver_runs_the_image(space: Served) -> None:
    def waiting() -> list[str]:
        """Why pods are not scheduled, in our words."""
        pods = listed(space, "pods")
        return [one.message for pod in pods for one in problems(pod, Endings()) if one.reason == "Unschedulable"]

    def bound() -> list[str]:
        return [pod["spec"].get("nodeName", "") for pod in listed(space, "pods")]

    server = of_staging("Deployment")
    server["spec"]["replicas"] = 1
    # Nothing of it ever starts here: whose account it has does not matter.
    server["spec"]["template"]["spec"].pop("serviceAccountName", None)
    old, new = "pinwheel-test-old-driver", "pinwheel-test-gpu"
    try:
        asked(space, "create", "-f", "-", body=node(old, driver=570, gpus=8))
        asked(space, "create", "-f", "-", body=server)
        eventually(waiting, "the pod waits for a node")
        assert "didn't match Pod's node affinity" in waiting()[0]
        asked(space, "create", "-f", "-", body=node(new, driver=580, gpus=2))
        eventually(lambda: bound() == [new], "the pod is bound to the new node")
        asked(space, "scale", "deployment", NAME, "-n", SPACE, "--replicas=3")
        eventually(lambda: sorted(bound()) == ["", new, new] and waiting(), "the third waits for a GPU")
        assert "Insufficient nvidia.com/gpu" in waiting()[0]
    finally:
        space.kubectl.request(["delete", "node", old, new, "--ignore-not-found"])
        space.kubectl.request(["delete", "deployment", NAME, "-n", SPACE, "--cascade=foreground", "--wait=false"])
        # No kubelet ends what is bound to a node that never was.
        space.kubectl.request(["delete", "pods", "--all", "-n", SPACE, "--force", "--grace-period=0"])


def test_the_autoscaler_of_the_set_follows_the_load_up_and_down(space: Served) -> None:
    scaler, image = of_staging("HorizontalPodAutoscaler"), f"{REGISTRY}/{light_image.TO}@{space.images[0]}"
    assert (scaler["spec"]["minReplicas"], scaler["spec"]["maxReplicas"]) == (1, 2)
    # Otherwise as it is: a lull of a quarter of an hour is too long for a test.
    scaler["spec"]["behavior"]["scaleDown"]["stabilizationWindowSeconds"] = 0
    resources = {"requests": {"cpu": "50m", "memory": "32Mi"}, "limits": {"cpu": "100m", "memory": "64Mi"}}
    container = {"name": "burns", "image": image, "command": ["python", "-c", PROGRAM], "resources": resources}
    labels = {"app": NAME}
    spec = {"terminationGracePeriodSeconds": 0, "containers": [container]}
    burns = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": NAME, "namespace": SPACE},
        "spec": {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": spec}},
    }
    asked(space, "create", "-f", "-", body=burns)
    asked(space, "create", "-f", "-", body=scaler)

    def state() -> dict[str, Any]:
        (one,) = listed(space, "horizontalpodautoscalers")
        return dict(one["status"])

    def ready() -> list[str]:
        found = listed(space, "deployments")[0]["status"]
        return [one["metadata"]["name"] for one in listed(space, "pods")] if found.get("readyReplicas") == 2 else []

    eventually(lambda: state().get("currentMetrics"), "the autoscaler reads the metric")
    eventually(ready, "a second pod runs")
    for name in ready():
        asked(space, "exec", "-n", SPACE, name, "--", "python", "-c", "open('/tmp/rest', 'w').close()")
    eventually(lambda: state().get("desiredReplicas") == 1, "the autoscaler takes one away")
    eventually(lambda: len(listed(space, "pods")) == 1, "one pod is left")
