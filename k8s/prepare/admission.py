"""The set's own admission policies (k8s/manifests/admission/), told what the environment allows.

A ValidatingAdmissionPolicy whose name begins with `pinwheel-` gets the environment into its variables: `registry`, where our
images and models lie; `others`, every other image that may run; `local`, the beginnings of references that only nodes hold. As
literals, not from a ConfigMap: who may change one of those shall not change what may run.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from common import console, paths, single_node
from k8s.envs.environment import ClusterTarget, Environment
from k8s.envs.other_images import KEY, under
from k8s.objects import argo_schema, manifests
from k8s.objects.manifests import Manifest
from k8s.objects.pods import items, mapping
from k8s.objects.schema import Schema
from k8s.prepare.rendered import Pin

_KIND, _OURS = "ValidatingAdmissionPolicy", "pinwheel-"
# A list of texts that holds none.
_NONE = '[""].filter(i, false)'


def known(objects: Sequence[Manifest], kinds: Schema) -> tuple[Manifest, ...]:
    """The objects without the policies that this version of Kubernetes does not have: they come with 1.30.

    Args:
        objects: as written.
        kinds: the schema of the version.
    """
    absent = (_KIND, f"{_KIND}Binding")
    return tuple(
        one
        for one in objects
        if not (one.kind in absent and one.name.startswith(_OURS) and (one.api_version, one.kind) not in kinds.kinds)
    )


def fill(objects: Sequence[Manifest], pins: Iterable[Pin], env: Environment) -> tuple[Manifest, ...]:
    """The objects with the environment in their policies.

    Args:
        objects: pinned.
        pins: every image of the set; the gate judges whether others' are allowed.
        env: the environment.
    """
    others = {str(pin.pinned) for pin in pins if not under(pin.pinned, env.registry)}
    others |= {str(one.reference) for one in env.other_images}
    local = isinstance(env.target, ClusterTarget) and env.target.of_this_machine
    values = {
        "registry": json.dumps(f"{env.registry}/"),
        "others": json.dumps(sorted(others)) if others else _NONE,
        "local": json.dumps([single_node.LOCAL_IMAGES]) if local else _NONE,
    }
    return tuple(_filled(one, values) if is_policy(one) else one for one in objects)


def is_policy(manifest: Manifest) -> bool:
    """Whether an object is one of these policies."""
    return manifest.kind == _KIND and manifest.name.startswith(_OURS)


def tell(objects: Sequence[Manifest], env: Environment) -> None:
    """Say what the policies would turn away though nothing is wrong with the set."""
    if not any(map(is_policy, objects)) and (paths.K8S / "manifests" / "admission").is_dir():
        console.warn(f"no admission policies: Kubernetes {env.kubernetes} has none, 1.30 is the first ({env.file})")
    flows = any(one.api_version == argo_schema.API_VERSION for one in objects)
    local = isinstance(env.target, ClusterTarget) and env.target.of_this_machine
    if flows and any(map(is_policy, objects)) and not local and not any(one.injected for one in env.other_images):
        console.warn(
            f"Argo's executor is not among `{KEY}` ({env.file}): without it the cluster turns the pods of every step away; "
            "docs/cluster.md, step 4"
        )


def _filled(policy: Manifest, values: dict[str, str]) -> Manifest:
    for number, variable in enumerate(items(mapping(policy.body.get("spec")), "variables")):
        if (name := variable.get("name")) in values:
            policy = manifests.with_value(policy, ("spec", "variables", number, "expression"), values[str(name)])
    return policy
