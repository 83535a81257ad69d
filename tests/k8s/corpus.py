"""Objects right and wrong, of every kind in the set and for every kind of mistake, with what the real server says of each.

Each case is one good object or that with one change. `server` is the verdict of `kubectl apply --server-side --dry-run=server
--validate=strict` on the cluster of this machine (tests/k8s/single_node/test_judge.py asks it again); `DIFFERENCES` says where
`check` says something else, and why.
"""

# One case, one line.
# ruff: noqa: E501
from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from k8s.rules.limits import LISTED, RANGES

SPACE = "corpus"
IMAGE = "registry.example.com/a@sha256:" + "a" * 64
Body = dict[str, Any]
Path = tuple[str | int, ...]
GONE = object()


@dataclass(frozen=True)
class Case:
    """One object.

    Attributes:
        name: kind and what is particular about it.
        body: of the object.
        server: whether the real server takes it.
    """

    name: str
    body: Body
    server: bool


def _pod(**fields: Any) -> Body:
    container = {
        "name": "c",
        "image": IMAGE,
        "ports": [{"name": "http", "containerPort": 8080}],
        "env": [{"name": "A", "value": "1"}],
        "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"memory": "64Mi"}},
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
        "readinessProbe": {"httpGet": {"port": "http", "path": "/"}, "periodSeconds": 5},
    }
    return {"containers": [container], "volumes": [{"name": "tmp", "emptyDir": {}}], **fields}


def _object(api: str, kind: str, spec: Body | None = None, *, space: str = SPACE, **fields: Any) -> Body:
    metadata: Body = {"name": "one"} | ({"namespace": space} if space else {})
    return {"apiVersion": api, "kind": kind, "metadata": metadata} | ({"spec": spec} if spec is not None else {}) | fields


def put(body: Any, path: Path, value: Any) -> Any:
    """A copy with another value at a path; maps and lists on the way are made."""
    if not path:
        return copy.deepcopy(value)
    step, rest = path[0], path[1:]
    if isinstance(step, int):
        listed = list(body or [])
        listed += [{}] * (step + 1 - len(listed))
        listed[step] = put(listed[step], rest, value)
        return listed
    here = dict(body or {})
    if not rest and value is GONE:
        here.pop(step, None)
    else:
        here[step] = put(here.get(step), rest, value)
    return here


LABELS = {"app": "one"}
SELECTOR = {"matchLabels": LABELS}
TEMPLATE = {"metadata": {"labels": LABELS}, "spec": _pod()}
ENDS = {"metadata": {"labels": LABELS}, "spec": _pod(restartPolicy="Never")}
# A good object of each kind.
GOOD: dict[str, Body] = {
    "Pod": _object("v1", "Pod", _pod()),
    "Deployment": _object("apps/v1", "Deployment", {"replicas": 1, "selector": SELECTOR, "template": TEMPLATE}),
    "StatefulSet": _object(
        "apps/v1", "StatefulSet", {"replicas": 1, "serviceName": "one", "selector": SELECTOR, "template": TEMPLATE}
    ),
    "DaemonSet": _object("apps/v1", "DaemonSet", {"selector": SELECTOR, "template": TEMPLATE}),
    "Job": _object("batch/v1", "Job", {"template": ENDS}),
    "CronJob": _object("batch/v1", "CronJob", {"schedule": "0 3 * * *", "jobTemplate": {"spec": {"template": ENDS}}}),
    "Service": _object("v1", "Service", {"ports": [{"name": "http", "port": 80, "targetPort": "http"}]}),
    "ConfigMap": _object("v1", "ConfigMap", data={"key": "value"}),
    "Secret": _object("v1", "Secret", type="Opaque"),
    "ServiceAccount": _object("v1", "ServiceAccount"),
    "PersistentVolumeClaim": _object(
        "v1",
        "PersistentVolumeClaim",
        {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    ),
    "LimitRange": _object("v1", "LimitRange", {"limits": [{"type": "Container", "max": {"memory": "1Gi"}}]}),
    "ResourceQuota": _object("v1", "ResourceQuota", {"hard": {"pods": "4"}}),
    "Namespace": _object("v1", "Namespace", space=""),
    "NetworkPolicy": _object(
        "networking.k8s.io/v1",
        "NetworkPolicy",
        {"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{"ports": [{"port": 80, "protocol": "TCP"}]}]},
    ),
    "Ingress": _object(
        "networking.k8s.io/v1",
        "Ingress",
        {
            "tls": [{"hosts": ["one.example.com"]}],
            "defaultBackend": {"resource": {"kind": "Bucket", "name": "b", "apiGroup": "x.io"}},
        },
    ),
    "PodDisruptionBudget": _object("policy/v1", "PodDisruptionBudget", {"maxUnavailable": 1, "selector": SELECTOR}),
    "HorizontalPodAutoscaler": _object(
        "autoscaling/v2",
        "HorizontalPodAutoscaler",
        {"minReplicas": 1, "maxReplicas": 2, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "one"}},
    ),
    "Role": _object(
        "rbac.authorization.k8s.io/v1", "Role", rules=[{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]
    ),
    "RoleBinding": _object(
        "rbac.authorization.k8s.io/v1",
        "RoleBinding",
        roleRef={"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
        subjects=[{"kind": "ServiceAccount", "name": "default", "namespace": SPACE}],
    ),
    "PriorityClass": _object("scheduling.k8s.io/v1", "PriorityClass", space="", value=1000),
    "StorageClass": _object("storage.k8s.io/v1", "StorageClass", space="", provisioner="example.com/disk"),
}
# Objects that others refer to, as they would lie in a set.
AROUND: list[Body] = [
    put(GOOD["Deployment"], ("spec", "replicas"), GONE),
    {**copy.deepcopy(GOOD["Service"]), "metadata": {"name": "around", "namespace": SPACE}},
]

_P: Path = ("spec",)
_C: Path = ("spec", "containers", 0)
# Where a definition stands in a good object; what stands there beside the field that is tried.
PLACES: dict[str, tuple[str, Path, Body]] = {
    "AppArmorProfile": ("Pod", (*_P, "securityContext", "appArmorProfile"), {}),
    "Container": ("Pod", _C, {}),
    "ContainerPort": ("Pod", (*_C, "ports", 0), {}),
    "CronJobSpec": ("CronJob", _P, {}),
    "DaemonSetSpec": ("DaemonSet", _P, {}),
    "DaemonSetUpdateStrategy": ("DaemonSet", (*_P, "updateStrategy"), {}),
    "DeploymentSpec": ("Deployment", _P, {}),
    "DeploymentStrategy": ("Deployment", (*_P, "strategy"), {}),
    "HTTPGetAction": ("Pod", (*_C, "readinessProbe", "httpGet"), {}),
    "JobSpec": ("Job", _P, {"completions": 1}),
    "LabelSelectorRequirement": (
        "NetworkPolicy",
        (*_P, "podSelector", "matchExpressions", 0),
        {"key": "app", "values": ["one"]},
    ),
    "NetworkPolicyPort": ("NetworkPolicy", (*_P, "ingress", 0, "ports", 0), {}),
    "NetworkPolicySpec": ("NetworkPolicy", _P, {}),
    "PersistentVolumeClaimSpec": ("PersistentVolumeClaim", _P, {}),
    "PodOS": ("Pod", (*_P, "os"), {}),
    "PodSecurityContext": ("Pod", (*_P, "securityContext"), {}),
    "PodSpec": ("Pod", _P, {}),
    "PriorityClass": ("PriorityClass", (), {}),
    "Probe": ("Pod", (*_C, "readinessProbe"), {}),
    "SeccompProfile": ("Pod", (*_P, "securityContext", "seccompProfile"), {}),
    "SecurityContext": ("Pod", (*_C, "securityContext"), {}),
    "ServicePort": ("Service", (*_P, "ports", 0), {}),
    "ServiceSpec": ("Service", _P, {}),
    "StatefulSetSpec": ("StatefulSet", _P, {}),
    "StatefulSetUpdateStrategy": ("StatefulSet", (*_P, "updateStrategy"), {}),
    "StorageClass": ("StorageClass", (), {}),
    "TCPSocketAction": ("Pod", (*_C, "livenessProbe", "tcpSocket"), {"port": 1}),
    "Toleration": ("Pod", (*_P, "tolerations", 0), {"key": "k"}),
    "TopologySpreadConstraint": (
        "Pod",
        (*_P, "topologySpreadConstraints", 0),
        {
            "maxSkew": 1,
            "topologyKey": "kubernetes.io/hostname",
            "whenUnsatisfiable": "DoNotSchedule",
            "labelSelector": SELECTOR,
        },
    ),
    "VolumeMount": ("Pod", (*_C, "volumeMounts", 0), {}),
}
# Listed values that ask for more than their field, which the general cases do not give.
_WANT_MORE = {
    ("Container", "restartPolicy", "Always"),
    ("Container", "restartPolicy", "Never"),
    ("Container", "restartPolicy", "OnFailure"),
    ("LabelSelectorRequirement", "operator", "NotIn"),
    ("SecurityContext", "procMount", "Unmasked"),
    ("AppArmorProfile", "type", "Localhost"),
    ("SeccompProfile", "type", "Localhost"),
    ("LabelSelectorRequirement", "operator", "Exists"),
    ("LabelSelectorRequirement", "operator", "DoesNotExist"),
    ("PodOS", "name", "windows"),
    ("PodSpec", "dnsPolicy", "None"),
    ("PodSpec", "preemptionPolicy", "Never"),
    ("PodSpec", "preemptionPolicy", "PreemptLowerPriority"),
    ("ServiceSpec", "externalTrafficPolicy", "Cluster"),
    ("ServiceSpec", "externalTrafficPolicy", "Local"),
    ("ServiceSpec", "ipFamilies", "IPv6"),
    ("ServiceSpec", "ipFamilyPolicy", "RequireDualStack"),
    ("ServiceSpec", "type", "ExternalName"),
    ("Toleration", "operator", "Gt"),
    ("Toleration", "operator", "Lt"),
    ("VolumeMount", "mountPropagation", "Bidirectional"),
}
_WANT_MORE_RANGES = {
    ("CronJobSpec", "startingDeadlineSeconds"),
    ("JobSpec", "activeDeadlineSeconds"),
    ("ServicePort", "nodePort"),
}
_WANT_MORE_RANGES |= {
    ("NetworkPolicyPort", "endPort"),
    ("TopologySpreadConstraint", "minDomains"),
    ("PodSecurityContext", "supplementalGroups"),
}
_LISTS = {("NetworkPolicySpec", "policyTypes"), ("PersistentVolumeClaimSpec", "accessModes"), ("ServiceSpec", "ipFamilies")}


def changed(kind: str, *changes: tuple[Path, Any]) -> Body:
    """The good object of a kind with changes."""
    body: Body = GOOD[kind]
    for path, value in changes:
        body = put(body, path, value)
    return body


def _of_a_definition(definition: str, field: str, value: Any) -> Body:
    kind, place, beside = PLACES[definition]
    return changed(kind, *((((*place, key), held)) for key, held in beside.items()), ((*place, field), value))


def _values() -> Iterator[Case]:
    """Each value of a list and one that is none; the ends of a range and what is beyond them."""
    for (definition, field), known in LISTED.items():
        if definition not in PLACES:
            continue
        for value in (*known, "Sometimes"):
            if (definition, field, value) in _WANT_MORE or (value == "Sometimes" and field == "preemptionPolicy"):
                continue
            kind = PLACES[definition][0]
            restarts = (definition, field) == ("PodSpec", "restartPolicy") and kind != "Pod"
            body = _of_a_definition(definition, field, [value] if (definition, field) in _LISTS else value)
            yield Case(f"{kind}: {definition}.{field} is {value}", body, value in known and not restarts)
    for (definition, field), (low, high) in RANGES.items():
        if definition not in PLACES or (definition, field) in _WANT_MORE_RANGES:
            continue
        for number, right in ((low, True), (low - 1, False), (high, True), (high + 1, False)):
            # Beyond 32 bits the server speaks of the type.
            if abs(number) < 2**31 - 1:
                body = _of_a_definition(definition, field, number)
                yield Case(f"{PLACES[definition][0]}: {definition}.{field} is {number}", body, right)


_T: Path = ("spec", "template", "spec")
# What is changed in the good object of a kind, and whether the server takes it.
CHANGES: tuple[tuple[str, str, tuple[tuple[Path, Any], ...], bool], ...] = (
    ("Pod", "an unknown field", (((*_P, "nodename"), "x"),), False),
    ("Pod", "a number as text", (((*_C, "ports", 0, "containerPort"), "8080"),), False),
    ("Pod", "a text as number", (((*_C, "env", 0, "value"), 1),), False),
    ("Pod", "no container", (((*_P, "containers"), []),), False),
    ("Pod", "no image", (((*_C, "image"), GONE),), False),
    ("Pod", "a name in upper case", ((("metadata", "name"), "One"),), False),
    ("Pod", "a label that is too long", ((("metadata", "labels"), {"a": "x" * 64}),), False),
    ("Pod", "a label key with two slashes", ((("metadata", "labels"), {"a/b/c": "x"}),), False),
    ("Pod", "a quantity with an unknown unit", (((*_C, "resources", "limits", "memory"), "1GB"),), False),
    ("Pod", "a request above its limit", (((*_C, "resources", "requests", "memory"), "1Gi"),), False),
    ("Pod", "a GPU requested and not limited", (((*_C, "resources", "requests"), {"nvidia.com/gpu": "1"}),), False),
    ("Pod", "half a GPU", (((*_C, "resources", "limits"), {"nvidia.com/gpu": "500m"}),), False),
    ("Pod", "two containers of one name", (((*_P, "containers", 1), {"name": "c", "image": IMAGE}),), False),
    ("Pod", "a container's name in upper case", (((*_C, "name"), "C"),), False),
    ("Pod", "two ports of one number", (((*_C, "ports", 1), {"name": "b", "containerPort": 8080}),), False),
    ("Pod", "two ports of one number and two protocols", (((*_C, "ports", 1), {"name": "b", "containerPort": 8080, "protocol": "UDP"}),), True),
    ("Pod", "two ports of one name", (((*_C, "ports", 1), {"name": "http", "containerPort": 1}),), False),
    ("Pod", "a port's name of digits", (((*_C, "ports", 0, "name"), "80"), ((*_C, "readinessProbe"), GONE)), False),
    ("Pod", "a port's name that is too long", (((*_C, "ports", 0, "name"), "x" * 16), ((*_C, "readinessProbe"), GONE)), False),
    ("Pod", "port 0", (((*_C, "ports", 0, "containerPort"), 0),), False),
    ("Pod", "port 65536", (((*_C, "ports", 0, "containerPort"), 65536),), False),
    ("Pod", "a variable twice", (((*_C, "env", 1), {"name": "A", "value": "2"}),), False),
    ("Pod", "a variable with value and source", (((*_C, "env", 0, "valueFrom"), {"fieldRef": {"fieldPath": "metadata.name"}}),), False),
    ("Pod", "a variable with two sources", (((*_C, "env", 0), {"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}, "resourceFieldRef": {"resource": "limits.memory"}}}),), False),
    ("Pod", "a variable with no source", (((*_C, "env", 0), {"name": "A", "valueFrom": {}}),), False),
    ("Pod", "a variable from a field", (((*_C, "env", 0), {"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}),), True),
    ("Pod", "a mount of no volume", (((*_C, "volumeMounts", 0, "name"), "absent"),), False),
    ("Pod", "two mounts at one path", (((*_C, "volumeMounts", 1), {"name": "tmp", "mountPath": "/tmp"}),), False),
    ("Pod", "a mount at a path with a colon", (((*_C, "volumeMounts", 0, "mountPath"), "/a:b"),), True),
    ("Pod", "a sub-path that is absolute", (((*_C, "volumeMounts", 0, "subPath"), "/a"),), False),
    ("Pod", "a sub-path that leads out", (((*_C, "volumeMounts", 0, "subPath"), "../a"),), False),
    ("Pod", "two sub-paths", (((*_C, "volumeMounts", 0, "subPath"), "a"), ((*_C, "volumeMounts", 0, "subPathExpr"), "b")), False),
    ("Pod", "a volume of two kinds", (((*_P, "volumes", 0, "configMap"), {"name": "kube-root-ca.crt"}),), False),
    ("Pod", "two volumes of one name", (((*_P, "volumes", 1), {"name": "tmp", "emptyDir": {}}),), False),
    ("Pod", "a volume without a kind", (((*_P, "volumes", 0), {"name": "tmp"}),), True),
    ("Pod", "a probe of two handlers", (((*_C, "readinessProbe", "tcpSocket"), {"port": 1}),), False),
    ("Pod", "a probe of no handler", (((*_C, "readinessProbe"), {"periodSeconds": 1}),), False),
    ("Pod", "a probe of a port that is not declared", (((*_C, "readinessProbe", "httpGet", "port"), 9000),), True),
    ("Pod", "a probe of a name that is not declared", (((*_C, "readinessProbe", "httpGet", "port"), "web"),), True),
    ("Pod", "a liveness probe that must succeed twice", (((*_C, "livenessProbe"), {"tcpSocket": {"port": 1}, "successThreshold": 2}),), False),
    ("Pod", "a readiness probe that must succeed twice", (((*_C, "readinessProbe", "successThreshold"), 2),), True),
    ("Pod", "a hook of two handlers", (((*_C, "lifecycle"), {"preStop": {"exec": {"command": ["x"]}, "httpGet": {"port": 1}}}),), False),
    ("Pod", "a hook of no handler", (((*_C, "lifecycle"), {"preStop": {}}),), False),
    ("Pod", "a hook that sleeps", (((*_C, "lifecycle"), {"preStop": {"sleep": {"seconds": 5}}}),), True),
    ("Pod", "an environment of two sources", (((*_C, "envFrom"), [{"configMapRef": {"name": "a", "optional": True}, "secretRef": {"name": "b", "optional": True}}]),), False),
    ("Pod", "an environment that is optional", (((*_C, "envFrom"), [{"configMapRef": {"name": "a", "optional": True}}]),), True),
    ("Pod", "an environment of an absent ConfigMap", (((*_C, "envFrom"), [{"configMapRef": {"name": "absent"}}]),), True),
    ("Pod", "an absent claim", (((*_P, "volumes", 0), {"name": "tmp", "persistentVolumeClaim": {"claimName": "absent"}}),), True),
    ("Pod", "an absent account", (((*_P, "serviceAccountName"), "absent"),), False),
    ("Pod", "an absent PriorityClass", (((*_P, "priorityClassName"), "absent"),), False),
    ("Pod", "a native sidecar", (((*_P, "initContainers"), [{"name": "s", "image": IMAGE, "restartPolicy": "Always"}]),), True),
    ("Pod", "an init container that restarts on failure", (((*_P, "initContainers"), [{"name": "s", "image": IMAGE, "restartPolicy": "Sometimes"}]),), False),
    ("Pod", "a local profile without its name", (((*_P, "securityContext", "seccompProfile"), {"type": "Localhost"}),), False),
    ("Pod", "a local profile", (((*_P, "securityContext", "seccompProfile"), {"type": "Localhost", "localhostProfile": "p.json"}),), True),
    ("Pod", "a profile with a needless name", (((*_P, "securityContext", "seccompProfile"), {"type": "RuntimeDefault", "localhostProfile": "p"}),), False),
    ("Pod", "a toleration of all taints", (((*_P, "tolerations"), [{"operator": "Exists"}]),), True),
    ("Pod", "a toleration of nothing", (((*_P, "tolerations"), [{"operator": "Equal", "value": "x"}]),), False),
    ("Pod", "a toleration that exists with a value", (((*_P, "tolerations"), [{"key": "k", "operator": "Exists", "value": "x"}]),), False),
    ("Pod", "a toleration with seconds and no effect", (((*_P, "tolerations"), [{"key": "k", "operator": "Exists", "tolerationSeconds": 5}]),), False),
    ("Pod", "a toleration with seconds", (((*_P, "tolerations"), [{"key": "k", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5}]),), True),
    ("Pod", "a finalizer twice", ((("metadata", "finalizers"), ["example.com/a", "example.com/a"]),), False),
    ("Pod", "a mode in octal", (((*_P, "volumes", 0), {"name": "tmp", "configMap": {"name": "kube-root-ca.crt", "defaultMode": 0o440}}),), True),
    ("Pod", "a mode beyond 0777", (((*_P, "volumes", 0), {"name": "tmp", "configMap": {"name": "kube-root-ca.crt", "defaultMode": 0o1000}}),), False),
    ("Pod", "a status", ((("status",), {"phase": "Running"}),), True),
    ("Deployment", "a selector of other labels", (((*_P, "selector", "matchLabels"), {"app": "two"}),), False),
    ("Deployment", "no selector", (((*_P, "selector"), GONE),), False),
    ("Deployment", "an empty selector", (((*_P, "selector"), {}),), False),
    ("Deployment", "Recreate with figures for rolling", (((*_P, "strategy"), {"type": "Recreate", "rollingUpdate": {"maxSurge": 1}}),), False),
    ("Deployment", "a rollout that cannot go on", (((*_P, "strategy"), {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 0}}),), False),
    ("Deployment", "a surge in percent", (((*_P, "strategy"), {"rollingUpdate": {"maxSurge": "25%"}}),), True),
    ("Deployment", "pods that do not restart", (((*_T, "restartPolicy"), "Never"),), False),
    ("Deployment", "a name that is given", ((("metadata", "generateName"), "a-"),), True),
    ("Deployment", "a namespace that is none", ((("metadata", "namespace"), "Corpus"),), False),
    ("StatefulSet", "no Service", (((*_P, "serviceName"), GONE),), True),
    ("StatefulSet", "pods that do not restart", (((*_T, "restartPolicy"), "Never"),), False),
    ("DaemonSet", "a selector of other labels", (((*_P, "selector", "matchLabels"), {"app": "two"}),), False),
    ("DaemonSet", "a number of pods", (((*_P, "replicas"), 1),), False),
    ("Job", "pods that always restart", (((*_T, "restartPolicy"), "Always"),), False),
    ("Job", "pods that say nothing about it", (((*_T, "restartPolicy"), GONE),), False),
    ("Job", "indexed without a number", (((*_P, "completionMode"), "Indexed"),), True),
    ("Job", "indexed and parallel without a number", (((*_P, "completionMode"), "Indexed"), ((*_P, "parallelism"), 2)), False),
    ("Job", "indexed", (((*_P, "completionMode"), "Indexed"), ((*_P, "completions"), 2)), True),
    ("CronJob", "four fields", (((*_P, "schedule"), "0 3 * *"),), False),
    ("CronJob", "a name for a schedule", (((*_P, "schedule"), "@daily"),), True),
    ("CronJob", "pods that always restart", (((*_P, "jobTemplate", "spec", "template", "spec", "restartPolicy"), "Always"),), False),
    ("Service", "a port that no pod declares", (((*_P, "ports", 0, "targetPort"), 9000),), True),
    ("Service", "one port without a name", (((*_P, "ports", 0, "name"), GONE),), True),
    ("Service", "two ports, one without a name", (((*_P, "ports", 1), {"port": 81}),), False),
    ("Service", "two ports of one name", (((*_P, "ports", 1), {"name": "http", "port": 81}),), False),
    ("Service", "two ports of one number", (((*_P, "ports", 1), {"name": "b", "port": 80}),), False),
    ("Service", "no port", (((*_P, "ports"), []),), False),
    ("Service", "no port and no address", (((*_P, "ports"), []), ((*_P, "clusterIP"), "None")), True),
    ("Service", "a name elsewhere", ((_P, {"type": "ExternalName", "externalName": "a.example.com"}),), True),
    ("Service", "a name elsewhere that is missing", ((_P, {"type": "ExternalName"}),), False),
    ("Service", "a name with a dot", ((("metadata", "name"), "one.two"),), False),
    ("ConfigMap", "a key with a slash", ((("data",), {"a/b": "x"}),), False),
    ("ConfigMap", "a key that is two dots", ((("data",), {"..": "x"}),), False),
    ("ConfigMap", "a key with a dot", ((("data",), {"a.yaml": "x"}),), True),
    ("ConfigMap", "a value that is a number", ((("data",), {"a": 1}),), False),
    ("ConfigMap", "a key in both groups", ((("data",), {"a": "x"}), (("binaryData",), {"a": "eA=="})), False),
    ("ConfigMap", "no data", ((("data",), GONE),), True),
    ("ConfigMap", "an annotation key with a blank", ((("metadata", "annotations"), {"a b": "x"}),), False),
    ("Secret", "a value", ((("stringData",), {"a": "x"}),), True),
    ("ServiceAccount", "no token", ((("automountServiceAccountToken",), False),), True),
    ("ServiceAccount", "an unknown field", ((("token",), False),), False),
    ("PersistentVolumeClaim", "no access mode", (((*_P, "accessModes"), GONE),), False),
    ("PersistentVolumeClaim", "no size", (((*_P, "resources"), GONE),), False),
    ("PersistentVolumeClaim", "a size that is none", (((*_P, "resources", "requests", "storage"), "big"),), False),
    ("LimitRange", "an unknown field", (((*_P, "limits", 0, "maximum"), {}),), False),
    ("LimitRange", "no type", (((*_P, "limits", 0, "type"), GONE),), False),
    ("ResourceQuota", "a count that is none", (((*_P, "hard", "pods"), "many"),), False),
    ("ResourceQuota", "GPUs by their requests", (((*_P, "hard"), {"requests.nvidia.com/gpu": "1"}),), True),
    ("ResourceQuota", "GPUs by themselves", (((*_P, "hard"), {"nvidia.com/gpu": "1"}),), True),
    ("Namespace", "a level of Pod Security that is none", ((("metadata", "labels"), {"pod-security.kubernetes.io/enforce": "strict"}),), False),
    ("Namespace", "a level of Pod Security", ((("metadata", "labels"), {"pod-security.kubernetes.io/enforce": "restricted"}),), True),
    ("Namespace", "a name with a dot", ((("metadata", "name"), "a.b"),), False),
    ("NetworkPolicy", "a peer that is two things", (((*_P, "ingress", 0, "from"), [{"podSelector": {}, "ipBlock": {"cidr": "10.0.0.0/8"}}]),), False),
    ("NetworkPolicy", "a peer that is nothing", (((*_P, "ingress", 0, "from"), [{}]),), False),
    ("NetworkPolicy", "a network that is none", (((*_P, "ingress", 0, "from"), [{"ipBlock": {"cidr": "10.0.0.0"}}]),), False),
    ("NetworkPolicy", "an exception outside of its network", (((*_P, "ingress", 0, "from"), [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["11.0.0.0/16"]}}]),), False),
    ("NetworkPolicy", "ports to a smaller one", (((*_P, "ingress", 0, "ports", 0), {"port": 80, "endPort": 70}),), False),
    ("NetworkPolicy", "ports from a name", (((*_P, "ingress", 0, "ports", 0), {"port": "http", "endPort": 90}),), False),
    ("NetworkPolicy", "ports from a number", (((*_P, "ingress", 0, "ports", 0), {"port": 80, "endPort": 90}),), True),
    ("NetworkPolicy", "In without values", (((*_P, "podSelector", "matchExpressions"), [{"key": "a", "operator": "In"}]),), False),
    ("NetworkPolicy", "Exists with values", (((*_P, "podSelector", "matchExpressions"), [{"key": "a", "operator": "Exists", "values": ["x"]}]),), False),
    ("NetworkPolicy", "rules that are not looked at", (((*_P, "policyTypes"), ["Egress"]),), True),
    ("Ingress", "no TLS", (((*_P, "tls"), GONE),), True),
    ("Ingress", "two backends", (((*_P, "defaultBackend", "service"), {"name": "around", "port": {"number": 80}}),), False),
    ("Ingress", "no backend and no rule", ((_P, {"tls": []}),), False),
    ("Ingress", "a path of no type", (((*_P, "rules"), [{"http": {"paths": [{"path": "/", "backend": {"service": {"name": "around", "port": {"number": 80}}}}]}}]),), False),
    ("Ingress", "a path to a Service", (((*_P, "rules"), [{"http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "around", "port": {"number": 80}}}}]}}]),), True),
    ("PodDisruptionBudget", "both bounds", (((*_P, "minAvailable"), 1),), False),
    ("PodDisruptionBudget", "no bound", (((*_P, "maxUnavailable"), GONE),), True),
    ("PodDisruptionBudget", "no eviction ever", (((*_P, "maxUnavailable"), 0),), True),
    ("PodDisruptionBudget", "pods of nobody", (((*_P, "selector", "matchLabels"), {"app": "nobody"}),), True),
    ("HorizontalPodAutoscaler", "fewer at most than at least", (((*_P, "minReplicas"), 3),), False),
    ("HorizontalPodAutoscaler", "none at most", (((*_P, "maxReplicas"), 0),), False),
    ("HorizontalPodAutoscaler", "a target of nobody", (((*_P, "scaleTargetRef", "name"), "nobody"),), True),
    ("HorizontalPodAutoscaler", "a metric that is none", (((*_P, "metrics"), [{"type": "Resources"}]),), False),
    ("HorizontalPodAutoscaler", "a share of nothing", (((*_P, "metrics"), [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 0}}}]),), False),
    ("Role", "no verbs", ((("rules",), [{"apiGroups": [""], "resources": ["pods"], "verbs": []}]),), False),
    ("Role", "a name with a colon", ((("metadata", "name"), "system:one"),), True),
    ("RoleBinding", "a role that is none", ((("roleRef", "kind"), "Roles"),), False),
    ("RoleBinding", "a role of nobody", ((("roleRef",), {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "nobody"}),), True),
    ("RoleBinding", "an account of nobody", ((("subjects", 0, "name"), "nobody"),), True),
    ("RoleBinding", "a subject that is none", ((("subjects", 0, "kind"), "Robot"),), False),
    ("PriorityClass", "a value of the system", ((("value",), 2_000_000_000),), False),
    ("PriorityClass", "no value", ((("value",), GONE),), True),
    ("StorageClass", "no provisioner", ((("provisioner",), GONE),), False),
)  # fmt: skip

STRICTER, UNKNOWN = "stricter by policy: ", "cannot be known offline: "
# Where `check` says something else than the server, and why.
DIFFERENCES: dict[str, str] = {
    "Pod: a mount at a path with a colon": STRICTER + "the API's own documentation forbids it",
    "Pod: a volume without a kind": STRICTER
    + "the server makes an emptyDir of it; that is written, or something was forgotten",
    "Pod: a probe of a name that is not declared": STRICTER + "the server takes it, and the probe never succeeds",
    "Pod: an environment of an absent ConfigMap": STRICTER + "the pod would never start; it is named in the environment",
    "Pod: an absent claim": STRICTER + "the pod would never start; it is named in the environment",
    "Pod: a status": STRICTER + "the server drops it in silence",
    "NetworkPolicy: NetworkPolicySpec.policyTypes is Egress": STRICTER + "its ingress rules are not looked at",
    "PriorityClass: no value": STRICTER + "the server takes 0 for it; that is written, or something was forgotten",
    "ResourceQuota: GPUs by themselves": STRICTER + "it counts nothing",
    "Service: ServiceSpec.type is LoadBalancer": STRICTER + "the whole world would reach it",
    "Secret: a value": STRICTER + "it would stand in git",
    "NetworkPolicy: rules that are not looked at": STRICTER + "they protect nobody",
    "Ingress: no TLS": STRICTER + "keys would cross the network for all to read",
    "PodDisruptionBudget: no bound": STRICTER + "it says nothing",
    "PodDisruptionBudget: no eviction ever": STRICTER + "no node could be drained",
    "PodDisruptionBudget: pods of nobody": STRICTER + "it protects nobody",
    "HorizontalPodAutoscaler: a target of nobody": STRICTER + "it scales nothing",
    "RoleBinding: a role of nobody": STRICTER + "it allows nothing",
    "RoleBinding: an account of nobody": STRICTER + "it allows nobody anything; it is named in the environment",
}


def cases() -> list[Case]:
    """All of them, each under a name of its own."""
    found = [Case(f"{kind}: good", body, server=True) for kind, body in GOOD.items()]
    found += _values()
    found += [Case(f"{kind}: {what}", changed(kind, *changes), server) for kind, what, changes, server in CHANGES]
    return found
