"""Why a pod does not start or does not stay up, and whether waiting helps: one list for deploy, promote and `train --watch`.

The reasons are the kubelet's (pkg/kubelet/images/types.go, pkg/kubelet/kuberuntime) and the scheduler's. Whoever gives up on a
hopeless one lets it stand for a while first, since somebody may just be mending its cause. A container that crashes may wait
for what comes up beside it, so it is hopeless only after it ended with the same error `ENOUGH` times. In a preflight everything
that fails is hopeless: what serves goes on, and who mended the cause tries again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from common.errors import ExitCode

# Endings of one container with the same error, after which nobody expects another one.
ENOUGH = 5
# Seconds that a failure must last to end a preflight: the kubelet has tried once more by then.
ONCE_MORE = 20.0
# The container is only on its way.
ON_ITS_WAY = frozenset({"", "PodInitializing", "ContainerCreating"})
CRASHED = "CrashLoopBackOff"
# Not an image name; an image that is not on the node and may not be pulled; a Secret, ConfigMap or key that is missing, or a
# user that is not allowed; a command, a mount or a device that the runtime cannot set up. Somebody must mend one of these.
_HOPELESS = frozenset({"InvalidImageName", "ErrImageNeverPull", "CreateContainerConfigError", "RunContainerError"})
# A pull that fails may go well the next time, unless the registry says that there is no such image for us.
_PULLS = frozenset({"ErrImagePull", "ImagePullBackOff"})
_NO_SUCH_IMAGE = re.compile(r"not ?found|manifest unknown|does not exist|denied|unauthorized|forbidden", re.IGNORECASE)
# What differs between two tellings of the same: times, addresses, counts.
_CHANGING = re.compile(r"0x[0-9a-f]+|\d+", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Problem:
    """What keeps a pod from running.

    Attributes:
        container: whose it is; empty: the pod is not scheduled.
        init: whether that is an init container.
        reason: the kubelet's or the scheduler's word; empty where a container ended and nothing is said of it since.
        message: their words.
        hopeless: waiting does not help.
        ended: how the container ended last, where it did: `OOMKilled, code 137`.
        code: with which exit code; None where it did not end.
        same: how often it ended like that, as far as it was seen.
        said: its last line, where it ended and its pod's status tells that.
    """

    container: str
    init: bool
    reason: str
    message: str
    hopeless: bool = False
    ended: str = ""
    code: int | None = None
    same: int = 0
    said: str = ""

    @property
    def exit_code(self) -> ExitCode:
        """The toolkit's own code for it: what a program of ours ended with, or that of what refuses the pod."""
        if self.reason in _PULLS:
            return ExitCode.REGISTRY
        ours = (ExitCode.USAGE, ExitCode.ENVIRONMENT, ExitCode.LOCK, ExitCode.REGISTRY)
        return next((one for one in ours if one == self.code and self.init), ExitCode.POLICY)


@dataclass
class Endings:
    """How often containers ended with the same error, counted from look to look: a status tells of the last two endings only.

    What ended before the first look is not counted, as nobody knows with which error.

    Attributes:
        preflight: whatever fails is hopeless at once.
    """

    preflight: bool = False
    _seen: dict[tuple[str, str], tuple[tuple[object, ...], int]] = field(default_factory=dict)

    def count(self, pod: Mapping[str, Any], container: Mapping[str, Any]) -> int:
        """How often the container is known to have ended as it did last; 0 where it has not, or is well again.

        Args:
            pod: that it is part of.
            container: its entry in the pod's status.
        """
        metadata = pod.get("metadata") or {}
        key = (str(metadata.get("uid") or metadata.get("name")), str(container.get("name")))
        state = container.get("state") or {}
        last = _error((container.get("lastState") or {}).get("terminated"))
        error = _error(state.get("terminated")) or last
        if error is None or container.get("ready"):
            self._seen.pop(key, None)
            return 0
        # The kubelet counts restarts: while it runs again, one less of its starts has ended.
        ended = int(container.get("restartCount") or 0) + ("running" not in state)
        before, first = self._seen.get(key, (None, 0))
        if before != error:
            twice = bool(state.get("terminated")) and error == last
            first = ended - twice
        self._seen[key] = (error, first)
        return ended - first + 1


def _error(terminated: Mapping[str, Any] | None) -> tuple[object, ...] | None:
    """What makes two endings the same error."""
    if not terminated:
        return None
    return terminated.get("exitCode"), terminated.get("reason"), alike(str(terminated.get("message") or ""))


def alike(text: str) -> str:
    """A text without what changes from one telling to the next."""
    return _CHANGING.sub("#", text)


def problems(pod: Mapping[str, Any], endings: Endings) -> Iterator[Problem]:
    """What keeps a pod from running: first that it is not scheduled, then each container's own reason.

    Args:
        pod: as the cluster gives it.
        endings: what is known from earlier looks.
    """
    status = pod.get("status") or {}
    for condition in status.get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            # A node for it may still be created.
            yield Problem("", False, str(condition.get("reason") or "not scheduled"), str(condition.get("message") or ""))
    for group in ("initContainerStatuses", "containerStatuses"):
        for container in status.get(group) or ():
            if problem := _of_container(pod, container, endings, init=group == "initContainerStatuses"):
                yield problem


def _of_container(pod: Mapping[str, Any], container: Mapping[str, Any], endings: Endings, *, init: bool) -> Problem | None:
    state = container.get("state") or {}
    waiting = state.get("waiting") or {}
    reason, message = str(waiting.get("reason") or ""), str(waiting.get("message") or "")
    same = endings.count(pod, container)
    last = state.get("terminated") or (container.get("lastState") or {}).get("terminated") or {}
    name, code = str(container.get("name", "?")), last.get("exitCode")
    if reason == CRASHED or (code and not container.get("ready")):
        ended = f"{last.get('reason') or 'Error'}, code {'unknown' if code is None else code}"
        words = str(last.get("message") or "").split("\n")
        said = next((" ".join(line.split()) for line in reversed(words) if line.strip()), "")
        hopeless = same >= (1 if endings.preflight else ENOUGH)
        return Problem(name, init, reason, message, hopeless, ended, code, same, said)
    if reason in ON_ITS_WAY:
        return None
    refused = endings.preflight or bool(_NO_SUCH_IMAGE.search(message))
    hopeless = reason in _HOPELESS or (reason in _PULLS and refused)
    return Problem(name, init, reason, message, hopeless)
