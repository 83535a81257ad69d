"""Kinds that a set brings itself: its CustomResourceDefinitions go first, and what uses them waits until they are served."""

from __future__ import annotations

import time
from collections.abc import Sequence

from common import console
from common.errors import MissingEnvironmentError
from k8s.objects import strict_yaml
from k8s.objects.manifests import Manifest
from k8s.objects.pods import items, mapping
from k8s.rollouts.kubectl import Kubectl, refusal

_KIND = "CustomResourceDefinition"


def definitions(objects: Sequence[Manifest]) -> list[Manifest]:
    """The CustomResourceDefinitions of a set."""
    return [manifest for manifest in objects if manifest.kind == _KIND]


def brought(objects: Sequence[Manifest]) -> set[tuple[str, str]]:
    """(kind, apiVersion) of the kinds that a set brings itself."""
    kinds = set()
    for definition in definitions(objects):
        spec = mapping(definition.body.get("spec"))
        for version in items(spec, "versions"):
            kinds.add((str(mapping(spec.get("names")).get("kind")), f"{spec.get('group')}/{version.get('name')}"))
    return kinds


def put(kubectl: Kubectl, objects: Sequence[Manifest]) -> None:
    """Apply the CustomResourceDefinitions of a set and wait until the cluster serves what they define.

    Args:
        kubectl: of the cluster.
        objects: of the set; where it has none, nothing is done.

    Raises:
        PolicyError: the cluster refuses one.
        MissingEnvironmentError: it does not answer, or does not come to serve them.
    """
    own = definitions(objects)
    if not own:
        return
    text = strict_yaml.dump(definition.body for definition in own)
    answer = kubectl.apply(text)
    if answer.code:
        raise refusal(answer, f"the cluster refuses a {_KIND}", "see its words; let your account `patch` them")
    with console.step(f"waiting for {len(own)} {_KIND}s to be served"):
        deadline = time.monotonic() + 4 * kubectl.patience.settle
        while waiting := _unserved(kubectl, text, own):
            if time.monotonic() > deadline:
                fix = f"look at it with `{kubectl.shown} describe crd`"
                raise MissingEnvironmentError(
                    f"the cluster does not serve {', '.join(waiting)}", where=kubectl.context, fix=fix
                )
            time.sleep(kubectl.patience.pause)


def _unserved(kubectl: Kubectl, text: str, found: Sequence[Manifest]) -> list[str]:
    """Those that are not established, or not served yet: the one comes a moment after the other."""
    established = {
        str(body["metadata"]["name"])
        for body in kubectl.live(text)
        for one in items(mapping(body.get("status")), "conditions")
        if (one.get("type"), one.get("status")) == ("Established", "True")
    }
    waiting = [one.name for one in found if one.name not in established]
    if waiting:
        return waiting
    groups = {str(mapping(one.body.get("spec")).get("group")) for one in found}
    served = frozenset[str]().union(*(kubectl.resources(group) for group in sorted(groups)))
    return [one.name for one in found if one.name not in served]
