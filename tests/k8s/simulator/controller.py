"""What the control plane makes of a Deployment: its ReplicaSet, pods with their statuses, events; and rollouts that hang."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tests.k8s.simulator.discovery import Key

# Reasons that the scheduler or the ReplicaSet has, not a container.
_NOT_SCHEDULED, _NOT_MADE = "Unschedulable", "FailedCreate"


@dataclass(frozen=True)
class Trouble:
    """Why the pods of an image never get ready.

    Attributes:
        reason: of a waiting container, `ImagePullBackOff`; or `Unschedulable`; or `FailedCreate`: there are no pods.
        message: in the words of kubelet, scheduler or admission.
        init: whether it is the first init container that waits.
        log: what the container said before it ended.
    """

    reason: str
    message: str = ""
    init: bool = False
    log: str = ""


def identity(key: Key) -> str:
    return "uid-" + "-".join(key).replace("/", "-").lower()


def replica_set(key: Key, body: dict[str, Any], trouble: Trouble | None) -> tuple[Key, dict[str, Any]]:
    """The ReplicaSet of a Deployment's newest template."""
    template = body["spec"]["template"]
    short = hashlib.sha256(json.dumps(template, sort_keys=True).encode()).hexdigest()[:10]
    labels = {**template["metadata"].get("labels", {}), "pod-template-hash": short}
    conditions = []
    if trouble and trouble.reason == _NOT_MADE:
        conditions.append({"type": "ReplicaFailure", "status": "True", "reason": _NOT_MADE, "message": trouble.message})
    made: Key = ("apps/v1", "ReplicaSet", key[2], f"{key[3]}-{short}")
    metadata = {
        "name": made[3],
        "namespace": made[2],
        "labels": labels,
        "annotations": {"deployment.kubernetes.io/revision": str(body["metadata"]["generation"])},
        "ownerReferences": [_owner(key)],
    }
    spec = {"replicas": body["spec"]["replicas"], "selector": body["spec"]["selector"], "template": template}
    return made, {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": metadata,
        "spec": spec,
        "status": {"replicas": 0, "conditions": conditions},
    }


def pods(owner: Key, body: dict[str, Any], trouble: Trouble | None, *, ready: bool) -> Iterator[tuple[Key, dict[str, Any]]]:
    """The pods of a ReplicaSet.

    Args:
        owner: the ReplicaSet.
        body: its own.
        trouble: of their image.
        ready: whether they got ready, where there is no trouble.
    """
    if trouble and trouble.reason == _NOT_MADE:
        return
    template = body["spec"]["template"]
    for number in range(int(body["spec"]["replicas"])):
        made: Key = ("v1", "Pod", owner[2], f"{owner[3]}-{number}")
        metadata = {
            "name": made[3],
            "namespace": made[2],
            "labels": body["metadata"]["labels"],
            "ownerReferences": [_owner(owner)],
        }
        yield (
            made,
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": metadata,
                "spec": template["spec"],
                "status": _status(template["spec"], trouble, ready=ready),
            },
        )


def _owner(key: Key) -> dict[str, Any]:
    return {"apiVersion": key[0], "kind": key[1], "name": key[3], "uid": identity(key), "controller": True}


def _status(spec: dict[str, Any], trouble: Trouble | None, *, ready: bool) -> dict[str, Any]:
    if trouble and trouble.reason == _NOT_SCHEDULED:
        condition = {"type": "PodScheduled", "status": "False", "reason": _NOT_SCHEDULED, "message": trouble.message}
        return {"phase": "Pending", "conditions": [condition]}
    scheduled = {"type": "PodScheduled", "status": "True"}
    starting = [_waiting(one, "PodInitializing") for one in spec["containers"]]
    if trouble:
        hung = "initContainers" if trouble.init else "containers"
        statuses = [_waiting(one, trouble.reason, trouble) if not n else one for n, one in enumerate(spec[hung])]
        for number, one in enumerate(spec[hung][1:], 1):
            statuses[number] = _waiting(one, "PodInitializing")
        found = {"initContainerStatuses": statuses, "containerStatuses": starting} if trouble.init else {}
        return {"phase": "Pending", "conditions": [scheduled], "containerStatuses": statuses, **found}
    running = [
        {
            **{"name": one["name"], "image": one["image"], "imageID": one["image"]},
            **{"ready": ready, "restartCount": 0, "state": {"running": {}}},
        }
        for one in spec["containers"]
    ]
    conditions = [scheduled, {"type": "Ready", "status": str(ready)}]
    return {"phase": "Running", "conditions": conditions, "containerStatuses": running}


def _waiting(container: dict[str, Any], reason: str, trouble: Trouble | None = None) -> dict[str, Any]:
    waiting = {"reason": reason, **({"message": trouble.message} if trouble and trouble.message else {})}
    base = {"name": container["name"], "image": container["image"], "ready": False, "state": {"waiting": waiting}}
    if trouble and trouble.reason == "CrashLoopBackOff":
        return {**base, "restartCount": 3, "lastState": {"terminated": {"exitCode": 1, "reason": "Error"}}}
    return {**base, "restartCount": 0}
