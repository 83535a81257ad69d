"""Rules about what must not be open: levels of Pod Security that do not exist, and Services that the whole world reaches."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from k8s.objects.findings import Finding, Path, rule
from k8s.objects.manifests import Manifest
from k8s.objects.pods import mapping

_LEVEL = re.compile(r"pod-security\.kubernetes\.io/(?:enforce|audit|warn)")
_LEVELS = ("privileged", "baseline", "restricted")
_VERSION = re.compile(r"latest|v1\.[0-9]+")


def check(objects: Sequence[Manifest]) -> Iterator[Finding]:
    """What of these objects is open, or would not be let in."""
    for manifest in objects:
        if manifest.kind == "Namespace":
            yield from _levels(manifest)
        if manifest.kind == "Service":
            yield from _public(manifest)


def _labels(manifest: Manifest) -> Mapping[str, Any]:
    return mapping(manifest.metadata.get("labels"))


@rule("pod-security-level")
def _levels(manifest: Manifest) -> Iterator[Finding]:
    """A level that does not exist is refused by some servers and taken for the strictest by others."""
    for key, value in _labels(manifest).items():
        path: Path = ("metadata", "labels", key)
        if _LEVEL.fullmatch(key) and value not in _LEVELS:
            yield manifest.finding(path, f"{value!r} is no level of Pod Security", f"write {', '.join(_LEVELS)}")
        if _LEVEL.fullmatch(key.removesuffix("-version")) and key.endswith("-version") and not _VERSION.fullmatch(str(value)):
            yield manifest.finding(path, f"{value!r} is no version of Pod Security", "write it like v1.32, or latest")


@rule("public-service")
def _public(manifest: Manifest) -> Iterator[Finding]:
    spec = mapping(manifest.body.get("spec"))
    # Each cloud has an annotation of its own for a balancer that only the private network reaches.
    private = any(
        "internal" in f"{key}={value}".lower() for key, value in mapping(manifest.metadata.get("annotations")).items()
    )
    if spec.get("type") == "LoadBalancer" and not spec.get("loadBalancerSourceRanges") and not private:
        fix = "write ClusterIP and put an Ingress with a login before it, or name loadBalancerSourceRanges"
        yield manifest.finding(("spec", "type"), "a LoadBalancer that the whole world reaches", fix)
