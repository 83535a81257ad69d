"""A changed ConfigMap restarts the pods that use it: its hash stands in their templates."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from k8s.objects import custom_kinds, manifests, pods
from k8s.objects.findings import Path
from k8s.objects.manifests import Manifest

_ANNOTATION = "pinwheel/config-sha256"


def with_config_hashes(objects: Sequence[Manifest]) -> tuple[Manifest, ...]:
    """Write into each pod template the hash of the ConfigMaps it uses.

    Without it a changed ConfigMap leaves the template as it was, nothing is restarted, and the old configuration keeps running
    under a deploy that says it went well.
    """
    content = {
        (one.namespace, one.name): {key: one.body.get(key) for key in ("data", "binaryData")}
        for one in objects
        if one.kind == "ConfigMap" and one.api_version == "v1"
    }
    result = []
    for manifest in objects:
        for template in pods.templates(manifest):
            used = {
                name: content[(manifest.namespace, name)]
                for name in sorted(pods.config_maps(template.spec))
                if (manifest.namespace, name) in content
            }
            if used and template.path and not custom_kinds.is_custom(manifest):  # A bare Pod cannot be rolled.
                digest = hashlib.sha256(json.dumps(used, sort_keys=True).encode()).hexdigest()
                place: Path = (*template.path, "metadata", "annotations", _ANNOTATION)
                manifest = manifests.with_value(manifest, place, digest)
        result.append(manifest)
    return tuple(result)
