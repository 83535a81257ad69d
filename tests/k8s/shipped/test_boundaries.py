"""What the project's own set promises about its namespaces: what is enforced, closed, counted and left out."""

from __future__ import annotations

import functools
from typing import Any

import pytest

from k8s.objects import manifests, pods
from k8s.objects.manifests import Manifest
from tests.k8s.conftest import REPO

NAMESPACES = ("llm-argo", "llm-dev-ui", "llm-inference", "llm-training")
# What this set knows of the network: who may come in by which port, and where pods may go.
INGRESS = {("llm-inference", "pinwheel/inference-client", "http")}
EGRESS = {
    "llm-argo": {53, 443, 6443},
    "llm-dev-ui": {53, 443},
    "llm-inference": {53, 443},
    "llm-training": {53, 443, 6443},
}
# Who talks to the Kubernetes API: Argo's controller, and the workflow's last step.
TOKENS = {("llm-argo", "argo"), ("llm-training", "model-deployer")}


@functools.cache
def good() -> tuple[Manifest, ...]:
    objects, refused = manifests.load([REPO / "manifests"])
    assert not refused
    return objects


def of(kind: str, namespace: str = "") -> list[Manifest]:
    return [one for one in good() if one.kind == kind and namespace in {"", one.namespace}]


def spec(one: Manifest) -> Any:
    return one.body["spec"]


def test_the_namespaces_are_those_that_something_runs_in() -> None:
    assert sorted(one.name for one in of("Namespace")) == list(NAMESPACES)
    outside = {"Namespace", "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"}
    assert {one.namespace for one in good() if one.kind not in outside} == set(NAMESPACES)


@pytest.mark.parametrize("mode", ["enforce", "audit", "warn"])
def test_each_namespace_is_restricted_by_a_version_that_does_not_move(mode: str) -> None:
    for one in of("Namespace"):
        labels = one.metadata["labels"]
        assert labels[f"pod-security.kubernetes.io/{mode}"] == "restricted"
        assert labels[f"pod-security.kubernetes.io/{mode}-version"] == "v1.32"


@pytest.mark.parametrize("namespace", NAMESPACES)
def test_each_namespace_denies_what_no_policy_lets_through(namespace: str) -> None:
    (deny,) = [one for one in of("NetworkPolicy", namespace) if one.name == "default-deny"]
    assert spec(deny) == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


def test_these_flows_are_open_and_no_other() -> None:
    came: set[tuple[str, str, str]] = set()
    went: dict[str, set[int]] = {}
    for one in of("NetworkPolicy"):
        for rule in spec(one).get("ingress", []):
            for peer in rule["from"]:
                (label,) = peer["namespaceSelector"]["matchLabels"]
                came |= {(one.namespace, label, port["port"]) for port in rule["ports"]}
        for rule in spec(one).get("egress", []):
            assert rule["to"]
            went.setdefault(one.namespace, set()).update(port["port"] for port in rule["ports"])
    assert came == INGRESS
    assert went == EGRESS


def test_nothing_can_reach_the_nodes_credentials() -> None:
    blocks = [
        peer["ipBlock"]
        for policy in of("NetworkPolicy")
        for rule in spec(policy).get("egress", [])
        for peer in rule["to"]
        if "ipBlock" in peer and peer["ipBlock"]["cidr"] == "0.0.0.0/0"
    ]
    assert len(blocks) == len(NAMESPACES)
    assert all("169.254.0.0/16" in block["except"] for block in blocks)


@pytest.mark.parametrize("namespace", NAMESPACES)
def test_no_pod_but_these_gets_a_token_for_the_kubernetes_api(namespace: str) -> None:
    accounts = {one.name: one.body["automountServiceAccountToken"] for one in of("ServiceAccount", namespace)}
    assert accounts["default"] is False
    assert {(namespace, name) for name, mounted in accounts.items() if mounted} == {
        one for one in TOKENS if one[0] == namespace
    }
    for one in good():
        for template in pods.templates(one):
            if one.kind != "WorkflowTemplate":  # Its steps are looked at in test_model_pipeline.py.
                assert template.spec["automountServiceAccountToken"] is False


def test_no_service_can_be_reached_from_outside_and_gpus_are_counted() -> None:
    assert {spec(one)["type"] for one in of("Service")} == {"ClusterIP"}
    for namespace in NAMESPACES:
        (quota,) = of("ResourceQuota", namespace)
        assert {"services.loadbalancers": "0", "services.nodeports": "0"}.items() <= spec(quota)["hard"].items()
        assert int(spec(quota)["hard"]["requests.nvidia.com/gpu"]) >= (namespace != "llm-argo")


def test_the_role_of_who_opens_the_web_ui_allows_nothing_else() -> None:
    (role,) = of("Role", "llm-dev-ui")
    allowed = {(resource, verb) for rule in role.body["rules"] for resource in rule["resources"] for verb in rule["verbs"]}
    assert allowed == {("services", "get"), ("pods", "get"), ("pods", "list"), ("pods/portforward", "create")}


def test_every_object_and_every_pod_carries_the_recommended_labels() -> None:
    wanted = {f"app.kubernetes.io/{name}" for name in ("name", "component", "part-of", "managed-by")}
    for one in good():
        assert wanted <= set(one.metadata["labels"]), one.title
        for template in pods.templates(one):
            assert wanted <= set(template.labels), one.title


def test_no_root_is_writable_and_every_mount_of_memory_is_bounded() -> None:
    for one in good():
        for template in pods.templates(one):
            for _, container in template.containers():
                assert container["securityContext"]["readOnlyRootFilesystem"] is True
            for volume in pods.items(template.spec, "volumes"):
                assert "emptyDir" not in volume or "sizeLimit" in volume["emptyDir"], one.title


def test_the_web_ui_listens_where_no_other_pod_reaches_it() -> None:
    (one,) = of("Deployment", "llm-dev-ui")
    (container,) = spec(one)["template"]["spec"]["containers"]
    held = {variable["name"]: variable.get("value") for variable in container["env"]}
    assert held["GRADIO_SERVER_NAME"] == "127.0.0.1"
    assert held["GRADIO_SERVER_PORT"] == str(container["ports"][0]["containerPort"])
    assert held["GRADIO_ANALYTICS_ENABLED"] == "False"
    assert spec(one)["strategy"] == {"type": "Recreate"}
