"""What Argo's controller would do, done from the side of the tests: a workflow's status, its pods and their logs.

Form: Argo Workflows, docs/fields.md, WorkflowStatus and NodeStatus; pods carry the label and annotation of
workflow/controller/workflowpod.go.
"""

from __future__ import annotations

import json
from typing import Any

from k8s.training.names import NAMESPACE
from tests.k8s.simulator.apiserver import ApiServer
from tests.k8s.simulator.discovery import Key

_API = "argoproj.io/v1alpha1"


class Controller:
    """The controller of one workflow."""

    def __init__(self, api: ApiServer, version: str) -> None:
        self.api, self.version = api, version

    @property
    def key(self) -> Key:
        return (_API, "Workflow", NAMESPACE, self.version)

    def step(
        self, name: str, phase: str, *, message: str = "", outputs: dict[str, str] | None = None, kind: str = "Pod"
    ) -> str:
        """Bring a step into a phase; returns its node's id."""
        template, node = name.partition("(")[0], f"{self.version}-{sum(name.encode())}"
        body: dict[str, Any] = {
            "id": node,
            "name": f"{self.version}[0].{name}",
            "displayName": name,
            "type": kind,
            "templateName": template,
            "phase": phase,
            "startedAt": "2026-01-01T00:00:00Z",
        }
        if phase not in {"Pending", "Running"}:
            body["finishedAt"] = "2026-01-01T00:01:30Z"
        if message:
            body["message"] = message
        if outputs:
            body["outputs"] = {"parameters": [{"name": key, "value": value} for key, value in outputs.items()]}
        self._write(lambda status: status.setdefault("nodes", {}).update({node: body}))
        return node

    def phase(self, phase: str, message: str = "") -> None:
        """Bring the workflow as a whole into a phase."""
        self._write(lambda status: status.update({"phase": phase, **({"message": message} if message else {})}))

    def pod(self, node: str, status: dict[str, Any], log: str = "") -> None:
        """The pod of a node, and what its container `main` said."""
        name = f"pod-{node}"
        metadata = {
            "name": name,
            "namespace": NAMESPACE,
            "labels": {"workflows.argoproj.io/workflow": self.version},
            "annotations": {"workflows.argoproj.io/node-id": node},
        }
        spec = {"containers": [{"name": "wait"}, {"name": "main"}]}
        self.api.put({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec, "status": status})
        if log:
            self.api.put_log(NAMESPACE, name, "main", log)

    def succeed(self, model: str) -> None:
        """Go through all steps at once."""
        for name in ("download", "train", "export"):
            self.step(name, "Succeeded")
        self.step("register", "Succeeded", outputs={"model": model})
        self.step("deploy", "Succeeded")
        self.phase("Succeeded")

    def _write(self, change: Any) -> None:
        with self.api.changed:
            body = json.loads(json.dumps(self.api.full(self.key)))
            change(body.setdefault("status", {}))
            code, said = self.api.replace(self.key, body, "workflow-controller")
            assert code == 200, said
