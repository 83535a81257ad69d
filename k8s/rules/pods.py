"""Rules inside one pod template: volumes, resources, ports, probes, GPUs.

What the schema check refused may stand anywhere, a list where a name should be: values are compared here, never hashed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from k8s.objects import pods
from k8s.objects.findings import Finding, Path, rule
from k8s.objects.manifests import Manifest
from k8s.objects.pods import Template, items, mapping
from k8s.objects.quantity import quantity
from k8s.rules.objects import LABEL_NAME
from k8s.rules.whole_set import WholeSet

_PORT_NAME = re.compile(r"(?=.*[a-z])(?!.*--)[a-z0-9](?:[a-z0-9-]{0,13}[a-z0-9])?")
_HANDLERS = ("exec", "httpGet", "tcpSocket", "grpc")
# Devices of which a node has few, and which one pod has at a time: GPUs, slices of them (MIG), and what else trains and serves.
_DEVICE = re.compile(r"/.*(?:gpu|mig-|tpu|npu|xpu|gaudi|neuron)")
_NONE = (0, "0", "0%")
_PROBES = ("startupProbe", "readinessProbe", "livenessProbe")


def check(objects: Sequence[Manifest], known: WholeSet) -> Iterator[Finding]:
    """What is wrong inside the pod templates of these objects."""
    for manifest in objects:
        for template in pods.templates(manifest):
            yield from _volumes(template)
            yield from _names(template)
            for path, container in template.containers():
                yield from _container(manifest, path, container)
            if manifest.kind == "Deployment":
                yield from _surge(template, known)


@rule("volumes")
def _volumes(template: Template) -> Iterator[Finding]:
    names = [str(volume.get("name", "")) for volume in items(template.spec, "volumes")]
    claims = items(mapping(template.manifest.body.get("spec")), "volumeClaimTemplates")
    known = [*names, *(str(mapping(claim.get("metadata")).get("name", "")) for claim in claims)]
    for number, name in enumerate(names):
        path = template.place("volumes", number)
        if name in names[:number]:
            yield template.manifest.finding(path, f"the volume {name} stands twice", "keep one")
        if len(items(template.spec, "volumes")[number]) < 2:
            what = f"the volume {name} has no source"
            yield template.manifest.finding(path, what, "write emptyDir: {} if an empty one is meant")
    for path, container in template.containers():
        taken: list[Any] = []
        for number, mount in enumerate(items(container, "volumeMounts")):
            below: Path = (*path, "volumeMounts", number)
            if mount.get("name") not in known:
                what = f"mounts {mount.get('name')!r}, which is no volume of the pod"
                yield template.manifest.finding(
                    (*below, "name"), what, f"volumes are: {', '.join(sorted(set(known))) or 'none'}"
                )
            if mount.get("mountPath") in taken:
                what = f"{mount.get('mountPath')} is mounted twice"
                yield template.manifest.finding((*below, "mountPath"), what, "one path, one volume")
            taken.append(mount.get("mountPath"))


@rule("containers")
def _names(template: Template) -> Iterator[Finding]:
    seen: list[Any] = []
    if not items(template.spec, "containers"):
        yield template.manifest.finding(template.place("containers"), "no container", "a pod runs at least one")
    for path, container in template.containers():
        name = container.get("name")
        if name in seen and name is not None:
            yield template.manifest.finding((*path, "name"), f"the container {name} stands twice", "give it another name")
        if isinstance(name, str) and not LABEL_NAME.fullmatch(name):
            yield template.manifest.finding(
                (*path, "name"), f"{name!r} is no container name", "use lower-case letters, digits, -"
            )
        seen.append(name)
        ports: list[Any] = []
        for number, port in enumerate(items(container, "ports")):
            label = port.get("name")
            below: Path = (*path, "ports", number)
            if label is not None and not _PORT_NAME.fullmatch(str(label)):
                what = f"{label!r} is no port name"
                yield template.manifest.finding(
                    (*below, "name"), what, "at most 15 lower-case letters, digits and -, one letter"
                )
            if label is not None and label in ports:
                yield template.manifest.finding((*below, "name"), f"the port name {label} stands twice", "give it another name")
            ports.append(label)
            number_ = port.get("containerPort")
            if isinstance(number_, int) and not 1 <= number_ <= 65535:
                yield template.manifest.finding((*below, "containerPort"), f"{number_} is no port", "write 1 to 65535")


@rule("image-missing")
def _container(manifest: Manifest, path: Path, container: Mapping[str, Any]) -> Iterator[Finding]:
    if not container.get("image"):
        yield manifest.finding((*path, "image"), "no image", "name one from lockfiles/images.lock")
    yield from _resources(manifest, path, mapping(container.get("resources")))
    yield from _env(manifest, path, container)
    names = [str(port["name"]) for port in items(container, "ports") if port.get("name")]
    for name in _PROBES:
        if container.get(name) is not None:
            yield from _probe(manifest, (*path, name), mapping(container[name]), names)
    for hook, handler in mapping(container.get("lifecycle")).items():
        for kind in _HANDLERS:
            yield from _named_port(manifest, (*path, "lifecycle", hook, kind), mapping(mapping(handler).get(kind)), names)


@rule("resources")
def _resources(manifest: Manifest, path: Path, resources: Mapping[str, Any]) -> Iterator[Finding]:
    requests, limits = mapping(resources.get("requests")), mapping(resources.get("limits"))
    for name in sorted({*requests, *limits}):
        asked, limit = quantity(requests.get(name, "")), quantity(limits.get(name, ""))
        below: Path = (*path, "resources", "requests" if name in requests else "limits", name)
        if "/" in name and not name.startswith(
            "kubernetes.io/"
        ):  # GPUs and other devices come whole and are never overcommitted.
            if limit is None or (asked is not None and asked != limit):
                what = f"{name}: request {requests.get(name)} and limit {limits.get(name)} differ"
                yield manifest.finding(below, what, "write the same number as limit and as request")
            elif limit != int(limit):
                yield manifest.finding(below, f"{name} is given out whole, not {limits[name]}", "write a whole number")
        elif asked is not None and limit is not None and asked > limit:
            what = f"{name}: request {requests[name]} is more than limit {limits[name]}"
            yield manifest.finding(below, what, "raise the limit or lower the request")


@rule("env")
def _env(manifest: Manifest, path: Path, container: Mapping[str, Any]) -> Iterator[Finding]:
    seen: list[Any] = []
    for number, variable in enumerate(items(container, "env")):
        below: Path = (*path, "env", number)
        name = variable.get("name")
        if name in seen:
            yield manifest.finding(below, f"the variable {name} stands twice", "keep one; the last would win")
        seen.append(name)
        if variable.get("value") and variable.get("valueFrom"):
            yield manifest.finding(below, f"{name} has both value and valueFrom", "keep one")


@rule("probe")
def _probe(manifest: Manifest, path: Path, probe: Mapping[str, Any], names: Sequence[str]) -> Iterator[Finding]:
    handlers = [name for name in _HANDLERS if probe.get(name) is not None]
    if len(handlers) != 1:
        what = f"a probe with {' and '.join(handlers) or 'no handler'}"
        yield manifest.finding(path, what, "write exactly one of exec, httpGet, tcpSocket, grpc")
    for handler in handlers:
        yield from _named_port(manifest, (*path, handler), mapping(probe[handler]), names)
    if path[-1] != "readinessProbe" and probe.get("successThreshold") not in (None, 1):
        yield manifest.finding((*path, "successThreshold"), "must be 1 for this probe", "remove it")


@rule("probe")
def _named_port(manifest: Manifest, path: Path, handler: Mapping[str, Any], names: Sequence[str]) -> Iterator[Finding]:
    """A port that is a name is one of the container's; a number need not be declared."""
    port = handler.get("port")
    if isinstance(port, str) and port not in names:
        fix = f"the container's ports are: {', '.join(names) or 'none'}"
        yield manifest.finding((*path, "port"), f"probes port {port}", fix)


@rule("gpu-surge")
def _surge(template: Template, known: WholeSet) -> Iterator[Finding]:
    """A rollout of pods with GPUs on a full cluster waits for itself unless the old pod goes first.

    Where the only pod would go, its author may have it otherwise: a surge that is written beside `maxUnavailable: 0` is meant.
    """
    spec = mapping(template.manifest.body.get("spec"))
    strategy = mapping(spec.get("strategy"))
    devices = {
        name
        for _, container in template.containers()
        for name in mapping(mapping(container.get("resources")).get("limits"))
        if _DEVICE.search(name)
    }
    rolling = mapping(strategy.get("rollingUpdate"))
    if not devices or strategy.get("type") == "Recreate":
        return
    surge, unavailable = rolling.get("maxSurge"), rolling.get("maxUnavailable")
    alone = known.replicas(template.manifest)[1] <= 1
    if alone and surge not in (None, *_NONE) and unavailable in _NONE:
        return
    if surge not in _NONE or unavailable in (None, *_NONE):
        what = "a surge pod would wait for the GPU of the pod it is to replace"
        fix = "write rollingUpdate: {maxSurge: 0, maxUnavailable: 1}"
        if alone:
            fix += ", and nobody serves meanwhile; or where a GPU is free for it {maxSurge: 1, maxUnavailable: 0}"
        yield template.manifest.finding(("spec", "strategy"), what, fix)
