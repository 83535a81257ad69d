"""Which ConfigMaps of a cluster are in use: those of live pods, and those of workflows that have not ended.

A workflow starts pods until it ends, and each mounts what its template named when the workflow began (Argo Workflows,
`status.storedWorkflowTemplateSpec`). A pod that restarts a container mounts its volumes again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from common.errors import PinwheelError
from k8s.objects import pods
from k8s.objects.manifests import Manifest
from k8s.objects.pods import items, mapping
from k8s.rollouts.kubectl import Kubectl, listed, refusal

_ENDED = frozenset({"Succeeded", "Failed", "Error"})
# Whose pods a rollout replaces.
_ROLLED_OUT = frozenset({"ReplicaSet", "StatefulSet", "DaemonSet"})


class InUse:
    """What is in use, asked once for each namespace.

    Args:
        kubectl: of the cluster.
        before_rollout: a rollout is still to come: pods that it replaces do not count.
    """

    def __init__(self, kubectl: Kubectl, *, before_rollout: bool) -> None:
        self._kubectl, self._before_rollout = kubectl, before_rollout
        self._known: dict[str, dict[str, str]] = {}

    def why(self, manifest: Manifest) -> str:
        """Why an object may not be deleted now, as something uses it; empty where nothing does."""
        if (manifest.kind, manifest.api_version) != ("ConfigMap", "v1"):
            return ""
        namespace = manifest.namespace
        try:
            if namespace not in self._known:
                self._known[namespace] = self._users(namespace)
        except PinwheelError as problem:
            return f"nobody can tell whether it is used: {problem.line()}"
        user = self._known[namespace].get(manifest.name)
        return f"is used by {user}" if user else ""

    def _users(self, namespace: str) -> dict[str, str]:
        """What uses each ConfigMap of a namespace."""
        users: dict[str, str] = {}
        for pod in _all(self._kubectl, "pods", namespace):
            metadata = mapping(pod.get("metadata"))
            replaced = any(owner.get("kind") in _ROLLED_OUT for owner in items(metadata, "ownerReferences"))
            if not _ended(pod) and not metadata.get("deletionTimestamp") and not (self._before_rollout and replaced):
                for name in pods.config_maps(mapping(pod.get("spec"))):
                    users.setdefault(name, f"Pod {metadata.get('name')}")
        for workflow in _all(self._kubectl, "workflows.argoproj.io", namespace):
            if not _ended(workflow):
                for name in pods.config_maps(workflow):
                    users.setdefault(name, f"Workflow {mapping(workflow.get('metadata')).get('name')}")
        return users


def _ended(body: Mapping[str, Any]) -> bool:
    return mapping(body.get("status")).get("phase") in _ENDED


def _all(kubectl: Kubectl, resource: str, namespace: str) -> list[dict[str, Any]]:
    answer = kubectl.request(["get", resource, "-n", namespace, "-o", "json"])
    if answer.code and "the server doesn't have a resource type" in answer.stderr:
        return []  # A cluster without Argo runs no workflows.
    if answer.code:
        fix = f"let your account `list` {resource} in {namespace}"
        raise refusal(answer, f"the cluster does not show the {resource} of {namespace}", fix)
    return listed(answer.stdout)
