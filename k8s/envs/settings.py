"""What an environment sets in the manifests, as its file says it: storage class, sizes of claims, replicas, host names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from common.reader import Keys
from k8s.objects.quantity import QUANTITY

_HOST = re.compile(r"(?=.{1,253}$)(?:\*\.)?[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)+")
# Of a container: `requests` and `limits`, each a quantity by resource.
Resources = Mapping[str, Mapping[str, str]]
_CLASS = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class Settings:
    """What one environment sets.

    Attributes:
        storage_class: of every claim that names none itself; empty: the cluster's default.
        sizes: of a PersistentVolumeClaim by `namespace/name`, of a claim in a pod template by `namespace/workload/claim`.
        resources: requests and limits of a container, by `namespace/workload/container`.
        replicas: of a HorizontalPodAutoscaler (least, most), or of a workload without one, by `namespace/name`.
        hosts: of an Ingress, by `namespace/name`.
    """

    storage_class: str = ""
    sizes: Mapping[str, str] = field(default_factory=dict)
    resources: Mapping[str, Resources] = field(default_factory=dict)
    replicas: Mapping[str, tuple[int, int] | int] = field(default_factory=dict)
    hosts: Mapping[str, str] = field(default_factory=dict)

    def rows(self) -> dict[str, str]:
        """The settings for people."""
        found = {"storage-class": self.storage_class or "the cluster's default"}
        for place, size in sorted(self.sizes.items()):
            found[f"size {place}"] = size
        for place, resources in sorted(self.resources.items()):
            found[f"size {place}"] = "; ".join(
                f"{kind} {', '.join(f'{name} {size}' for name, size in sorted(sizes.items()))}"
                for kind, sizes in sorted(resources.items(), reverse=True)
            )
        for place, count in sorted(self.replicas.items()):
            found[f"replicas {place}"] = f"{count[0]} to {count[1]}" if isinstance(count, tuple) else str(count)
        for place, host in sorted(self.hosts.items()):
            found[f"host {place}"] = host
        return found


def parse(top: Keys) -> Settings:
    """Take the keys of this module out of an environment's file.

    Raises:
        UsageError: one holds something else than it may.
    """
    storage = top.text("storage-class") if "storage-class" in top else ""
    if storage and not _CLASS.fullmatch(storage):
        raise top.refused("storage-class", f"{storage!r} is no name of a StorageClass")
    sizes, replicas, hosts = (top.below(key, optional=True) for key in ("sizes", "replicas", "hosts"))
    for keys, most in ((sizes, 3), (replicas, 2), (hosts, 2)):
        for place in keys.body:
            parts = str(place).split("/")
            if not 2 <= len(parts) <= most or not all(parts):
                raise keys.refused(str(place), "write namespace/name" + (" or namespace/workload/part" if most > 2 else ""))
    claims: dict[str, str] = {}
    resources: dict[str, Resources] = {}
    for place, size in sizes.body.items():
        if isinstance(size, dict):
            resources[place] = _resources(sizes, place, size)
        elif _is_size(size):
            claims[place] = size
        else:
            raise sizes.refused(place, f"expected a size such as 50Gi, or requests and limits of a container, got {size!r}")
    for place, host in hosts.body.items():
        if not isinstance(host, str) or not _HOST.fullmatch(host):
            raise hosts.refused(place, f"expected a host name such as llm.example.com, got {host!r}")
    counts = {place: _count(replicas, place, count) for place, count in replicas.body.items()}
    return Settings(storage, claims, resources, counts, dict(hosts.body))


def _resources(keys: Keys, place: str, value: dict[Any, Any]) -> Resources:
    """Requests and limits of a container."""
    if place.count("/") != 2:
        raise keys.refused(place, "a container goes by namespace/workload/container")
    for kind, sizes in value.items():
        if (
            kind not in {"requests", "limits"}
            or not isinstance(sizes, dict)
            or not sizes
            or not all(map(_is_size, sizes.values()))
        ):
            raise keys.refused(place, f"expected requests and limits such as {{cpu: 500m, memory: 4Gi}}, got {kind}: {sizes!r}")
    return {kind: {str(name): str(size) for name, size in sizes.items()} for kind, sizes in value.items()}


def _is_size(value: Any) -> bool:
    return isinstance(value, str) and bool(QUANTITY.fullmatch(value) and re.search(r"[1-9]", value)) and value[0] != "-"


def _count(keys: Keys, place: str, count: Any) -> tuple[int, int] | int:
    def number(value: Any) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and value >= 0

    if number(count):
        return int(count)
    if not isinstance(count, list) or len(count) != 2 or not all(map(number, count)):
        raise keys.refused(place, f"expected [least, most] of an autoscaler or the number of a workload, got {count!r}")
    if not 1 <= count[0] <= count[1]:
        raise keys.refused(place, f"{count}: an autoscaler keeps at least 1, and at most no fewer than that")
    return count[0], count[1]
