"""Parts of a real cluster that die while a deploy goes on: it waits, and ends as if nothing had been, or as it was before.

A part is kept dead until the deploy was seen to suffer from it, and for no set time.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from common import console
from common.errors import PolicyError
from k8s.rollouts import preflight, restore, rollout
from k8s.single_node import cluster, namespaces
from k8s.single_node.places import Home
from tests.k8s.single_node.served import NAME, Served
from tests.waiting import eventually

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.skipif(os.geteuid() != 0, reason="a cluster needs root")]
# What a deploy is about to do when it calls these.
PHASES: dict[str, tuple[Any, str]] = {
    "the preflight": (preflight, "_apply"),
    "the apply": (restore, "put"),
    "waiting for the rollout": (rollout, "wait"),
}


def number_of(part: str) -> int:
    """The process of a part of the cluster; 0 while it is dead."""
    first = namespaces.running(Home.of_this_machine())
    assert first
    found = cluster.processes(first.pid)
    return next((int(number) for program, number in found.items() if program.rpartition("/")[2] == part), 0)


@contextmanager
def kept_dead(part: str) -> Iterator[threading.Event]:
    """Kill a part whenever it is started again, until the event is set or the block ends."""
    enough = threading.Event()

    def kill() -> None:
        while not enough.is_set():
            if number := number_of(part):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(number, signal.SIGKILL)
            enough.wait(0.2)

    killing = threading.Thread(target=kill)
    killing.start()
    try:
        yield enough
    finally:
        enough.set()
        killing.join()
        eventually(lambda: number_of(part), f"{part} is back")


def at(patch: pytest.MonkeyPatch, phase: str, what: Callable[[], None]) -> None:
    """Do something once, when a deploy comes to this phase."""
    where, name = PHASES[phase]
    true, done = getattr(where, name), threading.Event()

    def first(*arguments: Any, **named: Any) -> Any:
        if not done.is_set():
            done.set()
            what()
        return true(*arguments, **named)

    patch.setattr(where, name, first)


@pytest.mark.parametrize("phase", PHASES)
def test_an_api_server_that_dies_is_waited_for(running: Served, monkeypatch: pytest.MonkeyPatch, phase: str) -> None:
    said: list[str] = []
    running.say(image=running.images[1], model=running.models[1])
    with contextlib.ExitStack() as stack:
        enough: list[threading.Event] = []
        true = console.warn

        def warn(text: str) -> None:
            said.append(text)
            if "does not answer; waiting" in text:
                enough[0].set()
            true(text)

        monkeypatch.setattr(console, "warn", warn)
        at(monkeypatch, phase, lambda: enough.append(stack.enter_context(kept_dead("kube-apiserver"))))
        running.go()
    assert said.count("the cluster does not answer; waiting") >= 1
    assert running.serving()[1:] == (running.images[1], running.models[1])
    running.at_rest()
    assert [one.state for one in running.releases()[-2:]] == ["running", "running"]


def test_a_containerd_that_dies_is_outlasted(running: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    running.say(image=running.images[1])

    def kill() -> None:
        before = number_of("containerd")
        os.kill(before, signal.SIGKILL)
        eventually(lambda: number_of("containerd") not in {0, before}, "containerd is back")

    at(monkeypatch, "waiting for the rollout", kill)
    running.go()
    assert running.serving()[1] == running.images[1]
    eventually(running.answers, "the server answers")


def test_a_kubelet_that_stands_still_is_waited_for(running: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    running.say(image=running.images[1])
    number, seen = number_of("kubelet"), threading.Event()

    def stand_still() -> None:
        os.kill(number, signal.SIGSTOP)

        def go_on() -> None:
            def told() -> bool:
                """The scheduler has bound the new pod, and nobody starts it."""
                found = [one for one in running.pods(NAME) if one["spec"]["containers"][0]["image"].endswith(running.images[1])]
                return any(one["spec"].get("nodeName") and not one["status"].get("containerStatuses") for one in found)

            try:
                eventually(told, "a pod that nobody starts")
                seen.set()
            finally:
                os.kill(number, signal.SIGCONT)

        threading.Thread(target=go_on).start()

    at(monkeypatch, "waiting for the rollout", stand_still)
    running.go()
    assert seen.is_set()
    assert running.serving()[1] == running.images[1]


def test_of_two_deploys_at_once_one_says_who_has_the_lease(running: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    refused: list[PolicyError] = []

    def second() -> None:
        with pytest.raises(PolicyError, match="another deploy to served is running: ") as caught:
            running.go()
        refused.append(caught.value)

    running.say(image=running.images[1])
    at(monkeypatch, "waiting for the rollout", second)
    running.go()
    (one,) = refused
    assert running.releases()[-1].who in one.line()
    assert running.serving()[1] == running.images[1]
