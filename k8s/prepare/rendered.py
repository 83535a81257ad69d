"""A set that may be sent: its objects, every image in them, and the pods that were bound to nodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from images.spec import GpuNeeds
from k8s.objects import strict_yaml
from k8s.objects.findings import Path
from k8s.objects.manifests import Identity, Manifest
from oci.reference import ImageRef, short

# What a pod names or mounts, and what judges it, comes before it: the order of Helm's InstallOrder (its kind_sorter.go). Kinds
# that are not built in stand where "" does: some make what a pod mounts (ExternalSecret).
_ORDER = (
    *("PriorityClass", "Namespace", "NetworkPolicy", "ResourceQuota", "LimitRange", "PodDisruptionBudget", "ServiceAccount"),
    *("Secret", "ConfigMap", "StorageClass", "PersistentVolume", "PersistentVolumeClaim", "CustomResourceDefinition"),
    *("ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding", "Service", ""),
    *("DaemonSet", "Pod", "ReplicationController", "ReplicaSet", "Deployment", "HorizontalPodAutoscaler", "StatefulSet"),
    *("Job", "CronJob", "IngressClass", "Ingress", "APIService"),
    *("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"),
)
_RANK = {kind: rank for rank, kind in enumerate(_ORDER)}
# Objects that a line names one by one.
_FEW = 3
# Image references as they stand in objects, by the object's identity and the path in it.
Images = Mapping[tuple[Identity, Path], str]


def built_in(manifest: Manifest) -> bool:
    """Whether every cluster has the kind of an object."""
    return manifest.kind in _RANK


@dataclass(frozen=True, slots=True)
class Pin:
    """One image reference, pinned.

    Attributes:
        title: the object it stands in.
        identity: that object's identity.
        path: where in the object.
        written: the reference in the source.
        pinned: what takes its place.
    """

    title: str
    identity: Identity
    path: Path
    written: str
    pinned: ImageRef


def image_lines(pins: Sequence[Pin], before: Images) -> list[str]:
    """One line for people for each image that changes in the same way, with the objects that use it.

    Args:
        pins: of a set.
        before: the images that were there.
    """
    users: dict[tuple[str, str], dict[str, None]] = {}
    for pin in pins:
        # A dictionary, as the order of the objects is that of the set.
        users.setdefault((str(pin.pinned), before.get((pin.identity, pin.path), "")), {})[pin.title] = None
    return [f"image        {_change(*key)}  ({_named(tuple(titles))})" for key, titles in users.items()]


def _change(now: str, before: str) -> str:
    repository, _, new = now.partition("@")
    if before == now:
        return f"{repository}  {short(new)} as before"
    _, _, old = before.partition("@")
    return f"{repository}  {short(old) if old else before or 'new'} → {short(new)}"


def _named(titles: Sequence[str]) -> str:
    return ", ".join(titles) if len(titles) <= _FEW else f"{len(titles)} objects, {titles[0]} the first"


@dataclass(frozen=True, slots=True)
class Placement:
    """A pod template that was bound to the nodes that can run it.

    Attributes:
        title: the object it is part of.
        needs: what its images ask for.
    """

    title: str
    needs: tuple[GpuNeeds, ...]

    def text(self) -> str:
        """The placement as one line."""
        return f"nodes        {self.title}: {'; '.join(map(needs_line, self.needs))}"


def needs_line(needs: GpuNeeds) -> str:
    """What an image asks of a node, for people."""
    return f"{needs.image} asks for driver {needs.driver} or newer and compute capability {needs.capabilities()}"


@dataclass(frozen=True, slots=True)
class RenderedSet:
    """Manifests ready to be sent.

    Attributes:
        objects: in the order of their files.
        pins: every image in them.
        placements: pod templates that were bound to nodes which can run them.
    """

    objects: tuple[Manifest, ...]
    pins: tuple[Pin, ...]
    placements: tuple[Placement, ...]

    def images(self) -> Images:
        """Every image that is to run, as the pins have it: nothing is searched for again."""
        return {(pin.identity, pin.path): str(pin.pinned) for pin in self.pins}

    def text(self) -> str:
        """All objects as one YAML stream, in the order in which they are applied; those of one kind in that of their files."""
        ordered = sorted(self.objects, key=lambda one: _RANK.get(one.kind, _RANK[""]))
        return strict_yaml.dump(one.body for one in ordered)
