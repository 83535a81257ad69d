"""When a container that keeps ending is hopeless: not before it ended with the same error five times, as far as was seen."""

from __future__ import annotations

from typing import Any

import pytest

from k8s.pipeline import pod_reasons
from k8s.pipeline.pod_reasons import ENOUGH, Endings

OTHER = {"exitCode": 1, "reason": "Error"}
KILLED = {"exitCode": 137, "reason": "OOMKilled"}


def pod(container: dict[str, Any], *, init: bool = False, uid: str = "u") -> dict[str, Any]:
    group = "initContainerStatuses" if init else "containerStatuses"
    return {"metadata": {"name": "p", "uid": uid}, "status": {group: [{"name": "c", "ready": False, **container}]}}


def backing_off(restarts: int, error: dict[str, Any]) -> dict[str, Any]:
    waiting = {"reason": "CrashLoopBackOff", "message": f"back-off {10 * restarts}s restarting failed container"}
    return {"restartCount": restarts, "state": {"waiting": waiting}, "lastState": {"terminated": error}}


def running(restarts: int, error: dict[str, Any]) -> dict[str, Any]:
    return {"restartCount": restarts, "state": {"running": {}}, "lastState": {"terminated": error}}


def looks(*containers: dict[str, Any], init: bool = False) -> list[bool]:
    """Whether each look finds it hopeless."""
    endings = Endings()
    return [one.hopeless for each in containers for one in pod_reasons.problems(pod(each, init=init), endings)]


@pytest.mark.parametrize("init", [False, True])
def test_five_endings_with_the_same_error_are_enough(init: bool) -> None:
    assert looks(*(backing_off(number, KILLED) for number in range(ENOUGH)), init=init) == [False] * 4 + [True]


def test_it_stays_hopeless_while_it_runs_once_more() -> None:
    assert looks(*(backing_off(number, KILLED) for number in range(ENOUGH)), running(ENOUGH, KILLED))[-1]


def test_endings_between_two_looks_count() -> None:
    assert looks(backing_off(0, KILLED), backing_off(4, KILLED)) == [False, True]


def test_what_ended_before_the_first_look_does_not_count_as_nobody_knows_how_it_ended() -> None:
    assert looks(*(backing_off(number, KILLED) for number in range(30, 35))) == [False] * 4 + [True]


def test_a_look_that_finds_two_endings_counts_both() -> None:
    twice = {"restartCount": 1, "state": {"terminated": KILLED}, "lastState": {"terminated": KILLED}}
    assert looks(twice, backing_off(4, KILLED)) == [False, True]


def test_another_error_is_counted_anew() -> None:
    assert not any(looks(*(backing_off(number, KILLED if number % 3 else OTHER) for number in range(20))))


def test_times_and_addresses_in_a_message_make_no_other_error() -> None:
    said = [{**OTHER, "message": f"12:0{number}:31 Segmentation fault at 0x7f{number}a"} for number in range(ENOUGH)]
    assert looks(*(backing_off(number, error) for number, error in enumerate(said)))[-1]


def test_a_container_that_got_ready_begins_anew() -> None:
    ready = {**running(4, KILLED), "ready": True}
    assert looks(*(backing_off(number, KILLED) for number in range(4)), ready, backing_off(4, KILLED)) == [False] * 5


def test_a_container_that_ends_well_again_and_again_is_hopeless_too() -> None:
    assert looks(*(backing_off(number, {"exitCode": 0, "reason": "Completed"}) for number in range(ENOUGH)))[-1]


def test_another_pod_of_the_same_name_is_counted_by_itself() -> None:
    endings = Endings()
    for number in range(4):
        list(pod_reasons.problems(pod(backing_off(number, KILLED)), endings))
    (found,) = pod_reasons.problems(pod(backing_off(4, KILLED), uid="v"), endings)
    assert (found.hopeless, found.same) == (False, 1)


def test_an_init_container_that_did_its_work_is_no_problem() -> None:
    done = {"ready": True, "restartCount": 0, "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}
    assert looks(done, init=True) == []
