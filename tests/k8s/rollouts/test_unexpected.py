"""What runs beside the set: added to our objects, injected into our pods, or in a pod that only looks like ours."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
import yaml

from common.errors import DeployNotRolledBackError, DriftError
from common.run import Result, run
from k8s import drift
from k8s.envs.environment import ClusterTarget
from k8s.objects.manifests import Manifest
from k8s.prepare.pin import images
from k8s.prepare.rendered import Pin, RenderedSet
from k8s.rollouts import unexpected
from k8s.rollouts.kubectl import Kubectl, Patience
from k8s.rollouts.unexpected import Found
from oci.reference import ImageRef
from tests.k8s.conftest import NEW, OLD, Checkout
from tests.k8s.rollouts.test_release import env
from tests.k8s.simulator.apiserver import ApiServer
from tests.k8s.simulator.steps import BRIEF, NAME, go, image

OURS, OTHERS = f"r.example/llm/api@{OLD}", f"docker.io/library/proxy@{OLD}"
MINER = "docker.io/attacker/miner:latest"
WEB: dict[str, Any] = yaml.safe_load(f"""
apiVersion: apps/v1
kind: StatefulSet
metadata: {{name: web, namespace: n, uid: u1}}
spec:
  selector: {{matchLabels: {{app: web}}}}
  volumeClaimTemplates: [{{metadata: {{name: data}}}}]
  template:
    metadata: {{labels: {{app: web}}}}
    spec:
      initContainers: [{{name: fetch, image: "{OURS}"}}]
      containers: [{{name: web, image: "{OURS}"}}, {{name: proxy, image: "{OTHERS}"}}]
      volumes: [{{name: tmp, emptyDir: {{}}}}]
""")


def pod() -> dict[str, Any]:
    """A pod as a real kubelet reports it."""
    spec = copy.deepcopy(WEB["spec"]["template"]["spec"])
    token = {"name": "kube-api-access-x7k2p", "projected": {"sources": []}}
    spec["volumes"] += [{"name": "data", "persistentVolumeClaim": {"claimName": "data-web-0"}}, token]
    statuses = [{"name": name, "imageID": reference} for name, reference in (("web", OURS), ("proxy", OTHERS))]
    owners = [{"kind": "StatefulSet", "name": "web", "uid": "u1", "controller": True}]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "web-0", "namespace": "n", "labels": {"app": "web"}, "ownerReferences": owners},
        "spec": spec,
        "status": {"phase": "Running", "containerStatuses": statuses},
    }


def found(*pods: dict[str, Any], live: dict[str, Any] | None = None, refused: bool = False) -> Found:
    class Cluster(Kubectl):
        def request(self, argv: list[str], **_: Any) -> Result:  # type: ignore[override]
            listed = list(pods) if "pods" in argv else []
            return Result(int(refused), json.dumps({"kind": "List", "items": listed}), "Forbidden" if refused else "")

    workload = Manifest("web.yaml", WEB, {})
    pins = tuple(
        Pin(workload.title, identity, path, reference, ImageRef.parse(reference))
        for (identity, path), reference in images([workload], "1.32").items()
    )
    there = [Manifest("cluster", live or WEB, {})]
    return unexpected.look(Cluster(ClusterTarget("c"), Patience()), RenderedSet((workload,), pins, ()), there, env("e"))


def test_what_a_real_cluster_adds_is_nothing_foreign() -> None:
    assert found(pod()) == Found((), (), (OTHERS, OURS), ())


@pytest.mark.parametrize("group", ["containers", "initContainers", "ephemeralContainers"])
def test_a_container_that_the_set_has_not_is_found_in_a_pod(group: str) -> None:
    injected = pod()
    injected["spec"].setdefault(group, []).append({"name": "helper", "image": MINER})
    assert found(injected).wrong == (f"Pod n/web-0 runs a container that the set has not: helper, {MINER}",)


def test_a_container_and_a_volume_that_were_added_to_the_workload_are_found() -> None:
    changed = copy.deepcopy(WEB)
    changed["spec"]["template"]["spec"]["containers"].append({"name": "helper", "image": MINER})
    changed["spec"]["template"]["spec"]["volumes"].append({"name": "host", "hostPath": {"path": "/"}})
    assert found(live=changed).wrong == (
        f"StatefulSet n/web runs a container that the set has not: helper, {MINER}",
        "StatefulSet n/web has a volume that the set has not: host",
    )


@pytest.mark.parametrize(
    "volume", [{"name": "host", "hostPath": {"path": "/"}}, {"name": "kube-api-access-evil", "hostPath": {"path": "/"}}]
)
def test_a_volume_that_the_set_has_not_is_found_in_a_pod(volume: dict[str, Any]) -> None:
    mounted = pod()
    mounted["spec"]["volumes"].append(volume)
    assert found(mounted).wrong == (f"Pod n/web-0 has a volume that the set has not: {volume['name']}",)


def test_other_bytes_under_the_pinned_reference_are_found() -> None:
    swapped = pod()
    swapped["status"]["containerStatuses"][0]["imageID"] = f"r.example/llm/api@{NEW}"
    assert found(swapped).wrong == (f"Pod n/web-0 runs {NEW} in web, not {OLD}",)


def test_a_pod_whose_image_somebody_set_is_found() -> None:
    changed = pod()
    changed["spec"]["containers"][0]["image"] = MINER
    assert found(changed).wrong == (f"Pod n/web-0 runs {MINER} in web, not {OURS}",)


@pytest.mark.parametrize(
    "reported", ["sha256:" + "c" * 64, "", f"docker-pullable://r.example/llm/api@{OLD}", f"mirror.example/api@{OLD}"]
)
def test_what_no_registry_gave_and_other_names_of_the_same_digest_are_no_difference(reported: str) -> None:
    local = pod()
    local["status"]["containerStatuses"][0]["imageID"] = reported
    assert found(local).wrong == ()


def test_the_part_of_others_index_that_a_runtime_chose_is_no_difference() -> None:
    chosen = pod()
    chosen["status"]["containerStatuses"][1]["imageID"] = f"docker.io/library/proxy@{NEW}"
    assert found(chosen).wrong == ()


def test_a_strangers_pod_with_our_labels_is_named() -> None:
    stranger = pod()
    stranger["metadata"].update(name="web-1", ownerReferences=[])
    stranger["spec"]["containers"].append({"name": "helper", "image": MINER})
    assert found(pod(), stranger).beside == (f"Pod n/web-1 runs {MINER} (helper), which the set has not",)


@pytest.mark.parametrize("how", ["deleting", "ended"])
def test_pods_that_are_over_are_not_judged(how: str) -> None:
    over = pod()
    over["spec"]["containers"].append({"name": "helper", "image": MINER})
    if how == "deleting":
        over["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    else:
        over["status"]["phase"] = "Succeeded"
    assert found(over) == Found((), (), (), ())


def test_where_pods_may_not_be_listed_that_is_said() -> None:
    assert found(refused=True).unseen == ("n",)


@pytest.mark.host
def test_a_container_that_somebody_added_is_seen_by_deploy_and_by_drift(
    checkout: Checkout, server: ApiServer, capsys: pytest.CaptureFixture[str]
) -> None:
    go()
    helper = {"name": "helper", "image": MINER}
    body = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": NAME, "namespace": "llm-inference"},
        "spec": {"template": {"spec": {"containers": [helper]}}},
    }
    argv = ["kubectl", "--context", "staging", "apply", "--server-side", "--field-manager=injector", "-f", "-"]
    assert run(argv, stdin=json.dumps(body)).code == 0
    line = f"Deployment llm-inference/{NAME} runs a container that the set has not: helper, {MINER}"
    with pytest.raises(DeployNotRolledBackError) as deployed:
        go()
    assert line in deployed.value.line()
    with pytest.raises(DriftError) as drifted:
        drift.drift("staging", patience=BRIEF)
    assert line in drifted.value.line()
    assert server.image() == image(OLD)
    capsys.readouterr()
