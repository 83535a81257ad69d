"""Deploys that fail after the first object was sent: what runs afterwards, and what the error says of it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from common.errors import (
    DeployNotRecordedError,
    DeployNotRolledBackError,
    DeployRolledBackError,
    ExitCode,
    PolicyError,
)
from k8s.prepare import preflight
from k8s.rollouts import receipt, release, rollout
from tests.k8s.conftest import API, NEW, OLD, Checkout
from tests.k8s.simulator.apiserver import VERSIONS, ApiServer
from tests.k8s.simulator.steps import IMPATIENT, NAME, go, image, record, running, states
from tests.k8s.simulator.wire import Fault

pytestmark = [pytest.mark.host, pytest.mark.parametrize("kubernetes", VERSIONS[-1:], indirect=True)]


@pytest.mark.parametrize("code", [429, 500, 503, 0], ids=["429", "500", "503", "connection cut"])
def test_what_passes_by_itself_is_tried_again(checkout: Checkout, server: ApiServer, code: int) -> None:
    go()
    checkout.lock({API: NEW})
    server.faults = [Fault(code, kind="Deployment", times=2)]
    go()
    assert running(server) == image(NEW)


@pytest.mark.parametrize("code", [429, 500, 0], ids=["429", "500", "connection cut"])
def test_reads_are_tried_again_too(checkout: Checkout, server: ApiServer, code: int) -> None:
    server.faults = [Fault(code, "GET", kind="Service", times=2)]
    go()
    assert running(server) == image(OLD)


@pytest.mark.parametrize("kind", ["Deployment", "Service"])
def test_a_partial_apply_is_rolled_back(checkout: Checkout, server: ApiServer, kind: str) -> None:
    """One object is refused, the others are applied; the rollout status alone would call that a success."""
    go()
    checkout.lock({API: NEW})
    checkout.edit("configmap.yaml", "vllm_maxlen: 8192", "vllm_maxlen: 4096")
    server.faults = [Fault(403, kind=kind, times=1)]
    with pytest.raises(
        DeployRolledBackError, match="apply failed.*a policy forbids it.*the last good set runs again"
    ) as caught:
        go()
    assert caught.value.exit_code == ExitCode.DEPLOY_ROLLED_BACK
    assert running(server) == image(OLD)
    assert "vllm_maxlen: 8192" in server.body("ConfigMap", NAME)["data"]["inference.yaml"]
    assert states() == [(1, "running"), (2, "put back")]
    assert json.loads(receipt.path("staging").read_text())["images"][0]["reference"] == image(OLD)


def test_a_conflict_that_appears_after_the_dry_run_is_rolled_back_and_named(checkout: Checkout, server: ApiServer) -> None:
    go()
    checkout.lock({API: NEW})
    server.faults = [Fault(409, kind="Deployment", times=1)]
    with pytest.raises(DeployRolledBackError, match=r'conflict with "kubectl-edit" using apps/v1 at \S+: \.spec\.replicas'):
        go()
    assert running(server) == image(OLD)


@pytest.mark.parametrize("silent", [False, True], ids=["progress deadline", "never ready"])
def test_a_rollout_that_never_gets_ready_is_rolled_back(checkout: Checkout, server: ApiServer, silent: bool) -> None:
    go()
    checkout.lock({API: NEW})
    server.bad_images, server.silent_failure = {NEW}, silent
    with pytest.raises(DeployRolledBackError, match="does not get ready") as caught:
        go(patience=IMPATIENT)
    assert ("exceeded its progress deadline" in caught.value.line()) is not silent
    assert running(server) == image(OLD)


def test_a_stale_failure_does_not_spoil_the_rollback(checkout: Checkout, server: ApiServer) -> None:
    """For a while after the rollback the status still tells of the failure before it (facts.md §4.6)."""
    go()
    checkout.lock({API: NEW})
    server.bad_images, server.race = {NEW}, 1.0
    with pytest.raises(DeployRolledBackError):
        go()
    assert running(server) == image(OLD)


def test_a_deploy_after_a_rollback_goes_well(checkout: Checkout, server: ApiServer) -> None:
    go()
    checkout.lock({API: NEW})
    server.bad_images = {NEW}
    with pytest.raises(DeployRolledBackError):
        go()
    server.bad_images = set()
    go()
    assert running(server) == image(NEW)


def test_an_object_that_only_the_failed_set_has_is_named(checkout: Checkout, server: ApiServer) -> None:
    go()
    checkout.lock({API: NEW})
    checkout.add("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: extra, namespace: llm-inference}\n")
    server.bad_images = {NEW}
    with pytest.raises(DeployRolledBackError, match="made by this deploy and still there: ConfigMap llm-inference/extra"):
        go()
    assert server.body("ConfigMap", "extra")


def test_a_first_deploy_that_fails_has_nothing_to_put_back(checkout: Checkout, server: ApiServer) -> None:
    server.bad_images = {OLD}
    with pytest.raises(
        DeployNotRolledBackError, match="there is no last good set to put back.*still there: ConfigMap"
    ) as caught:
        go()
    assert caught.value.exit_code == ExitCode.DEPLOY_NOT_ROLLED_BACK
    assert server.image() == image(OLD)
    assert states() == [(1, "half done")]
    assert not receipt.path("staging").exists()


def test_a_rollback_that_fails_too_says_what_is_where(checkout: Checkout, server: ApiServer) -> None:
    go()
    checkout.lock({API: NEW})
    server.bad_images = {NEW}
    server.faults = [Fault(500, kind="Deployment", after=1)]
    with pytest.raises(DeployNotRolledBackError, match="putting the last good set back failed too") as caught:
        go()
    assert f"{release.local('staging', record().releases[0].set).name} by hand" in caught.value.line()
    assert server.image() == image(NEW)
    assert states() == [(1, "running"), (2, "half done")]


def test_a_rollback_to_pods_that_no_longer_start_is_no_rollback(checkout: Checkout, server: ApiServer) -> None:
    go()
    checkout.lock({API: NEW})
    server.bad_images = {NEW, OLD}
    with pytest.raises(DeployNotRolledBackError, match="does not get ready"):
        go()


def test_a_server_that_dies_in_the_middle_is_not_called_rolled_back_and_the_next_deploy_mends(
    checkout: Checkout, server: ApiServer, capsys: pytest.CaptureFixture[str]
) -> None:
    go()
    checkout.lock({API: NEW})
    server.faults = [Fault(0, "*", after=3)]
    with pytest.raises(DeployNotRolledBackError, match="apply failed"):
        go()
    assert states() == [(1, "running"), (2, "begun")]
    server.faults = []
    go(wait=True)
    said = capsys.readouterr().err
    assert "release 2" in said
    assert "is begun: the cluster may hold parts of it; this deploy puts its whole set over them" in said
    assert "had ended without being let go of; taken over" in said
    assert running(server) == image(NEW)
    assert states() == [(1, "running"), (2, "begun"), (3, "running")]


def test_a_record_that_cannot_be_begun_stops_the_deploy_before_anything_is_sent(checkout: Checkout, server: ApiServer) -> None:
    go()
    checkout.lock({API: NEW})
    server.faults = [Fault(403, kind="ConfigMap")]
    with pytest.raises(PolicyError, match="the release record cannot be written.*a policy forbids it.*`patch` ConfigMaps"):
        go()
    assert running(server) == image(OLD)
    server.faults = []
    go()
    assert running(server) == image(NEW)


def test_a_record_that_cannot_be_ended_is_an_error_though_the_set_runs(checkout: Checkout, server: ApiServer) -> None:
    go()
    checkout.lock({API: NEW})
    own = sum(one.kind == "ConfigMap" and not preflight.is_one(one) for one in checkout.check()[0].objects)
    server.faults = [Fault(500, kind="ConfigMap", after=1 + own)]
    with pytest.raises(DeployNotRecordedError, match="the set runs, every image was read back, but the release record cannot"):
        go()
    server.faults = []
    assert (running(server), states()) == (image(NEW), [(1, "running"), (2, "begun")])
    go()
    assert states()[-1] == (3, "running")


def test_an_image_that_somebody_swaps_during_the_rollout_is_noticed(
    checkout: Checkout, server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Apply and rollout both report success; only reading back shows what runs."""
    go()
    checkout.lock({API: NEW})
    true = rollout.wait
    swapped: list[bool] = []

    def meddled(*arguments: Any) -> None:
        true(*arguments)
        if not swapped:
            swapped.append(True)
            pod = {"containers": [{"name": "inference", "image": "evil.example/x:1"}]}
            server.edit("Deployment", NAME, {"spec": {"template": {"spec": pod}}}, "intruder")

    monkeypatch.setattr(rollout, "wait", meddled)
    with pytest.raises(
        DeployNotRolledBackError, match=r"runs evil\.example/x:1 at spec\.template\.spec\.containers\[0\]\.image"
    ):
        go()


def test_an_interrupt_puts_the_last_good_set_back(
    checkout: Checkout, server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    go()
    checkout.lock({API: NEW})
    true = rollout.wait
    calls: list[bool] = []

    def interrupted(*arguments: Any) -> None:
        calls.append(True)
        if len(calls) == 1:
            raise KeyboardInterrupt
        true(*arguments)

    monkeypatch.setattr(rollout, "wait", interrupted)
    with pytest.raises(DeployRolledBackError, match="interrupted from the keyboard"):
        go()
    assert running(server) == image(OLD)
