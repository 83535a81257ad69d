"""The schema of Argo's kinds, in the form of Kubernetes' own.

It comes from the models of the PyPI package hera, which are generated from the OpenAPI document of one release of Argo
Workflows (`ArgoSchema.version`). These models drop unknown fields in silence, and importing them takes more than a second,
while a dry run of a deploy has two. So their fields are turned into plain JSON schema once, unknown fields are forbidden there
as in Kubernetes' strict schemas, and the result is kept in the cache. Types of `io.k8s.*` are only named here: they are those
of the Kubernetes version aimed at.
"""

from __future__ import annotations

import contextlib
import json
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

from common import paths
from common.files import sha256_bytes, write_whole

API_VERSION = "argoproj.io/v1alpha1"
KINDS = ("ClusterWorkflowTemplate", "CronWorkflow", "Workflow", "WorkflowTemplate")
_MODELS = "hera.workflows.models."
_ARGO = "io.argoproj.workflow.v1alpha1."
_SOURCE = re.compile(r"argo-workflows/v([0-9.]+)/")
# Of the file in the cache; another one is another file.
_FORM = 1
# Argo gives the container of a template its name, `main`, though Kubernetes' type of it asks for one.
UNASKED = "x-pinwheel-unasked"


@dataclass(frozen=True, slots=True)
class ArgoSchema:
    """The definitions of one release of Argo Workflows.

    Attributes:
        version: of Argo Workflows, `4.0.5`.
        definitions: JSON schema by full name, `io.argoproj.workflow.v1alpha1.Template`. They refer to definitions of
            `io.k8s.*`, which are not among them.
    """

    version: str
    definitions: Mapping[str, dict[str, Any]]


def load() -> ArgoSchema:
    """The schema that the installed hera knows, from the cache if it is there."""
    file = paths.cache("argo", f"hera-{metadata.version('hera')}-{_FORM}.json")
    if (found := _read(file)) is not None:
        return found
    made = _from_hera()
    body = json.dumps({"version": made.version, "definitions": made.definitions}, sort_keys=True).encode()
    with contextlib.suppress(OSError):  # A cache that cannot be written only costs the time to make it again.
        write_whole(file, f"{sha256_bytes(body)}\n".encode() + body)
    return made


def _read(file: Path) -> ArgoSchema | None:
    """What an earlier run kept; None when there is none or it was damaged."""
    try:
        digest, _, body = file.read_bytes().partition(b"\n")
    except OSError:
        return None
    if digest.decode(errors="replace") != sha256_bytes(body):
        return None
    found = json.loads(body)
    return ArgoSchema(found["version"], found["definitions"])


def _from_hera() -> ArgoSchema:
    from pydantic import BaseModel
    from pydantic.json_schema import models_json_schema

    module = import_module(f"{_MODELS}{_ARGO.rstrip('.')}")
    match = _SOURCE.search(import_module(_MODELS.rstrip(".")).__doc__ or "")
    models: list[tuple[type[BaseModel], Any]] = [(getattr(module, kind), "validation") for kind in KINDS]
    _, schema = models_json_schema(models)
    names = {key: _full_name(key) for key in schema["$defs"]}
    definitions = {
        names[key]: _plain(body, names) for key, body in sorted(schema["$defs"].items()) if names[key].startswith(_ARGO)
    }
    for kind in KINDS:
        group, _, version = API_VERSION.partition("/")
        known = {"group": group, "version": version, "kind": kind}
        definitions[_ARGO + kind]["x-kubernetes-group-version-kind"] = [known]
    definitions[f"{_ARGO}Template"]["properties"]["container"][UNASKED] = ["name"]
    # What a plugin is told is the plugin's own affair.
    definitions[f"{_ARGO}Plugin"] = {"type": "object"}
    return ArgoSchema(match[1] if match else "unknown", definitions)


def _full_name(key: str) -> str:
    """The name in Argo's OpenAPI document of a definition of pydantic's, which is the module's name where two are alike."""
    module, _, short = key.replace("__", ".").rpartition(".")
    if module:
        return f"{module}.{short}".removeprefix(_MODELS)
    homes = sorted(
        name
        for name, loaded in sys.modules.items()
        if name.startswith(f"{_MODELS}io.") and getattr(getattr(loaded, key, None), "__module__", "") == name
    )
    return f"{homes[0].removeprefix(_MODELS)}.{key}"


def _plain(node: Any, names: Mapping[str, str]) -> Any:
    """A node as Kubernetes' schemas have it: references by full name, closed objects, no Python defaults and titles."""
    if isinstance(node, list):
        return [_plain(item, names) for item in node]
    if not isinstance(node, dict):
        return node
    # Optional in Python: null beside the type. The walk takes null for absent by itself.
    if "anyOf" in node:
        (only,) = [one for one in node["anyOf"] if one != {"type": "null"}]
        return _plain({**only, **({"description": node["description"]} if "description" in node else {})}, names)
    result = {key: _plain(item, names) for key, item in node.items() if key not in {"title", "default", "$ref", "properties"}}
    if "$ref" in node:
        result["$ref"] = f"#/$defs/{names[node['$ref'].rsplit('/', 1)[1]]}"
    if "properties" in node:
        result["properties"] = {key: _plain(item, names) for key, item in node["properties"].items()}
        result["additionalProperties"] = False
    return result
