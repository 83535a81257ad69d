"""Limits of registries and engines that are known, checked before the first byte is sent.

Only limits that the makers document are listed; a registry that is not listed has no limit that we know of.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from common import console
from common.errors import RegistryError

# Distribution spec 1.1, "Pushing Manifests": a registry's limit SHOULD be 4 megabytes at least, so that much any of them takes.
LARGEST_MANIFEST = 4_000_000
# Docker's graph drivers, moby layer/layer_store.go: 127 layers less two for a running container's own.
MOST_LAYERS = 125


@dataclass(frozen=True, slots=True)
class _Limit:
    """The largest layer, in bytes, of registries whose host matches; and where that is written."""

    host: str
    layer: int
    source: str


_LIMITS = (
    _Limit(r"ghcr\.io", 10_000_000_000, "GitHub Docs, Working with the Container registry, Troubleshooting"),
    _Limit(r"public\.ecr\.aws", 10_000 << 20, "Amazon ECR Public service quotas, Maximum layer size"),
    _Limit(
        r"\d+\.dkr\.ecr(-fips)?\.[a-z0-9-]+\.amazonaws\.com(\.cn)?",
        52_000 << 20,
        "Amazon ECR service quotas, Maximum layer size",
    ),
    _Limit(r"[a-z0-9-]+\.azurecr\.(io|cn|us)", 200 << 30, "Azure Container Registry service tiers, Maximum image layer size"),
    _Limit(r"swr\.[a-z0-9-]+\.myhuaweicloud\.(com|eu)", 10_000_000_000, "Huawei Cloud SWR FAQ, maximum size of an SWR layer"),
)


def check(host: str, manifest: int, layers: Iterable[tuple[str, int]]) -> None:
    """Refuse an image that the registry, or an engine that pulls it, will not take.

    Args:
        host: of the registry.
        manifest: bytes of the manifest.
        layers: for each its name for people, and its bytes.

    Raises:
        RegistryError: it exceeds a limit; names the layer and the limit.
    """
    layers = list(layers)
    if len(layers) > MOST_LAYERS:
        raise RegistryError(
            f"the image has {len(layers)} layers, engines take {MOST_LAYERS}", where=host, fix="put more wheels into one layer"
        )
    if manifest > LARGEST_MANIFEST:
        problem = f"the manifest has {manifest} bytes, registries need to take no more than {LARGEST_MANIFEST}"
        raise RegistryError(problem, where=host, fix="give the image fewer layers or shorter annotations")
    limit = next((entry for entry in _LIMITS if re.fullmatch(entry.host, host.lower())), None)
    for what, size in layers:
        if limit and size > limit.layer:
            raise RegistryError(
                f"the layer {what!r} has {console.size(size)}, {host} takes {console.size(limit.layer)}",
                where=limit.source,
                fix="split its content over several layers, or push to another registry",
            )
