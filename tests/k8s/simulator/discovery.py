"""What kubectl asks an API server before it knows any object: version, groups, resources, OpenAPI v3; and what URLs mean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from k8s.rules.objects import CLUSTER_SCOPED

Key = tuple[str, str, str, str]  # apiVersion, kind, namespace, name


@dataclass(frozen=True, slots=True)
class Resource:
    """How a kind is served.

    Attributes:
        plural: its name in URLs.
        namespaced: whether its objects lie in namespaces.
    """

    plural: str
    namespaced: bool = True


Served = Mapping[tuple[str, str], Resource]
BUILT_IN: Served = {
    (api, kind): Resource(plural, kind not in {*CLUSTER_SCOPED, "CustomResourceDefinition"})
    for api, kind, plural in (
        ("v1", "Namespace", "namespaces"),
        ("v1", "Node", "nodes"),
        ("v1", "ConfigMap", "configmaps"),
        ("v1", "Secret", "secrets"),
        ("v1", "Service", "services"),
        ("v1", "ServiceAccount", "serviceaccounts"),
        ("v1", "PersistentVolumeClaim", "persistentvolumeclaims"),
        ("v1", "Pod", "pods"),
        ("v1", "Event", "events"),
        ("v1", "LimitRange", "limitranges"),
        ("v1", "ResourceQuota", "resourcequotas"),
        ("apps/v1", "Deployment", "deployments"),
        ("apps/v1", "ReplicaSet", "replicasets"),
        ("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicy", "validatingadmissionpolicies"),
        ("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicyBinding", "validatingadmissionpolicybindings"),
        ("apiextensions.k8s.io/v1", "CustomResourceDefinition", "customresourcedefinitions"),
        ("autoscaling/v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers"),
        ("coordination.k8s.io/v1", "Lease", "leases"),
        ("networking.k8s.io/v1", "Ingress", "ingresses"),
        ("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies"),
        ("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets"),
        ("rbac.authorization.k8s.io/v1", "Role", "roles"),
        ("rbac.authorization.k8s.io/v1", "RoleBinding", "rolebindings"),
    )
}
ARGO_API = "argoproj.io/v1alpha1"
ARGO: Served = {
    (ARGO_API, "Workflow"): Resource("workflows"),
    (ARGO_API, "WorkflowTemplate"): Resource("workflowtemplates"),
    (ARGO_API, "CronWorkflow"): Resource("cronworkflows"),
    (ARGO_API, "ClusterWorkflowTemplate"): Resource("clusterworkflowtemplates", namespaced=False),
}


def locate(path: str, served: Served) -> Key | None:
    """Which object or collection a URL path means; the name is empty for a collection."""
    parts = path.strip("/").split("/")
    if parts[:2] == ["api", "v1"]:
        api, rest = "v1", parts[2:]
    elif parts[0] == "apis" and len(parts) > 3:
        api, rest = f"{parts[1]}/{parts[2]}", parts[3:]
    else:
        return None
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 2:
        namespace, rest = rest[1], rest[2:]
    kind = next((kind for (known, kind), one in served.items() if known == api and one.plural == rest[0]), None)
    return (api, kind, namespace, rest[1] if len(rest) > 1 else "") if kind else None


def discovery(path: str, minor: str, served: Served) -> dict[str, Any] | None:
    """What kubectl asks before it knows any object."""
    versions = sorted({version for version, _ in served})
    if path == "/version":
        return {"major": "1", "minor": minor, "gitVersion": f"v1.{minor}.0", "platform": "linux/amd64"}
    if path == "/api":
        return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}
    if path == "/apis":
        groups = []
        for version in versions:
            if "/" in version:
                entry = {"groupVersion": version, "version": version.split("/")[1]}
                groups.append({"name": version.split("/")[0], "versions": [entry], "preferredVersion": entry})
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}
    if path == "/openapi/v3":
        return {"paths": {_root(version): {"serverRelativeURL": f"/openapi/v3/{_root(version)}"} for version in versions}}
    for version in versions:
        if path == f"/{_root(version)}":
            resources = _resources(version, served)
            return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": resources}
        if path == f"/openapi/v3/{_root(version)}":
            return {"openapi": "3.0.0", "info": {"title": "simulator", "version": minor}, "paths": _paths(version, served)}
    return None


def _root(version: str) -> str:
    return f"apis/{version}" if "/" in version else "api/v1"


def _resources(version: str, served: Served) -> list[dict[str, Any]]:
    return [
        {
            "name": one.plural,
            "singularName": kind.lower(),
            "kind": kind,
            "namespaced": one.namespaced,
            "verbs": ["get", "list", "watch", "patch", "create", "update", "delete"],
        }
        for (known, kind), one in served.items()
        if known == version
    ]


def _paths(version: str, served: Served) -> dict[str, Any]:
    """By these kubectl sees that the server checks fields and does dry runs itself."""
    group, slash, short = version.partition("/")
    result = {}
    for one in _resources(version, served):
        place = "/namespaces/{namespace}/" if one["namespaced"] else "/"
        parameters = [
            {"name": name, "in": "query", "schema": {"type": "string"}}
            for name in ("dryRun", "fieldManager", "fieldValidation")
        ]
        named = {"group": group if slash else "", "version": short or version, "kind": one["kind"]}
        verb = {"parameters": parameters, "x-kubernetes-group-version-kind": named, "responses": {}}
        result[f"/{_root(version)}{place}{one['name']}/{{name}}"] = {"patch": verb, "put": verb, "delete": verb}
        result[f"/{_root(version)}{place}{one['name']}"] = {"post": verb}
    return result
