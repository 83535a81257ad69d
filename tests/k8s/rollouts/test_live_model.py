"""Who says which model a cluster serves, through real kubectl: the environment's file, the pipeline, or the cluster itself."""

from __future__ import annotations

import pytest

from common.errors import DeployRolledBackError, PolicyError
from k8s import deploy, drift
from k8s.pipeline.model_annotation import ANNOTATION
from k8s.prepare import served_model
from k8s.rollouts.kubectl import of_cluster
from tests.k8s.conftest import API, NEW, Checkout
from tests.k8s.prepare import models
from tests.k8s.simulator.apiserver import ApiServer
from tests.k8s.simulator.steps import BRIEF, NAME, go, record

pytestmark = pytest.mark.host
REFERENCE, PROMOTED = (f"registry.example.com/llm/{path}" for path in (models.MODEL, models.OTHER))


def served(server: ApiServer) -> str:
    (one,) = of_cluster([server.body("Deployment", NAME)])
    return served_model.named_in(one)


def promote(server: ApiServer, reference: str) -> None:
    """What the training workflow's last step does."""
    patch = {"spec": {"replicas": 1, "template": {"metadata": {"annotations": {ANNOTATION: reference}}}}}
    server.edit("Deployment", NAME, patch, "pinwheel-pipeline")


def test_without_a_model_a_first_deploy_runs_and_the_workload_comes_with_its_model(
    checkout: Checkout, server: ApiServer, capsys: pytest.CaptureFixture[str]
) -> None:
    models.without(checkout.root, "staging")
    go()
    assert server.body("Deployment", NAME)["spec"]["replicas"] == 0
    assert f"Deployment llm-inference/{NAME}: none yet, so no pods" in capsys.readouterr().out
    assert go().changed == ()
    models.named(checkout.root, "staging")
    assert go().changed == ((f"Deployment llm-inference/{NAME}", "changed"),)
    assert served(server) == REFERENCE
    assert server.body("Deployment", NAME)["spec"].get("replicas", 1) == 1


def test_a_failed_deploy_keeps_what_was_promoted_since_a_release_without_a_model(checkout: Checkout, server: ApiServer) -> None:
    """The last good set has no pods of it: put back as it was recorded, it would take the model off the air."""
    models.without(checkout.root, "staging")
    go()
    promote(server, PROMOTED)
    checkout.lock({API: NEW})
    server.bad_images = {NEW}
    with pytest.raises(DeployRolledBackError):
        go()
    assert served(server) == PROMOTED
    assert server.body("Deployment", NAME)["spec"].get("replicas", 1) == 1


def test_the_model_of_the_cluster_is_kept_when_the_file_names_none(
    checkout: Checkout, server: ApiServer, capsys: pytest.CaptureFixture[str]
) -> None:
    models.named(checkout.root, "staging")
    go()
    models.without(checkout.root, "staging")
    assert go().changed == ()
    assert served(server) == REFERENCE
    said = " ".join(capsys.readouterr().out.split())
    assert f"{NAME}: {REFERENCE} (as it is in the cluster; write it under `model` in k8s/envs/staging.yaml)" in said


def test_a_promoted_model_is_kept_recorded_and_taken_over_by_the_file(checkout: Checkout, server: ApiServer) -> None:
    models.named(checkout.root, "staging")
    go()
    promote(server, PROMOTED)
    models.without(checkout.root, "staging")
    checkout.edit("configmap.yaml", "vllm_maxlen: 8192", "vllm_maxlen: 4096")
    go()
    assert served(server) == PROMOTED
    assert PROMOTED in (record().set_text(record().releases[-1]) or "")
    models.named(checkout.root, "staging", models.OTHER)
    assert go().changed == ()


def test_a_deploy_does_not_take_a_promoted_model_back(checkout: Checkout, server: ApiServer) -> None:
    models.named(checkout.root, "staging")
    go()
    promote(server, PROMOTED)
    with pytest.raises(PolicyError, match="pinwheel-pipeline"):
        go()
    assert served(server) == PROMOTED


def test_a_cluster_without_a_model_is_not_adrift(checkout: Checkout, server: ApiServer) -> None:
    models.without(checkout.root, "staging")
    go()
    assert drift.drift("staging", patience=BRIEF).startswith("no drift")


def test_a_model_that_is_not_signed_reaches_no_cluster(
    checkout: Checkout, server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(_: object) -> tuple[tuple[str, str], ...]:
        raise PolicyError("the model does not carry the signature staging asks for", where="", fix="")

    models.named(checkout.root, "staging", key="model.pub")
    monkeypatch.setattr("k8s.prepare.gate.check_model", refuses)
    with pytest.raises(PolicyError, match="does not carry the signature"):
        deploy.deploy("staging", yes=True, patience=BRIEF)
    assert server.requests == []
