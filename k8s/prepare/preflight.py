"""A second Deployment beside each that serves a model, `NAME-preflight`: it tries an image and a model before that is touched.

A pod of it has the image, the account, the Secrets, the security settings and the choice of nodes that a pod of the server has,
but asks for no GPU, no volume and hardly any memory, so that there is room for it beside a server that runs. Its init container
asks the registry for the model's manifest and signature, and fetches none of its files; then it sleeps. It has 0 replicas: a
deploy (k8s/rollouts/preflight.py) or the pipeline's deploy step (k8s/pipeline/promote.py) names the model and gives it its pod.

It has ConfigMaps and NetworkPolicies of its own, as they stand in the set: what serves keeps its own until all was tried. The
labels by which the server's pods are selected have another value, so that no Service, autoscaler or budget counts it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from k8s.objects import manifests, pods
from k8s.objects.findings import Path
from k8s.objects.manifests import Manifest
from k8s.objects.pods import Template, items, mapping
from k8s.objects.quantity import quantity
from k8s.pipeline.model_annotation import ANNOTATION, PREFLIGHT_OF, preflight
from k8s.prepare import served_model
from k8s.rules import egress
from k8s.rules.whole_set import matches

_NODES: Path = ("spec", "template", "spec", "affinity", "nodeAffinity")
# Of the server's container; what it listens on and how it is probed is not its like's.
_KEPT = ("name", "image", "imagePullPolicy", "env", "envFrom", "securityContext", "volumeMounts", "workingDir")
# Would keep it away from the nodes of the server, or say something of a pod by its name.
_DROPPED = ("affinity", "topologySpreadConstraints", "hostname", "subdomain", "setHostnameAsFQDN", "activeDeadlineSeconds")
_CLAIMS = ("ephemeral", "persistentVolumeClaim")
_SMALL = {
    "requests": {"cpu": "50m", "memory": "128Mi", "ephemeral-storage": "64Mi"},
    "limits": {"cpu": "1", "memory": "1Gi", "ephemeral-storage": "1Gi"},
}


def is_one(manifest: Manifest) -> bool:
    """Whether an object is there for a preflight alone."""
    return bool(server_of(manifest))


def server_of(manifest: Manifest) -> str:
    """The name of the Deployment for which such an object was made; empty: it is none."""
    return str(mapping(manifest.metadata.get("annotations")).get(PREFLIGHT_OF, ""))


def pairs(objects: Sequence[Manifest]) -> list[tuple[Manifest, Manifest]]:
    """Each Deployment that serves a model, and the one that tries it beforehand."""
    deployments = {(one.namespace, one.name): one for one in objects if one.kind == "Deployment"}
    beside = ((deployments.get((trial.namespace, server_of(trial))), trial) for trial in deployments.values() if is_one(trial))
    return [(server, trial) for server, trial in beside if server is not None]


def add(objects: Sequence[Manifest]) -> tuple[Manifest, ...]:
    """The objects with what a preflight needs behind each Deployment that serves a model, unless it is there already."""
    there, result = {one.identity for one in objects}, []
    for manifest in objects:
        result.append(manifest)
        if (manifest.api_version, manifest.kind) != ("apps/v1", "Deployment") or is_one(manifest):
            continue
        for template in pods.templates(manifest):
            if served_model.reads(manifest):
                made = [one for one in _made(manifest, template, objects) if one.identity not in there]
                there |= {one.identity for one in made}
                result += made
    return tuple(result)


def placed(objects: Sequence[Manifest]) -> tuple[Manifest, ...]:
    """The objects with each preflight bound to the nodes that its server was bound to."""
    nodes = {}
    for server, trial in pairs(objects):
        found: Any = server.body
        for step in _NODES:
            found = mapping(mapping(found).get(str(step)))
        if found:
            nodes[trial.identity] = found
    return tuple(manifests.with_value(one, _NODES, nodes[one.identity]) if one.identity in nodes else one for one in objects)


def _made(server: Manifest, template: Template, objects: Sequence[Manifest]) -> Iterator[Manifest]:
    """The ConfigMaps, the NetworkPolicies and the Deployment."""
    near = [one for one in objects if one.namespace == server.namespace]
    keys = _selected_by(server, template, near)
    labels = {key: preflight(str(value)) if key in keys else value for key, value in template.labels.items()}
    own = {key: value for key, value in labels.items() if key in keys}
    used = pods.config_maps(template.spec)
    copied = [one for one in near if one.kind == "ConfigMap" and one.name in used]
    for one in copied:
        yield _copy(one, server, {key: value for key, value in one.body.items() if key in ("data", "binaryData")})
    for one in near:
        selector = mapping(mapping(one.body.get("spec")).get("podSelector"))
        if one.kind == "NetworkPolicy" and egress.decides(one, template) and not matches(selector, labels):
            out = mapping(one.body["spec"]).get("egress") or []
            yield _copy(one, server, {"spec": {"podSelector": {"matchLabels": own}, "policyTypes": ["Egress"], "egress": out}})
    written = mapping(mapping(mapping(server.body["spec"].get("template")).get("metadata")).get("annotations"))
    annotations = {key: value for key, value in written.items() if key != ANNOTATION}
    spec: dict[str, Any] = {
        "replicas": 0,
        "revisionHistoryLimit": 0,
        # What a killed deploy left goes before the next pod comes.
        "strategy": {"type": "Recreate"},
        "selector": {"matchLabels": own},
        "template": {
            "metadata": {"labels": labels, **({"annotations": annotations} if annotations else {})},
            "spec": _renamed(_pod(template, server), {one.name for one in copied}),
        },
    }
    if "progressDeadlineSeconds" in server.body["spec"]:
        spec["progressDeadlineSeconds"] = server.body["spec"]["progressDeadlineSeconds"]
    yield _copy(server, server, {"spec": spec})


def _selected_by(server: Manifest, template: Template, near: Sequence[Manifest]) -> set[str]:
    """The labels by which pods are taken for the server's: by itself and by Services."""
    selector = mapping(mapping(server.body.get("spec")).get("selector"))
    keys = {*mapping(selector.get("matchLabels")), *(str(one.get("key")) for one in items(selector, "matchExpressions"))}
    for one in near:
        asked = mapping(mapping(one.body.get("spec")).get("selector")) if one.kind == "Service" else {}
        if asked and asked.items() <= dict(template.labels).items():
            keys |= set(asked)
    return keys & set(template.labels)


def _copy(original: Manifest, server: Manifest, content: Mapping[str, Any]) -> Manifest:
    """An object beside the original, with other content."""
    said = original.metadata
    name = preflight(original.name)
    labels = {**mapping(said.get("labels"))}
    if "app.kubernetes.io/name" in labels:
        labels["app.kubernetes.io/name"] = preflight(str(labels["app.kubernetes.io/name"]))
    annotations = {**mapping(said.get("annotations")), PREFLIGHT_OF: server.name}
    metadata = {"name": name, "namespace": server.namespace, "labels": labels, "annotations": annotations}
    head = {"apiVersion": original.api_version, "kind": original.kind, "metadata": metadata}
    return Manifest(server.file, {**head, **content}, original.lines if original is server else {}, server.prefix)


def _pod(template: Template, server: Manifest) -> dict[str, Any]:
    """The spec of its pods."""
    spec = {key: value for key, value in template.spec.items() if key not in _DROPPED}
    checks = [
        {
            **one,
            "env": [*items(one, "env"), {"name": "MODEL_DOWNLOAD", "value": "no"}],
            "resources": _small(one),
            # Its last words stand in the pod's status then, for who may list pods but read no logs.
            "terminationMessagePolicy": "FallbackToLogsOnError",
        }
        for one in items(template.spec, "initContainers")
        if served_model.asks(one) and one.get("restartPolicy") != "Always"
    ]
    sleeps = [
        {key: one[key] for key in _KEPT if key in one} | {"command": ["sleep", "infinity"], "resources": _small(one)}
        for one in items(template.spec, "containers")[:1]
    ]
    volumes = [
        {"name": one.get("name"), "emptyDir": {"sizeLimit": "1Gi"}} if any(kind in one for kind in _CLAIMS) else dict(one)
        for one in items(template.spec, "volumes")
    ]
    beside = {"labelSelector": server.body["spec"].get("selector"), "topologyKey": "kubernetes.io/hostname"}
    nodes = mapping(template.spec.get("affinity")).get("nodeAffinity")
    affinity = {
        **({"nodeAffinity": nodes} if nodes else {}),
        # Where the server is its successor comes, most of the time: the image is there already then.
        "podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "podAffinityTerm": beside}]},
    }
    spec |= {"containers": sleeps, "initContainers": checks, "volumes": volumes, "affinity": affinity}
    return {key: value for key, value in spec.items() if value != []} | {"terminationGracePeriodSeconds": 1}


def _small(container: Mapping[str, Any]) -> dict[str, Any]:
    """As little as this needs, of each kind that the container names: a quota may ask for all of them."""
    said, found = mapping(container.get("resources")), {}
    for group, least in _SMALL.items():
        asked = {name: value for name, value in mapping(said.get(group)).items() if name in least}
        if asked:
            found[group] = {
                name: value if (quantity(value) or 0) < (quantity(least[name]) or 0) else least[name]
                for name, value in asked.items()
            }
    return found


def _renamed(value: Any, names: set[str]) -> Any:
    """A part of a pod's spec that names the copies of these ConfigMaps."""
    if isinstance(value, list):
        return [_renamed(one, names) for one in value]
    if not isinstance(value, dict):
        return value
    result = {key: _renamed(one, names) for key, one in value.items()}
    for key in ("configMap", "configMapRef", "configMapKeyRef"):
        if isinstance(result.get(key), dict) and (name := str(result[key].get("name", ""))) in names:
            result[key] = {**result[key], "name": preflight(name)}
    return result
