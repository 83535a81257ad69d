"""One deploy at a time, through real kubectl: what the second is told, and what becomes of a lease whose holder died."""

from __future__ import annotations

import datetime
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from common.errors import DeployNotRolledBackError, MissingEnvironmentError, PolicyError
from k8s.envs.environment import ClusterTarget
from k8s.rollouts import lease
from k8s.rollouts.kubectl import Kubectl, Patience
from k8s.rollouts.lease import Lease
from tests.k8s.conftest import API, NEW, OLD, Checkout
from tests.k8s.simulator.apiserver import ApiServer
from tests.k8s.simulator.steps import NAME, go, image, running, states
from tests.k8s.simulator.wire import Fault
from tests.waiting import eventually

pytestmark = pytest.mark.host
QUICK = Patience(request=5, pause=0.05, tries=3, lease=3)
HOME = ("v1", "Namespace", "", "nn")


@pytest.fixture
def home(server: ApiServer) -> ApiServer:
    server.apply(HOME, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "nn"}}, "test", force=True, dry_run=False)
    return server


def of(who: str, patience: Patience = QUICK) -> Lease:
    return Lease(Kubectl(ClusterTarget("staging"), patience), "staging", "nn", who)


def spec(server: ApiServer) -> dict[str, Any]:
    found: dict[str, Any] = server.body("Lease", "pinwheel-staging")["spec"]
    return found


def age(server: ApiServer, seconds: float) -> None:
    past = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=seconds)
    server.edit(
        "Lease",
        "pinwheel-staging",
        {"spec": {"renewTime": past.strftime("%Y-%m-%dT%H:%M:%S.%fZ")}},
        "test",
    )


def test_it_is_taken_let_go_of_and_taken_again(home: ApiServer) -> None:
    with of("Ada").held(wait=False) as one:
        assert spec(home)["holderIdentity"].startswith("Ada (")
        assert lease.holder(Kubectl(ClusterTarget("staging"), QUICK), "staging", "nn").startswith("Ada (")
        assert one.lost() == ""
    assert "holderIdentity" not in spec(home)
    assert lease.holder(Kubectl(ClusterTarget("staging"), QUICK), "staging", "nn") == ""
    with of("Grace").held(wait=False):
        assert spec(home)["leaseTransitions"] == 1


def test_the_second_is_told_who_holds_it_since_when(home: ApiServer) -> None:
    with of("Ada").held(wait=False):
        with pytest.raises(
            PolicyError, match=r"another deploy to staging is running: Ada \(.{8}\), since 20.*last sign of life"
        ):
            of("Grace").take(wait=False)
        assert spec(home)["holderIdentity"].startswith("Ada (")


def test_who_waits_gets_it_afterwards(home: ApiServer) -> None:
    first, second = of("Ada"), of("Grace")
    first.take(wait=False)
    threading.Timer(0.4, first.release).start()
    second.take(wait=True)
    assert spec(home)["holderIdentity"].startswith("Grace (")


def test_it_is_renewed_while_it_is_held(home: ApiServer) -> None:
    with of("Ada").held(wait=False) as one:
        first = spec(home)["renewTime"]
        eventually(lambda: spec(home)["renewTime"] != first, "a renewed lease")
        assert (spec(home)["renewTime"] > first, one.lost()) == (True, "")


def test_a_lease_whose_holder_died_is_taken_over(home: ApiServer) -> None:
    of("Ada").take(wait=False)
    age(home, 100)
    started = time.monotonic()
    of("Grace").take(wait=False)
    assert time.monotonic() - started > QUICK.lease / 3
    assert spec(home)["holderIdentity"].startswith("Grace (")


def test_a_holder_whose_clock_is_behind_keeps_it_as_long_as_it_renews(home: ApiServer) -> None:
    of("Ada").take(wait=False)
    age(home, 100)
    threading.Timer(0.3, age, (home, 99)).start()
    threading.Timer(0.8, age, (home, 1)).start()
    with pytest.raises(PolicyError, match="another deploy to staging is running: Ada"):
        of("Grace").take(wait=False)


def test_a_holder_that_was_overtaken_notices(home: ApiServer) -> None:
    with of("Ada").held(wait=False) as one:
        home.edit("Lease", "pinwheel-staging", {"spec": {"holderIdentity": "Grace"}}, "test")
        eventually(one.lost, "a lease that is lost")
        assert one.lost() == "the lease nn/pinwheel-staging was taken over by Grace"
    assert spec(home)["holderIdentity"] == "Grace"


def test_a_lost_answer_does_not_lock_us_out(home: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    true = Kubectl.create

    def answered(self: Kubectl, body: Any) -> Any:
        true(self, body)
        return true(self, body)

    monkeypatch.setattr(Kubectl, "create", answered)
    of("Ada").take(wait=False)
    assert spec(home)["holderIdentity"].startswith("Ada (")


@pytest.mark.parametrize(
    ("fault", "error", "message"),
    [
        (Fault(403, "POST"), PolicyError, "cannot be taken.*let your account `get`, `create` and `update` leases"),
        (Fault(500, "POST"), MissingEnvironmentError, "cannot be taken"),
        (Fault(0, "POST"), MissingEnvironmentError, "cannot be taken"),
        (Fault(403, "GET", "Lease"), PolicyError, "you may `get` leases.coordination.k8s.io in nn"),
    ],
    ids=["RBAC", "500", "cut", "RBAC read"],
)
def test_a_lease_that_cannot_be_taken_stops_before_anything_is_sent(
    home: ApiServer, fault: Fault, error: type[Exception], message: str
) -> None:
    home.faults = [fault]
    with pytest.raises(error, match=message):
        of("Ada").take(wait=False)
    assert "Lease" not in home.kinds()


def test_a_deploy_is_refused_while_another_runs_and_sends_nothing(checkout: Checkout, server: ApiServer) -> None:
    go()
    checkout.lock({API: NEW})
    held = Lease(Kubectl(ClusterTarget("staging"), QUICK), "staging", "llm-inference", "Ada").held(wait=False)
    with held, pytest.raises(PolicyError, match="another deploy to staging is running: Ada"):
        go()
    assert (running(server), states()) == (image(OLD), [(1, "running")])


def test_a_deploy_that_ended_since_the_plan_was_made_is_not_overwritten(
    checkout: Checkout, server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    go()
    checkout.lock({API: NEW})
    true = Lease.take

    def meanwhile(self: Lease, *, wait: bool) -> None:
        key = next(key for key in server.objects if key[1] == "ConfigMap" and key[3] == "pinwheel-release")
        server.objects[key].version += 1
        true(self, wait=wait)

    monkeypatch.setattr(Lease, "take", meanwhile)
    with pytest.raises(PolicyError, match="another deploy to staging ended since the plan was made"):
        go()
    assert running(server) == image(OLD)


def test_a_deploy_that_loses_its_lease_writes_no_more_not_even_the_old_set(
    checkout: Checkout, server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    go()
    checkout.lock({API: NEW})

    def lost(_self: Lease) -> str:
        return "the lease was taken over by Grace" if server.image() == image(NEW) else ""

    monkeypatch.setattr(Lease, "lost", lost)
    with pytest.raises(DeployNotRolledBackError, match="^the lease was taken over by Grace; nothing was put back"):
        go()
    assert server.image() == image(NEW)


KILLED = """
import sys, pathlib
from common import paths
root = pathlib.Path(sys.argv[1])
paths.ROOT, paths.K8S, paths.LOCKFILES = root, root / "k8s", root / "lockfiles"
from k8s import deploy
from k8s.rollouts.kubectl import Patience
deploy.deploy("staging", yes=True, patience=Patience(rollout=60, lease=3))
"""


def test_a_killed_deploy_is_found_out_and_mended_by_the_next(
    checkout: Checkout, server: ApiServer, capsys: pytest.CaptureFixture[str]
) -> None:
    go()
    checkout.lock({API: NEW})
    server.rollout = 60
    repo = Path(__file__).parents[3]
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(checkout.root)], cwd=repo, stdout=subprocess.DEVNULL, start_new_session=True
    ) as child:
        eventually(lambda: server.image() == image(NEW), "the new image")
        # With its kubectl: nothing of it lives on.
        os.killpg(child.pid, signal.SIGKILL)
    assert server.image() == image(NEW)
    assert states() == [(1, "running"), (2, "begun")]
    server.rollout = 0.1
    checkout.lock({API: OLD})
    go(wait=True)
    said = capsys.readouterr().err
    assert "is begun: the cluster may hold parts of it" in said
    assert "had ended without being let go of; taken over" in said
    assert running(server) == image(OLD)
    assert states()[-1] == (3, "running")
    assert json.loads((checkout.root / "dist/deploy/staging.json").read_text())["release"]["number"] == 3
    assert server.body("Deployment", NAME)["spec"]["template"]
