"""What really runs, against the set: containers, volumes and images, in the live objects and in the pods made of them.

The set's own images are looked for elsewhere (rollout.py). Here is the other direction: what is there and the set has not. A
pod is a workload's by its owner references, never by its labels alone: a stranger's pod may carry them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from k8s.envs.environment import Environment
from k8s.objects.manifests import Manifest
from k8s.objects.pods import Template, items, mapping, templates
from k8s.prepare.rendered import RenderedSet
from k8s.rollouts.kubectl import Kubectl, listed

_WORKLOADS = ("Deployment", "StatefulSet", "DaemonSet")
_ENDED = ("Succeeded", "Failed")
# What the API server adds to a pod: the projected token of its ServiceAccount.
_TOKEN = "kube-api-access-"  # noqa: S105 - the start of a name
_STATUSES = ("initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses")


@dataclass(frozen=True, slots=True)
class Found:
    """What runs and is not of the set.

    Attributes:
        wrong: in the set's own workloads and their pods, a line each.
        beside: other pods in the set's namespaces that run images which the set has not, a line each.
        images: every reference that a running pod of the set's namespaces names, sorted.
        unseen: the namespaces whose pods may not be listed.
    """

    wrong: tuple[str, ...]
    beside: tuple[str, ...]
    images: tuple[str, ...]
    unseen: tuple[str, ...]


def look(kubectl: Kubectl, rendered: RenderedSet, live: Iterable[Manifest], env: Environment) -> Found:
    """Compare what the cluster runs with a set.

    Args:
        kubectl: of the cluster.
        rendered: the set.
        live: its objects as the cluster has them.
        env: where it runs.
    """
    there = {manifest.identity: manifest for manifest in live}
    known = frozenset(rendered.images().values())
    wrong: list[str] = []
    beside: list[str] = []
    images: set[str] = set()
    unseen = []
    owned: dict[str, Manifest] = {}
    for manifest in rendered.objects:
        if manifest.kind in _WORKLOADS and (now := there.get(manifest.identity)):
            wrong += _added(_template(manifest), _template(now), now.title)
            owned[str(now.metadata.get("uid"))] = manifest
    for space in namespaces(rendered):
        running = pods(kubectl, space)
        if running is None:
            unseen.append(space)
            continue
        # A Deployment's pods are its ReplicaSets'.
        sets = _list(kubectl, "replicasets.apps", space)
        above = {str(made["metadata"].get("uid")): _owner(made) for made in sets or ()}
        for pod in running:
            owner = _owner(pod)
            workload = owned.get(owner) or owned.get(above.get(owner, ""))
            title = f"Pod {space}/{pod['metadata']['name']}"
            inside = [one for _, _, one in _template(Manifest("cluster", dict(pod), {})).grouped()]
            images |= {str(one.get("image")) for one in inside}
            if workload:
                wrong += _of_pod(pod, workload, title, env.registry)
            else:
                beside += [
                    f"{title} runs {one.get('image')} ({one.get('name')}), which the set has not"
                    for one in inside
                    if one.get("image") not in known
                ]
    return Found(tuple(wrong), tuple(beside), tuple(sorted(images)), tuple(unseen))


def namespaces(rendered: RenderedSet) -> tuple[str, ...]:
    """The namespaces that a set makes or puts objects into, sorted."""
    spaces = {manifest.name if manifest.kind == "Namespace" else manifest.namespace for manifest in rendered.objects}
    return tuple(sorted(spaces - {""}))


def pods(kubectl: Kubectl, namespace: str) -> tuple[dict[str, Any], ...] | None:
    """The pods of a namespace that have not ended and are not told to end, by name; None where we may not look."""
    found = _list(kubectl, "pods", namespace)
    if found is None:
        return None
    going = (pod for pod in found if not pod["metadata"].get("deletionTimestamp"))
    left = [pod for pod in going if mapping(pod.get("status")).get("phase") not in _ENDED]
    return tuple(sorted(left, key=lambda body: str(body["metadata"]["name"])))


def images(pod: Mapping[str, Any]) -> frozenset[str]:
    """The images that a pod runs; one that its template names by tag, by the digest that the node pulled."""
    digests = {
        status.get("name"): str(status.get("imageID") or "").rpartition("@")
        for group in _STATUSES
        for status in items(mapping(pod.get("status")), group)
    }
    found = set()
    for _, one in _containers(pod):
        reference, (_, at, digest) = str(one.get("image")), digests.get(one.get("name"), ("", "", ""))
        found.add(f"{reference}@{digest}" if at and "@" not in reference else reference)
    return frozenset(found)


def _of_pod(pod: Mapping[str, Any], workload: Manifest, title: str, registry: str) -> Iterator[str]:
    """What a pod has that its workload in the set has not, and images that are others than their digest says."""
    ours = _template(workload)
    claims = frozenset(str(mapping(claim.get("metadata")).get("name")) for claim in _claims(workload))
    yield from _added(ours, _template(Manifest("cluster", dict(pod), {})), title, claims)
    pinned = {(group, one.get("name")): str(one.get("image")) for group, _, one in ours.grouped()}
    for group, one in _containers(pod):
        if (expected := pinned.get((group, one.get("name")))) and expected != one.get("image"):
            yield f"{title} runs {one.get('image')} in {one.get('name')}, not {expected}"
    # Others' images may be indexes, of which a runtime may name the part that it chose; ours are always one manifest.
    own = {name: reference for (_, name), reference in pinned.items() if reference.startswith(f"{registry}/")}
    digests = {name: reference.partition("@")[2] for name, reference in own.items()}
    for group in _STATUSES:
        for status in items(mapping(pod.get("status")), group):
            # Without a repository it is the digest of the configuration: of an image that no registry gave.
            _, at, running = str(status.get("imageID") or "").rpartition("@")
            if at and running != digests.get(status.get("name"), running):
                yield f"{title} runs {running} in {status.get('name')}, not {digests[status['name']]}"


def _added(ours: Template, there: Template, title: str, volumes: frozenset[str] = frozenset()) -> Iterator[str]:
    """Containers and volumes that a live template has and that of the set has not."""
    named = {(group, one.get("name")) for group, _, one in ours.grouped()}
    for group, _, one in there.grouped():
        if (group, one.get("name")) not in named:
            yield f"{title} runs a container that the set has not: {one.get('name')}, {one.get('image')}"
    mounted = {volume.get("name") for volume in items(ours.spec, "volumes")} | volumes
    for volume in items(there.spec, "volumes"):
        name = str(volume.get("name"))
        if name not in mounted and not (name.startswith(_TOKEN) and "projected" in volume):
            yield f"{title} has a volume that the set has not: {name}"


def _template(manifest: Manifest) -> Template:
    return next(templates(manifest))


def _containers(pod: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for group, _, one in _template(Manifest("cluster", dict(pod), {})).grouped():
        yield group, one


def _claims(workload: Manifest) -> list[Mapping[str, Any]]:
    return items(mapping(workload.body.get("spec")), "volumeClaimTemplates")


def _owner(body: Mapping[str, Any]) -> str:
    owners = body["metadata"].get("ownerReferences") or ()
    return next((str(owner.get("uid")) for owner in owners if owner.get("controller")), "")


def _list(kubectl: Kubectl, resource: str, namespace: str) -> Sequence[dict[str, Any]] | None:
    """The objects of a namespace; None where we may not look."""
    answer = kubectl.request(["get", resource, "-n", namespace, "-o", "json"])
    return None if answer.code else listed(answer.stdout)
