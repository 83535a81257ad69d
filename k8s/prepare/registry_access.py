"""How the registry is reached, told to the pods that speak to it: a ConfigMap in each namespace in which a pod mounts it.

The manifests mount it as an optional volume, so they are valid without it. Where the environment's file names neither a
certificate authority nor plain HTTP it says only which registry is meant: left out it would stay in the cluster as it was, for
the pods that mount it keep it from being pruned, and they would go on without TLS where there is a certificate by now.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath

from k8s.envs.network import Network
from k8s.objects import manifests, pods
from k8s.objects.manifests import Manifest
from k8s.rules import egress

_LABELS = {
    "app.kubernetes.io/name": egress.CONFIG_MAP,
    "app.kubernetes.io/component": "registry",
    "app.kubernetes.io/part-of": "pinwheel",
    "app.kubernetes.io/managed-by": "pinwheel",
}


def apply(objects: Sequence[Manifest], network: Network) -> tuple[Manifest, ...]:
    """The manifests with the ConfigMap before the first object of each namespace that mounts it.

    Where it is there already, as in a set that was rendered before, it is filled anew.

    Args:
        objects: as written.
        network: of the environment.

    Raises:
        UsageError: the registry's certificate authority cannot be read.
    """
    data = network.said().files()
    result: list[Manifest] = []
    done = {"", *(one.namespace for one in objects if _is_ours(one))}
    for manifest in objects:
        if manifest.namespace not in done and any(map(egress.speaks_to_registry, pods.templates(manifest))):
            done.add(manifest.namespace)
            result.append(_config_map(data, manifest))
        result.append(manifests.with_value(manifest, ("data",), data) if _is_ours(manifest) else manifest)
    return tuple(result)


def _is_ours(manifest: Manifest) -> bool:
    return (manifest.api_version, manifest.kind, manifest.name) == ("v1", "ConfigMap", egress.CONFIG_MAP)


def _config_map(data: dict[str, str], user: Manifest) -> Manifest:
    body = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": egress.CONFIG_MAP, "namespace": user.namespace, "labels": dict(_LABELS)},
        "data": dict(data),
    }
    # In a rendered directory a file of its own, sorted before the ones that mount it.
    return Manifest(str(PurePath(user.file).with_name("configmap-registry.yaml")), body, {})
