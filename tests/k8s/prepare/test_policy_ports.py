"""The ports that NetworkPolicies let out are those of the environment, where the policy says what they are for."""

from __future__ import annotations

from typing import Any

import pytest

from k8s.envs import environment
from k8s.objects import manifests
from k8s.objects.manifests import Manifest
from k8s.prepare import policy_ports, preflight
from tests.k8s.conftest import Checkout
from tests.k8s.envs.test_environment import GOOD

OWN = "registry: {host: r.example:5000/llm, plain-http: true}\nports: {hub: [8081], api-server: [16443]}\n"
POLICY = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: p, namespace: nn%s}
spec:
  podSelector: {}
  policyTypes: [Egress]
  egress:
    - {to: [{ipBlock: {cidr: 10.0.0.0/8}}], ports: [{port: 443}]}
    - {to: [{podSelector: {}}]}
"""


def ports(objects: tuple[Manifest, ...]) -> dict[tuple[str, str], list[list[dict[str, Any]]]]:
    return {
        (one.namespace, one.name): [rule.get("ports") for rule in one.body["spec"]["egress"]]
        for one in objects
        if one.kind == "NetworkPolicy" and "egress" in one.body["spec"]
    }


def one_policy(annotation: str) -> tuple[Manifest, ...]:
    (found,) = manifests.parse(
        POLICY % (f", annotations: {{pinwheel.io/ports: '{annotation}'}}" if annotation else ""), "p.yaml"
    )
    assert isinstance(found, Manifest)
    return (found,)


def test_the_projects_policies_follow_the_environment(checkout: Checkout) -> None:
    env = environment.parse(GOOD.replace("registry: r.example/llm\n", OWN), "e", "e.yaml")
    rendered, findings = checkout.check(env)
    found = ports(rendered.objects)
    assert found["llm-training", "allow-tls-out"] == [[{"port": 5000}, {"port": 8081}, {"port": 16443}]]
    assert found["llm-inference", "llama-factory-inference-fetch"] == [[{"port": 5000}]]
    assert found["llm-dev-ui", "llama-factory-webui"] == [[{"port": 8081}]]
    assert found["llm-argo", "allow-api-server"] == [[{"port": 16443}]]
    for namespace in ("llm-training", "llm-inference", "llm-dev-ui", "llm-argo"):
        assert found[namespace, "allow-dns"] == [[{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]]
    assert not [finding for finding in findings if "NetworkPolicy" in finding.title]


def test_where_nothing_is_said_the_manifests_stay_as_they_are(checkout: Checkout) -> None:
    written, _ = manifests.load([checkout.manifests])
    objects = tuple(one for one in checkout.check()[0].objects if not preflight.is_one(one))
    assert ports(objects) == ports(written)


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        ("registry", [{"port": 5000}]),
        (" api-server,registry ", [{"port": 5000}, {"port": 16443}]),
        ("", None),
        ("nobody", None),
    ],
)
def test_every_egress_rule_of_a_marked_policy_is_set_and_no_other(annotation: str, expected: Any) -> None:
    env = environment.parse(GOOD.replace("registry: r.example/llm\n", OWN), "e", "e.yaml")
    written = one_policy(annotation)
    (rules,) = ports(policy_ports.apply(written, env.network)).values()
    assert rules == ([expected, expected] if expected else [[{"port": 443}], None])
    assert [rule["to"] for rule in written[0].body["spec"]["egress"]] == [
        [{"ipBlock": {"cidr": "10.0.0.0/8"}}],
        [{"podSelector": {}}],
    ]
