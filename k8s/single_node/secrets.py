"""The Secrets that the environments of this machine's cluster name, made with values that nobody need know or keep."""

from __future__ import annotations

import json
import secrets
from base64 import b64encode
from typing import Any

from common import console
from k8s.envs import environment
from k8s.envs.environment import ClusterTarget
from k8s.single_node.addons import Cluster
from registry import signer

# Of all Secrets: `namespace/name`, then the names of the keys. No value leaves kubectl.
_KEYS = "{{range $key, $value := .data}} {{$key}}{{end}}"
_LISTING = "{{range .items}}{{.metadata.namespace}}/{{.metadata.name}}" + _KEYS + "{{println}}{{end}}"
# The two halves of the key pair that models are signed with: of one there is no use without the other.
_PAIR = ("model.key", "model.pub")


def make(cluster: Cluster) -> int:
    """Make the keys that are missing; returns how many.

    Raises:
        UsageError: an environment's file is wrong.
        MissingEnvironmentError: the API server refuses.
    """
    needed = _needed()
    if not needed:
        return 0
    listing = cluster.kubectl("get", "secrets", "--all-namespaces", "-o", f"go-template={_LISTING}")
    there = {place: set(keys) for place, *keys in map(str.split, filter(None, listing.splitlines()))}
    missing = {place: keys - there.get(place, set()) for place, keys in needed.items()}
    if any(keys & set(_PAIR) for keys in missing.values()):
        missing = {place: keys | needed[place] & set(_PAIR) for place, keys in missing.items()}
    values = _values()
    bodies: list[dict[str, Any]] = []
    for place, keys in sorted(missing.items()):
        namespace, _, name = place.partition("/")
        for key in sorted(keys - set(values)):
            console.warn(f"Secret {place}: nobody knows what {key} should be: make it with `invoke secrets`")
        data = {key: b64encode(values[key]).decode() for key in sorted(keys & set(values))}
        if data:
            metadata = {"name": name, "namespace": namespace}
            bodies.append({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data})
    if bodies:
        cluster.make_namespaces()
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": bodies})
        # By a manager of its own: an apply takes away what its manager applied before and leaves out now.
        argv = ["apply", "--server-side", "--force-conflicts", "--field-manager=pinwheel-single-node", "-f", "-"]
        cluster.kubectl(*argv, stdin=text, what="making Secrets")
    return sum(len(body["data"]) for body in bodies)


def _needed() -> dict[str, set[str]]:
    """The keys of each Secret that an environment of this cluster names."""
    found: dict[str, set[str]] = {}
    for name in environment.names():
        env = environment.load(name)
        if isinstance(env.target, ClusterTarget) and env.target.of_this_machine:
            for (namespace, secret), keys in env.secrets.items():
                found.setdefault(f"{namespace}/{secret}", set()).update(keys)
    return found


def _values() -> dict[str, bytes]:
    """A fresh value for each key that the platform knows."""
    private, public = signer.make_pair()
    return {
        "API_KEY": secrets.token_urlsafe(24).encode(),
        "model.key": private,
        "model.pub": public,
        # The embedded registry asks for no login.
        ".dockerconfigjson": b'{"auths": {}}',
    }
