"""Whether what was applied runs: every workload's rollout, with the pods' own reasons while it hangs; then every image.

The rollouts are asked for again and again instead of watched: one request for all of them, and a cut connection costs one look.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence

from rich.markup import escape

from common import console
from common.errors import PinwheelError
from k8s.objects import findings, strict_yaml
from k8s.objects.manifests import Manifest
from k8s.pipeline import rollout_state
from k8s.pipeline.rollout_state import State
from k8s.prepare.pin import images
from k8s.prepare.rendered import RenderedSet
from k8s.rollouts import progress
from k8s.rollouts.kubectl import Kubectl, brief, listed, of_cluster, passing
from k8s.rollouts.progress import Body, Reason

_WORKLOADS = {"Deployment", "StatefulSet", "DaemonSet"}
_LAST_LINES = 5


class FailedError(Exception):
    """Something went wrong after the first object was sent."""


def _never() -> str:
    return ""


def see(
    kubectl: Kubectl,
    rendered: RenderedSet,
    version: str,
    *,
    again: float = 0,
    lost: Callable[[], str] = _never,
) -> None:
    """Wait for every workload, then read every image back.

    Args:
        kubectl: of the cluster.
        rendered: the set.
        version: of Kubernetes, for finding the images of the live objects.
        again: for how many seconds a failed rollout status is asked again.
        lost: says why somebody else writes now; empty while nobody does.

    Raises:
        FailedError: a workload does not get ready, or runs something else.
    """
    workloads = [one for one in rendered.objects if one.kind in _WORKLOADS and one.api_version == "apps/v1"]
    if workloads:
        wait(kubectl, workloads, again, lost)
    try:
        live = images(of_cluster(kubectl.live(rendered.text())), version)
    except PinwheelError as problem:
        raise FailedError(problem.line()) from None
    for (identity, path), reference in sorted(rendered.images().items(), key=str):
        running = live.get((identity, path), "nothing")
        if running != reference:
            place = f"{identity.kind} {identity.namespace}/{identity.name}"
            raise FailedError(f"{place} runs {running} at {findings.shown(path)}, not {reference}")


def wait(kubectl: Kubectl, workloads: Sequence[Manifest], again: float, lost: Callable[[], str]) -> None:
    """Wait until every workload runs its newest pods; what changes is shown, line by line.

    Args:
        kubectl: of the cluster.
        workloads: Deployments, StatefulSets, DaemonSets.
        again: for how many seconds a failed rollout status is asked again.
        lost: as for `see`.

    Raises:
        FailedError: one does not get ready; with the reason of its pods.
    """
    patience = kubectl.patience
    started = time.monotonic()
    board = _Board(kubectl)
    with _status() as show:
        while True:
            states = board.look(workloads)
            waited = time.monotonic() - started
            pending = [one for one in workloads if not states[one.title].done]
            if not pending:
                return
            show(", ".join(f"{one.title}: {states[one.title].text}" for one in pending))
            if why := lost():
                raise FailedError(why)
            ill = next((one for one in pending if states[one.title].failed and waited >= again), None)
            if waited >= patience.rollout and not ill:
                ill = pending[0]
            if ill or waited >= board.due:
                board.explain(pending)
            if stuck := next((one for one in pending if board.hopeless(one) >= patience.hopeless), None):
                ill = ill or stuck
            if ill:
                raise FailedError(board.verdict(ill, waited))
            time.sleep(min(patience.pause, 2))


@contextlib.contextmanager
def _status() -> Iterator[Callable[[str], None]]:
    """Where the present state is shown: a line that renews itself, on a terminal."""
    if not console.out.is_terminal:
        yield lambda _text: None
        return
    with console.out.status("waiting for the rollouts …") as status:
        yield lambda text: status.update(f"waiting for {escape(text)}")


class _Board:
    """What is known of the rollouts, and what was said of them."""

    def __init__(self, kubectl: Kubectl) -> None:
        self._kubectl = kubectl
        self._started = time.monotonic()
        self._live: dict[str, Body] = {}
        self._states: dict[str, State] = {}
        self._reasons: dict[str, list[Reason]] = {}
        self._hopeless: dict[str, float] = {}
        self._said: set[str] = set()
        self._silent = ""
        # When the pods are asked next; a rollout that goes well is over before.
        self.due = 2 * kubectl.patience.pause

    def look(self, workloads: Sequence[Manifest]) -> dict[str, State]:
        """Ask how far they are; where the cluster does not answer for a moment, what was known before."""
        text = strict_yaml.dump(one.body for one in workloads)
        said = self._kubectl.request(["get", "-f", "-", "--ignore-not-found", "-o", "json"], stdin=text)
        if said.code:
            self._silent = f"the cluster does not say how far it is: {brief(said)}"
            if not passing(said):
                raise FailedError(self._silent)
            self._say(self._silent)
        else:
            self._silent = ""
            found = of_cluster(listed(said.stdout))
            self._live = {one.title: one.body for one in found}
        for one in workloads:
            now = State(False, "", "not asked yet") if said.code and one.title not in self._live else self._state(one)
            before = self._states.get(one.title)
            self._states[one.title] = now
            if now.done and (before is None or not before.done):
                took = console.seconds(time.monotonic() - self._started)
                console.done(f"{one.title}: {now.text}  ({took})")
            elif not now.done and (before is None or before.text != now.text):
                console.info(f"waiting      {one.title}: {now.text}")
        return self._states

    def _state(self, one: Manifest) -> State:
        return rollout_state.state(self._live.get(one.title))

    def explain(self, pending: Sequence[Manifest]) -> None:
        """Ask the pods of the workloads why they do not run, and show what is new."""
        self.due = time.monotonic() - self._started + max(5.0, 2 * self._kubectl.patience.pause)
        for namespace in sorted({one.namespace for one in pending}):
            sets, pods = self._list("replicasets.apps", namespace), self._list("pods", namespace)
            events = self._list("events", namespace, "--field-selector=type=Warning")
            for one in pending:
                if one.namespace == namespace and one.title in self._live:
                    self._reasons[one.title] = progress.reasons(self._live[one.title], sets, pods, events)
                    self._tell(one)

    def _list(self, resource: str, namespace: str, *selector: str) -> list[Body]:
        """The objects of a namespace; none where we may not look, as reasons are an extra."""
        said = self._kubectl.request(["get", resource, "-n", namespace, *selector, "-o", "json"])
        return [] if said.code else [*listed(said.stdout)]

    def _tell(self, one: Manifest) -> None:
        found = self._reasons[one.title]
        if any(reason.hopeless for reason in found):
            self._hopeless.setdefault(one.title, time.monotonic())
        elif not any("BackOff" in reason.text for reason in found):
            # Between two pulls the kubelet says only that it backs off.
            self._hopeless.pop(one.title, None)
        for reason in found:
            if self._say(f"{one.title}: {reason.text}") and reason.crashed:
                for line in self._last_words(one.namespace, *reason.crashed):
                    console.warn(f"    {line}")

    def _last_words(self, namespace: str, pod: str, container: str) -> list[str]:
        """The last lines of a container that ended: few, as nobody knows what a program prints."""
        for which in (["--previous"], []):
            said = self._kubectl.request(["logs", pod, "-n", namespace, "-c", container, f"--tail={_LAST_LINES}", *which])
            if not said.code:
                return [progress.brief(line) for line in said.stdout.splitlines()[-_LAST_LINES:]]
        return []

    def _say(self, text: str) -> bool:
        """Show a line once."""
        if text in self._said:
            return False
        self._said.add(text)
        console.warn(text)
        return True

    def hopeless(self, one: Manifest) -> float:
        """For how many seconds a workload has had a reason that does not get better; -1: it has none."""
        since = self._hopeless.get(one.title)
        return -1 if since is None else time.monotonic() - since

    def verdict(self, one: Manifest, waited: float) -> str:
        """Why a workload is given up, in one line."""
        now = self._states[one.title]
        why = now.failed or self._silent
        if not why:
            why = "waiting longer does not help" if self.hopeless(one) >= 0 else f"not within {console.seconds(waited)}"
        told = sorted(self._reasons.get(one.title, ()), key=lambda reason: not reason.hopeless)
        return "; ".join([f"{one.title} does not get ready: {why}, {now.text}", *(reason.text for reason in told[:1])])
