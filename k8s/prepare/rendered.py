"""A set that may be sent: its objects, every image in them, and the pods that were bound to nodes."""

from __future__ import annotations

from collections.abc import Mapping
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
# Image references as they stand in objects, by the object's identity and the path in it.
Images = Mapping[tuple[Identity, Path], str]


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


def image_line(pin: Pin, before: str) -> str:
    """One line for people: which image changes from which digest to which."""
    _, _, old = before.partition("@")
    new = pin.pinned.digest
    repository = str(pin.pinned).partition("@")[0]
    if before == str(pin.pinned):
        change = f"{short(new)} as before"
    else:
        change = f"{short(old) if old else before or 'new'} → {short(new)}"
    return f"image        {pin.title}: {repository}  {change}"


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
