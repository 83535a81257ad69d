"""Whether what was applied runs: every workload's rollout, then every image, read back."""

from __future__ import annotations

import time
from collections.abc import Sequence

from common import console
from common.errors import PinwheelError
from k8s import findings, planning
from k8s.kubectl import Kubectl, brief
from k8s.manifests import Manifest
from k8s.pin import images

_WORKLOADS = {"Deployment", "StatefulSet", "DaemonSet"}


class FailedError(Exception):
    """Something went wrong after the first object was sent."""


def see(kubectl: Kubectl, objects: Sequence[Manifest], text: str, version: str, *, again: float = 0) -> None:
    """Wait for every workload, then read every image back.

    Args:
        kubectl: of the cluster.
        objects: of the set.
        text: the same, to be sent.
        version: of Kubernetes, for finding images.
        again: for how many seconds a failed rollout status is asked again.

    Raises:
        FailedError: a workload does not get ready, or runs something else.
    """
    deadline = time.monotonic() + kubectl.patience.rollout
    for one in objects:
        if one.kind in _WORKLOADS and one.api_version == "apps/v1":
            with console.step(f"waiting for {one.title}"):
                _wait(kubectl, one, deadline, again)
    wanted = images(objects, version)
    try:
        live = images(planning.of_cluster(kubectl.live(text)), version)
    except PinwheelError as problem:
        raise FailedError(problem.line()) from None
    for (identity, path), reference in sorted(wanted.items(), key=str):
        found = live.get((identity, path), "nothing")
        if found != reference:
            place = f"{identity[1]} {identity[2]}/{identity[3]}"
            raise FailedError(f"{place} runs {found} at {findings.shown(path)}, not {reference}")


def _wait(kubectl: Kubectl, one: Manifest, deadline: float, again: float) -> None:
    tolerant_until = time.monotonic() + again
    while True:
        said = kubectl.rollout(one.kind, one.namespace, one.name, deadline - time.monotonic())
        if not said.code:
            return
        if time.monotonic() >= min(tolerant_until, deadline):
            raise FailedError(f"{one.title} does not get ready: {brief(said)}")
        time.sleep(min(kubectl.patience.pause, 1))
