"""Rules between objects: what is referred to exists in the same namespace, selectors select, autoscalers can scale."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from k8s.envs.environment import Environment
from k8s.objects import argo_schema, pods
from k8s.objects.findings import Finding, Path
from k8s.objects.lookup import Place, by_place
from k8s.objects.manifests import Manifest
from k8s.objects.pods import Template, items, mapping
from k8s.objects.schema import Part, Walk

# By definition: the kind that is referred to, the field with its name, and the field with the key or the items of keys.
_REFERENCES = {
    "SecretKeySelector": ("Secret", "name", "key"),
    "ConfigMapKeySelector": ("ConfigMap", "name", "key"),
    "SecretEnvSource": ("Secret", "name", ""),
    "ConfigMapEnvSource": ("ConfigMap", "name", ""),
    "SecretVolumeSource": ("Secret", "secretName", "items"),
    "ConfigMapVolumeSource": ("ConfigMap", "name", "items"),
    "SecretProjection": ("Secret", "name", "items"),
    "ConfigMapProjection": ("ConfigMap", "name", "items"),
    "PersistentVolumeClaimVolumeSource": ("PersistentVolumeClaim", "claimName", ""),
}
# Definitions that name a ServiceAccount.
_WITH_ACCOUNT = {"ArtifactGC", "ExecutorConfig", "PodSpec", "Template", "WorkflowLevelArtifactGC", "WorkflowSpec"}
# In every namespace without anybody's doing.
_ALWAYS_THERE = {("ServiceAccount", "default"), ("ConfigMap", "kube-root-ca.crt")}


@dataclass(frozen=True, slots=True)
class _Known:
    """All objects by kind, namespace and name, and the pod templates by namespace."""

    env: Environment
    objects: Mapping[Place, Manifest]
    templates: Sequence[Template]

    def keys(self, kind: str, namespace: str, name: str) -> frozenset[str] | None:
        """The keys an object holds; None when there is no such object."""
        if kind == "Secret" and (namespace, name) in self.env.secrets:
            return self.env.secrets[(namespace, name)]
        found = self.objects.get((kind, namespace, name))
        if found is None:
            return frozenset() if (kind, name) in _ALWAYS_THERE else None
        return frozenset(key for group in ("data", "stringData", "binaryData") for key in mapping(found.body.get(group)))

    def selected(self, namespace: str, selector: Mapping[str, Any]) -> list[Template]:
        """The pod templates that carry all labels of a plain selector."""
        return [
            one
            for one in self.templates
            if one.manifest.namespace == namespace and selector.items() <= dict(one.labels).items()
        ]


def check(walks: Sequence[Walk], env: Environment) -> Iterator[Finding]:
    """What does not fit between these objects."""
    objects = by_place(walk.manifest for walk in walks)
    known = _Known(env, objects, [one for walk in walks for one in pods.templates(walk.manifest)])
    # What a workflow sends may refer to what else it sends; the rest of the set may not count on that.
    inner = [one for walk in walks for one in walk.inner]
    sent = by_place(walk.manifest for walk in inner)
    late = _Known(env, {**objects, **sent}, known.templates)
    for walk in inner:
        yield from _references(walk, late)
    for walk in walks:
        one = walk.manifest
        yield from _references(walk, known)
        if one.api_version == "apps/v1":
            yield from _own_selector(one)
        if one.kind == "Service":
            yield from _service(one, known)
        if one.kind == "HorizontalPodAutoscaler":
            yield from _autoscaler(one, known)
        if one.kind in {"RoleBinding", "ClusterRoleBinding"}:
            yield from _binding(one, known)


def _references(walk: Walk, known: _Known) -> Iterator[Finding]:
    one = walk.manifest
    if _filled_in(one.namespace) or (one.api_version == argo_schema.API_VERSION and not one.namespace):
        return  # Where a ClusterWorkflowTemplate runs is said by who uses it.
    for part in walk.parts:
        yield from _reference(one, part, known)
        if part.definition in _WITH_ACCOUNT:
            yield from _account(one, part, known)


def _in_argo(one: Manifest) -> bool:
    """Whether an object is one of Argo's, or stands in the text of one."""
    return one.api_version == argo_schema.API_VERSION or "manifest" in one.prefix


def _filled_in(name: str) -> bool:
    """Whether Argo makes up the name when it runs: what it will be cannot be judged."""
    return "{{" in name


def _reference(one: Manifest, part: Part, known: _Known) -> Iterator[Finding]:
    if part.definition not in _REFERENCES or part.body.get("optional"):
        return
    kind, name_field, key_field = _REFERENCES[part.definition]
    name = str(part.body.get(name_field) or "")
    if _filled_in(name) and _in_argo(one):
        return
    held = known.keys(kind, one.namespace, name)
    if held is None:
        yield one.finding(
            (*part.path, name_field), f"no {kind} {one.namespace}/{name}", _how_to_get(kind, one.namespace, known, name)
        )
        return
    wanted: list[tuple[Path, Any]] = []
    if key_field == "key":
        wanted = [((*part.path, "key"), part.body.get("key"))]
    elif key_field == "items":
        wanted = [
            ((*part.path, "items", number, "key"), item.get("key")) for number, item in enumerate(items(part.body, "items"))
        ]
    for path, key in wanted:
        if held and str(key) not in held and not (_filled_in(str(key)) and _in_argo(one)):
            yield one.finding(path, f"{kind} {name} has no key {key!r}", f"it has: {', '.join(sorted(held))}")


def _how_to_get(kind: str, namespace: str, known: _Known, name: str) -> str:
    elsewhere = sorted(space for found, space, other in known.objects if (found, other) == (kind, name) and space != namespace)
    if elsewhere:
        return f"one of this name is in {elsewhere[0]}, but a pod sees only its own namespace"
    if kind == "Secret":
        return f"make it outside of git and name it under `secrets` in {known.env.file}"
    return "add it to the set, or mend the name"


def _account(one: Manifest, part: Part, known: _Known) -> Iterator[Finding]:
    name = part.body.get("serviceAccountName")
    left = isinstance(name, str) and _filled_in(name) and _in_argo(one)
    if isinstance(name, str) and not left and known.keys("ServiceAccount", one.namespace, name) is None:
        fix = _how_to_get("ServiceAccount", one.namespace, known, name)
        yield one.finding((*part.path, "serviceAccountName"), f"no ServiceAccount {one.namespace}/{name}", fix)
    for number, secret in enumerate(items(part.body, "imagePullSecrets")):
        name = str(secret.get("name", ""))
        if known.keys("Secret", one.namespace, name) is None:
            fix = _how_to_get("Secret", one.namespace, known, name)
            yield one.finding((*part.path, "imagePullSecrets", number), f"no Secret {one.namespace}/{name}", fix)


def _own_selector(one: Manifest) -> Iterator[Finding]:
    wanted = mapping(mapping(mapping(one.body.get("spec")).get("selector")).get("matchLabels"))
    for template in pods.templates(one):
        for key, value in wanted.items():
            if template.labels.get(key) != value:
                what = f"selects {key}={value}, the pod template says {template.labels.get(key, 'nothing')}"
                yield one.finding(("spec", "selector", "matchLabels", key), what, "write the same label in both places")
        if not wanted and not mapping(mapping(one.body.get("spec")).get("selector")).get("matchExpressions"):
            yield one.finding(("spec", "selector"), "selects nothing", "write matchLabels")


def _service(one: Manifest, known: _Known) -> Iterator[Finding]:
    spec = mapping(one.body.get("spec"))
    seen: list[Any] = []
    for number, port in enumerate(items(spec, "ports")):
        path: Path = ("spec", "ports", number)
        if not port.get("name"):
            yield one.finding(path, f"port {port.get('port')} has no name", "name it; probes, Ingress and monitors refer to it")
        elif port["name"] in seen:
            yield one.finding((*path, "name"), f"the port name {port['name']} stands twice", "give it another name")
        seen.append(port.get("name"))
    selector = mapping(spec.get("selector"))
    if not selector or spec.get("type") == "ExternalName":
        return
    chosen = known.selected(one.namespace, selector)
    if not chosen:
        labels = ", ".join(f"{key}={value}" for key, value in selector.items())
        yield one.finding(
            ("spec", "selector"), f"selects no pod of this set ({labels})", "write the labels of the pod template"
        )
    for template in chosen:
        declared = [
            value for _, container in template.containers() for port in items(container, "ports") for value in _both(port)
        ]
        for number, port in enumerate(items(spec, "ports")):
            target = port.get("targetPort", port.get("port"))
            if target not in declared:
                shown = ", ".join(sorted(set(map(str, declared)))) or "none"
                what = f"targets port {target} of {template.manifest.title}"
                yield one.finding(("spec", "ports", number, "targetPort"), what, f"its ports are: {shown}")


def _both(port: Mapping[str, Any]) -> list[Any]:
    return [value for value in (port.get("name"), port.get("containerPort")) if value is not None]


def _autoscaler(one: Manifest, known: _Known) -> Iterator[Finding]:
    spec = mapping(one.body.get("spec"))
    reference = mapping(spec.get("scaleTargetRef"))
    kind, name = str(reference.get("kind", "")), str(reference.get("name", ""))
    target = known.objects.get((kind, one.namespace, name))
    if target is None:
        yield one.finding(("spec", "scaleTargetRef"), f"no {kind} {one.namespace}/{name}", "name an object of the set")
        return
    if "replicas" in mapping(target.body.get("spec")):
        what = f"replicas is written, and {one.title} changes it"
        yield target.finding(("spec", "replicas"), what, "leave it out; every deploy would reset it")
    for number, metric in enumerate(items(spec, "metrics")):
        resource = mapping(metric.get("resource"))
        if mapping(resource.get("target")).get("type") != "Utilization":
            continue
        measured = str(resource.get("name", ""))
        for template in pods.templates(target):
            for path, container in template.containers():
                asked = mapping(container.get("resources"))
                if path[-2] == "containers" and not any(
                    measured in mapping(asked.get(group)) for group in ("requests", "limits")
                ):
                    what = f"no request for {measured}, of which {one.title} (metrics[{number}]) takes a share"
                    yield target.finding(
                        (*path, "resources"), what, f"write requests.{measured}; without it nothing is ever scaled"
                    )
    if isinstance(spec.get("maxReplicas"), int) and spec["maxReplicas"] > 1:
        yield from _shared_claims(target, known, f"{one.title} allows {spec['maxReplicas']} pods")


def _shared_claims(target: Manifest, known: _Known, why: str) -> Iterator[Finding]:
    for template in pods.templates(target):
        for number, volume in enumerate(items(template.spec, "volumes")):
            name = mapping(volume.get("persistentVolumeClaim")).get("claimName")
            claim = known.objects.get(("PersistentVolumeClaim", target.namespace, str(name)))
            modes = mapping(claim.body.get("spec")).get("accessModes") if claim else None
            if isinstance(modes, list) and not {"ReadWriteMany", "ReadOnlyMany"} & set(map(str, modes)):
                path = template.place("volumes", number)
                what = f"the claim {name} is {', '.join(map(str, modes))}, {why}"
                yield target.finding(path, what, "use ReadWriteMany or ReadOnlyMany, or one pod")


def _binding(one: Manifest, known: _Known) -> Iterator[Finding]:
    role = mapping(one.body.get("roleRef"))
    if role.get("kind") == "Role" and ("Role", one.namespace, str(role.get("name"))) not in known.objects:
        yield one.finding(
            ("roleRef", "name"), f"no Role {one.namespace}/{role.get('name')}", "add it to the set, or mend the name"
        )
    for number, subject in enumerate(items(one.body, "subjects")):
        space, name = str(subject.get("namespace") or one.namespace), str(subject.get("name", ""))
        if subject.get("kind") == "ServiceAccount" and known.keys("ServiceAccount", space, name) is None:
            what = f"no ServiceAccount {space}/{name}"
            yield one.finding(("subjects", number), what, "add it to the set, or mend name and namespace")
