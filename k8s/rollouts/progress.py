"""How far a workload's rollout is, and why its pods do not start: read from the status of the workload and of its pods.

Sources: the conditions that `kubectl rollout status` waits for (kubectl's polymorphichelpers/rollout_status.go), the waiting
reasons of the kubelet (pkg/kubelet/images/types.go and kuberuntime), the pod condition PodScheduled, and the condition
ReplicaFailure of a ReplicaSet that may make no pods. Nothing of a pod's environment is read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Body = Mapping[str, Any]
# A container that waits for these is only on its way.
_ON_ITS_WAY = {"PodInitializing", "ContainerCreating"}
# These do not get better by waiting: somebody must mend a name, a Secret, a policy.
_HOPELESS = {"InvalidImageName", "ErrImageNeverPull", "CreateContainerConfigError"}
_PULLS = {"ErrImagePull", "ImagePullBackOff"}
_NO_SUCH_IMAGE = re.compile(r"not ?found|manifest unknown|does not exist|denied|unauthorized|forbidden", re.IGNORECASE)
_LONG = 300


@dataclass(frozen=True, slots=True)
class State:
    """How far a rollout is.

    Attributes:
        done: the newest pods run, and no older ones.
        failed: why its controller gave it up; empty while it did not.
        text: for people.
    """

    done: bool
    failed: str
    text: str


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


def state(body: Body | None) -> State:
    """How far the rollout of a Deployment, StatefulSet or DaemonSet is.

    Args:
        body: as the cluster gives it; None: it is not there.
    """
    if body is None:
        return State(False, "it is not there", "not there")
    spec, status = body.get("spec") or {}, body.get("status") or {}
    if int(status.get("observedGeneration") or 0) < int(body["metadata"].get("generation") or 0):
        return State(False, "", "not seen yet by its controller")
    if body["kind"] == "DaemonSet":
        wanted, updated = int(status.get("desiredNumberScheduled") or 0), int(status.get("updatedNumberScheduled") or 0)
        available, total = int(status.get("numberAvailable") or 0), updated
    else:
        wanted, updated = int(spec.get("replicas", 1)), int(status.get("updatedReplicas") or 0)
        ready = "availableReplicas" if body["kind"] == "Deployment" else "readyReplicas"
        available, total = int(status.get(ready) or 0), int(status.get("replicas") or 0)
    text = f"{updated} of {wanted} updated, {available} available"
    if total > updated:
        text += f", {total - updated} old still there"
    done = updated >= wanted and total <= updated and available >= updated
    gave_up = any(one.get("reason") == "ProgressDeadlineExceeded" for one in status.get("conditions") or ())
    return State(done and not gave_up, "it exceeded its progress deadline" if gave_up else "", text)


def owner(workload: Body, replica_sets: Sequence[Body]) -> Body:
    """What the newest pods of a workload belong to: a Deployment's newest ReplicaSet, else the workload itself."""
    mine = [one for one in replica_sets if _belongs(one, workload)]
    return max(mine, key=_revision, default=workload)


def reasons(workload: Body, replica_sets: Sequence[Body], pods: Sequence[Body], events: Sequence[Body]) -> list[Reason]:
    """Why the newest pods of a workload do not start, without repetitions; empty where nothing tells.

    Args:
        workload: Deployment, StatefulSet or DaemonSet.
        replica_sets: of its namespace.
        pods: of its namespace.
        events: warnings of its namespace; they speak for what no status does, such as a volume that cannot be mounted.
    """
    above = owner(workload, replica_sets)
    found = [_refused(one.get("message", "")) for one in _conditions(above, "ReplicaFailure", "True")]
    newest = (workload.get("status") or {}).get("updateRevision")
    for pod in pods:
        labels = pod["metadata"].get("labels") or {}
        if _belongs(pod, above) and (not newest or labels.get("controller-revision-hash") == newest):
            found += list(_of_pod(pod)) or list(_told(pod, events))
    if not found:
        found = list(_told(above, events)) or list(_told(workload, events))
    return list(dict.fromkeys(found))


def _belongs(body: Body, above: Body) -> bool:
    return any(one.get("uid") == above["metadata"].get("uid") for one in body["metadata"].get("ownerReferences") or ())


def _revision(replica_set: Body) -> int:
    written = (replica_set["metadata"].get("annotations") or {}).get("deployment.kubernetes.io/revision", "0")
    return int(written) if str(written).isdigit() else 0


def _conditions(body: Body, kind: str, status: str) -> Iterator[Body]:
    for one in (body.get("status") or {}).get("conditions") or ():
        if one.get("type") == kind and one.get("status") == status:
            yield one


def _refused(message: str) -> Reason:
    """Pods that the server does not let be made; room in a quota may come, a policy stays."""
    return Reason(f"no pod can be made: FailedCreate: {brief(message)}", hopeless="exceeded quota" not in message)


def _of_pod(pod: Body) -> Iterator[Reason]:
    name, status = pod["metadata"]["name"], pod.get("status") or {}
    for one in _conditions(pod, "PodScheduled", "False"):
        yield Reason(f"pod {name}: {one.get('reason', 'not scheduled')}: {brief(one.get('message', ''))}")
    for group, word in (("initContainerStatuses", "init container"), ("containerStatuses", "container")):
        for one in status.get(group) or ():
            place = f"pod {name}, {word} {one['name']}"
            waiting = (one.get("state") or {}).get("waiting") or {}
            ended = (one.get("state") or {}).get("terminated") or (one.get("lastState") or {}).get("terminated") or {}
            reason, message = str(waiting.get("reason", "")), str(waiting.get("message", ""))
            if reason == "CrashLoopBackOff" or (ended.get("exitCode") and not one.get("ready")):
                how = f"{ended.get('reason', 'Error')}, code {ended.get('exitCode', 'unknown')}"
                times = f"{one.get('restartCount', 0)} restarts"
                text = f"{place}: {reason or 'it ended'}: {how}, {times}"
                yield Reason(text, crashed=(name, str(one["name"])))
            elif reason and reason not in _ON_ITS_WAY:
                hopeless = reason in _HOPELESS or (reason in _PULLS and bool(_NO_SUCH_IMAGE.search(message)))
                yield Reason(f"{place}: {reason}{': ' + brief(message) if message else ''}", hopeless=hopeless)


def _told(body: Body, events: Sequence[Body]) -> Iterator[Reason]:
    """The newest warning about an object."""
    mine = [one for one in events if (one.get("involvedObject") or {}).get("uid") == body["metadata"].get("uid")]
    for one in sorted(mine, key=lambda one: str(one.get("lastTimestamp") or ""))[-1:]:
        if one.get("reason") == "FailedCreate":
            yield _refused(str(one.get("message", "")))
        elif one.get("type") == "Warning":
            place = f"{body['kind'].lower()} {body['metadata']['name']}"
            yield Reason(f"{place}: {one.get('reason', '')}: {brief(str(one.get('message', '')))}")


def brief(text: str) -> str:
    """Somebody's words as one printable line."""
    line = " ".join("".join(mark if mark.isprintable() else " " for mark in text).split())
    return line if len(line) <= _LONG else line[: _LONG - 1] + "…"
