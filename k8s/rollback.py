"""`invoke rollback`: back to the last set that was proven, from the release record, as a release of its own.

Its manifests are applied again with our field manager, never by `kubectl rollout undo`, which changes owners and breaks later
applies. The gate judges its images and its model anew: what was proven once may be too old by now, or signed by a key that no
longer counts.
"""

from __future__ import annotations

import dataclasses

from common import console, paths
from common.errors import MissingEnvironmentError, PinwheelError, PolicyError, RegistryError, UsageError
from k8s.envs import environment
from k8s.envs.environment import ClusterTarget, Environment
from k8s.envs.proof import Model
from k8s.objects import manifests
from k8s.prepare import gate, served_model
from k8s.prepare.rendered import RenderedSet
from k8s.rollouts import apply, live_model, receipt, recorded, release
from k8s.rollouts.apply import Order, Origin
from k8s.rollouts.kubectl import Kubectl, Patience
from k8s.rollouts.receipt import DeployReceipt
from k8s.rollouts.release import History, Release
from oci.reference import ImageRef


def rollback(
    env_name: str, *, dry_run: bool = False, yes: bool = False, wait: bool = False, patience: Patience | None = None
) -> DeployReceipt:
    """Put the last proven set before the present one into the cluster again.

    Args:
        env_name: one of `k8s/envs/`.
        dry_run: say what would happen and change nothing.
        yes: the plan is agreed to beforehand; otherwise it is asked for on the terminal.
        wait: for another deploy to end, instead of being refused.
        patience: how long to wait for the cluster.

    Returns:
        What was done, as written to `dist/deploy/<env_name>.json` (a dry run writes nothing).

    Raises:
        UsageError: the environment is unknown or no cluster, or the plan was not agreed to.
        PolicyError: there is nothing to go back to, or the cluster refuses it; nothing was sent.
        RegistryError: the proof of no earlier set can be read.
        MissingEnvironmentError: no kubectl, no such context, no answer from the cluster.
        DeployNotRecordedError: the set runs, but its record could not be written.
        DeployRolledBackError: it failed on the way, and the set from before runs again.
        DeployNotRolledBackError: it failed on the way, and that set does not run.
    """
    env = environment.load(env_name)
    if not isinstance(env.target, ClusterTarget):
        fix = "check out the revision you want and deploy it"
        raise UsageError(f"{env.name} is rendered into a directory, and a directory has no releases", where=env.file, fix=fix)
    kubectl = Kubectl(env.target, patience or Patience())
    kubectl.preflight(env.kubernetes)
    in_git = manifests.load([paths.K8S / "manifests"])[0]
    history = release.read(kubectl, env, release.home(env.target, in_git))
    console.info(f"environment  {env.name}: {env.where}")
    if history.last is not None:
        console.info(f"now          {history.last.text()}, {history.last.state}")
    chosen, rendered, proof = _choose(kubectl, history, env, recorded.namespaces_of(in_git))
    console.info(f"back to      {chosen.text()}")
    origin = Origin(chosen.source, proof, chosen.position)
    # The record lies where it was read, whatever namespaces the older set has.
    target = dataclasses.replace(env.target, namespace=history.namespace)
    outcome = apply.deploy(rendered, env, target, kubectl.patience, Order(dry_run, yes, wait), origin)
    result = receipt.of_set(rendered, env, outcome.result, outcome.before, outcome.changed, outcome.release)
    if not dry_run:
        console.info(f"receipt      {paths.shown(receipt.write(result))}")
    return result


def candidates(history: History) -> tuple[Release, ...]:
    """The releases that a rollback may go to, the nearest first.

    Those that ran before the present one, but none that was rolled away from: a second rollback goes further back, never to
    what the first came from. Where the newest release left the cluster half done, the one before it that ran is the nearest.
    """
    line: list[Release] = []
    for past in history.releases:
        if past.state == "running":
            while line and line[-1].position >= past.position:
                line.pop()
            line.append(past)
    if line and not history.unfinished:
        present = line.pop()
        line = [past for past in line if past.set != present.set]
    return tuple(reversed(line))


def _choose(
    kubectl: Kubectl, history: History, env: Environment, namespaces: frozenset[str]
) -> tuple[Release, RenderedSet, tuple[tuple[str, str], ...]]:
    """The nearest release whose set is there and passes the gate."""
    problems: list[PinwheelError] = []
    for candidate in candidates(history):
        try:
            past = recorded.read_set(history, candidate, env)
            rendered = recorded.sendable(past, env, namespaces, recorded.place_of(history, candidate))
            rendered = served_model.kept(rendered, live_model.served(kubectl, rendered.objects))
            # Back is only to what is proven, also where a deploy is merely warned. What has become known of it since is no
            # reason to stay with what fails; drift says it.
            strict = dataclasses.replace(env, proof=env.proof and dataclasses.replace(env.proof, refuse=True, audit=None))
            return candidate, rendered, gate.check((pin.pinned for pin in rendered.pins), strict) + _check_models(rendered, env)
        except (PolicyError, RegistryError, MissingEnvironmentError) as problem:
            console.warn(f"passed over  {candidate.text()}: {problem.line()}")
            problems.append(problem)
    where = f"ConfigMap {history.namespace}/{release.NAME}"
    if not problems:
        there = ", ".join(f"{past.number} {past.state}" for past in history.releases) or "none"
        what = f"{env.name} has no earlier release that ran; there are: {there}"
        raise PolicyError(what, where=where, fix="deploy the revision you want instead; nothing was sent")
    if all(isinstance(problem, RegistryError) for problem in problems):
        raise problems[0]
    what = f"none of {len(problems)} earlier releases of {env.name} can be gone back to: {problems[0].what}"
    raise PolicyError(what, where=where, fix="each line above says why; nothing was sent")


def _check_models(rendered: RenderedSet, env: Environment) -> tuple[tuple[str, str], ...]:
    """The signatures of the models that an older set serves, by the key that counts now."""
    served: set[tuple[str, Model]] = set()
    for manifest in rendered.objects:
        name, now = served_model.named_in(manifest), env.model_of(manifest.namespace, manifest.name)
        if name and now:
            served.add((name, now))
    proof: list[tuple[str, str]] = []
    for name, now in sorted(served, key=str):
        try:
            reference = ImageRef.parse(name)
        except ValueError:
            raise PolicyError("the set in the release record was edited", where=name, fix="do not use it") from None
        proof += gate.check_model(dataclasses.replace(env, model=dataclasses.replace(now, reference=reference), models={}))
    return tuple(proof)
