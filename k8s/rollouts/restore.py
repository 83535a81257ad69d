"""Sending a set and seeing that it runs; and putting the last good set back where that fails."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from common import console, paths
from common.errors import DeployNotRolledBackError, DeployRolledBackError, PinwheelError
from k8s.envs.environment import Environment
from k8s.pipeline.rollout_state import FailedError
from k8s.prepare import served_model
from k8s.prepare.rendered import RenderedSet
from k8s.rollouts import circumstances, crds, release, rollout, takeover
from k8s.rollouts import recorded as recorded_sets
from k8s.rollouts.kubectl import Kubectl, brief
from k8s.rollouts.lease import Lease
from k8s.rollouts.plan import Plan
from k8s.rollouts.release import History, Release
from oci.reference import short


def put(
    kubectl: Kubectl,
    rendered: RenderedSet,
    env: Environment,
    doing: str,
    lease: Lease,
    *,
    recorded: bool,
    again: float = 0,
) -> None:
    """Apply, wait, read back.

    Args:
        kubectl: of the cluster.
        rendered: the set.
        env: where it goes.
        doing: says what happens now.
        lease: must still be ours.
        recorded: it is a set of the release record, whose model counts, whatever the pipeline promoted since.
        again: for how many seconds a failed rollout status is asked again.

    Raises:
        FailedError: one of the three went wrong.
    """
    if why := lease.lost():
        raise FailedError(why)
    try:
        crds.put(kubectl, rendered.objects)
    except PinwheelError as problem:
        raise FailedError(problem.line()) from None
    taken = takeover.take(kubectl, rendered.objects) if recorded else ()
    with console.step(doing):
        answer = kubectl.apply(rendered.text())
        if answer.code:
            # Inside the step, which else would be ticked off.
            raise FailedError(f"apply failed: {brief(answer)}")
    takeover.let_go(kubectl, taken)
    rollout.see(kubectl, rendered, env, again=again, lost=lease.lost)
    if why := lease.lost():
        raise FailedError(why)


def look(kubectl: Kubectl) -> str:
    """How to look at what runs, for messages."""
    return f"look at it with `{kubectl.shown} get all -A -l app.kubernetes.io/part-of=pinwheel`"


@dataclass(frozen=True, slots=True)
class Previous:
    """The last good set, which is put back if a deploy fails.

    Attributes:
        release: it is of; None: nothing ran before.
        set: None where it cannot be sent.
        lacks: why not.
    """

    release: Release | None
    set: RenderedSet | None
    lacks: str


def previous(rendered: RenderedSet, env: Environment, history: History, plan: Plan) -> Previous:
    """What can be put back; that nothing can is said before anything is sent."""
    good = history.good
    if good is None:
        return Previous(None, None, "there is no last good set to put back")
    try:
        place = recorded_sets.place_of(history, good)
        there = recorded_sets.namespaces_of(rendered.objects)
        readable = recorded_sets.sendable(recorded_sets.read_set(history, good, env), env, there, place)
        return Previous(good, served_model.kept(readable, plan.served), "")
    except PinwheelError as problem:
        lacks = f"{good.text()} is not put back, as its set cannot be used: {problem.line()}"
        console.warn(f"if this fails, {lacks}")
        return Previous(good, None, lacks)


def put_back(
    kubectl: Kubectl, env: Environment, history: History, last_good: Previous, why: str, plan: Plan, lease: Lease
) -> None:
    """Apply the last good set again; never returns."""
    console.warn(f"failed: {why}")
    new = [title for title, what in plan.changed if what == "created"]
    left = f"; made by this deploy and still there: {', '.join(new)}" if new else ""
    mend = f"mend the cause and deploy again, or {look(kubectl)}"
    if lost := lease.lost():
        # Whoever has the lease now writes: two writers would leave a mixture.
        what = f"{why}; nothing was put back{'' if lost in why else f', as {lost}'}{left}"
        raise DeployNotRolledBackError(what, where=kubectl.context, fix=f"see what that deploy did, then {mend}") from None
    good, again = last_good.release, last_good.set
    if good is None or again is None:
        _note(kubectl, env, history, "half done")
        what = f"{why}; {last_good.lacks}; the cluster is as the failed deploy left it{left}"
        raise DeployNotRolledBackError(what, where=kubectl.context, fix=mend) from None
    place = release.keep(env.name, again.text())
    doing = f"putting the last good set back, release {good.number}"
    try:
        put(kubectl, again, env, doing, lease, recorded=True, again=kubectl.patience.settle)
    except (FailedError, KeyboardInterrupt) as problem:
        if isinstance(problem, KeyboardInterrupt):
            # Told twice: nothing more is waited for.
            kubectl.given_up = True
        _note(kubectl, env, history, "half done")
        too = "for the same reason" if str(problem) == why else f"too: {problem or 'interrupted'}"
        what = f"{why}; putting the last good set back failed {too}{left}"
        fix = f"apply {paths.shown(place)} by hand with --server-side --field-manager=pinwheel, or {look(kubectl)}"
        raise DeployNotRolledBackError(what, where=kubectl.context, fix=fix) from None
    _note(kubectl, env, history, "put back")
    what = f"{why}; the last good set runs again, release {good.number} with {_digests(again)}{left}"
    raise DeployRolledBackError(what, where=kubectl.context, fix="mend the cause and deploy again") from None


def _digests(recorded: RenderedSet) -> str:
    """By the set's own text, not by what the record says of it."""
    return ", ".join(sorted({short(pin.pinned.digest) for pin in recorded.pins})) or "no image"


def _note(kubectl: Kubectl, env: Environment, history: History, state: release.State) -> None:
    """Write how the newest release ended; what it left behind matters more than that this could not be written."""
    if history.last is None:
        return
    try:
        release.write(
            kubectl, env, history.with_release(dataclasses.replace(history.last, state=state, ended=circumstances.now()))
        )
    except PinwheelError as problem:
        console.warn(f"{problem.line()}; the next deploy finds it begun, and mends it")
