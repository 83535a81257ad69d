"""Pod templates: where the kinds that run pods keep them, and what a pod refers to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from k8s.findings import Path
from k8s.manifests import Manifest

# Where the template lies (its metadata and spec); a Pod is its own.
_TEMPLATE: dict[tuple[str, str], Path] = {
    ("v1", "Pod"): (),
    ("v1", "PodTemplate"): ("template",),
    ("v1", "ReplicationController"): ("spec", "template"),
    ("apps/v1", "Deployment"): ("spec", "template"),
    ("apps/v1", "ReplicaSet"): ("spec", "template"),
    ("apps/v1", "StatefulSet"): ("spec", "template"),
    ("apps/v1", "DaemonSet"): ("spec", "template"),
    ("batch/v1", "Job"): ("spec", "template"),
    ("batch/v1", "CronJob"): ("spec", "jobTemplate", "spec", "template"),
}


@dataclass(frozen=True, slots=True)
class Template:
    """A pod template.

    Attributes:
        manifest: the object it is part of.
        path: where it lies in it.
        labels: of the pods.
        spec: of the pods.
    """

    manifest: Manifest
    path: Path
    labels: Mapping[str, Any]
    spec: Mapping[str, Any]

    def containers(self) -> Iterator[tuple[Path, Mapping[str, Any]]]:
        """Every container and where it stands, init and ephemeral ones included."""
        for group in ("initContainers", "containers", "ephemeralContainers"):
            for number, one in enumerate(items(self.spec, group)):
                yield (*self.path, "spec", group, number), one


def mapping(value: Any) -> Mapping[str, Any]:
    """The value if it is a mapping, else an empty one: rules look at what the schema check may have refused already."""
    return value if isinstance(value, dict) else {}


def items(body: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    """The list at `key`, what is no mapping as an empty one, so that numbers stay true."""
    found = body.get(key)
    return [mapping(item) for item in found] if isinstance(found, list) else []


def templates(manifest: Manifest) -> Iterator[Template]:
    """The pod template of an object, if it has one."""
    path = _TEMPLATE.get((manifest.api_version, manifest.kind))
    if path is None:
        return
    found: Any = manifest.body
    for step in path:
        found = mapping(found).get(str(step))
    found = mapping(found)
    yield Template(manifest, path, mapping(mapping(found.get("metadata")).get("labels")), mapping(found.get("spec")))


def config_maps(spec: Mapping[str, Any]) -> set[str]:
    """Names of the ConfigMaps that a pod uses as volume or environment."""
    found: set[str] = set()

    def look(value: Any) -> None:
        if isinstance(value, dict):
            for key, item in value.items():
                if key in {"configMap", "configMapRef", "configMapKeyRef"} and isinstance(item, dict):
                    found.add(str(item.get("name", "")))
                look(item)
        elif isinstance(value, list):
            for item in value:
                look(item)

    look(spec)
    return found
