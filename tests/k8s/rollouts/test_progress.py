"""How far a rollout is and why it hangs: by the status alone, then through real kubectl to pods that do not start."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from common.errors import DeployRolledBackError
from k8s.pipeline import rollout_state
from k8s.pipeline.pod_reasons import Endings
from k8s.rollouts import progress, rollout
from tests.k8s.conftest import API, NEW, OLD, Checkout
from tests.k8s.simulator.apiserver import ApiServer
from tests.k8s.simulator.controller import Trouble
from tests.k8s.simulator.steps import IMPATIENT, go, image, running
from tests.k8s.simulator.wire import Fault
from tests.waiting import eventually


def deployment(generation: int = 1, replicas: int = 2, **status: Any) -> dict[str, Any]:
    metadata = {"name": "d", "uid": "d", "generation": generation}
    return {"kind": "Deployment", "metadata": metadata, "spec": {"replicas": replicas}, "status": status}


def rolled(updated: int, available: int, total: int) -> dict[str, Any]:
    body = deployment(observedGeneration=1, updatedReplicas=updated, availableReplicas=available)
    body["status"]["replicas"] = total
    return body


@pytest.mark.parametrize(
    ("body", "done", "text"),
    [
        (rolled(2, 2, 2), True, "2 of 2 updated, 2 available"),
        (rolled(1, 2, 3), False, "1 of 2 updated, 2 available, 2 old still there"),
        (rolled(2, 2, 3), False, "2 of 2 updated, 2 available, 1 old still there"),
        (rolled(2, 1, 2), False, "2 of 2 updated, 1 available"),
        (deployment(generation=2, observedGeneration=1), False, "not seen yet by its controller"),
        (deployment(replicas=0, observedGeneration=1), True, "0 of 0 updated, 0 available"),
        (None, False, "not there"),
        (
            {
                "kind": "DaemonSet",
                "metadata": {"generation": 1},
                "status": {
                    "observedGeneration": 1,
                    "desiredNumberScheduled": 3,
                    "updatedNumberScheduled": 3,
                    "numberAvailable": 2,
                },
            },
            False,
            "3 of 3 updated, 2 available",
        ),
        (
            {
                "kind": "StatefulSet",
                "metadata": {"generation": 1},
                "spec": {"replicas": 1},
                "status": {"observedGeneration": 1, "updatedReplicas": 1, "readyReplicas": 1, "replicas": 1},
            },
            True,
            "1 of 1 updated, 1 available",
        ),
    ],
)
def test_how_far_a_rollout_is(body: dict[str, Any] | None, done: bool, text: str) -> None:
    found = rollout_state.state(body)
    assert (found.done, found.text) == (done, text)


def test_a_rollout_that_its_controller_gave_up_is_never_done() -> None:
    body = rolled(2, 2, 2)
    body["status"]["conditions"] = [{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}]
    assert rollout_state.state(body) == rollout_state.State(
        False, "it exceeded its progress deadline", "2 of 2 updated, 2 available"
    )


def owned(kind: str, name: str, above: str, **more: Any) -> dict[str, Any]:
    metadata = {"name": name, "uid": name, "ownerReferences": [{"uid": above}], **more.pop("metadata", {})}
    return {"kind": kind, "metadata": metadata, **more}


def replica_set(name: str, revision: int, **status: Any) -> dict[str, Any]:
    annotations = {"deployment.kubernetes.io/revision": str(revision)}
    return owned("ReplicaSet", name, "d", metadata={"annotations": annotations}, status=status)


def waiting(reason: str, message: str = "", group: str = "containerStatuses", **more: Any) -> dict[str, Any]:
    return {group: [{"name": "main", "state": {"waiting": {"reason": reason, "message": message}}, **more}]}


@pytest.mark.parametrize(
    ("status", "text", "hopeless"),
    [
        (waiting("ContainerCreating"), "", False),
        (
            waiting("ErrImagePull", "manifest unknown"),
            "pod p, container main: ErrImagePull: manifest unknown",
            True,
        ),
        (waiting("ErrImagePull", "i/o timeout"), "pod p, container main: ErrImagePull: i/o timeout", False),
        (waiting("ImagePullBackOff", "Back-off"), "pod p, container main: ImagePullBackOff: Back-off", False),
        (waiting("InvalidImageName", "x"), "pod p, container main: InvalidImageName: x", True),
        (
            waiting("CreateContainerConfigError", 'secret "inference-api-key" not found'),
            'pod p, container main: CreateContainerConfigError: secret "inference-api-key" not found',
            True,
        ),
        (
            waiting("ErrImagePull", "denied", "initContainerStatuses"),
            "pod p, init container main: ErrImagePull: denied",
            True,
        ),
        (
            waiting("CrashLoopBackOff", lastState={"terminated": {"exitCode": 137, "reason": "OOMKilled"}}, restartCount=4),
            "pod p, container main: CrashLoopBackOff: OOMKilled, code 137",
            False,
        ),
        (
            {"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"}]},
            "pod p: Unschedulable: 0/3 nodes",
            False,
        ),
        (
            waiting("ErrImagePull", "line\x1b[31m one\nline two"),
            "pod p, container main: ErrImagePull: line [31m one line two",
            False,
        ),
    ],
)
def test_why_a_pod_does_not_start(status: dict[str, Any], text: str, hopeless: bool) -> None:
    pod = owned("Pod", "p", "new", status=status)
    old = owned("Pod", "old", "old", status=waiting("ErrImagePull", "of the set before"))
    sets = [replica_set("new", 10), replica_set("old", 9)]
    found = progress.reasons(deployment(), sets, [pod, old], [], Endings())
    assert [(one.text, one.hopeless) for one in found] == ([(text, hopeless)] if text else [])


def test_what_no_status_says_is_told_by_the_newest_warning() -> None:
    pod = owned("Pod", "p", "new", status=waiting("ContainerCreating"))
    events = [
        {"type": "Warning", "reason": reason, "message": reason, "lastTimestamp": time, "involvedObject": {"uid": uid}}
        for reason, time, uid in (("FailedMount", "2", "p"), ("FailedAttachVolume", "1", "p"), ("Other", "3", "q"))
    ]
    (found,) = progress.reasons(deployment(), [replica_set("new", 1)], [pod], events, Endings())
    assert found.text == "pod p: FailedMount: FailedMount"


@pytest.mark.parametrize(
    ("message", "hopeless"),
    [('pods "x" is forbidden: exceeded quota: q', False), ('violates PodSecurity "restricted:v1.32"', True)],
)
def test_pods_that_may_not_be_made_are_told_by_their_replica_set(message: str, hopeless: bool) -> None:
    condition = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": message}
    (found,) = progress.reasons(deployment(), [replica_set("new", 1, conditions=[condition])], [], [], Endings())
    assert (found.text, found.hopeless) == (f"no pod can be made: FailedCreate: {message}", hopeless)


# --- through real kubectl ---

host = pytest.mark.host


@host
@pytest.mark.parametrize(
    ("trouble", "message"),
    [
        (
            Trouble("ImagePullBackOff", "Back-off pulling image: not found", init=True),
            r"waiting longer does not help, 1 of 1 updated, 0 available; pod \S+, init container fetch: ImagePullBackOff: Ba",
        ),
        (
            Trouble("FailedCreate", 'violates PodSecurity "restricted"'),
            r"waiting longer does not help.*; no pod can be made: FailedCreate: violates PodSecurity",
        ),
        (Trouble("FailedCreate", "exceeded quota: gpus"), r"not within \d\.\d s.*FailedCreate: exceeded quota: gpus"),
        (Trouble("Unschedulable", "0/3 nodes: GPU"), r"not within \d\.\d s.*; pod \S+: Unschedulable: 0/3 nodes: GPU"),
    ],
    ids=["image of an init container", "pod security", "quota", "no node"],
)
def test_the_pods_own_reason_is_in_the_error_and_the_last_good_set_runs_again(
    checkout: Checkout, server: ApiServer, trouble: Trouble, message: str
) -> None:
    go()
    checkout.lock({API: NEW})
    server.troubles, server.silent_failure = {NEW: trouble}, True
    with pytest.raises(DeployRolledBackError, match=f"does not get ready: {message}"):
        go(patience=IMPATIENT)
    assert running(server) == image(OLD)


@host
def test_the_last_words_of_a_container_that_crashes_are_shown_and_no_more_of_them(
    checkout: Checkout, server: ApiServer, capsys: pytest.CaptureFixture[str]
) -> None:
    go()
    checkout.lock({API: NEW})
    said = "".join(f"line {number}\n" for number in range(1, 9)) + "\x1b[2JCUDA out of memory\n"
    server.troubles = {NEW: Trouble("CrashLoopBackOff", log=said)}
    with pytest.raises(DeployRolledBackError, match=r"progress deadline.*CrashLoopBackOff: Error, code 1") as caught:
        go()
    shown = capsys.readouterr().err
    assert "line 5\n" in shown
    assert "    [2JCUDA out of memory\n" in shown
    assert "line 4\n" not in shown
    assert "CUDA" not in caught.value.line()


@host
def test_each_step_of_a_rollout_is_one_line(checkout: Checkout, server: ApiServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.rollout = 600

    def looks() -> int:
        return sum(method == "GET" and "/deployments" in path for method, path in server.requests)

    def roll_out() -> None:
        # Not that of the preflight, and not before it was looked at.
        sent = "/deployments/llama-factory-inference?"

        def written(method: str, path: str) -> bool:
            return method == "PATCH" and sent in path and "dryRun" not in path

        eventually(lambda: any(written(*request) for request in server.requests), "the Deployment")
        eventually(server.pending, "a rollout")
        before = looks()
        eventually(lambda: looks() >= before + 2, "a look at the rollout")
        server.finish()

    threading.Thread(target=roll_out, daemon=True).start()
    go()
    title = "Deployment llm-inference/llama-factory-inference"
    said = [line.strip() for line in capsys.readouterr().out.splitlines()]
    lines = [line for line in said if f"{title}: " in line and ("of 1" in line or "seen" in line)]
    assert lines[0] == f"waiting      {title}: not seen yet by its controller"
    assert lines[-1].startswith(f"✓ {title}: 1 of 1 updated, 1 available  (")
    assert len(lines) == len(set(lines))


@host
def test_who_may_not_list_pods_waits_as_well_without_their_reasons(checkout: Checkout, server: ApiServer) -> None:
    go()
    checkout.lock({API: NEW})
    server.forbidden = {("list", "pods"), ("list", "replicasets"), ("list", "events")}
    server.troubles, server.silent_failure = {NEW: Trouble("InvalidImageName")}, True
    with pytest.raises(DeployRolledBackError, match=r"not within \d\.\d s, 1 of 1 updated, 0 available; the last good set"):
        go(patience=IMPATIENT)


@host
def test_a_cluster_that_is_away_during_the_rollout_is_waited_for(
    checkout: Checkout, server: ApiServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    go()
    checkout.lock({API: NEW})
    true = rollout.wait

    def cut(*arguments: Any) -> None:
        # More of them than one look has tries, twice three.
        server.faults = [Fault(503, "GET", "Deployment", times=7), Fault(0, "GET", "Deployment", times=2)]
        true(*arguments)

    monkeypatch.setattr(rollout, "wait", cut)
    go()
    assert running(server) == image(NEW)
    assert "the cluster does not say how far it is" in capsys.readouterr().err
