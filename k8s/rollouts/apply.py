"""Applying a set to a cluster, and putting the last good set back when that fails.

The last good set is in the release record (release.py), in the cluster: whichever machine deployed it. Who writes holds the
lease (lease.py): plan, consent, lease, record, apply, wait, read back, record.

Success means: apply returned 0, every workload finished its rollout, and every image of every live object was read back and is
the pinned one. None of the three implies the others: an apply is not atomic, and a rollout status may speak of the version
before.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from common import console
from common.errors import (
    DeployNotRecordedError,
    DeployNotRolledBackError,
    PinwheelError,
    PolicyError,
)
from k8s.envs.environment import ClusterTarget, Environment
from k8s.objects.manifests import Manifest
from k8s.pipeline.rollout_state import FailedError
from k8s.prepare import gpu_nodes
from k8s.prepare.rendered import Images, RenderedSet
from k8s.rollouts import circumstances, consent, deploy_key, preflight, prune, release, restore, rollout
from k8s.rollouts import plan as planning
from k8s.rollouts.circumstances import Excuse
from k8s.rollouts.kubectl import Kubectl, Patience
from k8s.rollouts.lease import Lease
from k8s.rollouts.outage import Outlasting
from k8s.rollouts.plan import Plan
from k8s.rollouts.release import History, Release


@dataclass(frozen=True, slots=True)
class Order:
    """How a deploy was asked for.

    Attributes:
        dry_run: say what would happen and change nothing.
        yes: the plan is agreed to beforehand.
        wait: for another deploy to end, instead of being refused.
        prune: delete what earlier releases left and the set has not.
    """

    dry_run: bool = False
    yes: bool = False
    wait: bool = False
    prune: bool = False

    def of(self, plan: Plan) -> tuple[Manifest, ...]:
        """What is to be deleted."""
        return plan.left.prunable if self.prune else ()


@dataclass(frozen=True, slots=True)
class Origin:
    """What the record says of a set beside the set itself.

    Attributes:
        source: git revision its manifests come from.
        proof: what the gate found, by image.
        rollback_of: the release whose set this is, if it is a rollback.
        excuse: why it goes without proof.
    """

    source: str
    proof: tuple[tuple[str, str], ...] = ()
    rollback_of: int | None = None
    excuse: Excuse | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a deploy found and did.

    Attributes:
        before: the images that were there.
        changed: objects that were created or changed, and which of the two.
        release: what the record says of it; None after a dry run.
    """

    before: Images
    changed: tuple[tuple[str, str], ...]
    release: Release | None = None

    @property
    def result(self) -> str:
        """The outcome as the receipt has it."""
        return "running" if self.release else "planned"


def deploy(
    rendered: RenderedSet, env: Environment, target: ClusterTarget, patience: Patience, order: Order, origin: Origin
) -> Outcome:
    """Apply a checked, pinned set and see that it runs.

    Args:
        rendered: the set.
        env: where it goes, with the version of the cluster.
        target: the cluster.
        patience: how long to wait.
        order: how it was asked for.
        origin: for the record.

    Returns:
        What was there before, what changed, and the release it became.

    Raises:
        UsageError: the plan was not agreed to.
        MissingEnvironmentError: no kubectl, no such context, no answer; nothing was sent.
        DeployNotRecordedError: the set runs, and its record could not be ended, or what it left could not be deleted.
        PolicyError: the cluster or another deploy's lease refuses the set, or its preflight fails; what serves was not touched.
        RegistryError: the preflight failed for the registry; what serves was not touched.
        DeployRolledBackError: it failed, and the last good set runs again.
        DeployNotRolledBackError: it failed, and the last good set does not run.
    """
    kubectl = Kubectl(target, patience)
    kubectl.preflight(env.kubernetes)
    if not order.dry_run:
        # Found out now, before anything is sent, whether the record can be signed.
        deploy_key.load(env)
    namespace = release.home(target, rendered.objects)
    digest = release.digest_of(rendered.text())
    while True:
        history = release.read(kubectl, env, namespace)
        recorded = origin.rollback_of is not None
        plan = planning.make(kubectl, rendered, env.kubernetes, history, prune=order.prune, recorded=recorded)
        if rendered.placements and kubectl.labelled(gpu_nodes.DRIVER) is False:
            # No refusal: an autoscaler may make such a node as soon as a pod waits for it.
            console.warn(
                f"no node of the cluster carries the label {gpu_nodes.DRIVER}: pods with a GPU wait until one does; "
                f"install NVIDIA's GPU feature discovery, or write `gpu-labels: none` ({env.file})"
            )
        if unfinished := history.unfinished:
            console.warn(
                f"{unfinished.text()} is {unfinished.state}: the cluster may hold parts of it; "
                + ("a deploy puts its whole set over them" if order.dry_run else "this deploy puts its whole set over them")
            )
        if order.dry_run:
            console.done("dry run: nothing was sent")
            return Outcome(plan.before, plan.changed)
        current = history.last
        doomed = order.of(plan)
        same = current is not None and current.state == "running" and (current.set, current.excuse) == (digest, origin.excuse)
        if current is not None and same and not (plan.changed or doomed):
            return _unchanged(kubectl, rendered, env, current, plan)
        if plan.changed or doomed:
            deleting = f" and delete {len(doomed)} objects" if doomed else ""
            consent.ask(
                f"apply {len(plan.changed)} changes{deleting} to {env.name}, {env.where}",
                yes=order.yes or target.of_this_machine,
            )
        planning.lay_grounds(kubectl, plan)
        who = circumstances.who()
        with Lease(kubectl, env.name, namespace, who).held(wait=order.wait) as lease:
            if release.version(kubectl, namespace) == history.version:
                preflight.run(kubectl, rendered, env, history, plan, lease)
                draft = _draft(rendered, history, digest, who, origin)
                return _release(kubectl, rendered, env, history, draft, plan, lease, doomed)
        what = f"another deploy to {env.name} ended since the plan was made"
        if not order.wait:
            raise PolicyError(what, where=env.where, fix="look at the new plan: run it again; nothing was sent")
        console.info(f"replanning   {what}")


def _draft(rendered: RenderedSet, history: History, digest: str, who: str, origin: Origin) -> Release:
    references = tuple(sorted({str(pin.pinned) for pin in rendered.pins}))
    return Release(
        number=history.next_number,
        state="begun",
        who=who,
        begun=circumstances.now(),
        ended="",
        source=origin.source,
        set=digest,
        images=references,
        proof=origin.proof,
        rollback_of=origin.rollback_of,
        excuse=origin.excuse,
    )


def _unchanged(kubectl: Kubectl, rendered: RenderedSet, env: Environment, current: Release, plan: Plan) -> Outcome:
    """Nothing is to be sent: only see that what is there runs."""
    try:
        rollout.see(Outlasting(kubectl), rendered, env)
    except FailedError as problem:
        what = f"the cluster holds the set already, and it does not run: {problem}"
        raise DeployNotRolledBackError(what, where=kubectl.context, fix=f"nothing was sent; {restore.look(kubectl)}") from None
    console.done(f"running      {current.text()}: every image was read back from the cluster")
    return Outcome(plan.before, plan.changed, current)


def _release(
    kubectl: Kubectl,
    rendered: RenderedSet,
    env: Environment,
    history: History,
    draft: Release,
    plan: Plan,
    lease: Lease,
    doomed: Sequence[Manifest],
) -> Outcome:
    """Write that it begins, do it, delete what is left of earlier releases where that was asked, write how it ended."""
    text = rendered.text()
    previous = restore.previous(rendered, env, history, plan)
    # Where the last release failed, the controller may still report its failure for a moment.
    again = kubectl.patience.settle if history.last and history.last.state != "running" else 0
    history = history.with_release(draft, text)
    release.keep(env.name, text)
    try:
        release.write(kubectl, env, history)
        # From here on something is sent: a cluster that goes away now is waited for.
        kubectl = Outlasting(kubectl, lease)
        doing, recorded = f"applying {len(rendered.objects)} objects", draft.rollback_of is not None
        restore.put(kubectl, rendered, env, doing, lease, recorded=recorded, again=again)
    except (FailedError, KeyboardInterrupt) as problem:
        restore.put_back(kubectl, env, history, previous, str(problem) or "interrupted from the keyboard", plan, lease)
    # From here on the set runs: what goes wrong now puts nothing back.
    gone, left = prune.delete(kubectl, doomed, lease.lost)
    ended = dataclasses.replace(draft, state="running", ended=circumstances.now(), pruned=gone)
    try:
        release.write(kubectl, env, history.with_release(ended))
    except PinwheelError as problem:
        what = f"the set runs, every image was read back, but {problem.what}"
        raise DeployNotRecordedError(what, where=problem.where, fix="deploy again, so that the record says so") from None
    console.done(f"running      {ended.text()}: every image was read back from the cluster")
    if left:
        what = f"the set runs, but {len(doomed) - len(gone)} of {len(doomed)} objects were not deleted: {left}"
        raise DeployNotRecordedError(what, where=kubectl.context, fix="mend the cause and deploy again with --prune")
    return Outcome(plan.before, (*plan.changed, *((title, "deleted") for title in gone)), ended)
