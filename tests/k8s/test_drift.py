"""Drift through real kubectl: what is found, whose it is, and what is none."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from common.errors import DriftError, ExitCode, MissingEnvironmentError, PolicyError, UsageError
from k8s import deploy, drift
from k8s.objects.manifests import Identity
from k8s.prepare import gate
from k8s.prepare.rendered import Pin, RenderedSet
from k8s.rollouts import unexpected as running_pods
from k8s.rollouts.kubectl import Kubectl, Patience
from k8s.rollouts.unexpected import Found
from oci.reference import ImageRef
from tests.k8s.conftest import API, NEW, OLD, Checkout
from tests.k8s.prepare import models
from tests.k8s.simulator.apiserver import ApiServer
from tests.k8s.simulator.steps import BRIEF, CUT, NAME, go, image, running
from tests.k8s.simulator.wire import Fault


def look(patience: Patience = BRIEF) -> str:
    return drift.drift("staging", patience=patience)


@pytest.mark.host
def test_after_a_deploy_there_is_none_and_what_controllers_and_autoscalers_keep_is_none(
    checkout: Checkout, server: ApiServer
) -> None:
    go()
    server.edit("Deployment", NAME, {"metadata": {"annotations": {"deployment/revision": "1"}}}, "kube-controller-manager")
    before, requests = dict(server.objects), len(server.requests)
    assert re.match(r"no drift: \d+ objects are as release 1 left them and as git says", look())
    assert server.objects == before
    assert all("dryRun=All" in path for method, path in server.requests[requests:] if method != "GET")


@pytest.mark.host
@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"spec": {"progressDeadlineSeconds": 99}}, "spec.progressDeadlineSeconds is 99 instead of 1740, by kubectl-edit 2026"),
        (
            {"spec": {"template": {"spec": {"containers": [{"name": "inference", "image": "evil.example/x:1"}]}}}},
            "containers[inference].image is evil.example/x:1 instead of registry.example.com",
        ),
        (
            {"spec": {"template": {"spec": {"containers": [{"name": "sidecar", "image": "evil.example/x:1"}]}}}},
            "spec.template.spec.containers.sidecar.image was added, by kubectl-edit",
        ),
        ({"metadata": {"labels": {"team": "x"}}}, "metadata.labels.team was added, by kubectl-edit"),
        ({"spec": {"paused": True}}, "spec.paused was added, by kubectl-edit"),
    ],
    ids=["value", "image", "sidecar", "label", "new field"],
)
def test_a_foreign_change_is_told_with_its_owner(
    checkout: Checkout, server: ApiServer, capsys: pytest.CaptureFixture[str], body: dict[str, Any], said: str
) -> None:
    go()
    server.edit("Deployment", NAME, body, "kubectl-edit")
    with pytest.raises(DriftError, match="drift: 1 of") as caught:
        look()
    assert caught.value.exit_code == ExitCode.DRIFT
    shown = capsys.readouterr()
    assert said in shown.err
    assert shown.err.count("by kubectl-edit") == 1 + ("sidecar" in said)
    assert re.search(rf"Deployment llm-inference/{NAME} +[12] changed +yes +same +kubectl-edit 2026", shown.out)


@pytest.mark.host
def test_an_object_that_somebody_deleted_is_missing(
    checkout: Checkout, server: ApiServer, capsys: pytest.CaptureFixture[str]
) -> None:
    go()
    del server.objects[next(key for key in server.objects if key[1] == "Service")]
    with pytest.raises(DriftError, match="drift: 1 of"):
        look()
    assert re.search(r"Service llm-inference/\S+ +missing +yes +same", capsys.readouterr().out)


@pytest.mark.host
def test_a_checkout_that_moved_on_is_drift_too(
    checkout: Checkout, server: ApiServer, capsys: pytest.CaptureFixture[str]
) -> None:
    go()
    checkout.lock({API: NEW})
    checkout.add("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: extra, namespace: llm-inference}\n")
    with pytest.raises(DriftError, match="drift: 3 of"):
        look()
    shown = capsys.readouterr().out
    assert re.search(r"ConfigMap llm-inference/extra +missing +not in it +differs", shown)
    assert re.search(rf"Deployment llm-inference/{NAME} +as recorded +yes +differs", shown)
    assert re.search(rf"image {API} of .* +aaaaaaaaaaaa +aaaaaaaaaaaa +bbbbbbbbbbbb", shown)
    assert running(server) == image(OLD)


def test_a_registry_whose_name_only_begins_as_ours_is_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the gate is asked about is below the registry, and not at a host or in a folder that begins alike."""
    names = ("r.example/team", "R.example:443/team", "r.example.evil/team", "r.example/teams", "r.example:5000/team")
    references = [ImageRef.parse(f"{name}/x@{NEW}") for name in names]
    pins = tuple(Pin("", Identity("", "", "", ""), (), "", ref) for ref in references)
    found = Found((), (), tuple(map(str, references)), ())
    asked: list[str] = []
    monkeypatch.setattr(running_pods, "look", lambda *_: found)
    monkeypatch.setattr(gate, "check", lambda own, *_, **__: asked.extend(map(str, own)))
    env: Any = SimpleNamespace(registry="r.example/team")
    drift._really_runs(Kubectl.__new__(Kubectl), RenderedSet((), pins, ()), (), env, excused=False)
    assert sorted(asked) == sorted(map(str, references[:2]))


@pytest.mark.host
def test_before_the_first_deploy_everything_is_drift(checkout: Checkout, server: ApiServer) -> None:
    with pytest.raises(DriftError, match="drift: no release of staging ran yet.*run `invoke deploy`"):
        look()


@pytest.mark.host
@pytest.mark.parametrize(
    ("fault", "error", "message"),
    [
        (Fault(403, "GET", "Deployment"), PolicyError, "you may `get` these objects"),
        (Fault(403, "PATCH", "Deployment", dry_run=True), PolicyError, "let your account `patch` these objects"),
        (Fault(500, "PATCH", dry_run=True), MissingEnvironmentError, "does not say what it would make of the record"),
        (Fault(0, "GET", "ConfigMap"), MissingEnvironmentError, "does not show configmaps"),
    ],
    ids=["RBAC read", "RBAC dry run", "500", "cut"],
)
def test_a_cluster_that_does_not_answer_is_no_drift(
    checkout: Checkout, server: ApiServer, fault: Fault, error: type[Exception], message: str
) -> None:
    go()
    server.faults = [fault]
    with pytest.raises(error, match=message):
        look(BRIEF if fault.code else CUT)


@pytest.mark.host
def test_without_the_context_it_says_which_there_are(checkout: Checkout, server: ApiServer, tmp_path: Path) -> None:
    server.kubeconfig(tmp_path / "kubeconfig", "minikube")
    with pytest.raises(MissingEnvironmentError, match="no context 'staging'"):
        look()


def test_a_directory_is_compared_file_by_file(checkout: Checkout, capsys: pytest.CaptureFixture[str]) -> None:
    models.named(checkout.root, "rendered")
    deploy.deploy("rendered")
    assert re.match(r"no drift: \d+ files are as git says", drift.drift("rendered"))
    folder = checkout.root / "dist/rendered/inference"
    service = folder / "service.yaml"
    service.write_text(service.read_text().replace("8000", "8001"))
    (folder / "hpa.yaml").unlink()
    capsys.readouterr()
    with pytest.raises(DriftError, match=r"drift: 2 of \d+ files \(directory dist/rendered\)") as caught:
        drift.drift("rendered")
    assert caught.value.exit_code == ExitCode.DRIFT
    shown = capsys.readouterr().out
    assert re.search(r"inference/hpa.yaml +missing +there", shown)
    assert re.search(r"inference/service.yaml +differs +differs", shown)


def test_a_directory_of_something_else_is_not_judged(checkout: Checkout) -> None:
    deploy.deploy("rendered")
    (checkout.root / "dist/rendered/notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="did not render"):
        drift.drift("rendered")
