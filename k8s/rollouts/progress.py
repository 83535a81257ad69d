"""Why the pods of a workload do not start, read from their status, in the words of whoever refuses them.

Sources: the waiting reasons of the kubelet (k8s/pipeline/pod_reasons.py), the pod condition PodScheduled, and the condition
ReplicaFailure of a ReplicaSet that may make no pods. Nothing of a pod's environment is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from k8s.pipeline import pod_reasons
from k8s.pipeline.pod_reasons import Endings

Body = Mapping[str, Any]
_LONG = 300


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a pod does not start.

    Attributes:
        text: for people, with the pod and the words of whoever refuses it.
        hopeless: waiting does not help.
        crashed: pod and container that ended, whose last words are worth reading; empty: none.
    """

    text: str
    hopeless: bool = False
    crashed: tuple[str, str] | None = None


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
    above = owner(workload, replica_sets)
    result = [_refused(condition.get("message", "")) for condition in _conditions(above, "ReplicaFailure", "True")]
    newest = (workload.get("status") or {}).get("updateRevision")
    for pod in pods:
        labels = pod["metadata"].get("labels") or {}
        if _belongs(pod, above) and (not newest or labels.get("controller-revision-hash") == newest):
            result += list(_of_pod(pod, endings)) or list(_told(pod, events))
    if not result:
        result = list(_told(above, events)) or list(_told(workload, events))
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


def _refused(message: str) -> Reason:
    """Pods that the server does not let be made; room in a quota may come, a policy stays."""
    return Reason(f"no pod can be made: FailedCreate: {brief(message)}", hopeless="exceeded quota" not in message)


def _of_pod(pod: Body, endings: Endings) -> Iterator[Reason]:
    name = str(pod["metadata"]["name"])
    for problem in pod_reasons.problems(pod, endings):
        place = f"pod {name}"
        if problem.container:
            place += f", {'init container' if problem.init else 'container'} {problem.container}"
        what = problem.ended or brief(problem.message)
        text = f"{place}: {problem.reason or 'it ended'}{': ' + what if what else ''}"
        if problem.hopeless and problem.same:
            text += f", {problem.same} times in a row"
        yield Reason(text, problem.hopeless, (name, problem.container) if problem.ended else None)


def _told(body: Body, events: Sequence[Body]) -> Iterator[Reason]:
    """The newest warning about an object."""
    mine = [event for event in events if (event.get("involvedObject") or {}).get("uid") == body["metadata"].get("uid")]
    for event in sorted(mine, key=lambda event: str(event.get("lastTimestamp") or ""))[-1:]:
        if event.get("reason") == "FailedCreate":
            yield _refused(str(event.get("message", "")))
        elif event.get("type") == "Warning":
            place = f"{body['kind'].lower()} {body['metadata']['name']}"
            yield Reason(f"{place}: {event.get('reason', '')}: {brief(str(event.get('message', '')))}")


def brief(text: str) -> str:
    """Somebody's words as one printable line."""
    line = " ".join("".join(mark if mark.isprintable() else " " for mark in text).split())
    return line if len(line) <= _LONG else line[: _LONG - 1] + "…"
