"""Pods that ask for a GPU and run an image of ours land only on nodes whose driver and GPU can run it.

What an image asks for stands beside its digest in `lockfiles/images.lock`, what a node has in the labels of NVIDIA's GPU
feature discovery. The terms are put in as registry and digest are: a new image needs no edit of a manifest. Terms are ORed
and the expressions of one ANDed, so each of the author's is joined with each of ours, and what no node can satisfy is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from typing import Any

from images.spec import GpuNeeds
from k8s.envs.environment import Environment
from k8s.objects import argo_schema, manifests, pods, schema
from k8s.objects.findings import Finding, Path
from k8s.objects.manifests import Identity, Manifest
from k8s.objects.pods import Template, items, mapping
from k8s.objects.quantity import quantity
from k8s.objects.schema import Walk
from k8s.prepare.image_parameters import Followed
from k8s.prepare.rendered import Pin, Placement, needs_line
from lockfiles.images_lock import PinnedImage

DRIVER = "nvidia.com/cuda.driver-version.major"
MAJOR = "nvidia.com/gpu.compute.major"
MINOR = "nvidia.com/gpu.compute.minor"
_TERMS: Path = ("affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution", "nodeSelectorTerms")
# More than any version or capability there will be.
_NUMBERS = tuple(map(str, range(10_000)))
_INTEGER = re.compile(r"-?[0-9]+")
Expressions = tuple[Mapping[str, Any], ...]


def place(
    objects: Sequence[Manifest], pins: Iterable[Pin], env: Environment, locked: Mapping[str, PinnedImage]
) -> tuple[tuple[Manifest, ...], tuple[Placement, ...], tuple[Finding, ...]]:
    """Bind each pod that asks for a GPU to the nodes that can run its images.

    Args:
        objects: pinned.
        pins: of them.
        env: says whether nodes carry the labels.
        locked: what images of ours ask for, by name.

    Returns:
        The objects, what was done, and where the author's own choice of nodes leaves none.
    """
    if not env.gpu_labels:
        return tuple(objects), (), ()
    asked: dict[tuple[Identity, Path], GpuNeeds] = {}
    for pin in pins:
        image = locked.get(pin.pinned.repository.rsplit("/", 1)[-1])
        if image is None or not str(pin.pinned).startswith(f"{env.registry}/"):
            continue
        if one := GpuNeeds.of(image.name, image.driver, image.compute):
            asked[(pin.identity, pin.path)] = one
    if not asked:
        return tuple(objects), (), ()
    kinds = schema.of_set(env.kubernetes, objects)
    followed = Followed([kinds.walk(one) if one.api_version == argo_schema.API_VERSION else Walk(one) for one in objects])
    placed: list[Manifest] = []
    done: list[Placement] = []
    refused: list[Finding] = []
    for number, manifest in enumerate(objects):
        for template in pods.templates(manifest):
            needs: dict[GpuNeeds, Path] = {}
            for path, container in template.containers():
                at = (*path, "image")
                for where, value in followed.values.get((number, at), ((number, at),)):
                    found = asked.get((objects[where].identity, value))
                    if found and _asks(container):
                        needs.setdefault(found, at)
            if not needs:
                continue
            terms, wrong = _terms(template, needs)
            refused += wrong
            if terms and not wrong:
                manifest = _bound(manifest, template, terms)
                done.append(Placement(manifest.title, tuple(needs)))
        placed.append(manifest)
    return tuple(placed), tuple(done), tuple(refused)


def _bound(manifest: Manifest, template: Template, terms: list[dict[str, Any]]) -> Manifest:
    """The object with these terms in one of its pod templates.

    A template of Argo's that has an affinity has nothing of the workflow's, so it gets the whole of it.
    """
    if manifest.api_version != argo_schema.API_VERSION:
        return manifests.with_value(manifest, template.place(*_TERMS), terms)
    whole: dict[str, Any] = {"affinity": template.spec.get("affinity") or {}}
    with_terms = manifests.with_value(Manifest("", whole, {}), _TERMS, terms).body
    return manifests.with_value(manifest, (*template.base, "affinity"), with_terms["affinity"])


def _asks(container: Mapping[str, Any]) -> bool:
    """Whether a container gets a GPU of NVIDIA's, whole, shared or an instance of one; how many may be a parameter."""
    resources = mapping(container.get("resources"))
    asked = {**mapping(resources.get("requests")), **mapping(resources.get("limits"))}
    return any(
        (name == "nvidia.com/gpu" or name.startswith(("nvidia.com/gpu.", "nvidia.com/mig-"))) and quantity(count) != 0
        for name, count in asked.items()
    )


def _terms(template: Template, needs: Mapping[GpuNeeds, Path]) -> tuple[list[dict[str, Any]], list[Finding]]:
    """The node selector terms of a pod, or where its author's own leave no node."""
    found = template.manifest
    why = "; ".join(map(needs_line, needs))
    fix = "mend it, or leave it out: deploy adds what the image asks for"
    for name in ("affinity", "nodeSelector"):
        if "podSpecPatch" in (at := template.place(name)):
            what = f"a patch of {name} would undo the choice of nodes: {why}"
            return [], [found.finding(at, what, f"write {name} in the template instead")]
    selected = tuple(_in(key, str(value)) for key, value in mapping(template.spec.get("nodeSelector")).items())
    ours: list[Expressions] = [()]
    for one, path in needs.items():
        ours = [both for left, right in product(ours, _expressions(one)) if _possible(both := _and(left, right))]
        if not ours:
            return [], [found.finding(path, f"no node can run the images of this pod: {why}", "give each a pod of its own")]
    ours = [one for one in ours if _possible((*one, *selected))]
    if not ours:
        at = template.place("nodeSelector")
        return [], [found.finding(at, f"selects only nodes that cannot run the image: {why}", fix)]
    own: Any = template.spec
    for step in _TERMS[:-1]:
        own = own.get(step) or {}
        if not isinstance(own, dict):
            return [], []  # The schema check says so.
    written = items(own, str(_TERMS[-1]))
    if not written:
        return [{"matchExpressions": [dict(one) for one in expressions]} for expressions in ours], []
    terms: list[dict[str, Any]] = []
    wrong: list[Finding] = []
    for number, term in enumerate(written):
        mine = tuple(items(term, "matchExpressions"))
        fitting = [both for one in ours if _possible((*(both := _and(mine, one)), *selected))]
        at = template.place(*_TERMS, number)
        if not mine and not term.get("matchFields"):  # API reference, NodeSelectorTerm.
            wrong.append(found.finding(at, "an empty term matches no node", "write its conditions, or remove it"))
        elif not fitting:
            wrong.append(found.finding(at, f"matches only nodes that cannot run the image: {why}", fix))
        terms += [{**term, "matchExpressions": [dict(one) for one in both]} for both in fitting]
    return terms, wrong


def _expressions(needs: GpuNeeds) -> list[Expressions]:
    """What a node's labels have to say, in as few terms as can be: majors whose every minor will do share one."""
    driver = {"key": DRIVER, "operator": "Gt", "values": [str(needs.driver - 1)]}
    whole = [str(major) for major, minor in needs.compute if not minor]
    terms: list[Expressions] = [
        (driver, _in(MAJOR, str(major)), {"key": MINOR, "operator": "Gt", "values": [str(minor - 1)]})
        for major, minor in needs.compute
        if minor
    ]
    return [*terms, (driver, _in(MAJOR, *whole))] if whole else terms


def _in(key: str, *values: str) -> Mapping[str, Any]:
    return {"key": key, "operator": "In", "values": list(values)}


def _and(left: Expressions, right: Expressions) -> Expressions:
    return (*left, *(expression for expression in right if expression not in left))


def _possible(expressions: Expressions) -> bool:
    """Whether the labels of some node can satisfy all of these."""
    for key in (DRIVER, MAJOR, MINOR):
        about = [expression for expression in expressions if expression.get("key") == key]
        if about and not any(all(_holds(expression, value) for expression in about) for value in _NUMBERS):
            return False
    return True


def _holds(expression: Mapping[str, Any], value: str) -> bool:
    """Whether a label with this value satisfies an expression, as the scheduler judges it."""
    held = expression.get("values")
    values = list(map(str, held)) if isinstance(held, list) else []
    match expression.get("operator"):
        case "In":
            return value in values
        case "NotIn":
            return value not in values
        case "DoesNotExist":
            return False
        case "Gt" | "Lt" as operator:
            # The scheduler reads both sides as integers; what is none matches nothing.
            if not values or not _INTEGER.fullmatch(values[0]):
                return False
            return int(value) > int(values[0]) if operator == "Gt" else int(value) < int(values[0])
        case _:
            return True
