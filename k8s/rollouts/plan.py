"""The plan of a deploy: what an apply would create, change and leave, by asking the server, field by field."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from common import console
from common.errors import PinwheelError, PolicyError
from common.run import Result
from k8s.objects import strict_yaml
from k8s.objects.manifests import Identity, Manifest
from k8s.pipeline.model_annotation import ANNOTATION, MANAGER
from k8s.prepare import preflight, served_model
from k8s.prepare.pin import images
from k8s.prepare.rendered import Images, RenderedSet, image_lines
from k8s.rollouts import cluster_features, crds, diff
from k8s.rollouts.conflicts import Conflict, conflicts
from k8s.rollouts.kubectl import Kubectl, UnservedError, brief, listed, of_cluster, refusal
from k8s.rollouts.prune import Leftovers, leftovers
from k8s.rollouts.release import History


@dataclass(frozen=True, slots=True)
class Plan:
    """What an apply would do.

    Attributes:
        before: the images that are there.
        changed: objects that would be created or changed, and which of the two.
        missing: the namespaces and CustomResourceDefinitions among the created ones.
        unasked: objects that the server cannot judge before their namespace or their kind is there.
        left: what earlier releases left and this set has not.
        served: the models that the cluster's workloads name now.
    """

    before: Images
    changed: tuple[tuple[str, str], ...]
    missing: tuple[Manifest, ...]
    unasked: tuple[Manifest, ...]
    left: Leftovers = field(default_factory=Leftovers)
    served: Mapping[Identity, str] = field(default_factory=dict)


def make(
    kubectl: Kubectl,
    rendered: RenderedSet,
    version: str,
    history: History,
    *,
    prune: bool = False,
    recorded: bool = False,
) -> Plan:
    """Make the plan and print it. Changes nothing.

    Args:
        kubectl: of the cluster.
        rendered: the set.
        version: of Kubernetes, for finding images.
        history: knows which objects earlier releases had.
        prune: what earlier releases left is to be deleted.
        recorded: the set is one of the release record, for which the model is taken back from the pipeline (takeover.py).

    Raises:
        PolicyError: the server would refuse the set, or has not all its kinds.
        MissingEnvironmentError: it does not answer.
    """
    bodies, unserved = _there(kubectl, rendered.objects)
    there = {manifest.identity: manifest for manifest in of_cluster(bodies)}
    names = {manifest.name for manifest in rendered.objects if manifest.kind == "Namespace" and manifest.identity not in there}
    unasked = tuple(
        manifest
        for manifest in rendered.objects
        if manifest.namespace in names or (manifest.kind, manifest.api_version) in unserved
    )
    later = {manifest.identity for manifest in unasked}
    now = [manifest for manifest in rendered.objects if manifest.identity not in later]
    would = {manifest.identity: manifest for manifest in judged(kubectl, now, recorded=recorded)}
    grounds = {"Namespace", "CustomResourceDefinition"}
    missing = [manifest for manifest in rendered.objects if manifest.kind in grounds and manifest.identity not in there]
    changed: list[tuple[str, str]] = []
    for manifest in rendered.objects:
        live = there.get(manifest.identity)
        if live is None:
            changed.append((manifest.title, "created"))
            console.info(f"created      {manifest.title}")
            continue
        differing = diff.between(live.body, would[manifest.identity].body)
        if differing:
            changed.append((manifest.title, "changed"))
            console.info(f"changed      {manifest.title}")
        for difference in differing:
            for line in difference.lines(hidden=manifest.kind == "Secret"):
                console.info(f"    {line}")
    if changed:
        console.info(f"unchanged    {len(rendered.objects) - len(changed)} of {len(rendered.objects)} objects")
    else:
        console.info("unchanged    the cluster holds the whole set already")
    left = leftovers(kubectl, rendered, history)
    left.show(asked=prune)
    before = images(there.values(), version)
    for line in image_lines(rendered.pins, before):
        console.info(line)
    cluster_features.tell(kubectl, rendered.objects, there.keys())
    return Plan(before, tuple(changed), tuple(missing), unasked, left, served_model.named_by(there.values()))


def _there(kubectl: Kubectl, objects: Sequence[Manifest]) -> tuple[list[dict[str, Any]], frozenset[tuple[str, str]]]:
    """What the cluster holds of the set, and the kinds it does not serve before the set's own definitions are in."""
    try:
        return kubectl.live(strict_yaml.dump(manifest.body for manifest in objects)), frozenset()
    except UnservedError as problem:
        if foreign := problem.kinds - crds.brought(objects):
            raise UnservedError(foreign, kubectl.context) from None
        rest = [manifest.body for manifest in objects if (manifest.kind, manifest.api_version) not in problem.kinds]
        return kubectl.live(strict_yaml.dump(rest)), problem.kinds


def lay_grounds(kubectl: Kubectl, plan: Plan) -> None:
    """Make the missing namespaces and CustomResourceDefinitions, and have the server judge what it could not judge before.

    Raises:
        PolicyError: the server refuses a namespace, a definition, or what needs them.
        MissingEnvironmentError: it does not answer.
    """
    if not plan.missing:
        return
    if namespaces := [manifest.body for manifest in plan.missing if manifest.kind == "Namespace"]:
        answer = kubectl.apply(strict_yaml.dump(namespaces))
        if answer.code:
            raise refusal(answer, "the cluster refuses a namespace", "see its words; nothing else was sent")
    crds.put(kubectl, plan.missing)
    judged(kubectl, plan.unasked, f"; made before: {', '.join(manifest.title for manifest in plan.missing)}")


def judged(kubectl: Kubectl, objects: Sequence[Manifest], made: str = "", *, recorded: bool = False) -> list[Manifest]:
    """What the objects would be after an apply, by the server's word.

    Args:
        kubectl: of the cluster.
        objects: to be applied.
        made: said in a refusal.
        recorded: as for `make`: a model that the pipeline promoted is no refusal.

    Raises:
        PolicyError: the server would refuse them.
        MissingEnvironmentError: it does not answer.
    """
    # The pipeline tries models in what is there for that alone: it owns nothing in it.
    trials = [manifest for manifest in objects if preflight.is_one(manifest)]
    rest = [manifest for manifest in objects if not preflight.is_one(manifest)]
    return [*_judged(kubectl, rest, made, recorded=recorded), *_judged(kubectl, trials, made, force=True)]


def _judged(
    kubectl: Kubectl, objects: Sequence[Manifest], made: str, *, recorded: bool = False, force: bool = False
) -> list[Manifest]:
    if not objects:
        return []
    text = strict_yaml.dump(manifest.body for manifest in objects)
    answer = kubectl.dry_run(text, force=force)
    if recorded and (owned := conflicts(answer.stderr)) and all(map(_promoted, owned)):
        # As it will be when the model is taken back. Whatever else is wrong is said again.
        answer = kubectl.dry_run(text, force=True)
    if answer.code:
        raise _refused(kubectl, answer, objects, made)
    return of_cluster(listed(answer.stdout))


def _refused(kubectl: Kubectl, answer: Result, objects: Sequence[Manifest], made: str) -> PinwheelError:
    """Why the server would not take the set, by object: kubectl does not say which object a conflict is about."""
    lines, served = [], ""
    for manifest in objects:
        single = kubectl.dry_run(strict_yaml.dump([manifest.body]))
        for conflict in conflicts(single.stderr):
            lines.append(f"{manifest.title}: {conflict.field} belongs to {conflict.owner}")
            if _promoted(conflict):
                served = _model(kubectl, manifest)
        if single.code and not conflicts(single.stderr):
            lines.append(f"{manifest.title}: {brief(single)}")
    for line in lines:
        console.warn(line)
    owned = conflicts(answer.stderr)
    what = "the cluster refuses the set, nothing was sent" + made
    if not owned:
        return refusal(answer, what, "see its words")
    if served:
        # Written down, both say the same, and one of them may go on.
        fix = f"the pipeline serves {served}: write that under `model.reference` in the environment's file, and deploy again"
        return PolicyError(what, where="; ".join(lines), fix=fix)
    fix = "take the field out of the manifest, or have its owner let go of it; nothing is ever taken by force"
    return PolicyError(what, where="; ".join(lines) or brief(answer), fix=fix)


def _promoted(conflict: Conflict) -> bool:
    """Whether a conflict is about the model that the pipeline set."""
    return conflict.owner == MANAGER and conflict.field.endswith(ANNOTATION)


def _model(kubectl: Kubectl, manifest: Manifest) -> str:
    """The model that a workload serves now."""
    live = of_cluster(kubectl.live(strict_yaml.dump([manifest.body])))
    return served_model.named_in(live[0]) if live else ""
