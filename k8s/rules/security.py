"""Rules about what must not be open: Pod Security where a namespace enforces it, secrets in manifests, public Services."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from k8s.objects import pods
from k8s.objects.findings import Finding, Path
from k8s.objects.manifests import Manifest
from k8s.objects.pods import Template, items, mapping
from k8s.rules.whole_set import words

_LEVEL = re.compile(r"pod-security\.kubernetes\.io/(?:enforce|audit|warn)")
_LEVELS = ("privileged", "baseline", "restricted")
_VERSION = re.compile(r"latest|v1\.[0-9]+")
_ENFORCE = "pod-security.kubernetes.io/enforce"
# Pod Security Standards, restricted, "Volume Types"; an image volume is read-only and has no way to the node.
_VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
}
_SECRET_NAME = re.compile(r"(?:^|_)(?:TOKEN|PASSWORD|PASSWD|SECRET|API_KEY|PRIVATE_KEY|ACCESS_KEY)$")
_EXPANDED = re.compile(r"\$\(([A-Za-z_][A-Za-z0-9_]*)\)")


def check(objects: Sequence[Manifest]) -> Iterator[Finding]:
    """What of these objects is open, or would not be let in."""
    enforced = {
        manifest.name
        for manifest in objects
        if manifest.kind == "Namespace" and _labels(manifest).get(_ENFORCE) == "restricted"
    }
    for manifest in objects:
        if manifest.kind == "Namespace":
            yield from _levels(manifest)
        if manifest.kind == "Secret":
            yield from _values(manifest)
        if manifest.kind == "Service":
            yield from _public(manifest)
        for template in pods.templates(manifest):
            for path, container in template.containers():
                yield from _leaks(manifest, path, container)
            if manifest.namespace in enforced:
                yield from _restricted(template)


def _labels(manifest: Manifest) -> Mapping[str, Any]:
    return mapping(manifest.metadata.get("labels"))


def _levels(manifest: Manifest) -> Iterator[Finding]:
    """A level that does not exist is refused by some servers and taken for the strictest by others."""
    for key, value in _labels(manifest).items():
        path: Path = ("metadata", "labels", key)
        if _LEVEL.fullmatch(key) and value not in _LEVELS:
            yield manifest.finding(path, f"{value!r} is no level of Pod Security", f"write {', '.join(_LEVELS)}")
        if _LEVEL.fullmatch(key.removesuffix("-version")) and key.endswith("-version") and not _VERSION.fullmatch(str(value)):
            yield manifest.finding(path, f"{value!r} is no version of Pod Security", "write it like v1.32, or latest")


def _values(manifest: Manifest) -> Iterator[Finding]:
    for group in ("data", "stringData"):
        if mapping(manifest.body.get(group)):
            fix = "make it outside of git and name it under `secrets` in the environment"
            yield manifest.finding((group,), "a secret's value stands in a manifest, and so in git", fix)


def _public(manifest: Manifest) -> Iterator[Finding]:
    spec = mapping(manifest.body.get("spec"))
    # Each cloud has an annotation of its own for a balancer that only the private network reaches.
    private = any(
        "internal" in f"{key}={value}".lower() for key, value in mapping(manifest.metadata.get("annotations")).items()
    )
    if spec.get("type") == "LoadBalancer" and not spec.get("loadBalancerSourceRanges") and not private:
        fix = "write ClusterIP and put an Ingress with a login before it, or name loadBalancerSourceRanges"
        yield manifest.finding(("spec", "type"), "a LoadBalancer that the whole world reaches", fix)


def _leaks(manifest: Manifest, path: Path, container: Mapping[str, Any]) -> Iterator[Finding]:
    secret = set()
    for number, variable in enumerate(items(container, "env")):
        name, value = str(variable.get("name", "")), variable.get("value")
        if mapping(variable.get("valueFrom")).get("secretKeyRef"):
            secret.add(name)
        # `$(OTHER)` only passes on what stands elsewhere.
        elif value and _SECRET_NAME.search(name) and not _EXPANDED.search(str(value)):
            what = f"the value of {name} stands in a manifest, and so in git"
            yield manifest.finding((*path, "env", number, "value"), what, "take it from a Secret: valueFrom.secretKeyRef")
    for group in ("command", "args"):
        for number, word in enumerate(words(container.get(group))):
            for name in _EXPANDED.findall(word):
                if name in secret:
                    what = f"the secret {name} would stand in the command line, which the whole node can read"
                    yield manifest.finding((*path, group, number), what, "let the program read the variable, or mount a file")


def _restricted(template: Template) -> Iterator[Finding]:
    """What the admission of a namespace that enforces `restricted` refuses.

    It refuses the pods, not the workload: a Deployment would be taken and never get a pod.
    """
    manifest, spec = template.manifest, template.spec
    why = f"the namespace {manifest.namespace} enforces Pod Security restricted"
    for name in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(name):
            yield manifest.finding(template.place(name), f"{name} is set, and {why}", "remove it")
    for number, volume in enumerate(items(spec, "volumes")):
        for kind in sorted(set(volume) - {"name"} - _VOLUMES):
            what = f"a {kind} volume, and {why}"
            fix = "use a claim, a ConfigMap, a Secret or an emptyDir"
            yield manifest.finding(template.place("volumes", number, kind), what, fix)
    pod = mapping(spec.get("securityContext"))
    for path, container in template.containers():
        own = mapping(container.get("securityContext"))
        for field, what, fix in _lacks(pod, own):
            yield manifest.finding((*path, "securityContext", *field), f"{what}, and {why}", fix)
        for number, port in enumerate(items(container, "ports")):
            if port.get("hostPort"):
                yield manifest.finding((*path, "ports", number, "hostPort"), f"a hostPort, and {why}", "remove it")


def _lacks(pod: Mapping[str, Any], own: Mapping[str, Any]) -> Iterator[tuple[Path, str, str]]:
    """What a container's security context lacks: the field, what is wrong, what to write."""
    if own.get("runAsNonRoot", pod.get("runAsNonRoot")) is not True:
        yield ("runAsNonRoot",), "runAsNonRoot is not true", "write runAsNonRoot: true"
    if own.get("runAsUser", pod.get("runAsUser")) == 0:
        yield ("runAsUser",), "it runs as root", "write the image's own user, 10001"
    if own.get("allowPrivilegeEscalation") is not False:
        yield ("allowPrivilegeEscalation",), "allowPrivilegeEscalation is not false", "write allowPrivilegeEscalation: false"
    if own.get("privileged"):
        yield ("privileged",), "it is privileged", "remove it"
    capabilities = mapping(own.get("capabilities"))
    if "ALL" not in words(capabilities.get("drop")):
        yield ("capabilities", "drop"), "it keeps capabilities", 'write capabilities: {drop: ["ALL"]}'
    if set(words(capabilities.get("add"))) - {"NET_BIND_SERVICE"}:
        yield ("capabilities", "add"), "it adds capabilities", "remove them; only NET_BIND_SERVICE may be added"
    profile = mapping(own.get("seccompProfile")) or mapping(pod.get("seccompProfile"))
    if profile.get("type") not in ("RuntimeDefault", "Localhost"):
        yield ("seccompProfile",), "no seccomp profile", "write seccompProfile: {type: RuntimeDefault}"
