"""Which model is served: one annotation of the pod template, which the init container `fetch` reads and follows.

The environment's file names it, one for all (`model`) or one for a workload (`models`). Where it does not, the cluster's own
word counts: the training workflow's last step names a new model in the live Deployment. A workload that needs a model while
nobody names one has no pods: they could not get ready, and a deploy would fail for it. The pipeline gives it its first pod
together with its first model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from common import console
from k8s.envs.environment import ClusterTarget, Environment
from k8s.objects import manifests, pods
from k8s.objects.findings import Path
from k8s.objects.manifests import Identity, Manifest
from k8s.objects.pods import mapping
from k8s.pipeline.model_annotation import ANNOTATION
from k8s.prepare.rendered import RenderedSet

# How a pod reads it (downward API).
_FIELD = f"metadata.annotations['{ANNOTATION}']"
_PLACE: Path = ("metadata", "annotations", ANNOTATION)
# Asks a cluster which model each of these workloads serves there; those that serve none are left out.
Live = Callable[[ClusterTarget, Sequence[Manifest]], Mapping[Identity, str]]


@dataclass(frozen=True, slots=True)
class Settled:
    """Objects with their models, before they are judged.

    Attributes:
        objects: all of them, the model written into each pod template that reads one.
        models: every reference that was written.
        idle: workloads that have no pods as long as no model is named for them.
    """

    objects: tuple[Manifest, ...]
    models: frozenset[str]
    idle: frozenset[Identity]


def settle(objects: Sequence[Manifest], env: Environment, live: Live) -> Settled:
    """Name the model in every pod template that reads it, and say so; or that there is none.

    Args:
        objects: as the environment sets them.
        env: names the model, or not; then its cluster is asked what it serves.
        live: asks the cluster.
    """
    readers = [manifest for manifest in objects if reads(manifest)]
    own = {manifest.identity: env.model_of(manifest.namespace, manifest.name) for manifest in readers}
    named = {identity: str(model.reference) for identity, model in own.items() if model}
    if env.model and env.model not in own.values():
        console.warn(f"`model` in {env.file} changes nothing: no pod of this set reads {_FIELD}")
    for place in sorted(env.models.keys() - {f"{manifest.namespace}/{manifest.name}" for manifest in readers}):
        console.warn(f"`models` in {env.file} names {place}, and no pod of it reads {_FIELD}")
    others = [manifest for manifest in readers if manifest.identity not in named]
    if others and isinstance(env.target, ClusterTarget):
        named |= live(env.target, others)
    for manifest in readers:
        if manifest.identity in named:
            whence = env.file if own[manifest.identity] else f"as it is in the cluster; write it under `model` in {env.file}"
            console.info(f"model        {manifest.title}: {named[manifest.identity]} ({whence})")
    idle = frozenset(manifest.identity for manifest in readers if manifest.identity not in named and not named_in(manifest))
    for manifest in readers:
        if manifest.identity in idle:
            console.info(
                f"model        {manifest.title}: none yet, so no pods; `invoke train` makes one, or {env.file} names one"
            )
    settled = tuple(_with_model(manifest, named.get(manifest.identity, "")) for manifest in objects)
    return Settled(settled, frozenset(named.values()), idle)


def _with_model(manifest: Manifest, model: str) -> Manifest:
    """The object with a model in its pod templates. One that its author wrote there stays, for the rules to refuse."""
    if model and not named_in(manifest):
        for template in pods.templates(manifest):
            manifest = manifests.with_value(manifest, (*template.path, *_PLACE), model)
    return manifest


def without_pods(manifest: Manifest) -> Manifest:
    """A workload that waits for its first model."""
    return manifests.with_value(manifest, ("spec", "replicas"), 0)


def as_written(manifest: Manifest) -> Manifest:
    """A workload of a recorded set as its manifest has it: without the 0 pods that `without_pods` wrote into it."""
    spec = mapping(manifest.body.get("spec"))
    if not reads(manifest) or named_in(manifest) or spec.get("replicas") != 0:
        return manifest
    return manifests.with_value(manifest, ("spec",), {key: value for key, value in spec.items() if key != "replicas"})


def named_by(objects: Iterable[Manifest]) -> dict[Identity, str]:
    """The models that these objects' pod templates name."""
    return {manifest.identity: model for manifest in objects if (model := named_in(manifest))}


def kept(recorded: RenderedSet, live: Mapping[Identity, str]) -> RenderedSet:
    """A recorded set, in which a workload that had no model then keeps the one that it serves now, and its pods.

    Args:
        recorded: the set.
        live: what the cluster's workloads serve.
    """
    result = []
    for manifest in recorded.objects:
        model = live.get(manifest.identity, "")
        if model and reads(manifest) and not named_in(manifest):
            manifest = _with_model(as_written(manifest), model)
        result.append(manifest)
    return replace(recorded, objects=tuple(result))


def reads(manifest: Manifest) -> bool:
    """Whether the pods of an object are told by its annotation which model to fetch."""
    return any(asks(template.spec) for template in pods.templates(manifest))


def named_in(manifest: Manifest) -> str:
    """The model that an object's pod template names; empty: none."""
    for template in pods.templates(manifest):
        found: Any = manifest.body
        for step in (*template.path, *_PLACE):
            found = mapping(found).get(str(step))
        if isinstance(found, str):
            return found
    return ""


def asks(value: Any) -> bool:
    """Whether a part of a pod's spec is told by the annotation which model to fetch."""
    if isinstance(value, dict):
        return value.get("fieldPath") == _FIELD or any(map(asks, value.values()))
    return isinstance(value, list) and any(map(asks, value))
