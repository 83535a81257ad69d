"""Following a run: what a person is told while it goes on, when it hangs, when it fails, and when they stop looking."""

from __future__ import annotations

import dataclasses
import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from common import console
from common.errors import ExitCode, TrainingError
from k8s.pipeline.pod_reasons import Endings
from k8s.training import watch
from k8s.training.names import NAMESPACE
from tests.k8s.simulator.argo import Controller
from tests.k8s.simulator.steps import BRIEF
from tests.k8s.training.conftest import Site
from tests.waiting import eventually

MODEL = "registry.example.com/llm/models/example-tiny@sha256:" + "e" * 64
NOT_SCHEDULED = {
    "phase": "Pending",
    "conditions": [
        {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": "0/3 nodes: insufficient nvidia.com/gpu",
        }
    ],
}


def waiting(reason: str, message: str, *, init: bool = False) -> dict[str, Any]:
    one = {"name": "main", "state": {"waiting": {"reason": reason, "message": message}}}
    return {"phase": "Pending", "initContainerStatuses" if init else "containerStatuses": [one]}


# --- what stands in a status ---


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (NOT_SCHEDULED, "Unschedulable: 0/3 nodes: insufficient nvidia.com/gpu"),
        (waiting("ImagePullBackOff", "Back-off pulling image"), "ImagePullBackOff: Back-off pulling image"),
        (
            waiting("CreateContainerConfigError", 'secret "x" not found', init=True),
            'CreateContainerConfigError: secret "x" not found',
        ),
        (waiting("ContainerCreating", ""), ""),
        (waiting("PodInitializing", ""), ""),
        ({"phase": "Running", "containerStatuses": [{"state": {"running": {}}}]}, ""),
        ({}, ""),
    ],
)
def test_a_pod_says_why_it_does_not_start(status: dict[str, Any], said: str) -> None:
    pod = {"metadata": {"name": "p", "annotations": {"workflows.argoproj.io/node-id": "n"}}, "status": status}
    found = watch.reasons([pod, {"metadata": {"name": "other"}}], Endings())
    assert found == {"n": watch.Trouble("p", said, hopeless="secret" in said)}


@pytest.mark.parametrize("workflow", [{}, {"status": {}}, {"status": {"nodes": None}}, {"status": {"phase": ""}}])
def test_a_workflow_that_the_controller_has_not_seen_is_pending(workflow: dict[str, Any]) -> None:
    assert (watch.phase(workflow), watch.steps(workflow), watch.model(workflow)) == ("Pending", (), "")


def test_only_a_register_step_that_succeeded_tells_of_a_model() -> None:
    def made(phase: str, template: str) -> dict[str, Any]:
        outputs = {"parameters": [{"name": "model", "value": f"{MODEL}\n"}]}
        return {"status": {"nodes": {"a": {"templateName": template, "phase": phase, "outputs": outputs}}}}

    assert watch.model(made("Succeeded", "register")) == MODEL
    assert watch.model(made("Failed", "register")) == ""
    assert watch.model(made("Succeeded", "train")) == ""


# --- following ---


def play(site: Site, scene: Callable[[Controller], None]) -> threading.Thread:
    """Wait for the workflow, then let the controller act."""

    def act() -> None:
        eventually(site.workflows, "a workflow")
        scene(site.controller(site.workflows()[0]))

    thread = threading.Thread(target=act, daemon=True)
    thread.start()
    return thread


def looked(site: Site) -> None:
    """Let whoever follows look once more."""

    def looks() -> int:
        return sum("workflows/" in path for _, path in site.api.requests)

    before = looks()
    eventually(lambda: looks() >= before + 2, "another look")


@pytest.mark.host
def test_a_run_is_followed_to_its_model(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    def scene(one: Controller) -> None:
        looked(site)
        one.phase("Running")
        one.step("download", "Running")
        looked(site)
        one.succeed(MODEL)

    play(site, scene)
    result = site.go(follow=True)
    assert (result.result, result.model) == ("succeeded", MODEL)
    said = " ".join(capsys.readouterr().out.split())
    assert "download: Running" in said
    assert "✓ download (1 min 30 s)" in said
    assert f"model: {{reference: {MODEL}, key: …}}" in said
    assert "k8s/envs/staging.yaml" in said


@pytest.mark.host
def test_a_pod_that_hangs_is_told_with_its_own_reason_once(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    def scene(one: Controller) -> None:
        one.phase("Running")
        node = one.step("train", "Pending", message="PodInitializing")
        one.pod(node, NOT_SCHEDULED)
        looked(site)
        looked(site)
        one.pod(node, waiting("ImagePullBackOff", "manifest unknown"))
        looked(site)
        one.succeed(MODEL)

    play(site, scene)
    # Whoever mends it does so in time, however busy this machine is.
    site.go(dataclasses.replace(BRIEF, hopeless=60), follow=True)
    said = " ".join(capsys.readouterr().err.split())
    assert said.count("train: Pending: Unschedulable: 0/3 nodes: insufficient nvidia.com/gpu") == 1
    assert "train: Pending: ImagePullBackOff: manifest unknown" in said


@pytest.mark.host
def test_a_step_that_waiting_does_not_help_ends_the_watch_and_not_the_workflow(site: Site) -> None:
    def scene(one: Controller) -> None:
        one.phase("Running")
        node = one.step("train", "Pending")
        one.pod(node, waiting("CreateContainerConfigError", 'secret "x" not found'))

    play(site, scene)
    hopeless = r'the step train does not start.*does not help: CreateContainerConfigError: secret "x" not found.*goes on'
    with pytest.raises(TrainingError, match=hopeless):
        site.go(follow=True)
    (version,) = site.workflows()
    assert site.api.body("Workflow", version)["status"]["phase"] == "Running"


@pytest.mark.host
def test_a_cluster_that_is_away_for_a_while_is_waited_for(
    site: Site, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    true = console.warn

    def warn(text: str) -> None:
        true(text)
        if text == "the cluster does not answer; waiting":
            site.api.away = False

    monkeypatch.setattr(console, "warn", warn)

    def scene(one: Controller) -> None:
        one.phase("Running")
        one.step("train", "Running")
        looked(site)
        site.api.away = True
        eventually(lambda: not site.api.away, "that it is waited for")
        one.succeed(MODEL)

    play(site, scene)
    assert site.go(follow=True).model == MODEL
    assert capsys.readouterr().err.count("the cluster does not answer; waiting") == 1


def test_a_pull_that_backs_off_between_two_refusals_is_as_hopeless(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    step = watch.Step("n", "train", "train", "Pending", "", "", "")
    stuck = watch.Stuck(patience=120)
    refused = {"n": watch.Trouble("p", "ErrImagePull: manifest unknown", hopeless=True)}
    assert stuck.longest([step], refused) is None
    now[0] = 60
    assert stuck.longest([step], {"n": watch.Trouble("p", "ImagePullBackOff: Back-off pulling image")}) is None
    now[0] = 121
    assert stuck.longest([step], refused) == step
    assert stuck.longest([step], {}) is None
    assert stuck.longest([step], refused) is None


@pytest.mark.host
def test_a_failed_step_is_named_with_its_last_lines_and_a_code_of_its_own(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    def scene(one: Controller) -> None:
        one.step("download", "Succeeded")
        one.step("train(0)", "Failed", message="main: Error (exit code 1)")
        node = one.step("train(1)", "Failed", message="main: Error (exit code 137): OOMKilled")
        one.pod(
            node,
            {"phase": "Failed"},
            "".join(f"line {number}\n" for number in range(30)) + " 10%|#   | 1/10\r 20%|##  | 2/10\rlast words\n",
        )
        one.step("deploy", "Omitted", kind="Skipped")
        one.phase("Failed", "child 'train' failed")

    play(site, scene)
    with pytest.raises(
        TrainingError, match=r"the step train\(1\) ended Failed: main: Error \(exit code 137\): OOMKilled"
    ) as caught:
        site.go(follow=True)
    assert caught.value.exit_code == ExitCode.TRAINING
    said = capsys.readouterr().err
    assert "last words" in said
    assert "20%" in said
    assert "10%" not in said
    assert "line 10\n" not in said
    assert "line 29\n" in said
    assert "add --again" in caught.value.line()


@pytest.mark.host
def test_a_failure_whose_pod_is_gone_says_where_the_log_is(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    def scene(one: Controller) -> None:
        one.step("train", "Error", message="pod deleted")
        one.phase("Error")

    play(site, scene)
    with pytest.raises(TrainingError, match="the step train ended Error: pod deleted"):
        site.go(follow=True)
    assert "logs/train.log" in capsys.readouterr().err


@pytest.mark.host
def test_a_workflow_that_fails_before_any_step_says_why(site: Site) -> None:
    play(site, lambda one: one.phase("Error", "invalid spec: mutex"))
    with pytest.raises(TrainingError, match="the workflow ended Error: invalid spec: mutex"):
        site.go(follow=True)


@pytest.mark.host
def test_a_workflow_that_somebody_deletes_is_no_success(site: Site) -> None:
    def scene(one: Controller) -> None:
        one.phase("Running")
        looked(site)
        site.api.remove("Workflow", one.version)

    play(site, scene)
    with pytest.raises(TrainingError, match="the workflow is gone"):
        site.go(follow=True)


@pytest.mark.host
def test_pods_that_may_not_be_listed_stop_nothing(site: Site) -> None:
    site.api.forbidden.add(("list", "pods"))

    def scene(one: Controller) -> None:
        one.step("train", "Running")
        looked(site)
        one.succeed(MODEL)

    play(site, scene)
    assert site.go(follow=True).model == MODEL


@pytest.mark.host
def test_who_stops_looking_leaves_the_workflow_running_and_is_told_so(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    def scene(one: Controller) -> None:
        one.phase("Running")
        looked(site)
        os.kill(os.getpid(), signal.SIGINT)

    play(site, scene)
    with pytest.raises(KeyboardInterrupt):
        site.go(follow=True)
    (version,) = site.workflows()
    assert site.api.body("Workflow", version)["status"]["phase"] == "Running"
    said = " ".join(capsys.readouterr().err.split())
    assert f"the workflow {version} goes on in the cluster; to follow it again: invoke train --experiment" in said


@pytest.mark.host
def test_a_run_that_is_there_can_be_followed_later(site: Site) -> None:
    version = site.go().version
    site.controller(version).succeed(MODEL)
    result = site.go(follow=True)
    assert (result.model, site.api.body("Workflow", version)["metadata"]["namespace"]) == (MODEL, NAMESPACE)
