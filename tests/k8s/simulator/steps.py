"""The steps of the tests that deploy to the simulator."""

from __future__ import annotations

import dataclasses

from k8s import deploy
from k8s.envs import environment
from k8s.envs.environment import ClusterTarget
from k8s.rollouts import release
from k8s.rollouts.kubectl import Kubectl, Patience
from k8s.rollouts.receipt import DeployReceipt
from k8s.rollouts.release import History
from tests.k8s.conftest import API
from tests.k8s.simulator.apiserver import ApiServer

# The limits are there to end a hang: a machine many times busier keeps them.
BRIEF = Patience(rollout=20, settle=3, request=5, pause=0.05, tries=3, lease=6, hopeless=0.5, away=60)
# For rollouts that never end; and for servers that cut every connection, where kubectl itself tries until its time is up.
IMPATIENT, CUT = dataclasses.replace(BRIEF, rollout=3), dataclasses.replace(BRIEF, request=1, tries=2)
NAME = "llama-factory-inference"


def go(
    *, dry_run: bool = False, yes: bool = True, wait: bool = False, prune: bool = False, patience: Patience = BRIEF
) -> DeployReceipt:
    return deploy.deploy("staging", dry_run=dry_run, yes=yes, wait=wait, prune=prune, patience=patience)


def image(digest: str) -> str:
    return f"registry.example.com/llm/{API}@{digest}"


def running(api: ApiServer) -> str:
    """The image of a Deployment whose newest generation is rolled out; fails when it is not."""
    body = api.body("Deployment", NAME)
    status = body["status"]
    assert status.get("observedGeneration") == body["metadata"]["generation"]
    assert status.get("availableReplicas") == status.get("updatedReplicas") == 1
    return api.image()


def record() -> History:
    """The release record in the cluster."""
    return release.read(Kubectl(ClusterTarget("staging"), BRIEF), environment.load("staging"), "llm-inference")


def states() -> list[tuple[int, str]]:
    return [(one.number, one.state) for one in record().releases]
