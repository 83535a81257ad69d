"""Trying the new images and the new model before what serves is touched (k8s/prepare/preflight.py says with what).

With `maxSurge: 0` the only server is gone before its successor has found out that it cannot fetch its image or model. So the
Deployment `NAME-preflight` goes first, with ConfigMaps and NetworkPolicies of its own. However that ends, it is afterwards as
it is in the set that runs then, without pods; what a killed deploy left of it the next one takes over.
"""

from __future__ import annotations

from collections.abc import Sequence

from common import console, signals
from common.errors import PinwheelError, of_code
from k8s.envs.environment import Environment
from k8s.objects import manifests, strict_yaml
from k8s.objects.manifests import Manifest
from k8s.pipeline.model_annotation import ANNOTATION
from k8s.pipeline.rollout_state import FailedError
from k8s.prepare import preflight, served_model
from k8s.prepare.rendered import RenderedSet, built_in
from k8s.rollouts import recorded, rollout
from k8s.rollouts.kubectl import Kubectl, brief, refusal
from k8s.rollouts.lease import Lease
from k8s.rollouts.outage import Outlasting
from k8s.rollouts.plan import Plan
from k8s.rollouts.release import History

# What a pod names and nobody else has a use for before it is there.
_NEEDED = frozenset({"PriorityClass", "Secret", "ServiceAccount"})


def run(kubectl: Kubectl, rendered: RenderedSet, env: Environment, history: History, plan: Plan, lease: Lease) -> None:
    """Try every Deployment that serves a model and is to be changed.

    Args:
        kubectl: of the cluster.
        rendered: the set.
        env: its environment.
        history: knows the set that runs.
        plan: what is to be changed.
        lease: of the deploy.

    Raises:
        PinwheelError: one of them would not start; its class is that of the failure. What serves was not touched.
    """
    changed = dict(plan.changed)
    own = [one for one in rendered.objects if preflight.is_one(one)]
    # A policy that keeps pods from the registry rolls no server by itself, and lets none start again.
    anew = {(one.namespace, preflight.server_of(one)) for one in own if one.title in changed}
    tried = [
        (server, trial)
        for server, trial in preflight.pairs(rendered.objects)
        if (server.title in changed or (server.namespace, server.name) in anew)
        and served_model.named_in(server)
        and server.body["spec"].get("replicas") != 0
    ]
    kubectl = Outlasting(kubectl, lease)
    if not tried:
        if any(changed.get(one.title) == "changed" for one in own):
            # What the pipeline's deploy step, killed, left in them is not to be in the way of the set's apply.
            _end(kubectl, own, own)
        return
    spaces = {trial.namespace for _, trial in tried}
    needed = [
        one
        for one in rendered.objects
        if changed.get(one.title) == "created"
        and one.namespace in {"", *spaces}
        and (one.kind in _NEEDED or (not built_in(one) and not one.api_version.startswith("argoproj.io/")))
    ]
    trials = {trial.identity: _with_pod(trial, served_model.named_in(server)) for server, trial in tried}
    for server, trial in tried:
        console.info(f"preflight    {trial.title}: its images and its model, before {server.title} is touched")
    went_well = False
    with signals.terminable():
        try:
            _apply(kubectl, [*needed, *(trials.get(one.identity, one) for one in own)])
            rollout.wait_for_preflight(kubectl, list(trials.values()), lease.lost)
            went_well = True
        except FailedError as problem:
            fix = "mend the cause and deploy again"
            raise of_code(problem.code)(f"{problem}; what serves was not touched", where=kubectl.context, fix=fix) from None
        finally:
            _end(kubectl, own, own if went_well else _running(own, env, history))


def _with_pod(trial: Manifest, model: str) -> Manifest:
    named = manifests.with_value(trial, ("spec", "template", "metadata", "annotations", ANNOTATION), model)
    return manifests.with_value(named, ("spec", "replicas"), 1)


def _apply(kubectl: Kubectl, objects: Sequence[Manifest]) -> None:
    answer = kubectl.apply(strict_yaml.dump(one.body for one in objects), force=True)
    if answer.code:
        raise refusal(answer, "the cluster refuses the preflight; what serves was not touched", "see its words")


def _running(own: Sequence[Manifest], env: Environment, history: History) -> Sequence[Manifest]:
    """The same objects as the set has them that runs."""
    if history.good is None:
        return ()
    try:
        objects = recorded.read_set(history, history.good, env).objects
    except PinwheelError:  # Then the failed set's own, without its pod: the next deploy says what is wrong with the record.
        return own
    return [one for one in objects if preflight.is_one(one)]


def _end(kubectl: Kubectl, made: Sequence[Manifest], wanted: Sequence[Manifest]) -> None:
    """Leave of it what is wanted; what cannot be done is said, as it is no reason to end otherwise."""
    kept = {one.identity for one in wanted}
    gone = [one for one in made if one.identity not in kept]
    answers = [kubectl.apply(strict_yaml.dump(one.body for one in wanted), force=True)] if wanted else []
    answers += [kubectl.delete(strict_yaml.dump(one.body for one in gone))] if gone else []
    for answer in answers:
        if answer.code:
            console.warn(f"the preflight is left as it is, and the next deploy takes it over: {brief(answer)}")
