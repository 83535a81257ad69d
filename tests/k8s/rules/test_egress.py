"""A pod that speaks to registry or API server, and that no policy lets out to its port, is found; near misses are not."""

from __future__ import annotations

import pytest

from k8s.envs import environment
from k8s.objects import manifests, schema
from k8s.objects.manifests import Manifest
from k8s.rules import egress
from k8s.rules.whole_set import WholeSet
from tests.k8s.conftest import Checkout
from tests.k8s.envs.test_environment import GOOD

ENV = environment.parse(GOOD.replace("r.example/llm", "r.example:5000/llm"), "e", "e.yaml")
SPACE = "apiVersion: v1\nkind: Namespace\nmetadata: {name: nn}\n---\n"
POD = """apiVersion: v1
kind: Pod
metadata: {name: p, namespace: nn, labels: {app: p}}
spec:
  %s
  containers: [{name: c, image: x}]
  volumes: [{name: r, configMap: {name: %s, optional: true}}]
---
"""
SPEAKS, SILENT = POD % ("restartPolicy: Never", "pinwheel-registry"), POD % ("restartPolicy: Never", "registry")
TOKEN = POD % ("automountServiceAccountToken: true", "other")
DENY = """apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny, namespace: nn}
spec: {podSelector: {}, policyTypes: [Ingress, Egress]}
---
"""


def lets(rule: str, *, selector: str = "{}", types: str = "[Egress]", namespace: str = "nn", mark: str = "") -> str:
    """A policy with one rule for egress."""
    notes = f", annotations: {{pinwheel.io/ports: '{mark}'}}" if mark else ""
    return (
        f"apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: lets, namespace: {namespace}{notes}}}\n"
        f"spec: {{podSelector: {selector}, policyTypes: {types}, egress: [{rule}]}}\n---\n"
    )


def found(text: str) -> list[str]:
    parsed = list(manifests.parse(text, "x.yaml"))
    objects = [one for one in parsed if isinstance(one, Manifest)]
    assert len(objects) == len(parsed)
    kinds = schema.schema(ENV.kubernetes)
    return [one.text() for one in egress.check(WholeSet.of_walks([kinds.walk(one) for one in objects], ENV))]


SHUT_IN = {
    "denied_everything": SPEAKS + DENY,
    "another_port": SPEAKS + DENY + lets("{ports: [{port: 443}]}"),
    "the_port_by_udp": SPEAKS + DENY + lets("{ports: [{port: 5000, protocol: UDP}]}"),
    "a_range_that_ends_before": SPEAKS + DENY + lets("{ports: [{port: 4000, endPort: 4999}]}"),
    "a_policy_for_other_pods": SPEAKS + DENY + lets("{ports: [{port: 5000}]}", selector="{matchLabels: {app: q}}"),
    "a_policy_of_another_namespace": SPEAKS + DENY + lets("{ports: [{port: 5000}]}", namespace="m"),
    "egress_by_a_policy_that_is_not_asked": SPEAKS + lets("{ports: [{port: 443}]}"),
}
FREE = {
    "no_policy": SPEAKS,
    "the_port": SPEAKS + DENY + lets("{ports: [{port: 5000}]}"),
    "the_port_among_others": SPEAKS + DENY + lets("{ports: [{port: 53}]}, {ports: [{port: 443}, {port: 5000}]}"),
    "a_range": SPEAKS + DENY + lets("{ports: [{port: 4000, endPort: 5000}]}"),
    "a_named_port": SPEAKS + DENY + lets("{ports: [{port: registry}]}"),
    "every_port_of_tcp": SPEAKS + DENY + lets("{ports: [{protocol: TCP}]}"),
    "a_rule_without_ports": SPEAKS + DENY + lets("{to: [{ipBlock: {cidr: 10.0.0.0/8}}]}"),
    "a_rule_for_everything": SPEAKS + DENY + lets("{}"),
    "only_ingress_is_denied": SPEAKS + DENY.replace("Ingress, Egress", "Ingress"),
    "no_policy_of_its_labels": SPEAKS + lets("{ports: [{port: 443}]}", selector="{matchLabels: {app: q}}"),
    "who_does_not_speak_to_the_registry": SILENT + DENY,
    "who_is_in_the_nodes_network": SPEAKS.replace("restartPolicy: Never", "hostNetwork: true") + DENY,
    "a_token_nobody_asked_for": SILENT + DENY,
    "a_token_and_one_of_the_ports": TOKEN + DENY + lets("{ports: [{port: 6443}]}"),
    "a_token_that_is_refused": TOKEN.replace("Token: true", "Token: false") + DENY,
}


@pytest.mark.parametrize("case", SHUT_IN)
def test_who_cannot_get_to_the_registry_is_found(case: str) -> None:
    (line,) = found(SPACE + SHUT_IN[case])
    assert "no policy lets the pods of Pod nn/p out to port 5000 of the registry: add the port here" in line
    assert line.startswith("x.yaml:")
    assert "NetworkPolicy nn/" in line


@pytest.mark.parametrize("case", FREE)
def test_who_can_or_need_not_is_not(case: str) -> None:
    assert found(SPACE + FREE[case]) == []


def test_of_a_part_of_a_set_nobody_knows_the_policies() -> None:
    assert found(SHUT_IN["denied_everything"]) == []


def test_who_asked_for_a_token_must_get_to_the_api_server() -> None:
    (line,) = found(SPACE + TOKEN + DENY)
    assert "out to port 443 or 6443 of the API server" in line
    account = (
        "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: s, namespace: nn}\nautomountServiceAccountToken: true\n---\n"
    )
    (line,) = found(SPACE + POD % ("serviceAccountName: s", "other") + account + DENY)
    assert "the API server" in line


@pytest.mark.parametrize(
    ("others", "named"),
    [
        (lets("{ports: [{port: 443}]}"), "NetworkPolicy nn/lets: spec.egress"),
        (lets("{ports: [{port: 53, protocol: UDP}]}"), "NetworkPolicy nn/lets"),
        ("", "NetworkPolicy nn/deny"),
    ],
)
def test_the_policy_to_mend_is_the_one_that_lets_something_out(others: str, named: str) -> None:
    (line,) = found(SPACE + SPEAKS + DENY + others)
    assert named in line


def test_a_mark_that_means_nothing_is_found() -> None:
    (line,) = found(SPACE + lets("{ports: [{port: 1}]}", mark="registry, apiserver"))
    assert "metadata.annotations['pinwheel.io/ports']: 'apiserver' says nothing about ports: write one or more of" in line
    (line,) = found(SPACE + DENY.replace("{name: deny,", "{name: deny, annotations: {pinwheel.io/ports: hub},"))
    assert "and there are none" in line


def test_the_projects_pods_are_found_when_a_mark_is_lost(checkout: Checkout) -> None:
    file = checkout.root / "k8s/envs/staging.yaml"
    file.write_text(file.read_text().replace("registry.example.com/llm\n", "registry.example.com:5000/llm\n", 1))
    assert checkout.findings() == []
    checkout.edit("networkpolicy.yaml", "pinwheel.io/ports: api-server", "x/y: z")
    inference = checkout.manifests / "inference/networkpolicy.yaml"
    inference.write_text(inference.read_text().replace("pinwheel.io/ports: registry", "x/y: z"))
    training = checkout.manifests / "training/networkpolicy.yaml"
    training.write_text(training.read_text().replace("registry, hub, api-server", "registry, hub"))
    training.write_text(training.read_text().replace("pinwheel.io/ports: registry, hub", "pinwheel.io/ports: hub"))
    lines = [line for line in checkout.findings() if "no policy lets" in line]
    assert len(lines) == 2
    assert "NetworkPolicy llm-inference/llama-factory-inference-fetch: spec.egress: no policy lets the pods of" in lines[0]
    assert "networkpolicy.yaml" in lines[1]
    assert "WorkflowTemplate llm-training/llama-factory-train out to port 5000 of the registry" in lines[1]
