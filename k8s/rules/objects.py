"""Rules about single objects: names, labels, namespaces, autoscalers; and that no object stands twice."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from k8s.objects.findings import Finding, Path, rule
from k8s.objects.manifests import Identity, Manifest
from k8s.objects.pods import mapping
from k8s.objects.schema import Walk

LABEL_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_SUBDOMAIN = re.compile(r"(?=.{1,253}\Z)[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*")
_SERVICE = re.compile(r"[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?")
_QUALIFIED = re.compile(r"(?:(?P<prefix>[^/]{1,253})/)?[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
_LABEL_VALUE = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?")
# Their names are path segments, not DNS names: `system:node` is one.
_FREE_NAMES = {"Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"}
# Kinds without a namespace. The schemas do not say which they are.
CLUSTER_SCOPED = {
    "Namespace",
    "Node",
    "PersistentVolume",
    "ClusterRole",
    "ClusterRoleBinding",
    "StorageClass",
    "PriorityClass",
    "RuntimeClass",
    "IngressClass",
    "CSIDriver",
    "CSINode",
    "VolumeAttachment",
    "VolumeAttributesClass",
    "CustomResourceDefinition",
    "APIService",
    "MutatingWebhookConfiguration",
    "ValidatingWebhookConfiguration",
    "MutatingAdmissionPolicy",
    "MutatingAdmissionPolicyBinding",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
    "FlowSchema",
    "PriorityLevelConfiguration",
    "CertificateSigningRequest",
    "ClusterTrustBundle",
    "ClusterWorkflowTemplate",
    "DeviceClass",
    "ResourceSlice",
    "ServiceCIDR",
    "IPAddress",
    "StorageVersion",
    "StorageVersionMigration",
}


def check(walks: Sequence[Walk]) -> Iterator[Finding]:
    """What is wrong with single objects, and which stand twice."""
    seen: dict[Identity, Manifest] = {}
    for walk in walks:
        manifest = walk.manifest
        yield from _first(manifest, seen.setdefault(manifest.identity, manifest))
        yield from _name(manifest)
        yield from _namespace(walk)
        if manifest.kind != "CustomResourceDefinition":  # Its own metadata is checked as any; what it describes is no label.
            yield from _labels(walk)
        if manifest.kind == "HorizontalPodAutoscaler":
            yield from _bounds(manifest)


@rule("twice")
def _first(manifest: Manifest, first: Manifest) -> Iterator[Finding]:
    if first is not manifest and manifest.name:
        where = f"{first.file}:{first.line()}"
        yield manifest.finding((), f"stands twice, first in {where}", "keep one of the two; the later would win in silence")


@rule("name")
def _name(manifest: Manifest) -> Iterator[Finding]:
    if not manifest.name:
        if manifest.metadata.get("generateName"):
            what = "generateName can be created but not applied"
            yield manifest.finding(("metadata", "generateName"), what, "give it a name")
        else:
            yield manifest.finding(("metadata", "name"), "no name", "give it one")
    else:
        form, described = _SUBDOMAIN, "lower-case letters, digits, - and ."
        if manifest.kind == "Service":
            form, described = _SERVICE, "lower-case letters, digits and -, at most 63, a letter first"
        elif manifest.kind == "Namespace":
            form, described = LABEL_NAME, "lower-case letters, digits and -, at most 63"
        if manifest.kind not in _FREE_NAMES and not form.fullmatch(manifest.name):
            yield manifest.finding(
                ("metadata", "name"), f"{manifest.name!r} is no name for a {manifest.kind}", f"use {described}"
            )


@rule("namespace")
def _namespace(walk: Walk) -> Iterator[Finding]:
    manifest = walk.manifest
    in_one = walk.namespaced if walk.custom and walk.namespaced is not None else manifest.kind not in CLUSTER_SCOPED
    if not in_one:
        if manifest.namespace:
            yield manifest.finding(("metadata", "namespace"), f"a {manifest.kind} has no namespace", "remove it")
    elif not manifest.namespace:
        what = "no namespace, so it would land wherever the kubeconfig points"
        yield manifest.finding(("metadata", "namespace"), what, "write one")
    elif not LABEL_NAME.fullmatch(manifest.namespace):
        yield manifest.finding(
            ("metadata", "namespace"), f"{manifest.namespace!r} is no namespace name", "use lower-case letters, digits, -"
        )


@rule("labels")
def _labels(walk: Walk) -> Iterator[Finding]:
    for part in walk.parts:
        if part.definition != "ObjectMeta":
            continue
        for group in ("labels", "annotations"):
            for key, value in mapping(part.body.get(group)).items():
                path: Path = (*part.path, group, key)
                match = _QUALIFIED.fullmatch(key)
                if not match or (match["prefix"] and not _SUBDOMAIN.fullmatch(match["prefix"])):
                    yield walk.manifest.finding(
                        path, f"{key!r} is no {group[:-1]} key", "write [domain/]name, the name at most 63"
                    )
                if group == "labels" and isinstance(value, str) and not _LABEL_VALUE.fullmatch(value):
                    fix = "at most 63 letters, digits, -, _ and ."
                    yield walk.manifest.finding(path, f"{value!r} is no label value", fix)


@rule("autoscaler-bounds")
def _bounds(hpa: Manifest) -> Iterator[Finding]:
    spec = mapping(hpa.body.get("spec"))
    low, high = spec.get("minReplicas", 1), spec.get("maxReplicas")
    if not isinstance(low, int) or not isinstance(high, int):
        return  # The schema check has said so.
    if low > high:
        yield hpa.finding(("spec", "minReplicas"), f"minReplicas {low} is more than maxReplicas {high}", "swap or mend them")
    if low < 1 or high < 1:
        yield hpa.finding(
            ("spec",), "an autoscaler keeps at least one replica", "write minReplicas and maxReplicas of 1 or more"
        )
