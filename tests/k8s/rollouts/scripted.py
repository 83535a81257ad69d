"""A cluster as one Deployment's rollout sees it, asked without any kubectl: each look may find something else."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from common.run import Result
from k8s.envs.environment import ClusterTarget
from k8s.objects.manifests import Manifest
from k8s.rollouts import rollout
from k8s.rollouts.kubectl import Kubectl, Patience
from k8s.rollouts.outage import Outlasting

QUICK = Patience(rollout=20, settle=0, pause=0, tries=1, hopeless=0)
WEB = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "web", "namespace": "n", "uid": "web", "generation": 1},
    "spec": {"replicas": 1},
}


class Scripted(Kubectl):
    """Answers from lists.

    Attributes:
        looks: how often the Deployment was asked for.
        ready: whether its pods run.
        failed: whether its controller gave it up.
        pods: of its newest ReplicaSet.
        events: of the namespace.
        script: called with the number of each look, before it is answered.
        answers: instead of the true answers, by a part of the command line.
    """

    def __init__(self, patience: Patience = QUICK, script: Callable[[Scripted], None] = lambda _: None) -> None:
        super().__init__(ClusterTarget("scripted"), patience)
        self.looks, self.ready, self.failed = 0, False, False
        self.pods: list[dict[str, Any]] = []
        self.events: list[dict[str, Any]] = []
        self.script = script
        self.answers: dict[str, Result] = {}
        self.asked: list[str] = []

    def call(self, args: Sequence[str], *, stdin: str | None = None, timeout: float = 0, tries: int = 0) -> Result:
        line = " ".join(args)
        self.asked.append(line)
        if "get -f -" in line:
            self.looks += 1
            self.script(self)
        for part, answer in self.answers.items():
            if part in line:
                return answer
        if "get -f -" in line:
            return _json([self._web()])
        if "logs" in args:
            return Result(0, "", "")
        if "get replicasets" in line:
            return _json([_owned("ReplicaSet", "web-1", "web")])
        if "get pods" in line:
            return _json(self.pods)
        return _json(self.events if "get events" in line else [])

    def _web(self) -> dict[str, Any]:
        numbers = {"replicas": 1, "updatedReplicas": 1, "availableReplicas": int(self.ready)}
        condition = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}
        return {**WEB, "status": {"observedGeneration": 1, **numbers, "conditions": [condition] if self.failed else []}}

    def wait(self, again: float = 0, *, patient: bool = False) -> None:
        """Wait for the Deployment; `patient`: also while the cluster is away."""
        rollout.wait(Outlasting(self) if patient else self, [Manifest("web.yaml", WEB, {})], again, lambda: "")


def _json(items: list[dict[str, Any]]) -> Result:
    return Result(0, json.dumps({"kind": "List", "items": items}), "")


def _owned(kind: str, name: str, above: str, **more: Any) -> dict[str, Any]:
    return {"kind": kind, "metadata": {"name": name, "uid": name, "ownerReferences": [{"uid": above}]}, **more}


def pod(container: dict[str, Any] | None = None, *conditions: dict[str, Any], name: str = "web-1-x") -> dict[str, Any]:
    """A pod of the newest ReplicaSet with one container."""
    statuses = [{"name": "main", "ready": False, "restartCount": 0, **container}] if container else []
    return _owned("Pod", name, "web-1", status={"containerStatuses": statuses, "conditions": list(conditions)})


def crashed(restarts: int, code: int = 1) -> dict[str, Any]:
    """A container that ended and is not started again yet."""
    last = {"terminated": {"exitCode": code, "reason": "Error"}}
    return {"restartCount": restarts, "state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": last}


def warning(about: str, reason: str, message: str) -> dict[str, Any]:
    """An event."""
    return {"type": "Warning", "reason": reason, "message": message, "involvedObject": {"uid": about}}
