"""Each way to spoil a policy of the good set, or to open what it closes, is refused with file, object, path and fix."""

from __future__ import annotations

import re
from typing import Any

import pytest

from k8s.rules import whole_set
from tests.k8s.conftest import API, Checkout

pytestmark = pytest.mark.slow

INFERENCE = "k8s/manifests/inference"
CONTAINER = "spec.template.spec.containers[0]"
POD = "spec.template.spec"

# Named after the defect: file, what is replaced by what, the object and path, what is wrong, and the fix.
SPOILED = {
    "network_policy_for_no_pod": (
        "inference/networkpolicy.yaml",
        "    matchLabels:\n      app.kubernetes.io/name: llama-factory-inference",
        "    matchLabels:\n      app: llama-infer",
        "NetworkPolicy llm-inference/llama-factory-inference: spec.podSelector: selects no pod of this set (app=llama-infer)",
        "write the labels of the pod template",
    ),
    "network_policy_whose_ingress_is_not_looked_at": (
        "inference/networkpolicy.yaml",
        '  policyTypes: ["Ingress"]',
        '  policyTypes: ["Egress"]',
        "spec.ingress: ingress rules, and policyTypes does not name Ingress",
        "add Ingress to policyTypes",
    ),
    "network_policy_whose_egress_is_not_looked_at": (
        "training/networkpolicy.yaml",
        '  policyTypes: ["Egress"]',
        '  policyTypes: ["Ingress"]',
        "NetworkPolicy llm-training/allow-dns: spec.egress: egress rules, and policyTypes does not name Egress",
        "add Egress to policyTypes",
    ),
    "network_policy_for_a_port_that_no_pod_has": (
        "inference/networkpolicy.yaml",
        "        - port: http",
        "        - port: metrics",
        "spec.ingress[0].ports[0].port: lets in to port metrics, which no selected pod has",
        "the pods' ports are: http",
    ),
    "peer_that_is_two_things": (
        "training/networkpolicy.yaml",
        "        - ipBlock:\n            cidr: 169.254.20.10/32",
        "        - podSelector: {}\n          ipBlock:\n            cidr: 169.254.20.10/32",
        "spec.egress[0].to[1]: ipBlock and a selector in one peer",
        "give each a list item of its own",
    ),
    "peer_that_is_nothing": (
        "inference/networkpolicy.yaml",
        '        - namespaceSelector:\n            matchLabels:\n              pinwheel/inference-client: "true"',
        "        - {}",
        "spec.ingress[0].from[0]: an empty peer",
        "leave out the list to mean everybody",
    ),
    "network_with_bits_beyond_its_mask": (
        "webui/networkpolicy.yaml",
        "cidr: 0.0.0.0/0",
        "cidr: 10.1.2.3/8",
        "spec.egress[0].to[0].ipBlock.cidr: '10.1.2.3/8' is no network",
        "write it like 10.0.0.0/8",
    ),
    "address_for_a_network": (
        "training/networkpolicy.yaml",
        "cidr: 169.254.20.10/32",
        "cidr: 169.254.20.10",
        "'169.254.20.10' is no network",
        "write it like",
    ),
    "exception_outside_of_its_network": (
        "webui/networkpolicy.yaml",
        "cidr: 0.0.0.0/0",
        "cidr: 10.0.0.0/8",
        "spec.egress[0].to[0].ipBlock.except[1]: '100.64.0.0/10' is no network inside 10.0.0.0/8",
        "write a part of it",
    ),
    "budget_for_no_pod": (
        "inference/disruptionbudget.yaml",
        "    matchLabels:\n      app.kubernetes.io/name: llama-factory-inference",
        "    matchExpressions: [{key: tier, operator: Exists}]",
        "PodDisruptionBudget llm-inference/llama-factory-inference: spec.selector: selects no pod of this set (tier)",
        "write the labels of the pod template",
    ),
    "budget_that_lets_no_node_be_drained": (
        "inference/disruptionbudget.yaml",
        "maxUnavailable: 1\n  selector",
        "maxUnavailable: 0\n  selector",
        "spec: no pod may ever be evicted",
        "write maxUnavailable: 1",
    ),
    "budget_of_the_only_pod": (
        "inference/disruptionbudget.yaml",
        "maxUnavailable: 1\n  selector",
        "minAvailable: 1\n  selector",
        "spec.minAvailable: minAvailable 1 of 1 pod: none may be evicted",
        "write maxUnavailable: 1",
    ),
    "budget_with_both_bounds": (
        "inference/disruptionbudget.yaml",
        "maxUnavailable: 1\n  selector",
        "maxUnavailable: 1\n  minAvailable: 25%\n  selector",
        "spec: both minAvailable and maxUnavailable",
        "write maxUnavailable: 1",
    ),
    "budget_without_a_bound": (
        "inference/disruptionbudget.yaml",
        "  maxUnavailable: 1\n  selector",
        "  selector",
        "spec: neither minAvailable nor maxUnavailable",
        "write maxUnavailable: 1",
    ),
    "quota_below_what_the_autoscaler_may_ask_for": (
        "inference/quota.yaml",
        'requests.nvidia.com/gpu: "4"',
        'requests.nvidia.com/gpu: "2"',
        "spec.hard['requests.nvidia.com/gpu']: ResourceQuota llm-inference/llm-inference allows nvidia.com/gpu 2, "
        "the set may ask for 4 (Deployment llm-inference/llama-factory-inference 4 × 1)",
        "raise the quota, or lower replicas, maxReplicas or the requests",
    ),
    "autoscaler_beyond_the_quota": (
        "hpa.yaml",
        "maxReplicas: 4",
        "maxReplicas: 8",
        "allows nvidia.com/gpu 4, the set may ask for 8",
        "raise the quota",
    ),
    "quota_of_device_limits": (
        "inference/quota.yaml",
        "requests.nvidia.com/gpu",
        "limits.nvidia.com/gpu",
        "a quota of limits.nvidia.com/gpu counts nothing",
        "write requests.nvidia.com/gpu",
    ),
    "quota_of_devices_by_their_bare_name": (
        "training/quota.yaml",
        "requests.nvidia.com/gpu",
        "nvidia.com/gpu",
        "a quota of nvidia.com/gpu counts nothing",
        "write requests.nvidia.com/gpu",
    ),
    "quota_of_what_a_container_does_not_say": (
        "inference/quota.yaml",
        'services.nodeports: "0"',
        'services.nodeports: "0"\n    limits.cpu: "64"',
        f"Deployment llm-inference/llama-factory-inference: {CONTAINER}.resources: no limit for cpu, which ResourceQuota",
        "write limits.cpu",
    ),
    "balancer_where_the_quota_allows_none": (
        "service.yaml",
        "type: ClusterIP",
        "type: LoadBalancer\n  loadBalancerSourceRanges: [192.0.2.0/24]",
        "spec.hard['services.loadbalancers']: services.loadbalancers 0, and the set has 1 (llama-factory-inference)",
        "make them ClusterIP",
    ),
    "balancer_for_the_whole_world": (
        "webui/webui.yaml",
        "type: ClusterIP",
        "type: LoadBalancer",
        "Service llm-dev-ui/llama-factory-webui: spec.type: a LoadBalancer that the whole world reaches",
        "put an Ingress with a login before it",
    ),
    "level_of_pod_security_misspelt": (
        "training/namespace.yaml",
        "enforce: restricted",
        "enforce: restrict",
        "'restrict' is no level of Pod Security",
        "write privileged, baseline, restricted",
    ),
    "version_of_pod_security_without_its_v": (
        "training/namespace.yaml",
        "warn-version: v1.32",
        'warn-version: "1.32"',
        "'1.32' is no version of Pod Security",
        "write it like v1.32",
    ),
    "root_allowed": (
        "deployment.yaml",
        "runAsNonRoot: true",
        "runAsNonRoot: false",
        f"{CONTAINER}.securityContext.runAsNonRoot: runAsNonRoot is not true, and the namespace llm-inference enforces",
        "write runAsNonRoot: true",
    ),
    "root_by_number": ("deployment.yaml", "runAsUser: 10001", "runAsUser: 0", "it runs as root", "10001"),
    "root_in_the_container_alone": (
        "deployment.yaml",
        "readOnlyRootFilesystem: true",
        "runAsNonRoot: false",
        "runAsNonRoot is not true",
        "write runAsNonRoot: true",
    ),
    "escalation_allowed": (
        "webui/webui.yaml",
        "            allowPrivilegeEscalation: false\n",
        "",
        "Deployment llm-dev-ui/llama-factory-webui: "
        f"{CONTAINER}.securityContext.allowPrivilegeEscalation: allowPrivilegeEscalation is not false",
        "write allowPrivilegeEscalation: false",
    ),
    "privileged": ("deployment.yaml", "readOnlyRootFilesystem: true", "privileged: true", "it is privileged", "remove it"),
    "capabilities_kept": ("deployment.yaml", 'drop: ["ALL"]', 'drop: ["NET_RAW"]', "it keeps capabilities", 'drop: ["ALL"]'),
    "capability_added": (
        "deployment.yaml",
        'drop: ["ALL"]',
        'drop: ["ALL"]\n              add: ["SYS_NICE"]',
        f"{POD}.initContainers[0].securityContext.capabilities.add: it adds capabilities",
        "only NET_BIND_SERVICE",
    ),
    "no_seccomp_profile": (
        "deployment.yaml",
        "        seccompProfile:\n          type: RuntimeDefault\n",
        "",
        "no seccomp profile",
        "write seccompProfile: {type: RuntimeDefault}",
    ),
    "network_of_the_node": (
        "deployment.yaml",
        "      enableServiceLinks: false",
        "      enableServiceLinks: false\n      hostNetwork: true",
        f"{POD}.hostNetwork: hostNetwork is set",
        "remove it",
    ),
    "port_of_the_node": (
        "deployment.yaml",
        "containerPort: 8000",
        "containerPort: 8000\n              hostPort: 8000",
        f"{CONTAINER}.ports[0].hostPort: a hostPort",
        "remove it",
    ),
    "directory_of_the_node": (
        "deployment.yaml",
        "          emptyDir:\n            medium: Memory\n            sizeLimit: 8Gi",
        "          hostPath:\n            path: /dev/shm",
        "].hostPath: a hostPath volume",
        "use a claim",
    ),
    "secret_in_the_environment": (
        "deployment.yaml",
        "              valueFrom:\n                secretKeyRef:\n                  name: inference-api-key\n"
        "                  key: API_KEY",
        "              value: hunter2",
        f"{CONTAINER}.env[3].value: the value of API_KEY stands in a manifest, and so in git",
        "take it from a Secret",
    ),
    "secret_in_the_command_line": (
        "deployment.yaml",
        '"/models/inference.yaml"]',
        '"/models/inference.yaml", "--api-key=$(API_KEY)"]',
        f"{CONTAINER}.command[3]: the secret API_KEY would stand in the command line",
        "let the program read the variable",
    ),
}


@pytest.mark.parametrize("defect", SPOILED)
def test_refuses(checkout: Checkout, defect: str) -> None:
    file, old, new, what, fix = SPOILED[defect]
    checkout.edit(file, old, new)
    found = checkout.findings()
    told = [text for text in found if what in text and fix in text]
    assert told, found
    assert all(re.match(r"k8s/manifests/[a-z]+/[a-z]+\.yaml:\d+: [A-Z]\w+ ", text) for text in told)


INGRESS = """
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: i, namespace: llm-inference}
spec:
  tls: [{hosts: [llm.example.com], secretName: inference-api-key}]
  defaultBackend: {service: {name: llama-factory-inference, port: {name: http}}}
"""
SECOND = """
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: second, namespace: llm-inference}
spec: {maxReplicas: 2, scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: llama-factory-inference}}
"""
RANGE = "apiVersion: v1\nkind: LimitRange\nmetadata: {name: l, namespace: llm-inference}\n"
SECRET = "apiVersion: v1\nkind: Secret\nmetadata: {name: s, namespace: llm-inference}\n"

ADDED = {
    "ingress_without_tls": (
        INGRESS.replace("  tls: [{hosts: [llm.example.com], secretName: inference-api-key}]\n", ""),
        "Ingress llm-inference/i: spec: no TLS: keys and prompts would cross the network for all to read: write tls",
    ),
    "ingress_whose_certificate_is_nowhere": (
        INGRESS.replace("inference-api-key", "inference-tls"),
        "spec.tls[0].secretName: no Secret llm-inference/inference-tls: make it outside of git and name it under `secrets`",
    ),
    "ingress_to_no_service": (
        INGRESS.replace("llama-factory-inference", "llama-factory-webui"),
        "defaultBackend.service.name: no Service llm-inference/llama-factory-webui: an Ingress sees its own namespace only",
    ),
    "ingress_to_no_port": (
        INGRESS.replace("{name: http}", "{number: 80}"),
        "spec.defaultBackend.service.port: Service llm-inference/llama-factory-inference has no port 80: "
        "its ports are: http, 8000",
    ),
    "two_autoscalers": (
        SECOND,
        "HorizontalPodAutoscaler llm-inference/llama-factory-inference: spec.scaleTargetRef: scales what "
        "HorizontalPodAutoscaler llm-inference/second scales already",
    ),
    "secret_in_git": (
        SECRET + "stringData: {API_KEY: hunter2}\n",
        "Secret llm-inference/s: stringData: a secret's value stands in a manifest, and so in git: make it outside of git",
    ),
    "secret_in_git_encoded": (SECRET + "data: {API_KEY: aHVudGVyMg==}\n", "data: a secret's value stands in a manifest"),
    "limit_range_below_the_limits": (
        RANGE + "spec: {limits: [{type: Container, max: {memory: 32Gi}}]}\n",
        f"{CONTAINER}.resources.limits.memory: memory 48Gi is more than LimitRange llm-inference/l allows (32Gi, limits[0])",
    ),
    "limit_range_above_the_requests": (
        RANGE + "spec: {limits: [{type: Container, min: {cpu: 4}}]}\n",
        f"{CONTAINER}.resources.requests.cpu: cpu 2 is less than LimitRange llm-inference/l allows (4, limits[0])",
    ),
}


@pytest.mark.parametrize("defect", ADDED)
def test_refuses_an_added(checkout: Checkout, defect: str) -> None:
    text, message = ADDED[defect]
    checkout.add(text.lstrip())
    found = checkout.findings()
    assert any(message in line for line in found), found


POD_OF_OURS = (
    "apiVersion: v1\nkind: Pod\nmetadata: {name: p, namespace: ns}\n"
    f"spec: {{containers: [{{name: c, image: {API}, env: [%s], args: [%s]}}]}}\n"
)
FINE = {
    "certificate_that_its_controller_makes": INGRESS.replace(
        "name: i,", "name: i, annotations: {cert-manager.io/issuer: x},"
    ).replace("inference-api-key", "made-by-cert-manager"),
    "ingress": INGRESS,
    "empty_secret": SECRET,
    "balancer_for_the_private_network": "apiVersion: v1\nkind: Service\n"
    "metadata: {name: s, namespace: ns, annotations: {networking.gke.io/load-balancer-type: Internal}}\n"
    "spec: {type: LoadBalancer, ports: [{name: http, port: 80}]}\n",
    "quota_of_a_storage_class": "apiVersion: v1\nkind: ResourceQuota\nmetadata: {name: q, namespace: llm-inference}\n"
    "spec: {hard: {fast.storageclass.storage.k8s.io/requests.storage: 1Ti, count/jobs.batch: 4, requests.storage: 1Ti}}\n",
    "quota_with_scopes": "apiVersion: v1\nkind: ResourceQuota\nmetadata: {name: q, namespace: llm-inference}\n"
    "spec: {scopes: [BestEffort], hard: {limits.cpu: 1}}\n",
    "variables_that_only_sound_secret": POD_OF_OURS % ("{name: MAX_TOKENS, value: '5'}, {name: TOKENIZERS, value: x}", "x"),
    "variable_that_is_passed_on": POD_OF_OURS % ("{name: VLLM_API_KEY, value: $(API_KEY)}", "'$(date)'"),
    "pod_where_nothing_is_enforced": POD_OF_OURS % ("", ""),
}


@pytest.mark.parametrize("case", FINE)
def test_takes(checkout: Checkout, case: str) -> None:
    checkout.add(FINE[case].lstrip())
    assert checkout.findings() == []


@pytest.mark.parametrize(
    ("selector", "selects"),
    [
        ({}, True),
        ({"matchLabels": {"a": "1"}}, True),
        ({"matchLabels": {"a": "1", "b": "1"}}, False),
        ({"matchExpressions": [{"key": "a", "operator": "In", "values": ["1", "2"]}]}, True),
        ({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["1"]}]}, False),
        ({"matchExpressions": [{"key": "b", "operator": "NotIn", "values": ["1"]}]}, True),
        ({"matchExpressions": [{"key": "b", "operator": "Exists"}]}, False),
        ({"matchExpressions": [{"key": "b", "operator": "DoesNotExist"}]}, True),
        ({"matchLabels": {"a": "1"}, "matchExpressions": [{"key": "a", "operator": "DoesNotExist"}]}, False),
    ],
)
def test_a_label_selector_is_read_as_kubernetes_does(selector: dict[str, Any], selects: bool) -> None:
    assert whole_set.matches(selector, {"a": "1"}) is selects
