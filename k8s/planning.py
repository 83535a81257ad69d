"""The plan of a deploy: what an apply would create, change and leave, by asking the server, field by field."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from common import console
from common.errors import PinwheelError, PolicyError
from common.run import Result
from k8s import differences, manifests, strict_yaml
from k8s.kubectl import Kubectl, brief, conflicts, listed, refusal
from k8s.manifests import Manifest
from k8s.pin import Images, image_line, images
from k8s.release import History
from k8s.render import RenderedSet


@dataclass(frozen=True, slots=True)
class Plan:
    """What an apply would do.

    Attributes:
        before: the images that are there.
        changed: objects that would be created or changed, and which of the two.
        missing: the namespaces among the created ones.
        unasked: objects that the server cannot judge before their namespace is there.
    """

    before: Images
    changed: tuple[tuple[str, str], ...]
    missing: tuple[Manifest, ...]
    unasked: tuple[Manifest, ...]


def of_cluster(bodies: Iterable[Mapping[str, Any]]) -> list[Manifest]:
    """What the cluster answered, as manifests."""
    return [Manifest("cluster", dict(body), {}) for body in bodies]


def make(kubectl: Kubectl, rendered: RenderedSet, version: str, history: History) -> Plan:
    """Make the plan and print it. Changes nothing.

    Args:
        kubectl: of the cluster.
        rendered: the set.
        version: of Kubernetes, for finding images.
        history: knows which objects earlier releases had.

    Raises:
        PolicyError: the server would refuse the set.
        MissingEnvironmentError: it does not answer.
    """
    there = {one.identity: one for one in of_cluster(kubectl.live(rendered.text()))}
    missing = [one for one in rendered.objects if one.kind == "Namespace" and one.identity not in there]
    names = {one.name for one in missing}
    unasked = tuple(one for one in rendered.objects if one.namespace in names)
    would = {one.identity: one for one in judged(kubectl, [one for one in rendered.objects if one.namespace not in names])}
    changed: list[tuple[str, str]] = []
    for one in rendered.objects:
        live = there.get(one.identity)
        if live is None:
            changed.append((one.title, "created"))
            console.info(f"created      {one.title}")
            continue
        found = differences.between(live.body, would[one.identity].body)
        if found:
            changed.append((one.title, "changed"))
            console.info(f"changed      {one.title}")
        for difference in found:
            for line in difference.lines(hidden=one.kind == "Secret"):
                console.info(f"    {line}")
    if changed:
        console.info(f"unchanged    {len(rendered.objects) - len(changed)} of {len(rendered.objects)} objects")
    else:
        console.info("unchanged    the cluster holds the whole set already")
    for title in _left(kubectl, rendered, history):
        console.info(f"left         {title}: not in this set; it stays until you delete it")
    before = images(there.values(), version)
    for pin in rendered.pins:
        console.info(image_line(pin, before.get((pin.identity, pin.path), "")))
    return Plan(before, tuple(changed), tuple(missing), unasked)


def make_namespaces(kubectl: Kubectl, plan: Plan) -> None:
    """Make what is missing of the namespaces, and have the server judge the objects that could not be judged before.

    Raises:
        PolicyError: the server refuses a namespace, or what would go into it.
        MissingEnvironmentError: it does not answer.
    """
    if not plan.missing:
        return
    said = kubectl.apply(strict_yaml.dump(one.body for one in plan.missing))
    if said.code:
        raise refusal(said, "the cluster refuses a namespace", "see its words; nothing else was sent")
    judged(kubectl, plan.unasked, f"; made before: {', '.join(one.title for one in plan.missing)}")


def judged(kubectl: Kubectl, objects: Sequence[Manifest], made: str = "") -> list[Manifest]:
    """What the objects would be after an apply, by the server's word.

    Args:
        kubectl: of the cluster.
        objects: to be applied.
        made: said in a refusal.

    Raises:
        PolicyError: the server would refuse them.
        MissingEnvironmentError: it does not answer.
    """
    if not objects:
        return []
    said = kubectl.dry_run(strict_yaml.dump(one.body for one in objects))
    if said.code:
        raise _refused(kubectl, said, objects, made)
    return of_cluster(listed(said.stdout))


def _refused(kubectl: Kubectl, said: Result, objects: Sequence[Manifest], made: str) -> PinwheelError:
    """Why the server would not take the set, by object: kubectl does not say which object a conflict is about."""
    lines = []
    for one in objects:
        answer = kubectl.dry_run(strict_yaml.dump([one.body]))
        for found in conflicts(answer.stderr):
            lines.append(f"{one.title}: {found.field} belongs to {found.owner}")
        if answer.code and not conflicts(answer.stderr):
            lines.append(f"{one.title}: {brief(answer)}")
    for line in lines:
        console.warn(line)
    owned = conflicts(said.stderr)
    what = "the cluster refuses the set, nothing was sent" + made
    if not owned:
        return refusal(said, what, "see its words")
    fix = "take the field out of the manifest, or have its owner let go of it; nothing is ever taken by force"
    return PolicyError(what, where="; ".join(lines) or brief(said), fix=fix)


def _left(kubectl: Kubectl, rendered: RenderedSet, history: History) -> list[str]:
    """Objects of earlier releases that this set has not, and that are still there."""
    ours = {one.identity for one in rendered.objects}
    old: dict[tuple[str, str, str, str], Manifest] = {}
    for text in history.sets.values():
        for one in manifests.parse(text, "release record"):
            if isinstance(one, Manifest) and one.identity not in ours:
                old[one.identity] = one
    if not old:
        return []
    try:
        return sorted(one.title for one in of_cluster(kubectl.live(strict_yaml.dump(one.body for one in old.values()))))
    except PinwheelError as problem:  # A kind that the cluster no longer has, say: nothing that this set needs.
        console.warn(f"what earlier releases left there cannot be told: {problem.line()}")
        return []
