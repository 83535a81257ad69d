"""Following a workflow: each step with its state and time, and where one hangs or fails, the reason of its own pod.

What Argo says of a workflow is its status (Argo Workflows, docs/fields.md, NodeStatus): a node for each step, one more for each
try. Why a pod does not start stands in the pod (Kubernetes API, PodStatus), which Argo's node names only by its id.
"""

from __future__ import annotations

import datetime
import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.live import Live
from rich.table import Table
from rich.text import Text

from common import console
from common.errors import TrainingError
from k8s.pipeline import pod_reasons
from k8s.pipeline.pod_reasons import Endings, Problem
from k8s.rollouts.kubectl import Kubectl, listed
from k8s.rollouts.outage import Outlasting
from k8s.training.names import NAMESPACE, WORKFLOWS

# Phases of nodes and workflows that nothing follows.
FAILED = frozenset({"Failed", "Error"})
ENDED = frozenset({"Succeeded", "Skipped", "Omitted", *FAILED})
_NODE, _WORKFLOW = "workflows.argoproj.io/node-id", "workflows.argoproj.io/workflow"
_LAST_LINES = 20
# As tqdm draws it.
_BAR = re.compile(r"\d+%\|.*\|")
_MARKS = {"Succeeded": "✓", "Running": "…", "Pending": "·", "Skipped": "-", "Omitted": "-"}


@dataclass(frozen=True, slots=True)
class Step:
    """One pod of a workflow, as far as it has come.

    Attributes:
        node: its id.
        name: `train`, or `train(1)` where it is a second try.
        template: what it runs.
        phase: Argo's word.
        began: RFC 3339; empty before.
        finished: RFC 3339; empty before.
        message: what Argo says of it.
    """

    node: str
    name: str
    template: str
    phase: str
    began: str
    finished: str
    message: str

    def took(self, now: datetime.datetime) -> str:
        """How long it has run, for people."""
        if not self.began:
            return ""
        end = datetime.datetime.fromisoformat(self.finished) if self.finished else now
        return console.seconds(max((end - datetime.datetime.fromisoformat(self.began)).total_seconds(), 0))


def phase(workflow: Mapping[str, Any]) -> str:
    """Where a workflow stands; one that the controller has not seen yet is pending."""
    return str((workflow.get("status") or {}).get("phase") or "Pending")


def message(workflow: Mapping[str, Any]) -> str:
    """What Argo says of a workflow."""
    return str((workflow.get("status") or {}).get("message") or "")


def steps(workflow: Mapping[str, Any]) -> tuple[Step, ...]:
    """The pods of a workflow, in the order they began; steps that were left out among them."""
    result = []
    for node in ((workflow.get("status") or {}).get("nodes") or {}).values():
        if node.get("type") in {"Pod", "Skipped"}:
            began, finished = node.get("startedAt") or "", node.get("finishedAt") or ""
            name, template = str(node.get("displayName", "")), str(node.get("templateName", ""))
            text = " ".join(str(node.get("message") or "").split())
            result.append(Step(str(node.get("id", "")), name, template, str(node.get("phase", "")), began, finished, text))
    return tuple(sorted(result, key=lambda step: (step.began or "~", step.name)))


def model(workflow: Mapping[str, Any]) -> str:
    """The model that the step `register` made, by digest; or nothing."""
    for node in ((workflow.get("status") or {}).get("nodes") or {}).values():
        if node.get("templateName") == "register" and node.get("phase") == "Succeeded":
            for parameter in (node.get("outputs") or {}).get("parameters") or ():
                if parameter.get("name") == "model" and parameter.get("value"):
                    return str(parameter["value"]).strip()
    return ""


@dataclass(frozen=True, slots=True)
class Trouble:
    """The pod of a step, and why it does not go on.

    Attributes:
        pod: its name; empty: it is not known.
        reason: in the words of whoever refuses it; empty: nothing holds it up.
        hopeless: waiting does not help.
    """

    pod: str = ""
    reason: str = ""
    hopeless: bool = False


def reasons(pods: list[dict[str, Any]], endings: Endings) -> dict[str, Trouble]:
    """By node id: the pod, and why it does not go on.

    Args:
        pods: of the workflow.
        endings: of their containers, from earlier looks.
    """
    result = {}
    for pod in pods:
        metadata = pod.get("metadata") or {}
        if node := (metadata.get("annotations") or {}).get(_NODE):
            name, found = str(metadata.get("name", "")), list(pod_reasons.problems(pod, endings))
            # A container that ended is its step's end, of which Argo tells.
            waiting = [one for one in found if one.reason or one.hopeless]
            first = next((one for one in waiting if one.hopeless), waiting[0] if waiting else None)
            result[str(node)] = Trouble(name, _said(first), first.hopeless) if first else Trouble(name)
    return result


def _said(problem: Problem) -> str:
    words = problem.ended or " ".join(problem.message.split())
    return ": ".join(part for part in (problem.reason, words) if part)


class _Screen:
    """What a person sees: a table that is drawn anew on a terminal, a line for each change elsewhere."""

    def __init__(self) -> None:
        self._live = Live(console=console.out, refresh_per_second=2, transient=True) if console.out.is_terminal else None
        self._told: dict[str, tuple[str, str]] = {}

    def __enter__(self) -> _Screen:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def show(self, now: tuple[Step, ...], why: Mapping[str, Trouble]) -> None:
        clock = datetime.datetime.now(datetime.UTC)
        grid = Table.grid(padding=(0, 2))
        for step in now:
            reason = (
                ""
                if step.phase in ENDED
                else why.get(step.node, Trouble()).reason or ("" if step.phase == "Running" else step.message)
            )
            grid.add_row(Text(f"  {_MARKS.get(step.phase, '!')}"), Text(step.name), step.phase, step.took(clock), Text(reason))
            self._tell(step, reason, clock)
        if self._live:
            self._live.update(grid)

    def _tell(self, step: Step, reason: str, clock: datetime.datetime) -> None:
        before = self._told.get(step.node)
        if before == (step.phase, reason):
            return
        self._told[step.node] = (step.phase, reason)
        took = step.took(clock)
        if step.phase == "Succeeded":
            console.done(f"{step.name}  ({took})")
        elif step.phase in FAILED:
            console.warn(f"{step.name}: {step.phase} after {took}: {step.message or 'no reason is given'}")
        elif reason:
            console.warn(f"{step.name}: {step.phase}: {reason}")
        elif self._live is None and (before is None or before[0] != step.phase):
            console.info(f"{_MARKS.get(step.phase, '!')} {step.name}: {step.phase}")


def follow(kubectl: Kubectl, version: str) -> str:
    """Follow a workflow to its end.

    Args:
        kubectl: for the cluster.
        version: the workflow's name.

    Returns:
        The model that came out, by digest; empty where the workflow tells of none.

    Raises:
        TrainingError: the workflow failed (what the failing step said last was printed), vanished, or waits in vain.
        MissingEnvironmentError: the cluster has not answered for `Patience.away`; the workflow goes on.
    """
    kubectl = Outlasting(kubectl)
    endings, stuck = Endings(), Stuck(kubectl.patience.hopeless)
    with _Screen() as screen:
        while True:
            workflow = kubectl.get(WORKFLOWS, NAMESPACE, version)
            if workflow is None:
                fix = "somebody deleted it: run this again"
                raise TrainingError("the workflow is gone", where=f"{NAMESPACE}/{version}", fix=fix)
            now = steps(workflow)
            waiting = [step for step in now if step.phase not in ENDED]
            why = _pods(kubectl, version, endings) if waiting else {}
            screen.show(now, why)
            if phase(workflow) in ENDED:
                break
            if hung := stuck.longest(waiting, why):
                fix = "mend its cause: the workflow goes on by itself then, and --watch follows it again"
                what = f"the step {hung.name} does not start, and waiting longer does not help: {why[hung.node].reason}"
                raise TrainingError(what, where=f"workflow {NAMESPACE}/{version}", fix=fix)
            time.sleep(kubectl.patience.pause)
    if phase(workflow) in FAILED:
        raise failure(kubectl, workflow, version)
    return model(workflow)


class Stuck:
    """Which step has been hopeless for so long that nobody mends it.

    Args:
        patience: seconds for which somebody may be mending it.
    """

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._since: dict[str, float] = {}

    def longest(self, waiting: Sequence[Step], why: Mapping[str, Trouble]) -> Step | None:
        """The step to give up on; None: there is none."""
        for step in waiting:
            trouble = why.get(step.node, Trouble())
            if trouble.hopeless:
                since = self._since.setdefault(step.node, time.monotonic())
                if time.monotonic() - since >= self._patience:
                    return step
            elif "BackOff" not in trouble.reason:
                # Between two pulls the kubelet says only that it backs off.
                self._since.pop(step.node, None)
        return None


def _pods(kubectl: Kubectl, version: str, endings: Endings) -> dict[str, Trouble]:
    """The pods of a workflow; none where we may not see them, as the workflow's own words will do."""
    answer = kubectl.request(["get", "pods", "-n", NAMESPACE, "-l", f"{_WORKFLOW}={version}", "-o", "json"])
    try:
        return reasons(listed(answer.stdout), endings) if not answer.code else {}
    except json.JSONDecodeError:
        return {}


def failure(kubectl: Kubectl, workflow: Mapping[str, Any], version: str) -> TrainingError:
    """The error of a failed workflow; prints what the step that failed said last."""
    again = "mend the reason, then add --again: it goes on from the last checkpoint"
    bad = [step for step in steps(workflow) if step.phase in FAILED]
    if not bad:
        what = f"the workflow ended {phase(workflow)}: {message(workflow) or 'no reason is given'}"
        return TrainingError(what, where=f"{NAMESPACE}/{version}", fix=again)
    # The last try says most: the ones before were tried again for some other reason, or the same.
    last = bad[-1]
    pod = _pods(kubectl, version, Endings()).get(last.node, Trouble()).pod
    lines = _log(kubectl, pod) if pod else []
    for line in lines:
        console.err.print(f"    {line}", markup=False, soft_wrap=True)
    if not lines:
        console.warn(f"the log of {last.name} is gone with its pod; what it said is on the volume: logs/{last.template}.log")
    what = f"the step {last.name} ended {last.phase}: {last.message or message(workflow) or 'no reason is given'}"
    return TrainingError(what, where=f"workflow {NAMESPACE}/{version}", fix=again)


def _log(kubectl: Kubectl, pod: str) -> list[str]:
    answer = kubectl.request(["logs", pod, "-n", NAMESPACE, "-c", "main", f"--tail={_LAST_LINES}"])
    lines: list[str] = []
    for line in () if answer.code else answer.stdout.splitlines():
        # A progress bar draws itself over and over: its last state is what counts.
        if lines and _BAR.search(line) and _BAR.search(lines[-1]):
            lines.pop()
        lines.append(line.rstrip())
    return lines[-_LAST_LINES:]
