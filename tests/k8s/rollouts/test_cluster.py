"""Deploys through real kubectl to the simulator: what happened is asserted on the server, not on what we say of it."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from common.errors import (
    DeployNotRolledBackError,
    ExitCode,
    MissingEnvironmentError,
    PolicyError,
    UsageError,
)
from k8s import deploy, drift
from k8s.envs import environment
from k8s.pipeline.model_annotation import preflight
from k8s.prepare import checked
from k8s.rollouts import live_model, receipt, release
from tests.k8s.conftest import API, NEW, OLD, REPO, Checkout
from tests.k8s.simulator.apiserver import VERSIONS, ApiServer
from tests.k8s.simulator.steps import BRIEF, NAME, go, image, record, running
from tests.k8s.simulator.wire import Fault

pytestmark = [pytest.mark.host, pytest.mark.parametrize("kubernetes", VERSIONS, indirect=True)]


# --- good days ---


def test_the_first_deploy_makes_the_namespace_first_and_reads_back_what_runs(checkout: Checkout, server: ApiServer) -> None:
    result = go()
    assert server.kinds() == {one.kind for one in checkout.check()[0].objects} | {"Lease"}
    assert running(server) == image(OLD)
    assert (result.result, dict(result.changed)["Namespace llm-inference"]) == ("running", "created")
    assert {one.reference for one in result.images} == {image(OLD)}
    assert release.local("staging", record().releases[0].set).exists()
    writes = [path.split("?")[0] for method, path in server.requests if method == "PATCH" and "dryRun" not in path]
    assert writes[0] == "/api/v1/namespaces/llm-inference"


def test_the_whole_platform_is_deployed_and_not_adrift(checkout: Checkout, server: ApiServer) -> None:
    shutil.copytree(REPO / "manifests", checkout.manifests, dirs_exist_ok=True)
    objects = checkout.check()[0].objects
    assert len(go().changed) == len(objects)
    # All but the record and the lease.
    assert len(server.objects) == len(objects) + 2
    assert drift.drift("staging", patience=BRIEF).startswith(f"no drift: {len(objects)} objects")


def test_a_deploy_without_changes_changes_nothing(
    checkout: Checkout, server: ApiServer, capsys: pytest.CaptureFixture[str]
) -> None:
    go()
    before = server.body("Deployment", NAME)
    result = go()
    assert result.changed == ()
    assert server.body("Deployment", NAME) == before
    assert "the cluster holds the whole set already" in capsys.readouterr().out


def test_a_new_digest_is_rolled_out_and_shown(
    checkout: Checkout, server: ApiServer, capsys: pytest.CaptureFixture[str]
) -> None:
    go()
    checkout.lock({API: NEW})
    result = go()
    assert running(server) == image(NEW)
    assert result.changed == tuple((f"Deployment llm-inference/{name}", "changed") for name in (NAME, preflight(NAME)))
    assert {(one.before, one.reference) for one in result.images} == {(image(OLD), image(NEW))}
    assert "aaaaaaaaaaaa → bbbbbbbbbbbb" in capsys.readouterr().out
    assert NEW in (record().set_text(record().releases[-1]) or "")


def test_a_changed_config_map_rolls_the_pods(checkout: Checkout, server: ApiServer) -> None:
    go()
    generation = server.body("Deployment", NAME)["metadata"]["generation"]
    checkout.edit("configmap.yaml", "vllm_maxlen: 8192", "vllm_maxlen: 4096")
    go()
    assert "vllm_maxlen: 4096" in server.body("ConfigMap", NAME)["data"]["inference.yaml"]
    assert server.body("Deployment", NAME)["metadata"]["generation"] == generation + 1


def test_what_the_autoscaler_set_is_left_alone(checkout: Checkout, server: ApiServer) -> None:
    go()
    server.edit("Deployment", NAME, {"spec": {"replicas": 1}}, "kube-controller-manager")
    checkout.lock({API: NEW})
    go()
    assert server.body("Deployment", NAME)["spec"]["replicas"] == 1
    assert running(server) == image(NEW)


@pytest.mark.parametrize("first", [True, False], ids=["empty cluster", "running cluster"])
def test_a_dry_run_shows_the_plan_and_sends_nothing(
    checkout: Checkout, server: ApiServer, capsys: pytest.CaptureFixture[str], first: bool
) -> None:
    if not first:
        go()
        checkout.lock({API: NEW})
    before, said = dict(server.objects), receipt.path("staging").exists()
    requests = len(server.requests)
    result = go(dry_run=True)
    assert server.objects == before
    assert all("dryRun=All" in path for method, path in server.requests[requests:] if method == "PATCH")
    assert receipt.path("staging").exists() == said
    assert (result.result, len(result.changed)) == ("planned", len(checkout.check()[0].objects) if first else 2)
    shown = capsys.readouterr().out
    assert "dry run: nothing was sent" in shown
    new, changed = ["created      Namespace llm-inference"], ["changed      Deployment", f"image: {image(OLD)} → {image(NEW)}"]
    for line in new if first else changed:
        assert line in shown


# --- before anything is sent ---


def test_without_kubectl_it_says_so(checkout: Checkout, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("shutil.which", lambda *_args, **_kwargs: None)
    with pytest.raises(MissingEnvironmentError, match="kubectl is not installed: install kubectl"):
        go()


def test_an_unknown_context_names_those_there_are(checkout: Checkout, server: ApiServer, tmp_path: Path) -> None:
    server.kubeconfig(tmp_path / "kubeconfig", "minikube")
    with pytest.raises(MissingEnvironmentError, match=r"no context 'staging'.*there are: minikube") as caught:
        go()
    assert caught.value.exit_code == ExitCode.ENVIRONMENT
    assert server.requests == []


def test_a_broken_kubeconfig_is_told_from_a_missing_context(checkout: Checkout, server: ApiServer, tmp_path: Path) -> None:
    (tmp_path / "kubeconfig").write_text("{")
    with pytest.raises(MissingEnvironmentError, match="cannot read your kubeconfig"):
        go()


def test_a_server_that_does_not_answer_is_named(checkout: Checkout, server: ApiServer, tmp_path: Path) -> None:
    body = json.loads((tmp_path / "kubeconfig").read_text())
    body["clusters"][0]["cluster"]["server"] = "http://127.0.0.1:9"
    (tmp_path / "kubeconfig").write_text(json.dumps(body))
    with pytest.raises(MissingEnvironmentError, match="the cluster of context 'staging' does not answer"):
        go()


def test_an_older_server_is_refused_and_a_newer_one_is_mentioned(
    checkout: Checkout, server: ApiServer, capsys: pytest.CaptureFixture[str], kubernetes: str
) -> None:
    minor = int(kubernetes.partition(".")[2])
    server.minor = str(minor - 1)
    with pytest.raises(PolicyError, match=rf"runs Kubernetes 1\.{minor - 1}, the manifests were checked against {kubernetes}"):
        go()
    assert server.objects == {}
    server.minor = str(minor + 1)
    go()
    assert f"the cluster runs Kubernetes 1.{minor + 1}" in capsys.readouterr().err


def test_wrong_manifests_never_reach_the_server(checkout: Checkout, server: ApiServer) -> None:
    checkout.edit("service.yaml", "targetPort: http", "targetPort: web")
    with pytest.raises(PolicyError):
        go()
    assert server.requests == []


def test_a_conflict_is_reported_by_object_owner_and_field_and_nothing_is_sent(
    checkout: Checkout, server: ApiServer, capsys: pytest.CaptureFixture[str]
) -> None:
    go()
    server.edit("Deployment", NAME, {"spec": {"progressDeadlineSeconds": 99}}, "kubectl-edit")
    checkout.lock({API: NEW})
    with pytest.raises(PolicyError) as caught:
        go()
    assert f"Deployment llm-inference/{NAME}: .spec.progressDeadlineSeconds belongs to kubectl-edit" in caught.value.line()
    assert running(server) == image(OLD)
    assert server.body("Deployment", NAME)["spec"]["progressDeadlineSeconds"] == 99


def test_what_the_server_forbids_in_the_dry_run_is_never_sent(checkout: Checkout, server: ApiServer) -> None:
    go()
    checkout.lock({API: NEW})
    server.faults = [Fault(403, kind="HorizontalPodAutoscaler", dry_run=True)]
    with pytest.raises(PolicyError, match="the cluster refuses the set, nothing was sent.*a policy forbids it"):
        go()
    assert running(server) == image(OLD)


def test_a_forbidden_namespace_is_a_refusal(checkout: Checkout, server: ApiServer) -> None:
    server.faults = [Fault(403, kind="Namespace")]
    with pytest.raises(PolicyError, match="the cluster refuses a namespace"):
        go()
    assert server.objects == {}


def test_a_server_that_will_not_say_what_it_holds_is_an_environment_error(checkout: Checkout, server: ApiServer) -> None:
    server.faults = [Fault(500, "GET", "Deployment")]
    with pytest.raises(MissingEnvironmentError, match="does not say what it runs"):
        go()
    assert server.objects == {}


def test_without_a_terminal_the_plan_is_shown_and_nothing_is_sent(
    checkout: Checkout, server: ApiServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CI", "true")
    with pytest.raises(UsageError, match=r"no terminal to ask on \(apply \d+ changes to staging, cluster of context staging"):
        go(yes=False)
    assert "created      Namespace llm-inference" in capsys.readouterr().out
    assert server.objects == {}
    go()
    # Nothing to change is nothing to agree to.
    assert go(yes=False).changed == ()


# --- the plan and the record ---


def test_the_plan_names_changed_fields_and_what_is_no_longer_in_the_set(
    checkout: Checkout, server: ApiServer, capsys: pytest.CaptureFixture[str]
) -> None:
    checkout.add("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: extra, namespace: llm-inference}\n")
    go()
    (checkout.manifests / "added.yaml").unlink()
    checkout.edit("configmap.yaml", "vllm_maxlen: 8192", "vllm_maxlen: 4096")
    capsys.readouterr()
    go()
    said = capsys.readouterr().out
    assert re.search(
        r"changed +ConfigMap \S+\n +data\['inference.yaml'\]:\n +- +vllm_maxlen: 8192\n +\+ +vllm_maxlen: 4096\n", said
    )
    assert "spec.template.metadata.annotations['pinwheel/config-sha256']: " in said
    assert (
        "left         of earlier releases, not in this set: ConfigMap llm-inference/extra (is no longer ours); not deleted"
        in said
    )
    assert server.body("ConfigMap", "extra")


def test_the_record_says_who_when_from_what_and_holds_the_set(checkout: Checkout, server: ApiServer) -> None:
    first = go()
    history = record()
    (one,) = history.releases
    assert (one.number, one.state, one.source, one.images) == (1, "running", first.source, (image(OLD),))
    assert "@" in one.who
    assert one.begun <= one.ended
    sent = live_model.set_from_git(environment.load("staging"), checked.locked_images(required=True), BRIEF)
    assert history.sets[one.set] == sent.text()
    assert json.loads(receipt.path("staging").read_text())["release"]["set"] == one.set
    body = server.body("ConfigMap", release.NAME)
    assert {entry["manager"] for entry in body["metadata"]["managedFields"]} == {"pinwheel"}


def test_a_deploy_without_changes_writes_nothing_at_all(checkout: Checkout, server: ApiServer) -> None:
    go()
    requests = len(server.requests)
    assert go().release == record().releases[0]
    writes = [path for method, path in server.requests[requests:] if method != "GET"]
    assert writes
    assert all("dryRun=All" in path for path in writes)


def test_a_set_that_is_there_and_does_not_run_is_no_success(checkout: Checkout, server: ApiServer) -> None:
    go()
    key = next(key for key in server.objects if (key[1], key[3]) == ("Deployment", NAME))
    server.objects[key].status["availableReplicas"] = 0
    with pytest.raises(DeployNotRolledBackError, match="the cluster holds the set already, and it does not run"):
        go()


def test_a_record_of_another_environment_is_not_overwritten(checkout: Checkout, server: ApiServer) -> None:
    go()
    (checkout.root / "k8s/envs/twin.yaml").write_text((checkout.root / "k8s/envs/staging.yaml").read_text())
    checkout.lock({API: NEW})
    with pytest.raises(PolicyError, match="the release record there is that of environment 'staging'"):
        deploy.deploy("twin", yes=True, patience=BRIEF)
    assert running(server) == image(OLD)
