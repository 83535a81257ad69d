"""What a set counts on and the cluster has not, in one line each: nothing that refuses the set, and nothing that works without.

An autoscaler without its metrics stands still, and a claim without a class is never bound; neither says so where one would
look. Whether NetworkPolicies are enforced no API tells. What our account may not ask is left out.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence

from common import console
from k8s.objects.manifests import Identity, Manifest
from k8s.objects.pods import items, mapping
from k8s.prepare import settings
from k8s.rollouts.kubectl import Kubectl, listed, passing

# Which API the metrics of an autoscaler come from, by their type, and what brings it.
_USAGE, _CUSTOM = ("metrics.k8s.io/v1beta1", "metrics-server"), ("custom.metrics.k8s.io", "an adapter for custom metrics")
_METRICS = {
    "Resource": _USAGE,
    "ContainerResource": _USAGE,
    "Pods": _CUSTOM,
    "Object": _CUSTOM,
    "External": ("external.metrics.k8s.io", "an adapter for external metrics"),
}
_DEFAULT = "storageclass.kubernetes.io/is-default-class"


def tell(kubectl: Kubectl, objects: Sequence[Manifest], there: Collection[Identity]) -> None:
    """Say what the cluster lacks of what a set counts on. Changes nothing.

    Args:
        kubectl: of the cluster.
        objects: of the set.
        there: those that the cluster has already.
    """
    for line in (*_metrics(kubectl, objects), *_classes(kubectl, objects, there)):
        console.warn(line)
    if policies := sum(one.kind == "NetworkPolicy" for one in objects):
        what = f"{policies} NetworkPolicies" if policies > 1 else "NetworkPolicy"
        console.info(f"not checked  whether the cluster enforces the {what} of the set")


def _metrics(kubectl: Kubectl, objects: Sequence[Manifest]) -> Iterator[str]:
    scaled: dict[tuple[str, str], dict[str, None]] = {}
    for one in objects:
        if one.kind == "HorizontalPodAutoscaler":
            # Without `metrics`, and in autoscaling/v1, it is the CPU.
            kinds = [str(metric.get("type")) for metric in items(mapping(one.body.get("spec")), "metrics")] or ["Resource"]
            for kind in kinds:
                if kind in _METRICS:
                    scaled.setdefault(_METRICS[kind], {})[one.title] = None
    for (api, bringer), titles in sorted(scaled.items()):
        answer = kubectl.request(["get", "--raw", f"/apis/{api}"])
        if "(NotFound)" in answer.stderr:
            yield f"the cluster has no metrics API ({api}): {', '.join(titles)} stands still until {bringer} is installed"
        elif passing(answer):
            yield f"the cluster's metrics API ({api}) does not answer: {', '.join(titles)} stands still while it is away"


def _classes(kubectl: Kubectl, objects: Sequence[Manifest], there: Collection[Identity]) -> Iterator[str]:
    # A claim that is there has its volume, or waits since before; a workload makes new ones.
    old = {identity for identity in there if identity.kind == "PersistentVolumeClaim"}
    bare = [one.title for one in objects if one.identity not in old and _asks_for_the_default(one)]
    if not bare or any(one.kind == "StorageClass" and _is_default(one) for one in objects):
        return
    answer = kubectl.request(["get", "storageclasses.storage.k8s.io", "-o", "json"])
    if answer.code:
        return
    try:
        classes = [Manifest("cluster", body, {}) for body in listed(answer.stdout)]
    except json.JSONDecodeError:
        return
    if not any(map(_is_default, classes)):
        known = ", ".join(sorted(one.name for one in classes))
        fix = f"write `storage-class` into the environment's file, one of {known}" if known else "there is no other either"
        yield f"the cluster has no default StorageClass, and the claims of {', '.join(bare)} name none: they wait; {fix}"


def _asks_for_the_default(one: Manifest) -> bool:
    # An empty name asks for a volume without a class; a volume that is named needs none.
    return any("storageClassName" not in claim and not claim.get("volumeName") for claim in settings.claims(one))


def _is_default(one: Manifest) -> bool:
    return (one.metadata.get("annotations") or {}).get(_DEFAULT) == "true"
