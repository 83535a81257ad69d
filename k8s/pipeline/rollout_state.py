"""How far a workload's rollout is, by its status. For programs of pods and for deploys alike.

Source: the conditions that `kubectl rollout status` waits for (kubectl, polymorphichelpers/rollout_status.go).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from common.errors import ExitCode


class FailedError(Exception):
    """What was sent does not come up, or something else went wrong after it.

    Args:
        why: for people.
        code: the toolkit's own for it.
    """

    def __init__(self, why: str, code: ExitCode = ExitCode.POLICY) -> None:
        super().__init__(why)
        self.code = code


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


def state(body: Mapping[str, Any] | None) -> State:
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
