"""Rules between objects: what is referred to exists in the same namespace, selectors select, autoscalers can scale."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from k8s.envs.environment import Environment
from k8s.envs.existing_objects import line
from k8s.objects import argo_schema, pods
from k8s.objects.findings import Finding, Path, rule
from k8s.objects.lookup import Place, by_place
from k8s.objects.manifests import Manifest
from k8s.objects.pods import Template, items, mapping
from k8s.objects.schema import Part, Walk
from k8s.rules.whole_set import WholeSet, matches, port_names

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
# In these the cluster itself puts what it needs.
_OF_THE_CLUSTER = ("kube-node-lease", "kube-public", "kube-system")
_PRIORITIES = ("", "system-cluster-critical", "system-node-critical")
# In every namespace without anybody's doing.
_ALWAYS_THERE = {("ServiceAccount", "default"), ("ConfigMap", "kube-root-ca.crt")}


@dataclass(frozen=True, slots=True)
class _Known:
    """All objects by kind, namespace and name, the pod templates, and which keys the set asks of Secrets and ConfigMaps."""

    env: Environment
    objects: Mapping[Place, Manifest]
    templates: Sequence[Template]
    others: frozenset[str]
    made: frozenset[Place]
    asked: Mapping[Place, frozenset[str]]

    def keys(self, kind: str, namespace: str, name: str) -> frozenset[str] | None:
        """The keys an object holds; None when there is no such object."""
        if kind == "Secret" and (namespace, name) in self.env.secrets:
            return self.env.secrets[(namespace, name)]
        if (kind, namespace, name) in self.env.elsewhere:
            return self.env.elsewhere[(kind, namespace, name)]
        target = self.objects.get((kind, namespace, name))
        if target is None:
            there = (kind, name) in _ALWAYS_THERE or namespace in _OF_THE_CLUSTER or (kind, namespace, name) in self.made
            return frozenset() if there else None
        return frozenset(key for group in ("data", "stringData", "binaryData") for key in mapping(target.body.get(group)))

    def selected(self, namespace: str, selector: Mapping[str, Any]) -> list[Template]:
        """The pod templates that carry all labels of a plain selector."""
        return [
            template
            for template in self.templates
            if template.manifest.namespace == namespace and matches({"matchLabels": selector}, template.labels, template.added)
        ]


def check(walks: Sequence[Walk], whole: WholeSet) -> Iterator[Finding]:
    """What does not fit between these objects. What is missing is said once, whoever else asks for it."""
    said: set[tuple[str, str]] = set()
    for finding in _check(walks, whole):
        missing = (finding.rule, finding.what)
        if finding.rule != "reference" or missing not in said:
            yield finding
        said.add(missing)


def _check(walks: Sequence[Walk], whole: WholeSet) -> Iterator[Finding]:
    env, objects = whole.env, by_place(walk.manifest for walk in walks)
    known = _Known(env, objects, whole.templates, whole.others, whole.made, _asked(walks))
    # What a workflow sends may refer to what else it sends; the rest of the set may not count on that.
    inner = [manifest for walk in walks for manifest in walk.inner]
    sent = by_place(walk.manifest for walk in inner)
    late = replace(known, objects={**objects, **sent})
    for walk in inner:
        yield from _references(walk, late)
    for walk in walks:
        manifest = walk.manifest
        yield from _references(walk, known)
        if walk.custom:
            continue
        if manifest.api_version == "apps/v1":
            yield from _own_selector(manifest)
        if manifest.kind == "Service":
            yield from _service_ports(manifest)
            yield from _service_selector(manifest, known)
        if manifest.kind == "HorizontalPodAutoscaler":
            yield from _autoscaler(manifest, known)
        if manifest.kind in {"RoleBinding", "ClusterRoleBinding"}:
            yield from _binding(manifest, known)


def _asked(walks: Sequence[Walk]) -> Mapping[Place, frozenset[str]]:
    """The keys that a set asks for, by the object that is to hold them."""
    found: dict[Place, frozenset[str]] = {}
    for walk in (*walks, *(inner for one in walks for inner in one.inner)):
        for part in walk.parts:
            if part.definition in _REFERENCES and not part.body.get("optional"):
                kind, name, _ = _REFERENCES[part.definition]
                keys = [part.body.get("key"), *(item.get("key") for item in items(part.body, "items"))]
                place = (kind, walk.manifest.namespace, str(part.body.get(name) or ""))
                found[place] = found.get(place, frozenset()) | {key for key in keys if isinstance(key, str)}
    return found


def _references(walk: Walk, known: _Known) -> Iterator[Finding]:
    manifest = walk.manifest
    if _filled_in(manifest.namespace) or not manifest.namespace:
        return  # Where the pods of a ClusterWorkflowTemplate run is said by who uses it.
    for part in walk.parts:
        yield from _reference(manifest, part, known)
        if part.definition in _WITH_ACCOUNT:
            yield from _account(manifest, part, known)


def _in_argo(manifest: Manifest) -> bool:
    """Whether an object is one of Argo's, or stands in the text of one."""
    return manifest.api_version == argo_schema.API_VERSION or "manifest" in manifest.prefix


def _filled_in(name: str) -> bool:
    """Whether Argo makes up the name when it runs: what it will be cannot be judged."""
    return "{{" in name


@rule("reference")
def _reference(manifest: Manifest, part: Part, known: _Known) -> Iterator[Finding]:
    if part.definition not in _REFERENCES or part.body.get("optional"):
        return
    kind, name_field, key_field = _REFERENCES[part.definition]
    name = str(part.body.get(name_field) or "")
    if _filled_in(name) and _in_argo(manifest):
        return
    held = known.keys(kind, manifest.namespace, name)
    if held is None:
        yield manifest.finding(
            (*part.path, name_field),
            f"no {kind} {manifest.namespace}/{name}",
            _how_to_get(kind, manifest.namespace, known, name),
        )
        return
    needed: list[tuple[Path, Any]] = []
    if key_field == "key":
        needed = [((*part.path, "key"), part.body.get("key"))]
    elif key_field == "items":
        needed = [
            ((*part.path, "items", number, "key"), item.get("key")) for number, item in enumerate(items(part.body, "items"))
        ]
    for path, key in needed:
        if held and str(key) not in held and not (_filled_in(str(key)) and _in_argo(manifest)):
            yield manifest.finding(path, f"{kind} {name} has no key {key!r}", f"it has: {', '.join(sorted(held))}")


def _how_to_get(kind: str, namespace: str, known: _Known, name: str) -> str:
    elsewhere = sorted(
        space
        for other_kind, space, other_name in known.objects
        if (other_kind, other_name) == (kind, name) and space != namespace
    )
    if elsewhere:
        return f"one of this name is in {elsewhere[0]}, but a pod sees only its own namespace"
    written = line(kind, namespace, name, known.asked.get((kind, namespace, name), ()))
    if kind == "Secret":
        return f"make it outside of git and name it under `secrets` in {known.env.file}: {written}"
    return f"add it to the set, or mend the name; where others make it, write {written} in {known.env.file}"


@rule("reference")
def _account(manifest: Manifest, part: Part, known: _Known) -> Iterator[Finding]:
    name = part.body.get("serviceAccountName")
    left = isinstance(name, str) and _filled_in(name) and _in_argo(manifest)
    if isinstance(name, str) and name and not left and known.keys("ServiceAccount", manifest.namespace, name) is None:
        fix = _how_to_get("ServiceAccount", manifest.namespace, known, name)
        yield manifest.finding((*part.path, "serviceAccountName"), f"no ServiceAccount {manifest.namespace}/{name}", fix)
    field = "podPriorityClassName" if part.definition == "WorkflowSpec" else "priorityClassName"
    priority = part.body.get(field) or ""
    left = isinstance(priority, str) and _filled_in(priority) and _in_argo(manifest)
    named = isinstance(priority, str) and priority not in _PRIORITIES and not left
    if named and known.keys("PriorityClass", "", priority) is None:
        fix = _how_to_get("PriorityClass", "", known, priority)
        yield manifest.finding((*part.path, field), f"no PriorityClass {priority}", fix)
    for number, secret in enumerate(items(part.body, "imagePullSecrets")):
        name = str(secret.get("name", ""))
        if known.keys("Secret", manifest.namespace, name) is None:
            fix = _how_to_get("Secret", manifest.namespace, known, name)
            yield manifest.finding((*part.path, "imagePullSecrets", number), f"no Secret {manifest.namespace}/{name}", fix)


@rule("selector")
def _own_selector(manifest: Manifest) -> Iterator[Finding]:
    labels = mapping(mapping(mapping(manifest.body.get("spec")).get("selector")).get("matchLabels"))
    for template in pods.templates(manifest):
        for key, value in labels.items():
            if template.labels.get(key) != value:
                what = f"selects {key}={value}, the pod template says {template.labels.get(key, 'nothing')}"
                yield manifest.finding(("spec", "selector", "matchLabels", key), what, "write the same label in both places")
        if not labels and not mapping(mapping(manifest.body.get("spec")).get("selector")).get("matchExpressions"):
            yield manifest.finding(("spec", "selector"), "selects nothing", "write matchLabels")


@rule("service-ports")
def _service_ports(manifest: Manifest) -> Iterator[Finding]:
    seen: list[Any] = []
    ports = items(mapping(manifest.body.get("spec")), "ports")
    for number, port in enumerate(ports):
        path: Path = ("spec", "ports", number)
        if not port.get("name") and len(ports) > 1:
            what = f"port {port.get('port')} has no name"
            yield manifest.finding(path, what, "of several ports each has one; the server asks for it")
        elif port.get("name") and port["name"] in seen:
            yield manifest.finding((*path, "name"), f"the port name {port['name']} stands twice", "give it another name")
        seen.append(port.get("name"))


@rule("service-selector")
def _service_selector(manifest: Manifest, known: _Known) -> Iterator[Finding]:
    """A Service has pods, and a port that it names is one of theirs. A number need not be declared by anybody."""
    spec = mapping(manifest.body.get("spec"))
    selector = mapping(spec.get("selector"))
    if not selector or spec.get("type") == "ExternalName":
        return
    chosen = known.selected(manifest.namespace, selector)
    if not chosen and manifest.namespace not in known.others:
        labels = ", ".join(f"{key}={value}" for key, value in selector.items())
        yield manifest.finding(
            ("spec", "selector"), f"selects no pod of this set ({labels})", "write the labels of the pod template"
        )
    for template in chosen:
        declared = port_names(template)
        for number, port in enumerate(items(spec, "ports")):
            target = port.get("targetPort")
            if isinstance(target, str) and target not in declared:
                shown = ", ".join(sorted(declared)) or "none"
                what = f"targets port {target} of {template.manifest.title}"
                yield manifest.finding(("spec", "ports", number, "targetPort"), what, f"its named ports are: {shown}")


@rule("autoscaler")
def _autoscaler(manifest: Manifest, known: _Known) -> Iterator[Finding]:
    spec = mapping(manifest.body.get("spec"))
    reference = mapping(spec.get("scaleTargetRef"))
    kind, name = str(reference.get("kind", "")), str(reference.get("name", ""))
    target = known.objects.get((kind, manifest.namespace, name))
    if target is None:
        yield manifest.finding(
            ("spec", "scaleTargetRef"), f"no {kind} {manifest.namespace}/{name}", "name an object of the set"
        )
        return
    if "replicas" in mapping(target.body.get("spec")):
        what = f"replicas is written, and {manifest.title} changes it"
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
                    what = f"no request for {measured}, of which {manifest.title} (metrics[{number}]) takes a share"
                    yield target.finding(
                        (*path, "resources"), what, f"write requests.{measured}; without it nothing is ever scaled"
                    )
    if isinstance(spec.get("maxReplicas"), int) and spec["maxReplicas"] > 1:
        yield from _shared_claims(target, known, f"{manifest.title} allows {spec['maxReplicas']} pods")


@rule("shared-claim")
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


@rule("role-binding")
def _binding(manifest: Manifest, known: _Known) -> Iterator[Finding]:
    role = mapping(manifest.body.get("roleRef"))
    if role.get("kind") == "Role" and known.keys("Role", manifest.namespace, str(role.get("name"))) is None:
        yield manifest.finding(
            ("roleRef", "name"), f"no Role {manifest.namespace}/{role.get('name')}", "add it to the set, or mend the name"
        )
    for number, subject in enumerate(items(manifest.body, "subjects")):
        space, name = str(subject.get("namespace") or manifest.namespace), str(subject.get("name", ""))
        if subject.get("kind") == "ServiceAccount" and known.keys("ServiceAccount", space, name) is None:
            fix = _how_to_get("ServiceAccount", space, known, name)
            yield manifest.finding(("subjects", number), f"no ServiceAccount {space}/{name}", fix)
