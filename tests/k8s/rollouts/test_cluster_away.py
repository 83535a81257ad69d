"""An API server that is away while a deploy goes on: it is waited for, and only what was done is called done."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from common import console
from common.errors import DeployNotRolledBackError, DeployRolledBackError
from k8s.rollouts import release, rollout
from k8s.rollouts.kubectl import Kubectl
from tests.k8s.conftest import API, NEW, OLD, Checkout
from tests.k8s.simulator.apiserver import ApiServer
from tests.k8s.simulator.steps import BRIEF, go, image, record, running, states

pytestmark = pytest.mark.host
AWAY = "the cluster does not answer; waiting"


class Outage:
    """Takes the server away once, before something is done; it is back as soon as the deploy says that it waits."""

    def __init__(self, server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
        self._server, self._patch = server, monkeypatch
        self.told = 0
        self.ends = True
        true = console.warn

        def warn(text: str) -> None:
            true(text)
            if text == AWAY:
                self.told += 1
                server.away = not self.ends

        monkeypatch.setattr(console, "warn", warn)

    def before(self, owner: Any, name: str, when: Callable[..., bool] = lambda *_: True) -> None:
        true, done = getattr(owner, name), set[str]()

        def called(*arguments: Any, **options: Any) -> Any:
            if not done and when(*arguments):
                done.add(name)
                self._server.away = True
            return true(*arguments, **options)

        self._patch.setattr(owner, name, called)


@pytest.fixture
def outage(checkout: Checkout, server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> Outage:
    go()
    checkout.lock({API: NEW})
    return Outage(server, monkeypatch)


def workloads(_self: Kubectl, text: str, **_: Any) -> bool:
    # A preflight sends no Service.
    return "kind: Service\n" in text


def ended(_kubectl: Kubectl, _env: object, history: release.History) -> bool:
    return history.last is not None and history.last.state != "begun"


@pytest.mark.parametrize(
    ("owner", "name", "when"),
    [
        (Kubectl, "apply", workloads),
        (rollout, "wait", lambda *_: True),
        (rollout, "of_cluster", lambda *_: True),
        (release, "write", ended),
    ],
    ids=["the apply", "the wait", "reading back", "the record"],
)
def test_it_is_outlasted_in_each_phase(
    server: ApiServer, outage: Outage, capsys: pytest.CaptureFixture[str], owner: Any, name: str, when: Callable[..., bool]
) -> None:
    outage.before(owner, name, when)
    go()
    assert (running(server), states()) == (image(NEW), [(1, "running"), (2, "running")])
    said = capsys.readouterr()
    assert said.err.count(AWAY) == outage.told == 1
    assert said.out.count("the cluster answers again, after") == 1


def test_it_is_outlasted_by_the_put_back_too(server: ApiServer, outage: Outage) -> None:
    server.bad_images = {NEW}
    outage.before(Kubectl, "apply", lambda _self, text, **_: OLD in text and "kind: Deployment" in text)
    with pytest.raises(DeployRolledBackError, match="the last good set runs again"):
        go()
    assert (outage.told, running(server)) == (1, image(OLD))
    assert states() == [(1, "running"), (2, "put back")]


def test_a_put_back_that_fails_prints_no_success_and_says_it_once(
    server: ApiServer, outage: Outage, capsys: pytest.CaptureFixture[str]
) -> None:
    outage.ends = False
    outage.before(Kubectl, "apply", workloads)
    with pytest.raises(DeployNotRolledBackError, match="failed for the same reason") as caught:
        go(patience=dataclasses.replace(BRIEF, away=0.5, lease=60))
    said = capsys.readouterr()
    assert "✓ putting the last good set back" not in said.out
    assert "✓ applying" not in said.out.rpartition("created")[2]
    assert said.err.count(AWAY) == 1
    assert caught.value.line().count("the cluster has not answered for 0.5 s") == 1
    server.away = False
    assert record().releases[-1].state == "begun"


def test_before_anything_is_sent_nobody_waits(server: ApiServer, outage: Outage) -> None:
    server.away = True
    with pytest.raises(Exception, match="does not answer") as caught:
        go()
    assert (outage.told, getattr(caught.value, "exit_code", 0)) == (0, 10)


def test_a_lease_that_another_deploy_took_after_the_outage_ends_the_deploy(
    server: ApiServer, outage: Outage, monkeypatch: pytest.MonkeyPatch
) -> None:
    outage.before(Kubectl, "apply", workloads)
    true = console.warn

    def warn(text: str) -> None:
        if text == AWAY:
            server.edit("Lease", "pinwheel-staging", {"spec": {"holderIdentity": "Grace"}}, "test")
        true(text)

    monkeypatch.setattr(console, "warn", warn)
    with pytest.raises(DeployNotRolledBackError, match="apply failed: .* was taken over by Grace; nothing was put back"):
        go()
    assert server.image() == image(OLD)
