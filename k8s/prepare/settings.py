"""What an environment sets in the manifests: storage class, sizes of claims and containers, replicas, host names.

Applied to plain manifests that are valid without it: a value is replaced where it stands, nothing is templated. A key names
what it sets by namespace and name; one that names nothing of the set is refused, so that no setting outlives what it was for. A
set without a Namespace in it is a part (an example, a run of the pipeline): there, what a key names may lie elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from common.errors import UsageError
from k8s.envs.settings import Settings
from k8s.objects import argo_schema, manifests, pods
from k8s.objects.findings import Path
from k8s.objects.manifests import Manifest

_SCALED = {"Deployment", "StatefulSet"}


def apply(objects: Sequence[Manifest], settings: Settings, file: str, *, whole: bool = True) -> tuple[Manifest, ...]:
    """The manifests as the environment sets them.

    Args:
        objects: as written.
        settings: of the environment.
        file: its file, for messages.
        whole: whether these are the set that the environment is for, and not manifests of somebody else's.

    Raises:
        UsageError: a key names nothing of the set, or something that it cannot set.
    """
    known = _Used(objects, file)
    result = tuple(_set(manifest, settings, known) for manifest in objects)
    if whole and any(manifest.kind == "Namespace" for manifest in objects):
        sizes = (*settings.sizes, *settings.resources)
        for key, places in (("sizes", sizes), ("replicas", settings.replicas), ("hosts", settings.hosts)):
            for place in places:
                if (key, place) not in known.used:
                    raise known.refused(key, place, "names nothing of the set")
    return result


class _Used:
    """What there is, and which keys found something."""

    def __init__(self, objects: Sequence[Manifest], file: str) -> None:
        self.file = file
        self.used: set[tuple[str, str]] = set()
        # Workloads whose number an autoscaler sets, and the autoscaler.
        self.scaled: dict[tuple[str, str, str], str] = {}
        for manifest in objects:
            if manifest.kind == "HorizontalPodAutoscaler":
                target = pods.mapping(pods.mapping(manifest.body.get("spec")).get("scaleTargetRef"))
                self.scaled[(manifest.namespace, str(target.get("kind")), str(target.get("name")))] = manifest.title

    def refused(self, key: str, place: str, what: str) -> UsageError:
        return UsageError(f"{key}.{place}: {what}", where=self.file, fix="name what the manifests of k8s/manifests have")


def _set(manifest: Manifest, settings: Settings, known: _Used) -> Manifest:
    place = f"{manifest.namespace}/{manifest.name}"
    for path, name in _claims(manifest):
        named = f"{place}/{name}" if name else place
        spec = pods.mapping(_at(manifest.body, path))
        if settings.storage_class and "storageClassName" not in spec:
            manifest = manifests.with_value(manifest, (*path, "storageClassName"), settings.storage_class)
        if named in settings.sizes:
            known.used.add(("sizes", named))
            manifest = manifests.with_value(manifest, (*path, "resources", "requests", "storage"), settings.sizes[named])
    for path, name in _containers(manifest):
        if (named := f"{place}/{name}") in settings.resources:
            known.used.add(("sizes", named))
            resources = {kind: dict(sizes) for kind, sizes in settings.resources[named].items()}
            manifest = manifests.with_value(manifest, (*path, "resources"), resources)
    count = settings.replicas.get(place)
    if isinstance(count, tuple) and manifest.kind == "HorizontalPodAutoscaler":
        known.used.add(("replicas", place))
        manifest = manifests.with_value(manifest, ("spec", "minReplicas"), count[0])
        manifest = manifests.with_value(manifest, ("spec", "maxReplicas"), count[1])
    elif isinstance(count, int) and manifest.kind in _SCALED:
        if scaler := known.scaled.get((manifest.namespace, manifest.kind, manifest.name)):
            raise known.refused("replicas", place, f"{scaler} sets the number of {manifest.title}: write [least, most] of it")
        known.used.add(("replicas", place))
        manifest = manifests.with_value(manifest, ("spec", "replicas"), count)
    host = settings.hosts.get(place)
    if host and manifest.kind == "Ingress":
        known.used.add(("hosts", place))
        manifest = _with_host(manifest, host, known, place)
    return manifest


def _claims(manifest: Manifest) -> Iterator[tuple[Path, str]]:
    """Where the specs of claims stand, and how each is called within its object; empty for the object itself."""
    if manifest.kind == "PersistentVolumeClaim":
        yield ("spec",), ""
    # Of a StatefulSet, a Workflow or a WorkflowTemplate.
    for number, claim in enumerate(pods.items(pods.mapping(manifest.body.get("spec")), "volumeClaimTemplates")):
        yield ("spec", "volumeClaimTemplates", number, "spec"), str(pods.mapping(claim.get("metadata")).get("name", ""))
    for template in pods.templates(manifest):
        for number, volume in enumerate(pods.items(template.spec, "volumes")):
            if "ephemeral" in volume:
                yield template.place("volumes", number, "ephemeral", "volumeClaimTemplate", "spec"), str(volume.get("name", ""))


def claims(manifest: Manifest) -> Iterator[Mapping[str, Any]]:
    """The specs of the volume claims that an object is, or makes: for itself or for each of its pods."""
    for path, _ in _claims(manifest):
        yield pods.mapping(_at(manifest.body, path))


def _containers(manifest: Manifest) -> Iterator[tuple[Path, str]]:
    """Where containers stand, and their names; that of a workflow's step has the name of its template."""
    for template in pods.templates(manifest):
        for path, container in template.containers():
            step = _at(manifest.body, template.path) if manifest.api_version == argo_schema.API_VERSION else {}
            yield path, str(step["name"] if container.get("name") == "main" and "name" in step else container.get("name", ""))


def _at(body: Any, path: Path) -> Any:
    for step in path:
        if isinstance(step, int):
            body = body[step] if isinstance(body, list) and step < len(body) else None
        else:
            body = body.get(step) if isinstance(body, dict) else None
    return body


def _with_host(manifest: Manifest, host: str, known: _Used, place: str) -> Manifest:
    """An Ingress for another host name: in its rules, and in the certificates it asks for."""
    spec = pods.mapping(manifest.body.get("spec"))
    rules, certificates = pods.items(spec, "rules"), pods.items(spec, "tls")
    hosts = {str(rule["host"]) for rule in rules if rule.get("host")} | {
        str(name) for entry in certificates for name in entry.get("hosts") or ()
    }
    if len(hosts) > 1 or not rules:
        there = ", ".join(sorted(hosts)) or "none"
        raise known.refused("hosts", place, f"{manifest.title} has {there} for host names, not the one that could be replaced")
    for number in range(len(rules)):
        manifest = manifests.with_value(manifest, ("spec", "rules", number, "host"), host)
    for number, entry in enumerate(certificates):
        if entry.get("hosts"):
            manifest = manifests.with_value(manifest, ("spec", "tls", number, "hosts"), [host])
    return manifest
