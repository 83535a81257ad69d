"""Pod templates: where the kinds that run pods keep them, Argo's among them, and what a pod refers to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from k8s.objects import argo_schema, custom_kinds, embedded
from k8s.objects.findings import Path
from k8s.objects.manifests import Manifest

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


# Labels that the cluster puts on pods, with values that only it knows (Kubernetes, Well-Known Labels, Annotations and Taints).
_ADDED: dict[str, frozenset[str]] = {
    "Deployment": frozenset({"pod-template-hash"}),
    "ReplicaSet": frozenset({"pod-template-hash"}),
    "DaemonSet": frozenset({"controller-revision-hash", "pod-template-generation"}),
    "StatefulSet": frozenset(
        {"apps.kubernetes.io/pod-index", "controller-revision-hash", "statefulset.kubernetes.io/pod-name"}
    ),
    "Job": frozenset({"batch.kubernetes.io/controller-uid", "batch.kubernetes.io/job-completion-index", "controller-uid"}),
}
_JOB_NAME = ("batch.kubernetes.io/job-name", "job-name")
# The name that a Job of a CronJob gets is the CronJob's and the time.
_ADDED["CronJob"] = _ADDED["Job"] | set(_JOB_NAME)

# What a pod of Argo's has from its template, or else from the workflow; and what only from the workflow.
_EITHER = (
    "affinity",
    "automountServiceAccountToken",
    "nodeSelector",
    "schedulerName",
    "securityContext",
    "serviceAccountName",
    "tolerations",
)
_ALL_PODS = ("dnsConfig", "dnsPolicy", "hostNetwork", "imagePullSecrets")
# Where a pod has containers.
GROUPS = ("initContainers", "containers", "ephemeralContainers")


@dataclass(frozen=True, slots=True)
class Template:
    """A pod template.

    Attributes:
        manifest: the object it is part of.
        path: where it lies in it.
        labels: of the pods, with those that the cluster adds.
        spec: of the pods; for a template of Argo's what comes of it and of the workflow.
        base: where most parts of the spec are written.
        places: where the others are, by their path in the spec.
        added: labels of the pods whose values only the cluster knows.
    """

    manifest: Manifest
    path: Path
    labels: Mapping[str, Any]
    spec: Mapping[str, Any]
    base: Path
    places: Mapping[Path, Path] = field(default_factory=dict)
    added: frozenset[str] = frozenset()

    def place(self, *steps: str | int) -> Path:
        """Where a part of the spec is written in the object."""
        for length in range(len(steps), 0, -1):
            if (found := self.places.get(steps[:length])) is not None:
                return (*found, *steps[length:])
        return (*self.base, *steps)

    def grouped(self) -> Iterator[tuple[str, Path, Mapping[str, Any]]]:
        """Every container, its group and where it stands, init and ephemeral ones included."""
        for group in GROUPS:
            for number, one in enumerate(items(self.spec, group)):
                yield group, self.place(group, number), one

    def containers(self) -> Iterator[tuple[Path, Mapping[str, Any]]]:
        """Every container and where it stands, init and ephemeral ones included."""
        for _, path, one in self.grouped():
            yield path, one


def mapping(value: Any) -> Mapping[str, Any]:
    """The value if it is a mapping, else an empty one: rules look at what the schema check may have refused already."""
    return value if isinstance(value, dict) else {}


def items(body: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    """The list at `key`, what is no mapping as an empty one, so that numbers stay true."""
    found = body.get(key)
    return [mapping(item) for item in found] if isinstance(found, list) else []


def templates(manifest: Manifest) -> Iterator[Template]:
    """The pod templates of an object: one, none, or as many as a workflow has kinds of steps."""
    if manifest.api_version == argo_schema.API_VERSION:
        yield from _argo_pods(manifest)
    if custom_kinds.is_custom(manifest):
        yield from _pods_of_others(manifest, manifest.body, ())
    path = _TEMPLATE.get((manifest.api_version, manifest.kind))
    if path is None:
        return
    found = at(manifest.body, path)
    labels = mapping(mapping(found.get("metadata")).get("labels"))
    if manifest.kind == "Job":
        labels = {**labels, **dict.fromkeys(_JOB_NAME, manifest.name)}
    added = _ADDED.get(manifest.kind, frozenset())
    yield Template(manifest, path, labels, mapping(found.get("spec")), (*path, "spec"), added=added)


def _pods_of_others(manifest: Manifest, value: Any, path: Path) -> Iterator[Template]:
    """The pod templates in an object of other people's kinds: what holds containers."""
    if isinstance(value, dict):
        if any(one.get("name") or one.get("image") for one in items(value, "containers")):
            around = path[:-1] if path[-1:] == ("spec",) else path
            labels = mapping(mapping(at(manifest.body, around).get("metadata")).get("labels"))
            yield Template(manifest, around, labels, value, path)
            return
        for key, item in value.items():
            yield from _pods_of_others(manifest, item, (*path, key))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _pods_of_others(manifest, item, (*path, number))


def at(body: Mapping[str, Any], path: Path) -> Mapping[str, Any]:
    """The mapping at a path of a body; an empty one where there is none."""
    here: Any = body
    for step in path:
        here = here[step] if isinstance(step, int) else mapping(here).get(step)
    return mapping(here)


def workflow_spec(manifest: Manifest) -> tuple[Path, Mapping[str, Any]]:
    """Where the spec of a workflow is in one of Argo's kinds, and the spec; empty where there is none."""
    if manifest.api_version != argo_schema.API_VERSION or manifest.kind not in argo_schema.KINDS:
        return (), {}
    path: Path = ("spec", "workflowSpec") if manifest.kind == "CronWorkflow" else ("spec",)
    return path, at(manifest.body, path)


def workflow_templates(manifest: Manifest) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    """The templates of a workflow and where they stand, those written inside a step or task included."""
    where, spec = workflow_spec(manifest)
    for number, one in enumerate(items(spec, "templates")):
        path: Path = (*where, "templates", number)
        yield path, one
        for below, task in tasks(one):
            if isinstance(task.get("inline"), dict):
                yield (*path, *below, "inline"), task["inline"]


def tasks(template: Mapping[str, Any]) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    """The steps or tasks of a template of Argo's, and where in it they stand."""
    steps = template.get("steps")
    for group, together in enumerate(steps if isinstance(steps, list) else ()):
        for number, one in enumerate(together if isinstance(together, list) else ()):
            yield ("steps", group, number), mapping(one)
    for number, one in enumerate(items(mapping(template.get("dag")), "tasks")):
        yield ("dag", "tasks", number), one


def _argo_pods(manifest: Manifest) -> Iterator[Template]:
    """The pods of a workflow, as the controller makes them (Argo Workflows, workflow/controller/workflowpod.go).

    Templates whose only container is Argo's own executor have none here: resource, data, http, plugin, suspend.
    """
    where, workflow = workflow_spec(manifest)
    defaults = mapping(workflow.get("templateDefaults"))
    for path, written in workflow_templates(manifest):
        body = merged(defaults, written)
        places: dict[Path, Path] = {}
        main = _main_containers(path, body, places)
        if not main:
            continue
        spec: dict[str, Any] = {key: workflow[key] for key in _ALL_PODS if key in workflow}
        places |= {(key,): (*where, key) for key in spec}
        spec |= {key: body.get(key, workflow.get(key)) for key in _EITHER if key in body or key in workflow}
        for number, sidecar in enumerate(items(body, "sidecars")):
            places[("containers", len(main))] = (*path, "sidecars", number)
            main.append(sidecar)
        spec |= {"containers": main, "initContainers": items(body, "initContainers")}
        spec["volumes"] = _argo_volumes(where, workflow, path, body, places)
        for at, holder in ((where, workflow), (path, body)):
            spec = _patched(spec, holder.get("podSpecPatch"), (*at, "podSpecPatch"), places)
        labels = {"workflows.argoproj.io/workflow": "", "workflows.argoproj.io/completed": "false"}
        for written_as in (workflow.get("podMetadata"), body.get("metadata")):
            labels |= mapping(mapping(written_as).get("labels"))
        yield Template(manifest, path, labels, spec, path, places)


def _main_containers(path: Path, body: Mapping[str, Any], places: dict[Path, Path]) -> list[Mapping[str, Any]]:
    for name in ("container", "script"):
        if isinstance(body.get(name), dict):
            places[("containers", 0)] = (*path, name)
            return [{**body[name], "name": "main"}]
    together = items(mapping(body.get("containerSet")), "containers")
    for number in range(len(together)):
        places[("containers", number)] = (*path, "containerSet", "containers", number)
    shared = items(mapping(body.get("containerSet")), "volumeMounts")
    return [{**one, "volumeMounts": [*items(one, "volumeMounts"), *shared]} for one in together]


def _argo_volumes(
    where: Path, workflow: Mapping[str, Any], path: Path, body: Mapping[str, Any], places: dict[Path, Path]
) -> list[Mapping[str, Any]]:
    """The volumes that a template may mount: its own, then those of the workflow that it does not call by the same name."""
    found: list[Mapping[str, Any]] = []
    own = items(body, "volumes")
    names = [volume.get("name") for volume in own]
    claims = [mapping(claim.get("metadata")).get("name") for claim in items(workflow, "volumeClaimTemplates")]
    made = [{"name": name, "persistentVolumeClaim": {"claimName": str(name)}} for name in claims]
    shared = items(workflow, "volumes")
    for group, at in ((own, path), (shared, where)):
        for number, volume in enumerate(group):
            if at == path or volume.get("name") not in names:
                places[("volumes", len(found))] = (*at, "volumes", number)
                found.append(volume)
    return [*found, *(one for one in made if one["name"] not in names)]


def merged(low: Mapping[str, Any], high: Mapping[str, Any]) -> dict[str, Any]:
    """Two mappings as one; where both say something the second counts."""
    both = {key: merged(low[key], high[key]) for key in low if isinstance(low[key], dict) and isinstance(high.get(key), dict)}
    return {**low, **high, **both}


def _patched(spec: dict[str, Any], patch: Any, at: Path, places: dict[Path, Path]) -> dict[str, Any]:
    """The spec with a patch, merged as Kubernetes does: lists of named things by name, other lists replaced."""
    bodies, _ = embedded.read(patch) if isinstance(patch, str) else ([], "")
    if not bodies or not isinstance(bodies[0], dict):
        return spec
    for key, change in bodies[0].items():
        if key in (*GROUPS, "volumes") and isinstance(change, list):
            whole = list(items(spec, key))
            names = [one.get("name") for one in whole]
            for one in items({key: change}, key):
                if one.get("name") in names:
                    number = names.index(one.get("name"))
                    whole[number] = merged(whole[number], one)
                else:
                    places[(key, len(whole))] = at
                    whole.append(one)
            spec = {**spec, key: whole}
        else:
            places[(key,)] = (*at, key)
            spec = merged(spec, {key: change})
    return spec


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
