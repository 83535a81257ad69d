"""What a deploy tries first, against the double: refused, nothing that serves is touched, and no trace of it is left."""

from __future__ import annotations

from typing import Any

import pytest

from common.errors import ExitCode, PinwheelError, RegistryError
from k8s import drift
from k8s.pipeline.model_annotation import ANNOTATION, preflight
from k8s.rollouts import rollout
from tests.k8s.conftest import API, NEW, OLD, Checkout
from tests.k8s.prepare import models
from tests.k8s.simulator.apiserver import VERSIONS, ApiServer
from tests.k8s.simulator.controller import Trouble
from tests.k8s.simulator.steps import BRIEF, NAME, go, image, running, states
from tests.k8s.simulator.wire import Fault, is_preflight

pytestmark = [pytest.mark.host, pytest.mark.parametrize("kubernetes", VERSIONS[-1:], indirect=True)]
TRIAL = preflight(NAME)


def serving(server: ApiServer) -> dict[str, Any]:
    """All objects as they are specified, but those of the preflight."""
    found = {key: live.stored.body() for key, live in server.objects.items() if key[1] != "Lease" and not is_preflight(key)}
    return {"/".join(key): body for key, body in found.items()}


def at_rest(server: ApiServer, digest: str) -> None:
    spec = server.body("Deployment", TRIAL)["spec"]
    assert spec["replicas"] == 0
    assert ANNOTATION not in spec["template"]["metadata"]["annotations"]
    assert spec["template"]["spec"]["containers"][0]["image"] == image(digest)


def test_it_is_refused_before_what_serves_is_touched(checkout: Checkout, server: ApiServer) -> None:
    go()
    before = serving(server)
    checkout.lock({API: NEW})
    checkout.edit("configmap.yaml", "vllm_maxlen: 8192", "vllm_maxlen: 4096")
    server.troubles, server.preflights_fail = {NEW: Trouble("ErrImagePull", "no route to host")}, True
    with pytest.raises(RegistryError, match="no route to host; what serves was not touched") as caught:
        go()
    assert caught.value.exit_code == ExitCode.REGISTRY
    assert (serving(server), states()) == (before, [(1, "running")])
    at_rest(server, OLD)
    checkout.lock({API: OLD})
    checkout.edit("configmap.yaml", "vllm_maxlen: 4096", "vllm_maxlen: 8192")
    assert drift.drift("staging", patience=BRIEF).startswith("no drift")


def test_of_a_first_deploy_that_is_refused_nothing_of_it_is_left(checkout: Checkout, server: ApiServer) -> None:
    server.troubles, server.preflights_fail = {OLD: Trouble("CrashLoopBackOff", "back-off", init=True)}, True
    with pytest.raises(PinwheelError, match="what serves was not touched"):
        go()
    assert not [key for key in server.objects if is_preflight(key) or key[1] == "Deployment"]
    server.troubles = {}
    go()
    at_rest(server, OLD)


def test_an_interrupt_leaves_nothing_of_it(checkout: Checkout, server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    go()
    before = serving(server)
    checkout.lock({API: NEW})

    def interrupted(*_: Any) -> None:
        assert server.body("Deployment", TRIAL)["spec"]["replicas"] == 1
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(rollout, "wait_for_preflight", interrupted)
        with pytest.raises(KeyboardInterrupt):
            go()
    assert serving(server) == before
    at_rest(server, OLD)
    go()
    assert running(server) == image(NEW)
    at_rest(server, NEW)


def test_what_the_pipeline_left_in_it_is_no_conflict(checkout: Checkout, server: ApiServer) -> None:
    go()
    left = {"spec": {"replicas": 1, "template": {"metadata": {"annotations": {ANNOTATION: "another"}}}}}
    server.edit("Deployment", TRIAL, left, "pinwheel-pipeline")
    go()
    at_rest(server, OLD)


def test_a_set_without_a_model_tries_nothing(checkout: Checkout, server: ApiServer) -> None:
    models.without(checkout.root, "staging")
    go()
    at_rest(server, OLD)
    assert not [key for key in server.attendants if key[1] == "Pod"]


def test_a_cluster_that_refuses_it_is_quoted(checkout: Checkout, server: ApiServer) -> None:
    go()
    before = serving(server)
    checkout.lock({API: NEW})
    server.faults = [Fault(403, kind="Deployment", times=1, preflight=True)]
    with pytest.raises(PinwheelError, match="the cluster refuses the preflight; what serves was not touched.*forbids it"):
        go()
    assert serving(server) == before
    at_rest(server, OLD)
