"""Which model is served: one annotation of the pod template, which the init container `fetch` reads and follows.

The environment's file names it. Where it does not, the cluster's own word counts: the training workflow's last step names a new
model in the live Deployment. A workload that needs a model while nobody names one would start pods that cannot get ready, and
the deploy would fail for it; so it is left out, with what hangs on it, until there is a model. Only a set to look at, in which
one image stands in for another, shows everything.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from common import console
from k8s.envs.environment import ClusterTarget, Environment
from k8s.objects import manifests, pods
from k8s.objects.findings import Path
from k8s.objects.manifests import Identity, Manifest
from k8s.objects.pods import Template, mapping
from k8s.prepare.rendered import RenderedSet
from k8s.rules import whole_set

ANNOTATION = "pinwheel.io/model"
# How a pod reads it (downward API).
_FIELD = f"metadata.annotations['{ANNOTATION}']"
_PLACE: Path = ("metadata", "annotations", ANNOTATION)
# Asks a cluster which model each of these workloads serves there; those that serve none are left out.
Live = Callable[[Sequence[Manifest]], Mapping[Identity, str]]


def settle(rendered: RenderedSet, env: Environment, live: Live) -> RenderedSet:
    """Name the model in every pod template that reads it, leave out what has none, and say both.

    Args:
        rendered: checked and pinned.
        env: names the model, or not; then its cluster is asked what it serves.
        live: asks the cluster.
    """
    readers = [one for one in rendered.objects if reads(one)]
    named: dict[Identity, str] = {}
    if env.model is not None:
        named = {one.identity: str(env.model.reference) for one in readers}
        if not readers:
            console.warn(f"`model` in {env.file} changes nothing: no pod of this set reads {_FIELD}")
    elif readers and isinstance(env.target, ClusterTarget):
        named = dict(live(readers))
    for one in readers:
        if one.identity in named:
            whence = env.file if env.model else f"as it is in the cluster; write it under `model` in {env.file}"
            console.info(f"model        {one.title}: {named[one.identity]} ({whence})")
    if env.substitute:
        # A set to look at shows all there is; nobody applies it.
        for one in readers:
            if one.identity not in named:
                console.info(f"model        {one.title}: none is named in {env.file}, its pods would wait for one")
        return _with_models(rendered, named)
    placed, gone = place(rendered, named)
    for title in gone:
        what = "write `model: {reference: …@sha256:…}` into " + f"{env.file}; `invoke train` makes a model"
        console.warn(f"left out     {title}: no model is named: {what}")
    return placed


def place(rendered: RenderedSet, named: Mapping[Identity, str]) -> tuple[RenderedSet, tuple[str, ...]]:
    """Write each model into its pod template.

    Args:
        rendered: the set.
        named: the model of each object that reads one.

    Returns:
        The set, without the objects that read a model and have none and without what would hang in the air then; and the titles
        of all that is left out.
    """
    away = {one.identity for one in rendered.objects if reads(one) and one.identity not in named}
    templates = [template for one in rendered.objects for template in pods.templates(one)]
    hanging = {one.identity for one in rendered.objects if away and _hangs(one, away, templates)}
    kept = [one for one in _with_models(rendered, named).objects if one.identity not in away | hanging]
    there, titles = {one.identity for one in kept}, {one.title for one in kept}
    result = dataclasses.replace(
        rendered,
        objects=tuple(kept),
        pins=tuple(pin for pin in rendered.pins if pin.identity in there),
        placements=tuple(one for one in rendered.placements if one.title in titles),
    )
    return result, tuple(one.title for one in rendered.objects if one.identity not in there)


def _with_models(rendered: RenderedSet, named: Mapping[Identity, str]) -> RenderedSet:
    objects: list[Manifest] = []
    for one in rendered.objects:
        if one.identity in named:
            for template in pods.templates(one):
                one = manifests.with_value(one, (*template.path, *_PLACE), named[one.identity])
        objects.append(one)
    return dataclasses.replace(rendered, objects=tuple(objects))


def reads(one: Manifest) -> bool:
    """Whether the pods of an object are told by its annotation which model to fetch."""
    return any(_asks(template.spec) for template in pods.templates(one))


def named_in(one: Manifest) -> str:
    """The model that an object's pod template names; empty: none."""
    for template in pods.templates(one):
        found: Any = one.body
        for step in (*template.path, *_PLACE):
            found = mapping(found).get(str(step))
        if isinstance(found, str):
            return found
    return ""


def _asks(value: Any) -> bool:
    if isinstance(value, dict):
        return value.get("fieldPath") == _FIELD or any(map(_asks, value.values()))
    return isinstance(value, list) and any(map(_asks, value))


def _hangs(one: Manifest, away: set[Identity], templates: Iterable[Template]) -> bool:
    """Whether an autoscaler or a disruption budget is about nothing but what is left out.

    A Service or a NetworkPolicy that selects no pod is ready for those to come; an autoscaler without a target fails.
    """
    if one.kind == "HorizontalPodAutoscaler":
        return any((kind, name) == whole_set.target(one) and space == one.namespace for _, kind, space, name in away)
    if one.kind != "PodDisruptionBudget":
        return False
    selector = mapping(mapping(one.body.get("spec")).get("selector"))
    chosen = {
        other.manifest.identity
        for other in templates
        if other.manifest.namespace == one.namespace and whole_set.matches(selector, other.labels)
    }
    return bool(chosen) and chosen <= away
