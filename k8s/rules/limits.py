"""Values that no server takes though their type is right: outside of a list or a range, or beside what excludes them.

Kubernetes' published schemas say types only; these limits are those of its validation (pkg/apis/*/validation) and stand in its
API reference. They are asked of every place with such a definition, in other people's kinds too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from k8s.objects.findings import Finding, rule
from k8s.objects.manifests import Manifest
from k8s.objects.pods import items, mapping
from k8s.objects.schema import Part, Walk

_PROTOCOLS = ("TCP", "UDP", "SCTP")
_PULL = ("Always", "IfNotPresent", "Never")
_PROFILES = ("Localhost", "RuntimeDefault", "Unconfined")
_MODES = ("ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod")
# The values of a field, or of the items of a list.
LISTED: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("AppArmorProfile", "type"): _PROFILES,
    ("Container", "imagePullPolicy"): _PULL,
    ("Container", "restartPolicy"): ("Always", "Never", "OnFailure"),
    ("Container", "terminationMessagePolicy"): ("FallbackToLogsOnError", "File"),
    ("ContainerPort", "protocol"): _PROTOCOLS,
    ("CronJobSpec", "concurrencyPolicy"): ("Allow", "Forbid", "Replace"),
    ("DaemonSetUpdateStrategy", "type"): ("OnDelete", "RollingUpdate"),
    ("DeploymentStrategy", "type"): ("Recreate", "RollingUpdate"),
    ("EphemeralContainer", "imagePullPolicy"): _PULL,
    ("HTTPGetAction", "scheme"): ("HTTP", "HTTPS"),
    ("HTTPIngressPath", "pathType"): ("Exact", "ImplementationSpecific", "Prefix"),
    ("HorizontalPodAutoscalerBehavior", "selectPolicy"): ("Disabled", "Max", "Min"),
    ("JobSpec", "completionMode"): ("Indexed", "NonIndexed"),
    ("JobSpec", "podReplacementPolicy"): ("Failed", "TerminatingOrFailed"),
    ("LabelSelectorRequirement", "operator"): ("DoesNotExist", "Exists", "In", "NotIn"),
    ("MetricSpec", "type"): ("ContainerResource", "External", "Object", "Pods", "Resource"),
    ("MetricTarget", "type"): ("AverageValue", "Utilization", "Value"),
    ("NetworkPolicyPort", "protocol"): _PROTOCOLS,
    ("NetworkPolicySpec", "policyTypes"): ("Egress", "Ingress"),
    ("NodeSelectorRequirement", "operator"): ("DoesNotExist", "Exists", "Gt", "In", "Lt", "NotIn"),
    ("PersistentVolumeClaimSpec", "accessModes"): _MODES,
    ("PersistentVolumeClaimSpec", "volumeMode"): ("Block", "Filesystem"),
    ("PersistentVolumeSpec", "accessModes"): _MODES,
    ("PersistentVolumeSpec", "persistentVolumeReclaimPolicy"): ("Delete", "Recycle", "Retain"),
    ("PodOS", "name"): ("linux", "windows"),
    ("PodSecurityContext", "fsGroupChangePolicy"): ("Always", "OnRootMismatch"),
    ("PodSpec", "dnsPolicy"): ("ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"),
    ("PodSpec", "preemptionPolicy"): ("Never", "PreemptLowerPriority"),
    ("PodSpec", "restartPolicy"): ("Always", "Never", "OnFailure"),
    ("PriorityClass", "preemptionPolicy"): ("Never", "PreemptLowerPriority"),
    ("RoleRef", "kind"): ("ClusterRole", "Role"),
    ("ScopedResourceSelectorRequirement", "operator"): ("DoesNotExist", "Exists", "In", "NotIn"),
    ("SeccompProfile", "type"): _PROFILES,
    ("SecurityContext", "procMount"): ("Default", "Unmasked"),
    ("ServicePort", "protocol"): _PROTOCOLS,
    ("ServiceSpec", "externalTrafficPolicy"): ("Cluster", "Local"),
    ("ServiceSpec", "internalTrafficPolicy"): ("Cluster", "Local"),
    ("ServiceSpec", "ipFamilies"): ("IPv4", "IPv6"),
    ("ServiceSpec", "ipFamilyPolicy"): ("PreferDualStack", "RequireDualStack", "SingleStack"),
    ("ServiceSpec", "sessionAffinity"): ("ClientIP", "None"),
    ("ServiceSpec", "type"): ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort"),
    ("StatefulSetSpec", "podManagementPolicy"): ("OrderedReady", "Parallel"),
    ("StatefulSetUpdateStrategy", "type"): ("OnDelete", "RollingUpdate"),
    ("StorageClass", "reclaimPolicy"): ("Delete", "Retain"),
    ("StorageClass", "volumeBindingMode"): ("Immediate", "WaitForFirstConsumer"),
    ("Subject", "kind"): ("Group", "ServiceAccount", "User"),
    ("Toleration", "effect"): ("NoExecute", "NoSchedule", "PreferNoSchedule"),
    ("Toleration", "operator"): ("Equal", "Exists", "Gt", "Lt"),
    ("TopologySpreadConstraint", "whenUnsatisfiable"): ("DoNotSchedule", "ScheduleAnyway"),
    ("VolumeMount", "mountPropagation"): ("Bidirectional", "HostToContainer", "None"),
}
_PORT, _LARGEST, _ID, _MODE = (1, 65535), 2**31 - 1, (0, 2**31 - 1), (0, 0o777)
_FROM_0 = (0, _LARGEST)
# The smallest and the largest number of a field, or of the items of a list.
RANGES: Mapping[tuple[str, str], tuple[int, int]] = {
    **{
        (probe, field): _FROM_0
        for probe in ("Probe",)
        for field in ("failureThreshold", "initialDelaySeconds", "periodSeconds")
    },
    **{(kind, "defaultMode"): _MODE for kind in ("ConfigMapVolumeSource", "DownwardAPIVolumeSource", "ProjectedVolumeSource")},
    **{(kind, "mode"): _MODE for kind in ("DownwardAPIVolumeFile", "KeyToPath")},
    **{(kind, field): _ID for kind in ("PodSecurityContext", "SecurityContext") for field in ("runAsGroup", "runAsUser")},
    **{(kind, "minReadySeconds"): _FROM_0 for kind in ("DaemonSetSpec", "DeploymentSpec", "ReplicaSetSpec", "StatefulSetSpec")},
    **{(kind, "replicas"): _FROM_0 for kind in ("DeploymentSpec", "ReplicaSetSpec", "StatefulSetSpec")},
    **{(kind, "revisionHistoryLimit"): _FROM_0 for kind in ("DaemonSetSpec", "DeploymentSpec")},
    ("ClientIPConfig", "timeoutSeconds"): (1, 86400),
    ("ContainerPort", "hostPort"): (0, 65535),
    ("CronJobSpec", "failedJobsHistoryLimit"): _FROM_0,
    ("CronJobSpec", "startingDeadlineSeconds"): (0, 2**63 - 1),
    ("CronJobSpec", "successfulJobsHistoryLimit"): _FROM_0,
    ("DeploymentSpec", "progressDeadlineSeconds"): (1, _LARGEST),
    ("GRPCAction", "port"): _PORT,
    ("HTTPGetAction", "port"): _PORT,
    ("JobSpec", "activeDeadlineSeconds"): (0, 2**63 - 1),
    ("JobSpec", "backoffLimit"): _FROM_0,
    ("JobSpec", "completions"): _FROM_0,
    ("JobSpec", "parallelism"): _FROM_0,
    ("JobSpec", "ttlSecondsAfterFinished"): _FROM_0,
    ("MetricTarget", "averageUtilization"): (1, _LARGEST),
    ("NetworkPolicyPort", "endPort"): _PORT,
    ("NetworkPolicyPort", "port"): _PORT,
    ("PodSecurityContext", "fsGroup"): _ID,
    ("PodSecurityContext", "supplementalGroups"): _ID,
    ("PodSpec", "activeDeadlineSeconds"): (1, _LARGEST),
    ("PreferredSchedulingTerm", "weight"): (1, 100),
    ("PriorityClass", "value"): (-(2**31), 1_000_000_000),
    ("Probe", "timeoutSeconds"): _FROM_0,
    ("SecretVolumeSource", "defaultMode"): _MODE,
    ("ServiceAccountTokenProjection", "expirationSeconds"): (600, 2**32),
    ("ServiceBackendPort", "number"): _PORT,
    ("ServicePort", "nodePort"): (0, 65535),
    ("ServicePort", "port"): _PORT,
    # 0 is none: the port itself.
    ("ServicePort", "targetPort"): (0, 65535),
    ("TCPSocketAction", "port"): _PORT,
    ("TopologySpreadConstraint", "maxSkew"): (1, _LARGEST),
    ("TopologySpreadConstraint", "minDomains"): (1, _LARGEST),
    ("WeightedPodAffinityTerm", "weight"): (1, 100),
}
_ENV_SOURCES = ("configMapKeyRef", "fieldRef", "fileKeyRef", "resourceFieldRef", "secretKeyRef")
_HANDLERS = ("exec", "httpGet", "sleep", "tcpSocket")
_PROJECTIONS = ("clusterTrustBundle", "configMap", "downwardAPI", "podCertificate", "secret", "serviceAccountToken")
# Fields of which one must be there, and no second.
ONE_OF: Mapping[str, tuple[str, ...]] = {
    "EnvFromSource": ("configMapRef", "secretRef"),
    "EnvVarSource": _ENV_SOURCES,
    "IngressBackend": ("resource", "service"),
    "LifecycleHandler": _HANDLERS,
    "VolumeProjection": _PROJECTIONS,
}
_NONE = (0, "0%")
_DATA_KEY = re.compile(r"(?!\.\.?$)[A-Za-z0-9._-]{1,253}")
# `@daily`, or five fields; names of months and days are letters.
_SCHEDULE = re.compile(r"@(?:yearly|annually|monthly|weekly|daily|midnight|hourly|every \S+)|\S+(?:\s+\S+){4}")
_RESTARTS = {
    "CronJob": ("Never", "OnFailure"),
    "Job": ("Never", "OnFailure"),
    "DaemonSet": ("Always",),
    "Deployment": ("Always",),
    "ReplicaSet": ("Always",),
    "StatefulSet": ("Always",),
}


def check(walks: Sequence[Walk]) -> Iterator[Finding]:
    """Which values no server takes."""
    for walk in walks:
        for part in walk.parts:
            yield from _listed(walk.manifest, part)
            yield from _ranges(walk.manifest, part)
            yield from _one_of(walk.manifest, part)
            yield from _together(walk.manifest, part)
        if not walk.custom:
            yield from _object(walk.manifest)


def _values(part: Part, field: str) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """The value of a field, or the items of its list, with where they stand. What Argo fills in later is left out."""
    held = part.body.get(field)
    several = enumerate(held) if isinstance(held, list) else [(None, held)]
    for number, value in several:
        if value is not None and not (isinstance(value, str) and "{{" in value):
            yield (*part.path, field, *([number] if number is not None else [])), value


@rule("enumeration")
def _listed(manifest: Manifest, part: Part) -> Iterator[Finding]:
    for field in part.body:
        known = LISTED.get((part.definition, field), ())
        for path, value in _values(part, field) if known else ():
            if isinstance(value, str) and value and value not in known:
                yield manifest.finding(path, f"{value!r} is none of the values there are", f"write {' or '.join(known)}")


@rule("range")
def _ranges(manifest: Manifest, part: Part) -> Iterator[Finding]:
    for field in part.body:
        low, high = RANGES.get((part.definition, field), (0, 0))
        for path, value in _values(part, field) if low or high else ():
            if isinstance(value, int) and not isinstance(value, bool) and not low <= value <= high:
                yield manifest.finding(path, f"{value} is out of range", f"write a number from {low} to {high}")


@rule("exclusive")
def _one_of(manifest: Manifest, part: Part) -> Iterator[Finding]:
    names = ONE_OF.get(part.definition, ())
    if part.definition == "Volume":
        names = tuple(key for key in part.body if key != "name")  # That it has none the rule about volumes says.
    there = [name for name in names if part.body.get(name) is not None]
    if len(there) > 1 or (not there and part.definition in ONE_OF):
        what = f"{' and '.join(there)} exclude each other" if there else "it names no source"
        yield manifest.finding(part.path, what, "keep one" if there else f"write one of {', '.join(names)}")


@rule("exclusive")
def _together(manifest: Manifest, part: Part) -> Iterator[Finding]:
    """Fields that another field of the same place rules out, or asks for."""
    body = part.body
    match part.definition:
        case "DeploymentStrategy" if body.get("type") == "Recreate" and body.get("rollingUpdate") is not None:
            yield manifest.finding(part.path, "type Recreate and rollingUpdate exclude each other", "keep one")
        case "RollingUpdateDeployment" if body.get("maxSurge") in _NONE and body.get("maxUnavailable") in _NONE:
            what = "neither a pod more nor a pod less: the rollout cannot go on"
            yield manifest.finding(part.path, what, "write maxSurge: 1 or maxUnavailable: 1")
        case "JobSpec" if (
            # Without both numbers the server makes 1 of either.
            body.get("completionMode") == "Indexed" and body.get("completions") is None and body.get("parallelism") is not None
        ):
            yield manifest.finding(part.path, "Indexed without a number of completions", "write completions")
        case "PolicyRule" if not body.get("verbs"):
            yield manifest.finding(part.path, "a rule without verbs", "write verbs")
        case "LabelSelectorRequirement" | "NodeSelectorRequirement":
            several = body.get("operator") in ("In", "NotIn")
            if several and not body.get("values"):
                yield manifest.finding(part.path, f"{body['operator']} without values", "write values")
            if body.get("operator") in ("Exists", "DoesNotExist") and body.get("values"):
                yield manifest.finding(part.path, f"{body['operator']} takes no values", "remove them")
        case "SeccompProfile" | "AppArmorProfile":
            if (body.get("type") == "Localhost") is not bool(body.get("localhostProfile")) and body.get("type"):
                what = "localhostProfile goes with type Localhost, and with no other"
                yield manifest.finding(part.path, what, "write both, or RuntimeDefault alone")
        case "Toleration":
            if body.get("operator") == "Exists" and body.get("value"):
                yield manifest.finding(part.path, "Exists takes no value", "remove it")
            if not body.get("key") and body.get("operator") != "Exists":
                yield manifest.finding(part.path, "no key", "write one, or operator: Exists for all taints")
            if body.get("tolerationSeconds") is not None and body.get("effect") != "NoExecute":
                yield manifest.finding(part.path, "tolerationSeconds goes with effect NoExecute", "remove it")
        case "VolumeMount":
            path = body.get("subPath")
            if body.get("subPathExpr") and path:
                yield manifest.finding(part.path, "subPath and subPathExpr exclude each other", "keep one")
            if isinstance(path, str) and (path.startswith("/") or ".." in path.split("/")):
                yield manifest.finding((*part.path, "subPath"), f"{path!r} leads out of the volume", "write a path within it")
            if isinstance(body.get("mountPath"), str) and ":" in body["mountPath"]:
                yield manifest.finding((*part.path, "mountPath"), "a path with a colon", "write another path")
        case "NetworkPolicyPort" if body.get("endPort") is not None:
            first, last = body.get("port"), body["endPort"]
            if not isinstance(first, int) or (isinstance(last, int) and last < first):
                yield manifest.finding(part.path, "endPort goes with a port that is a smaller number", "mend one of them")


@rule("exclusive")
def _object(manifest: Manifest) -> Iterator[Finding]:
    """What the kind of an object asks for."""
    spec = mapping(manifest.body.get("spec"))
    match manifest.kind:
        case "ConfigMap" | "Secret":
            held = [(group, key) for group in ("data", "binaryData", "stringData") for key in mapping(manifest.body.get(group))]
            for group, key in held:
                if not _DATA_KEY.fullmatch(str(key)):
                    yield manifest.finding((group, key), f"{key!r} is no key", "use letters, digits, -, _ and .")
                if group == "binaryData" and ("data", key) in held:
                    yield manifest.finding((group, key), f"{key} stands in data as well", "keep one")
        case "Service":
            named = bool(spec.get("externalName"))
            if (spec.get("type") == "ExternalName") and not named:
                yield manifest.finding(("spec", "externalName"), "type ExternalName without a name", "write externalName")
            if spec.get("type") != "ExternalName" and spec.get("clusterIP") != "None" and not items(spec, "ports"):
                yield manifest.finding(("spec", "ports"), "no port", "write one, or clusterIP: None")
        case "PersistentVolumeClaim":
            if not spec.get("accessModes"):
                yield manifest.finding(("spec", "accessModes"), "no access mode", f"write one of {', '.join(_MODES)}")
            if not mapping(mapping(spec.get("resources")).get("requests")).get("storage"):
                yield manifest.finding(("spec", "resources"), "no size", "write resources: {requests: {storage: …}}")
        case "CronJob" if not _SCHEDULE.fullmatch(str(spec.get("schedule", "")).strip()):
            yield manifest.finding(
                ("spec", "schedule"), f"{spec.get('schedule')!r} is no schedule", "write five fields, or @daily"
            )
    yield from _restart(manifest)


@rule("exclusive")
def _restart(manifest: Manifest) -> Iterator[Finding]:
    known = _RESTARTS.get(manifest.kind, ())
    spec = mapping(manifest.body.get("spec"))
    if manifest.kind == "CronJob":
        spec = mapping(mapping(spec.get("jobTemplate")).get("spec"))
    below = "spec.jobTemplate.spec" if manifest.kind == "CronJob" else "spec"
    policy = mapping(mapping(spec.get("template")).get("spec")).get("restartPolicy", "Always")
    if known and policy not in known:
        path = (*below.split("."), "template", "spec", "restartPolicy")
        fix = f"write restartPolicy: {' or '.join(known)}"
        yield manifest.finding(path, f"pods of a {manifest.kind} may not have {policy}", fix)
