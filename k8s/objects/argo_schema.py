"""The schema of Argo's kinds, in the form of Kubernetes' own.

`argo-workflows.json` is Argo's own `api/jsonschema/schema.json`, byte for byte as it is in the Go module of the version that
the cluster of this machine runs (`lockfiles/single-node/argo/go.mod`; docs/adr/0018). Unknown fields are forbidden here as in
Kubernetes' strict schemas. Types of `io.k8s.*` are only named: they are those of the Kubernetes version aimed at.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

API_VERSION = "argoproj.io/v1alpha1"
KINDS = ("ClusterWorkflowTemplate", "CronWorkflow", "Workflow", "WorkflowTemplate")
FILE = Path(__file__).with_name("argo-workflows.json")
_ARGO = "io.argoproj.workflow.v1alpha1."
# Argo gives the container of a template its name, `main`, though Kubernetes' type of it asks for one.
UNASKED = "x-pinwheel-unasked"
_KIND = "x-kubernetes-group-version-kind"
# What a plugin is told is the plugin's own affair.
_OPEN = f"{_ARGO}Plugin"


@functools.cache
def load() -> Mapping[str, dict[str, Any]]:
    """The definitions by full name, `io.argoproj.workflow.v1alpha1.Template`.

    They refer to definitions of `io.k8s.*`, which are not among them.
    """
    written = json.loads(FILE.read_bytes())["definitions"]
    definitions: dict[str, dict[str, Any]] = {
        name: node if name == _OPEN else _closed(node)
        for name, node in written.items()
        if name.startswith(_ARGO) and (name.removeprefix(_ARGO) in KINDS or _KIND not in node)
    }
    definitions[f"{_ARGO}Template"]["properties"]["container"][UNASKED] = ["name"]
    return definitions


def _closed(definition: dict[str, Any]) -> dict[str, Any]:
    """A definition that takes no other fields than it names."""
    named = definition.get("type") == "object" and "additionalProperties" not in definition
    return {**definition, "additionalProperties": False} if named else definition
