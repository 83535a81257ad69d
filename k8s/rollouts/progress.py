"""Why the pods of a workload do not start, read from their status, in the words of whoever refuses them.

Sources: the waiting reasons of the kubelet (k8s/pipeline/pod_reasons.py), the pod condition PodScheduled, and the condition
ReplicaFailure of a ReplicaSet that may make no pods. Nothing of a pod's environment is read.

Much of it is no trouble: a pod waits for its volume, a probe fails until the server listens, at every start. So a reason says
when it is worth a line.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from common.errors import ExitCode
from k8s.pipeline import pod_reasons
from k8s.pipeline.pod_reasons import Endings, alike

Body = Mapping[str, Any]
When = Literal["at once", "if it lasts", "at the end"]
_LONG = 300


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a pod does not start.

    Attributes:
        text: for people, with the pod and the words of whoever refuses it.
        hopeless: waiting does not help.
        crashed: pod and container that ended, whose last words are worth reading; empty: none.
        pod: its name; empty: it is about no pod.
        known_by: the same for the same trouble of another pod, or after another restart; empty: the text.
        tell: when it is worth a line; an error that gives up has it in any case.
        exit_code: the toolkit's own for it.
    """

    text: str
    hopeless: bool = False
    crashed: tuple[str, str] | None = None
    pod: str = ""
    known_by: str = ""
    tell: When = "at once"
    exit_code: ExitCode = ExitCode.POLICY


def owner(workload: Body, replica_sets: Sequence[Body]) -> Body:
    """What the newest pods of a workload belong to: a Deployment's newest ReplicaSet, else the workload itself."""
    mine = [replica_set for replica_set in replica_sets if _belongs(replica_set, workload)]
    return max(mine, key=_revision, default=workload)


def reasons(
    workload: Body, replica_sets: Sequence[Body], pods: Sequence[Body], events: Sequence[Body], endings: Endings
) -> list[Reason]:
    """Why the newest pods of a workload do not start, without repetitions; empty where nothing tells.

    Args:
        workload: Deployment, StatefulSet or DaemonSet.
        replica_sets: of its namespace.
        pods: of its namespace.
        events: warnings of its namespace; they speak for what no status does, such as a volume that cannot be mounted.
        endings: of the pods' containers, from earlier looks.
    """
    above, found = owner(workload, replica_sets), False
    refusals = _conditions(above, "ReplicaFailure", "True")
    result = [_refused(condition.get("message", ""), endings) for condition in refusals]
    newest = (workload.get("status") or {}).get("updateRevision")
    for pod in pods:
        labels = pod["metadata"].get("labels") or {}
        if _belongs(pod, above) and (not newest or labels.get("controller-revision-hash") == newest):
            found = True
            own = list(_of_pod(pod, endings))
            result += [*own, *_told_of_pod(pod, events, alone=not own)]
    if not found and not result:
        result = list(_told(above, events, endings)) or list(_told(workload, events, endings))
    return list(dict.fromkeys(result))


def _belongs(body: Body, above: Body) -> bool:
    return any(one.get("uid") == above["metadata"].get("uid") for one in body["metadata"].get("ownerReferences") or ())


def _revision(replica_set: Body) -> int:
    written = (replica_set["metadata"].get("annotations") or {}).get("deployment.kubernetes.io/revision", "0")
    return int(written) if str(written).isdigit() else 0


def _conditions(body: Body, kind: str, status: str) -> Iterator[Body]:
    for condition in (body.get("status") or {}).get("conditions") or ():
        if condition.get("type") == kind and condition.get("status") == status:
            yield condition


def _refused(message: str, endings: Endings) -> Reason:
    """Pods that the server does not let be made; room in a quota may come, a policy stays."""
    hopeless = endings.preflight or "exceeded quota" not in message
    return Reason(f"no pod can be made: FailedCreate: {brief(message)}", hopeless=hopeless)


def _of_pod(pod: Body, endings: Endings) -> Iterator[Reason]:
    name = str(pod["metadata"]["name"])
    for problem in pod_reasons.problems(pod, endings):
        place = f"pod {name}"
        if problem.container:
            place += f", {'init container' if problem.init else 'container'} {problem.container}"
        what = problem.ended or brief(problem.message)
        text = f"{place}: {problem.reason or 'it ended'}{': ' + what if what else ''}"
        if problem.hopeless and problem.same > 1:
            text += f", {problem.same} times in a row"
        if problem.said:
            text += f": {brief(problem.said)}"
        known_by = (
            f"{problem.container} {problem.hopeless} {problem.ended or alike(f'{problem.reason} {what}'.replace(name, ''))}"
        )
        crashed = (name, problem.container) if problem.ended and not problem.said else None
        tell: When = "at once" if problem.container else "if it lasts"
        yield Reason(text, problem.hopeless, crashed, name, known_by, tell, problem.exit_code)


def _told_of_pod(pod: Body, events: Sequence[Body], *, alone: bool) -> Iterator[Reason]:
    """The newest warning about a pod that says more than its status.

    Args:
        pod: as the cluster gives it.
        events: of its namespace.
        alone: whether the status says nothing.
    """
    name, status = str(pod["metadata"]["name"]), pod.get("status") or {}
    containers = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
    started = any({"running", "terminated"} & set(one.get("state") or ()) for one in containers)
    restarted = any(one.get("restartCount") for one in containers)
    # That it is not scheduled its status says, as long as it is true; what was wrong before a container started is over then.
    mine = [
        event
        for event in events
        if event.get("reason") == "Unhealthy" or (alone and not started and event.get("reason") != "FailedScheduling")
    ]
    event = _newest(pod, mine)
    if event is None or not (alone or restarted):
        return
    when: When = "if it lasts"
    if event.get("reason") == "Unhealthy":
        # A probe that fails before the server listens is no trouble until the kubelet has had enough of it.
        when = "at once" if restarted else "at the end"
    reason = _warning(pod, event)
    yield dataclasses.replace(reason, pod=name, known_by=alike(reason.text.replace(name, "")), tell=when)


def _told(body: Body, events: Sequence[Body], endings: Endings) -> Iterator[Reason]:
    """The newest warning about what makes pods."""
    if event := _newest(body, events):
        created = event.get("reason") == "FailedCreate"
        yield _refused(str(event.get("message", "")), endings) if created else _warning(body, event)


def _newest(body: Body, events: Sequence[Body]) -> Body | None:
    mine = [event for event in events if (event.get("involvedObject") or {}).get("uid") == body["metadata"].get("uid")]
    warnings = [event for event in mine if event.get("type") == "Warning"]
    return max(warnings, key=lambda event: str(event.get("lastTimestamp") or ""), default=None)


def _warning(body: Body, event: Body) -> Reason:
    place = f"{body['kind'].lower()} {body['metadata']['name']}"
    return Reason(f"{place}: {event.get('reason', '')}: {brief(str(event.get('message', '')))}")


def brief(text: str) -> str:
    """Somebody's words as one printable line."""
    line = " ".join("".join(mark if mark.isprintable() else " " for mark in text).split())
    return line if len(line) <= _LONG else line[: _LONG - 1] + "…"
