"""The objects of a set by what other objects call them: kind, namespace, name."""

from __future__ import annotations

from collections.abc import Iterable

from k8s.objects.manifests import Manifest

# Kind, namespace (empty for objects of the whole cluster) and name. References of Kubernetes leave the API group out.
Place = tuple[str, str, str]


def by_place(objects: Iterable[Manifest]) -> dict[Place, Manifest]:
    """The objects by kind, namespace and name; of two with the same place the later one."""
    return {(manifest.kind, manifest.namespace, manifest.name): manifest for manifest in objects}
