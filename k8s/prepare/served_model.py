"""Which model is served: one annotation of the pod template, which the init container `fetch` reads and follows.

The environment's file names it. Where it does not, the cluster's own word counts: the training workflow's last step names a new
model in the live Deployment. A workload that needs a model while nobody names one would start pods that cannot get ready, and
the deploy would fail for it; so it is left out, with what hangs on it, until there is a model. Only a set to look at, in which
one image stands in for another, shows everything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from common import console
from k8s.envs.environment import ClusterTarget, Environment
from k8s.objects import manifests, pods
from k8s.objects.findings import Path
from k8s.objects.manifests import Identity, Manifest
from k8s.objects.pods import Template, mapping
from k8s.pipeline.model_annotation import ANNOTATION
from k8s.rules import whole_set

# How a pod reads it (downward API).
_FIELD = f"metadata.annotations['{ANNOTATION}']"
_PLACE: Path = ("metadata", "annotations", ANNOTATION)
# Asks a cluster which model each of these workloads serves there; those that serve none are left out.
Live = Callable[[Sequence[Manifest]], Mapping[Identity, str]]


@dataclass(frozen=True, slots=True)
class Settled:
    """Objects with their models, before they are judged.

    Attributes:
        objects: all of them, the model written into each pod template that reads one.
        models: every reference that was written.
        left_out: objects that are not sent as long as no model is named: those that read one, and what is about nothing else.
            They are judged with the others, as they come with the first model.
    """

    objects: tuple[Manifest, ...]
    models: frozenset[str]
    left_out: frozenset[Identity]


def settle(objects: Sequence[Manifest], env: Environment, live: Live) -> Settled:
    """Name the model in every pod template that reads it, leave out what has none, and say both.

    Args:
        objects: as the environment sets them.
        env: names the model, or not; then its cluster is asked what it serves.
        live: asks the cluster.
    """
    readers = [manifest for manifest in objects if reads(manifest)]
    named: dict[Identity, str] = {}
    if env.model is not None:
        named = {manifest.identity: str(env.model.reference) for manifest in readers}
        if not readers:
            console.warn(f"`model` in {env.file} changes nothing: no pod of this set reads {_FIELD}")
    elif readers and isinstance(env.target, ClusterTarget):
        named = dict(live(readers))
    for manifest in readers:
        if manifest.identity in named:
            whence = env.file if env.model else f"as it is in the cluster; write it under `model` in {env.file}"
            console.info(f"model        {manifest.title}: {named[manifest.identity]} ({whence})")
    without = frozenset(manifest.identity for manifest in readers if manifest.identity not in named)
    left_out: frozenset[Identity] = frozenset()
    if env.substitute:
        # A set to look at shows all there is; nobody applies it.
        for manifest in readers:
            if manifest.identity in without:
                console.info(f"model        {manifest.title}: none is named in {env.file}, its pods would wait for one")
    elif without:
        left_out = without | _hanging(objects, without)
        for manifest in objects:
            if manifest.identity in left_out:
                what = "write `model: {reference: …@sha256:…}` into " + f"{env.file}; `invoke train` makes a model"
                console.warn(f"left out     {manifest.title}: no model is named: {what}")
    settled = tuple(_with_model(manifest, named.get(manifest.identity, "")) for manifest in objects)
    return Settled(settled, frozenset(named.values()), left_out)


def _with_model(manifest: Manifest, model: str) -> Manifest:
    """The object with a model in its pod templates. One that its author wrote there stays, for the rules to refuse."""
    if model and not named_in(manifest):
        for template in pods.templates(manifest):
            manifest = manifests.with_value(manifest, (*template.path, *_PLACE), model)
    return manifest


def _hanging(objects: Sequence[Manifest], without: frozenset[Identity]) -> frozenset[Identity]:
    """What would be about nothing without these workloads."""
    templates = [template for manifest in objects for template in pods.templates(manifest)]
    return frozenset(manifest.identity for manifest in objects if _hangs(manifest, without, templates))


def reads(manifest: Manifest) -> bool:
    """Whether the pods of an object are told by its annotation which model to fetch."""
    return any(_asks(template.spec) for template in pods.templates(manifest))


def named_in(manifest: Manifest) -> str:
    """The model that an object's pod template names; empty: none."""
    for template in pods.templates(manifest):
        found: Any = manifest.body
        for step in (*template.path, *_PLACE):
            found = mapping(found).get(str(step))
        if isinstance(found, str):
            return found
    return ""


def _asks(value: Any) -> bool:
    if isinstance(value, dict):
        return value.get("fieldPath") == _FIELD or any(map(_asks, value.values()))
    return isinstance(value, list) and any(map(_asks, value))


def _hangs(manifest: Manifest, away: frozenset[Identity], templates: Iterable[Template]) -> bool:
    """Whether an autoscaler or a disruption budget is about nothing but what is left out.

    A Service or a NetworkPolicy that selects no pod is ready for those to come; an autoscaler without a target fails.
    """
    if manifest.kind == "HorizontalPodAutoscaler":
        scaled = whole_set.target(manifest)
        return any((identity.kind, identity.name) == scaled and identity.namespace == manifest.namespace for identity in away)
    if manifest.kind != "PodDisruptionBudget":
        return False
    selector = mapping(mapping(manifest.body.get("spec")).get("selector"))
    chosen = {
        other.manifest.identity
        for other in templates
        if other.manifest.namespace == manifest.namespace and whole_set.matches(selector, other.labels)
    }
    return bool(chosen) and chosen <= away
