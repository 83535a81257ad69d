"""What kubectl asks an API server before it knows any object: version, groups, resources, OpenAPI v3; and what URLs mean."""

from __future__ import annotations

from typing import Any

from k8s.rules_object import CLUSTER_SCOPED

VERSION = "1.32"
# Kind → plural of what the tests deploy.
RESOURCES = {
    ("v1", "Namespace"): "namespaces",
    ("v1", "Node"): "nodes",
    ("v1", "ConfigMap"): "configmaps",
    ("v1", "Secret"): "secrets",
    ("v1", "Service"): "services",
    ("v1", "ServiceAccount"): "serviceaccounts",
    ("v1", "PersistentVolumeClaim"): "persistentvolumeclaims",
    ("apps/v1", "Deployment"): "deployments",
    ("autoscaling/v2", "HorizontalPodAutoscaler"): "horizontalpodautoscalers",
    ("coordination.k8s.io/v1", "Lease"): "leases",
    ("v1", "LimitRange"): "limitranges",
    ("v1", "ResourceQuota"): "resourcequotas",
    ("networking.k8s.io/v1", "NetworkPolicy"): "networkpolicies",
    ("policy/v1", "PodDisruptionBudget"): "poddisruptionbudgets",
    ("rbac.authorization.k8s.io/v1", "Role"): "roles",
    ("rbac.authorization.k8s.io/v1", "RoleBinding"): "rolebindings",
}
_PLURALS = {(version, plural): kind for (version, kind), plural in RESOURCES.items()}
Key = tuple[str, str, str, str]  # apiVersion, kind, namespace, name


def locate(path: str) -> Key | None:
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
    kind = _PLURALS.get((api, rest[0]))
    return (api, kind, namespace, rest[1] if len(rest) > 1 else "") if kind else None


def discovery(path: str, minor: str) -> dict[str, Any] | None:
    """What kubectl asks before it knows any object."""
    versions = sorted({version for version, _ in RESOURCES})
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
            return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": _resources(version)}
        if path == f"/openapi/v3/{_root(version)}":
            return {"openapi": "3.0.0", "info": {"title": "simulator", "version": VERSION}, "paths": _paths(version)}
    return None


def _root(version: str) -> str:
    return f"apis/{version}" if "/" in version else "api/v1"


def _resources(version: str) -> list[dict[str, Any]]:
    return [
        {
            "name": plural,
            "singularName": kind.lower(),
            "kind": kind,
            "namespaced": kind not in CLUSTER_SCOPED,
            "verbs": ["get", "list", "watch", "patch", "create", "update"],
        }
        for (known, kind), plural in RESOURCES.items()
        if known == version
    ]


def _paths(version: str) -> dict[str, Any]:
    """By these kubectl sees that the server checks fields and does dry runs itself."""
    group, slash, short = version.partition("/")
    result = {}
    for one in _resources(version):
        place = "/namespaces/{namespace}/" if one["namespaced"] else "/"
        parameters = [
            {"name": name, "in": "query", "schema": {"type": "string"}}
            for name in ("dryRun", "fieldManager", "fieldValidation")
        ]
        named = {"group": group if slash else "", "version": short or version, "kind": one["kind"]}
        verb = {"parameters": parameters, "x-kubernetes-group-version-kind": named, "responses": {}}
        result[f"/{_root(version)}{place}{one['name']}/{{name}}"] = {"patch": verb, "put": verb}
        result[f"/{_root(version)}{place}{one['name']}"] = {"post": verb}
    return result
