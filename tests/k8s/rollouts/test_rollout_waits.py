"""What a wait for a rollout prints, and when it ends: without kubectl, look by look."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import pytest

from common.run import Result
from k8s.objects.manifests import Manifest
from k8s.pipeline.rollout_state import FailedError
from k8s.prepare.rendered import RenderedSet
from k8s.rollouts import restore
from k8s.rollouts.lease import Lease
from tests.k8s.rollouts.scripted import QUICK, WEB, Scripted, crashed, pod, warning
from tests.k8s.rollouts.test_release import env


def test_a_container_that_ends_five_times_with_the_same_error_ends_the_wait() -> None:
    def script(one: Scripted) -> None:
        one.pods = [pod(crashed(one.looks))]

    one = Scripted(script=script)
    with pytest.raises(FailedError, match=r"waiting longer does not help.*CrashLoopBackOff: Error, code 1, 5 times in a row"):
        one.wait()
    assert one.looks == 5


def test_a_container_that_ends_in_another_way_each_time_is_waited_for() -> None:
    def script(one: Scripted) -> None:
        one.pods, one.ready = [pod(crashed(one.looks, code=one.looks % 2 + 1))], one.looks > 20

    Scripted(script=script).wait()


def test_an_apply_that_fails_is_not_ticked_off(capsys: pytest.CaptureFixture[str]) -> None:
    one = Scripted()
    one.answers = {"apply --server-side": Result(1, "", "error: a policy forbids it")}
    rendered = RenderedSet((Manifest("web.yaml", WEB, {}),), (), ())
    lease = Lease(one, "staging", "n", "Ada")
    lease._taken({})
    with pytest.raises(FailedError, match="apply failed: a policy forbids it"):
        restore.put(one, rendered, env("staging"), "putting the last good set back", lease, recorded=False)
    said = capsys.readouterr().out
    assert "putting the last good set back" in said
    assert "✓" not in said


# --- what is worth a line ---

UNBOUND = "0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims"


def unscheduled(message: str = UNBOUND, name: str = "web-1-x") -> dict[str, Any]:
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    return pod(None, condition, name=name)


def running(restarts: int = 0) -> dict[str, Any]:
    return pod({"restartCount": restarts, "state": {"running": {}}})


def shown(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [line.strip() for line in capsys.readouterr().err.splitlines()]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, ten seconds later at each pause."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "sleep", lambda _: now.__setitem__(0, now[0] + 10))
    return now


PATIENT = dataclasses.replace(QUICK, rollout=1800, hopeless=1800, lasting=20)


def test_a_claim_that_is_bound_a_moment_later_is_not_told(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    """The pod waits for its volume; its event of that time is still there when it starts."""

    def script(one: Scripted) -> None:
        one.events = [warning("web-1-x", "FailedScheduling", UNBOUND)]
        one.pods = [unscheduled() if one.looks < 3 else running()]
        one.ready = one.looks == 8

    Scripted(PATIENT, script).wait()
    assert shown(capsys) == []


def test_a_pod_that_no_node_takes_for_a_while_is_told_once(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    def script(one: Scripted) -> None:
        # The scheduler's words change from try to try.
        one.pods = [unscheduled("0/3 nodes: no GPU" if one.looks > 2 else UNBOUND)]
        one.ready = one.looks == 9

    Scripted(PATIENT, script).wait()
    assert shown(capsys) == ["! Deployment n/web: pod web-1-x: Unschedulable: 0/3 nodes: no GPU"]


def test_a_probe_that_fails_before_the_server_listens_is_not_told(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    def script(one: Scripted) -> None:
        one.pods = [running()]
        one.events = [warning("web-1-x", "Unhealthy", "Startup probe failed: dial tcp 10.0.0.9:8000: connection refused")]
        one.ready = one.looks == 20

    Scripted(PATIENT, script).wait()
    assert shown(capsys) == []


def test_a_probe_that_never_goes_well_is_named_by_who_gives_up(clock: list[float]) -> None:
    one = Scripted(dataclasses.replace(PATIENT, rollout=100))
    one.pods = [running()]
    one.events = [warning("web-1-x", "Unhealthy", "Readiness probe failed: 503")]
    with pytest.raises(FailedError, match=r"not within 1 min 40 s.*; pod web-1-x: Unhealthy: Readiness probe failed: 503"):
        one.wait()


def test_a_probe_that_ended_the_container_is_told_once_and_not_at_each_restart_or_pod(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    def script(one: Scripted) -> None:
        one.pods = [running(restarts=one.looks), running(restarts=one.looks)]
        one.pods[1]["metadata"] |= {"name": "web-1-y", "uid": "web-1-y"}
        message = f"Startup probe failed: dial tcp 10.0.0.{one.looks}:8000: connection refused"
        one.events = [warning(name, "Unhealthy", message) for name in ("web-1-x", "web-1-y")]
        one.ready = one.looks == 9

    Scripted(PATIENT, script).wait()
    (line,) = shown(capsys)
    assert line.startswith("! Deployment n/web: pod web-1-x: Unhealthy: Startup probe failed")


def test_the_same_crash_is_told_once_whatever_pod_and_restart_and_another_one_too(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    def script(one: Scripted) -> None:
        code = 1 if one.looks < 4 else 137
        one.pods = [pod(crashed(one.looks, code)), pod(crashed(one.looks + 1, code), name="web-1-y")]
        one.ready = one.looks == 7

    Scripted(PATIENT, script).wait()
    said = "! Deployment n/web: pod web-1-x, container main: CrashLoopBackOff: Error, code"
    assert shown(capsys) == [f"{said} 1", f"{said} 137"]


def test_that_a_log_is_gone_is_not_taken_for_last_words(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    def script(one: Scripted) -> None:
        one.pods, one.ready = [pod(crashed(one.looks))], one.looks == 2

    one = Scripted(PATIENT, script)
    one.answers = {
        "--previous": Result(0, "unable to retrieve container logs for containerd://1fe1", ""),
        "logs web-1-x": Result(0, "no such model\n", ""),
    }
    one.wait()
    assert shown(capsys)[1:] == ["!     no such model"]


def test_an_old_refusal_to_make_pods_is_not_told_once_there_are_pods(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    def script(one: Scripted) -> None:
        one.events = [warning("web-1", "FailedCreate", 'serviceaccount "web" not found')]
        one.pods, one.ready = [running()], one.looks == 9

    Scripted(PATIENT, script).wait()
    assert shown(capsys) == []
