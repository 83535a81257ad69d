"""How the registry is reached, told to the pods that speak to it: a ConfigMap in each namespace in which a pod mounts it.

The manifests mount it as an optional volume, so they are valid without it. It is added only where the environment's file names
a certificate authority or plain HTTP; from there on it is an object of the set as any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath

from common.errors import UsageError
from k8s.envs.environment import Environment
from k8s.objects import pods
from k8s.objects.manifests import Manifest
from k8s.rules import egress
from oci.client.access import Access

_LABELS = {
    "app.kubernetes.io/name": egress.CONFIG_MAP,
    "app.kubernetes.io/component": "registry",
    "app.kubernetes.io/part-of": "pinwheel",
    "app.kubernetes.io/managed-by": "pinwheel",
}


def apply(objects: Sequence[Manifest], env: Environment) -> tuple[Manifest, ...]:
    """The manifests with the ConfigMap before the first object of each namespace that mounts it.

    Args:
        objects: as written.
        env: the environment.

    Raises:
        UsageError: the registry's certificate authority cannot be read, or the manifests hold such a ConfigMap already.
    """
    if not env.network.special:
        return tuple(objects)
    said = env.network.access()
    for manifest in objects:
        if (manifest.kind, manifest.name) == ("ConfigMap", egress.CONFIG_MAP):
            what = (
                f"ConfigMap {egress.CONFIG_MAP} is made of `registry`, and stands in {manifest.file}:{manifest.line()} as well"
            )
            raise UsageError(what, where=env.file, fix="take it out there, or ca and plain-http here")
    result: list[Manifest] = []
    done = {""}
    for manifest in objects:
        if manifest.namespace not in done and any(map(egress.speaks_to_registry, pods.templates(manifest))):
            done.add(manifest.namespace)
            result.append(_config_map(said, manifest))
        result.append(manifest)
    return tuple(result)


def _config_map(said: Access, user: Manifest) -> Manifest:
    body = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": egress.CONFIG_MAP, "namespace": user.namespace, "labels": dict(_LABELS)},
        "data": said.files(),
    }
    # In a rendered directory a file of its own, sorted before the ones that mount it.
    return Manifest(str(PurePath(user.file).with_name("configmap-registry.yaml")), body, {})
