"""Whether what was applied runs: every workload's rollout, with the pods' own reasons while it hangs; then every image.

The rollouts are asked for again and again instead of watched: one request for all of them, and a cut connection costs one look.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence

from common import console
from common.errors import ExitCode, PinwheelError
from k8s.envs.environment import Environment
from k8s.objects import findings, strict_yaml
from k8s.objects.manifests import Manifest
from k8s.pipeline import rollout_state
from k8s.pipeline.pod_reasons import ONCE_MORE, Endings
from k8s.pipeline.rollout_state import FailedError, State
from k8s.prepare import preflight
from k8s.prepare.pin import images
from k8s.prepare.rendered import RenderedSet
from k8s.rollouts import progress, unexpected
from k8s.rollouts.kubectl import Kubectl, brief, listed, of_cluster, passing
from k8s.rollouts.progress import Body, Reason

_WORKLOADS = {"Deployment", "StatefulSet", "DaemonSet"}
_LAST_LINES, _NO_LOG = 5, "unable to retrieve container logs for"


def _never() -> str:
    return ""


def see(
    kubectl: Kubectl,
    rendered: RenderedSet,
    env: Environment,
    *,
    again: float = 0,
    lost: Callable[[], str] = _never,
) -> None:
    """Wait for every workload, then read every image back, and look for what runs beside them.

    Args:
        kubectl: of the cluster.
        rendered: the set.
        env: where it runs.
        again: for how many seconds a failed rollout status is asked again.
        lost: says why somebody else writes now; empty while nobody does.

    Raises:
        FailedError: a workload does not get ready, or runs something else.
    """
    workloads = [
        workload
        for workload in rendered.objects
        if workload.kind in _WORKLOADS and workload.api_version == "apps/v1" and not preflight.is_one(workload)
    ]
    if workloads:
        wait(kubectl, workloads, again, lost)
    try:
        objects = of_cluster(kubectl.live(rendered.text()))
        live, beside = images(objects, env.kubernetes), unexpected.look(kubectl, rendered, objects, env)
    except PinwheelError as problem:
        raise FailedError(problem.line()) from None
    for (identity, path), reference in sorted(rendered.images().items(), key=str):
        there = live.get((identity, path), "nothing")
        if there != reference:
            place = f"{identity.kind} {identity.namespace}/{identity.name}"
            raise FailedError(f"{place} runs {there} at {findings.shown(path)}, not {reference}")
    if beside.wrong:
        raise FailedError("; ".join(beside.wrong[:3]))
    for space in beside.unseen:
        console.warn(f"not checked: what the pods in {space} really run; let your account `list` pods there")


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
    _wait(kubectl, workloads, again, lost, _Board(kubectl, Endings()), kubectl.patience.hopeless)


def wait_for_preflight(kubectl: Kubectl, trials: Sequence[Manifest], lost: Callable[[], str]) -> None:
    """`wait` for Deployments that only try something: whatever fails in them, and goes on failing, is hopeless."""
    hopeless = min(kubectl.patience.hopeless, ONCE_MORE)
    _wait(kubectl, trials, kubectl.patience.settle, lost, _Board(kubectl, Endings(preflight=True)), hopeless)


def _wait(
    kubectl: Kubectl, workloads: Sequence[Manifest], again: float, lost: Callable[[], str], board: _Board, hopeless: float
) -> None:
    patience = kubectl.patience
    started, silent = time.monotonic(), kubectl.silent
    with _status() as show:
        while True:
            states = board.look(workloads)
            if kubectl.silent > silent:
                # Controllers and kubelets had nobody to tell how far they are: what is said first may be of before.
                started, silent = started + kubectl.silent - silent, kubectl.silent
                again = max(again, time.monotonic() - started + patience.settle)
                board.forget_hopeless()
            waited = time.monotonic() - started
            pending = [workload for workload in workloads if not states[workload.title].done]
            if not pending:
                return
            show(", ".join(f"{workload.title}: {states[workload.title].text}" for workload in pending))
            if why := lost():
                raise FailedError(why)
            ill = next((workload for workload in pending if states[workload.title].failed and waited >= again), None)
            if waited >= patience.rollout and not ill:
                ill = pending[0]
            if ill or time.monotonic() >= board.due:
                board.explain(pending)
            if stuck := next((workload for workload in pending if board.hopeless(workload) >= hopeless), None):
                ill = ill or stuck
            if ill:
                raise board.verdict(ill, waited)
            time.sleep(min(patience.pause, 2))


@contextlib.contextmanager
def _status() -> Iterator[Callable[[str], None]]:
    """Where the present state is shown: a line that renews itself, on a terminal."""
    if not console.out.is_terminal:
        yield lambda _text: None
        return
    with console.out.status("waiting for the rollouts …") as status:
        yield lambda text: status.update(f"waiting for {console.escape(text)}")


class _Board:
    """What is known of the rollouts, and what was said of them."""

    def __init__(self, kubectl: Kubectl, endings: Endings) -> None:
        self._kubectl, self._endings = kubectl, endings
        self._started = time.monotonic()
        self._live: dict[str, Body] = {}
        self._states: dict[str, State] = {}
        self._reasons: dict[str, list[Reason]] = {}
        self._hopeless: dict[str, float] = {}
        self._lasting: dict[tuple[str, str], float] = {}
        self._said: set[str] = set()
        self._silent = ""
        # When the pods are asked next; a rollout that goes well is over before.
        self.due = self._started + 2 * kubectl.patience.pause

    def look(self, workloads: Sequence[Manifest]) -> dict[str, State]:
        """Ask how far they are; where the cluster does not answer for a moment, what was known before."""
        text = strict_yaml.dump(workload.body for workload in workloads)
        answer = self._kubectl.request(["get", "-f", "-", "--ignore-not-found", "-o", "json"], stdin=text)
        if answer.code:
            self._silent = f"the cluster does not say how far it is: {brief(answer)}"
            if self._kubectl.given_up:
                raise FailedError(brief(answer))
            if not passing(answer):
                raise FailedError(self._silent)
            self._say(self._silent)
        else:
            self._silent = ""
            live = of_cluster(listed(answer.stdout))
            self._live = {workload.title: workload.body for workload in live}
        for workload in workloads:
            now = (
                State(False, "", "not asked yet") if answer.code and workload.title not in self._live else self._state(workload)
            )
            before = self._states.get(workload.title)
            self._states[workload.title] = now
            if now.done and (before is None or not before.done):
                took = console.seconds(time.monotonic() - self._started)
                console.done(f"{workload.title}: {now.text}  ({took})")
            elif not now.done and (before is None or before.text != now.text):
                console.info(f"waiting      {workload.title}: {now.text}")
        return self._states

    def _state(self, workload: Manifest) -> State:
        return rollout_state.state(self._live.get(workload.title))

    def explain(self, pending: Sequence[Manifest]) -> None:
        """Ask the pods of the workloads why they do not run, and show what is new."""
        self.due = time.monotonic() + 2.5 * self._kubectl.patience.pause
        for namespace in sorted({workload.namespace for workload in pending}):
            sets, pods = self._list("replicasets.apps", namespace), self._list("pods", namespace)
            events = self._list("events", namespace, "--field-selector=type=Warning")
            for workload in pending:
                if workload.namespace == namespace and workload.title in self._live:
                    live = self._live[workload.title]
                    self._reasons[workload.title] = progress.reasons(live, sets, pods, events, self._endings)
                    self._tell(workload)

    def _list(self, resource: str, namespace: str, *selector: str) -> list[Body]:
        """The objects of a namespace; none where we may not look, as reasons are an extra."""
        answer = self._kubectl.request(["get", resource, "-n", namespace, *selector, "-o", "json"])
        return [] if answer.code else [*listed(answer.stdout)]

    def _tell(self, workload: Manifest) -> None:
        reasons = self._reasons[workload.title]
        if any(reason.hopeless for reason in reasons):
            self._hopeless.setdefault(workload.title, time.monotonic())
        elif not any("BackOff" in reason.text for reason in reasons):
            # Between two pulls the kubelet says only that it backs off.
            self._hopeless.pop(workload.title, None)
        for reason in self._worth_a_line(workload, reasons):
            known_by = f"{workload.title}: {reason.known_by or reason.text}"
            if self._say(f"{workload.title}: {reason.text}", known_by) and reason.crashed:
                for line in self._last_words(workload.namespace, *reason.crashed):
                    console.warn(f"    {line}")

    def _worth_a_line(self, workload: Manifest, reasons: Sequence[Reason]) -> list[Reason]:
        """Without what happens at every normal start."""
        now = time.monotonic()
        passing = {(workload.title, reason.pod) for reason in reasons if reason.tell == "if it lasts"}
        others = {key: since for key, since in self._lasting.items() if key[0] != workload.title}
        self._lasting = others | {key: self._lasting.get(key, now) for key in passing}
        return [
            reason
            for reason in reasons
            if reason.tell == "at once"
            or (
                reason.tell == "if it lasts"
                and now - self._lasting[workload.title, reason.pod] >= self._kubectl.patience.lasting
            )
        ]

    def _last_words(self, namespace: str, pod: str, container: str) -> list[str]:
        """The last lines of a container that ended: few, as nobody knows what a program prints."""
        for which in (["--previous"], []):
            answer = self._kubectl.request(["logs", pod, "-n", namespace, "-c", container, f"--tail={_LAST_LINES}", *which])
            # Of a container that is gone already the kubelet says so instead of its log, and that all went well.
            if not answer.code and not answer.stdout.startswith(_NO_LOG):
                return [progress.brief(line) for line in answer.stdout.splitlines()[-_LAST_LINES:]]
        return []

    def _say(self, text: str, known_by: str = "") -> bool:
        """Show a line, once for all that is known by the same."""
        if (known_by or text) in self._said:
            return False
        self._said.add(known_by or text)
        console.warn(text)
        return True

    def hopeless(self, workload: Manifest) -> float:
        """For how many seconds a workload has had a reason that does not get better; -1: it has none."""
        since = self._hopeless.get(workload.title)
        return -1 if since is None else time.monotonic() - since

    def forget_hopeless(self) -> None:
        """What is hopeless must last anew: nobody could mend it."""
        self._hopeless.clear()

    def verdict(self, workload: Manifest, waited: float) -> FailedError:
        """Why a workload is given up, in one line."""
        now = self._states[workload.title]
        why = now.failed or self._silent
        if not why:
            why = "waiting longer does not help" if self.hopeless(workload) >= 0 else f"not within {console.seconds(waited)}"
        reasons = sorted(self._reasons.get(workload.title, ()), key=lambda reason: not reason.hopeless)
        text = "; ".join([f"{workload.title} does not get ready: {why}, {now.text}", *(reason.text for reason in reasons[:1])])
        return FailedError(text, reasons[0].exit_code if reasons else ExitCode.POLICY)
