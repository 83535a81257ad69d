"""A cluster that is away for a while: what is waited for, for how long, what is said, and whose the lease is afterwards."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from common.run import Result
from k8s.envs.environment import ClusterTarget
from k8s.pipeline.rollout_state import FailedError
from k8s.rollouts.kubectl import Kubectl, Patience, passing
from k8s.rollouts.lease import Lease
from k8s.rollouts.outage import Outlasting
from tests.k8s.rollouts.scripted import QUICK, Scripted, crashed, pod

REFUSED = Result(1, "", "The connection to the server 10.0.0.1:6443 was refused - did you specify the right host or port?")
FORBIDDEN = Result(1, "", "Error from server (Forbidden): a policy forbids it")
WEBHOOK = Result(
    1, "", 'Internal error occurred: failed calling webhook "x": dial tcp 10.1.1.1:443: connect: connection refused'
)
CONFLICT = Result(1, "", "Error from server (Conflict): the object has been modified")
DONE = Result(0, "done", "")
PATIENCE = Patience(pause=0, tries=1, away=600, lease=60)


class Plain(Kubectl):
    """Answers calls with what is next, and `/readyz` with whether the server is there.

    Attributes:
        answers: to calls, the last one for all that follow.
        down: how many questions for `/readyz` find nobody.
        lease: what becomes of a renewal.
        order: what was asked.
    """

    def __init__(self, *answers: Result, down: int = 0, patience: Patience = PATIENCE) -> None:
        super().__init__(ClusterTarget("plain"), patience)
        self.answers, self.down = list(answers), down
        self.order: list[str] = []
        self.renewal: Callable[[dict[str, Any]], Result] = lambda body: Result(0, json.dumps(body), "")
        self.holder = "Ada"

    def call(self, args: Sequence[str], *, stdin: str | None = None, timeout: float = 0, tries: int = 0) -> Result:
        if "/readyz" in args:
            self.order.append("ready?")
            self.down -= 1
            return REFUSED if self.down >= 0 else Result(0, "ok", "")
        if "replace" in args:
            self.order.append("renew")
            return self.renewal(json.loads(stdin or ""))
        if any("leases" in one for one in args):
            return Result(0, json.dumps({"kind": "Lease", "spec": {"holderIdentity": self.holder}}), "")
        self.order.append("call")
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        monkeypatch.setattr(time, "sleep", self.sleep)

    def sleep(self, _seconds: float) -> None:
        self.now += 60


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def held(plain: Plain) -> Lease:
    """A lease as it is after it was taken."""
    lease = Lease(plain, "staging", "n", "Ada")
    lease._me = "Ada"
    lease._taken({"metadata": {"resourceVersion": "1"}, "spec": {"holderIdentity": "Ada"}})
    return lease


def test_a_call_is_made_again_when_the_cluster_is_back_and_two_lines_say_so(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = Plain(REFUSED, DONE, down=4)
    patient = Outlasting(plain)
    assert patient.call(["get"]) == DONE
    assert patient.silent == 180
    said = capsys.readouterr()
    assert said.err.strip() == "! the cluster does not answer; waiting"
    assert said.out.strip() == "the cluster answers again, after 3 min 00 s"


def test_a_cluster_that_came_back_between_call_and_question_is_asked_once_more(capsys: pytest.CaptureFixture[str]) -> None:
    assert Outlasting(Plain(REFUSED, DONE)).call(["get"]) == DONE
    assert capsys.readouterr().err == ""


def test_what_fails_while_the_cluster_answers_is_no_outage(capsys: pytest.CaptureFixture[str]) -> None:
    """A webhook that is away fails in the same words as an API server that is."""
    plain = Plain(WEBHOOK)
    assert Outlasting(plain).call(["apply"]) == WEBHOOK
    assert plain.order.count("call") == 2
    assert capsys.readouterr() == ("", "")


def test_what_is_refused_is_not_asked_again() -> None:
    plain = Plain(FORBIDDEN)
    assert Outlasting(plain).call(["apply"]) == FORBIDDEN
    assert plain.order == ["call"]


def test_it_ends_after_its_patience_and_the_next_call_does_not_wait_as_long_again(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    patient = Outlasting(Plain(REFUSED, down=10_000))
    began = clock.now
    gone = patient.call(["apply"])
    assert gone.code == 1
    assert gone.stderr.startswith(
        "the cluster has not answered for 10 min 00 s: The connection to the server 10.0.0.1:6443 was"
    )
    assert passing(gone)
    assert PATIENCE.away <= clock.now - began <= PATIENCE.away + 60
    assert patient.given_up
    began = clock.now
    assert patient.call(["apply"]) == gone
    assert clock.now == began
    assert capsys.readouterr().err.count("does not answer") == 1


def test_a_second_outage_has_a_patience_of_its_own(clock: Clock) -> None:
    plain = Plain(REFUSED, DONE, REFUSED, DONE, down=8)
    patient = Outlasting(plain)
    assert patient.call(["get"]) == DONE
    plain.down = 8
    assert patient.call(["get"]) == DONE
    assert patient.silent == 14 * 60


# --- the lease ---


def test_the_lease_is_renewed_before_anything_else_is_sent(clock: Clock) -> None:
    plain = Plain(REFUSED, DONE, down=2)
    assert Outlasting(plain, held(plain)).call(["apply"]) == DONE
    assert plain.order == ["call", "ready?", "ready?", "ready?", "renew", "call"]


def test_a_lease_that_somebody_took_meanwhile_is_lost_and_nothing_is_sent(clock: Clock) -> None:
    plain = Plain(REFUSED, DONE, down=10_000)
    plain.renewal, plain.holder = lambda _: CONFLICT, "Grace"
    plain.down = 3
    answer = Outlasting(plain, held(plain)).call(["apply"])
    assert (answer.code, answer.stderr) == (1, "the lease n/pinwheel-staging was taken over by Grace")
    assert plain.order.count("call") == 1


def test_a_lease_that_was_not_renewed_while_the_cluster_was_away_is_not_lost(clock: Clock) -> None:
    plain = Plain(DONE)
    lease = held(plain)
    plain.renewal = lambda _: REFUSED
    clock.now += 300
    assert lease.lost() == ""
    plain.renewal = lambda body: Result(0, json.dumps(body), "")
    assert lease.lost() == ""
    assert lease.renew()
    clock.now += 59
    plain.order.clear()
    assert (lease.lost(), plain.order) == ("", [])


def test_a_lease_that_the_cluster_does_not_let_us_renew_is_lost(clock: Clock) -> None:
    plain = Plain(DONE)
    lease = held(plain)
    plain.renewal = lambda _: FORBIDDEN
    clock.now += 61
    assert lease.lost() == "the lease n/pinwheel-staging could not be renewed for 61 s"


def test_a_lease_is_lost_when_the_cluster_stays_away(clock: Clock) -> None:
    plain = Plain(DONE)
    lease = held(plain)
    plain.renewal = lambda _: REFUSED
    clock.now += 700
    assert "could not be renewed for 700 s" in lease.lost()


def test_an_answer_that_got_lost_in_the_outage_is_no_loss_of_the_lease(clock: Clock) -> None:
    plain = Plain(REFUSED, DONE, down=2)
    lease = held(plain)
    first = [CONFLICT]
    plain.renewal = lambda body: first.pop() if first else Result(0, json.dumps(body), "")
    assert Outlasting(plain, lease).call(["apply"]) == DONE


# --- the wait for a rollout ---


def test_the_time_of_an_outage_is_no_time_of_the_rollout(clock: Clock) -> None:
    patience = dataclasses.replace(QUICK, rollout=400, pause=60, away=600)
    one = Scripted(patience)
    outage = {"get -f -": REFUSED, "/readyz": REFUSED}

    def script(one: Scripted) -> None:
        if one.looks == 3:
            one.answers = outage
        one.ready = one.looks == 8

    def sleep(seconds: float) -> None:
        clock.now += 60
        if one.answers and clock.now > 1000 + 600:
            one.answers = {}

    one.script = script
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "sleep", sleep)
        one.wait(patient=True)
    assert clock.now - 1000 > patience.rollout


def test_a_rollout_is_given_up_with_a_cluster_that_stays_away(clock: Clock) -> None:
    one = Scripted(dataclasses.replace(QUICK, away=600))
    one.answers = {"get -f -": REFUSED, "/readyz": REFUSED}
    with pytest.raises(FailedError, match=r"the cluster has not answered for 10 min 00 s: The connection to the server"):
        one.wait(patient=True)


def test_what_was_hopeless_before_an_outage_must_last_anew_after_it(clock: Clock) -> None:
    patience = dataclasses.replace(QUICK, hopeless=100, rollout=1800)
    one = Scripted(patience)
    one.pods = [pod({"state": {"waiting": {"reason": "InvalidImageName"}}})]

    def script(one: Scripted) -> None:
        one.answers = {"get -f -": REFUSED, "/readyz": REFUSED} if one.looks == 2 else {}
        one.ready = one.looks == 4

    def sleep(seconds: float) -> None:
        clock.now += 60
        one.answers = {} if clock.now > 1000 + 300 else one.answers

    one.script = script
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "sleep", sleep)
        one.wait(patient=True)
    assert one.looks == 4


def test_crashes_are_counted_across_an_outage() -> None:
    def script(one: Scripted) -> None:
        one.answers = {"get -f -": REFUSED} if one.looks == 2 else {}
        one.pods = [pod(crashed(one.looks))]

    with pytest.raises(FailedError, match="5 times in a row"):
        Scripted(script=script).wait(patient=True)
