"""Deploys through real kubectl to the simulator: what happened is asserted on the server, not on what we say of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.errors import (
    DeployNotRolledBackError,
    DeployRolledBackError,
    ExitCode,
    MissingEnvironmentError,
    PolicyError,
)
from k8s import cluster, deploy, receipt
from k8s.kubectl import Kubectl, Patience
from k8s.receipt import DeployReceipt
from tests.k8s.apiserver import ApiServer, Fault
from tests.k8s.conftest import API, NEW, OLD, Checkout

pytestmark = pytest.mark.host
BRIEF = Patience(rollout=2, settle=3, request=5, pause=0.05, tries=3)
NAME = "llama-factory-inference"
ALL = {"Namespace", "ConfigMap", "Deployment", "HorizontalPodAutoscaler", "PersistentVolumeClaim", "Service", "ServiceAccount"}


@pytest.fixture
def server(checkout: Checkout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    with ApiServer() as api:
        monkeypatch.setenv("KUBECONFIG", str(api.kubeconfig(tmp_path / "kubeconfig", "staging")))
        # kubectl keeps what it discovered; another test's server may get the same port.
        monkeypatch.setenv("KUBECACHEDIR", str(tmp_path / "kube-cache"))
        yield api


def go(*, dry_run: bool = False) -> DeployReceipt:
    return deploy.deploy("staging", dry_run=dry_run, patience=BRIEF)


def image(digest: str) -> str:
    return f"registry.example.com/llm/{API}@{digest}"


def running(api: ApiServer) -> str:
    """The image of a Deployment whose newest generation is rolled out; fails when it is not."""
    body = api.body("Deployment", NAME)
    status = body["status"]
    assert status.get("observedGeneration") == body["metadata"]["generation"]
    assert status.get("availableReplicas") == status.get("updatedReplicas") == 1
    return api.image()


# --- good days ---


def test_the_first_deploy_makes_the_namespace_first_and_reads_back_what_runs(checkout: Checkout, server: ApiServer) -> None:
    result = go()
    assert server.kinds() == ALL
    assert running(server) == image(OLD)
    assert (result.result, dict(result.changed)["Namespace llm-inference"]) == ("running", "created")
    assert [one.reference for one in result.images] == [image(OLD)]
    assert cluster.last_good("staging").exists()
    writes = [path.split("?")[0] for method, path in server.requests if method == "PATCH" and "dryRun" not in path]
    assert writes[0] == "/api/v1/namespaces/llm-inference"


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
    assert result.changed == ((f"Deployment llm-inference/{NAME}", "changed"),)
    assert [(one.before, one.reference) for one in result.images] == [(image(OLD), image(NEW))]
    assert "aaaaaaaaaaaa → bbbbbbbbbbbb" in capsys.readouterr().out
    assert NEW in cluster.last_good("staging").read_text()


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
    assert (result.result, len(result.changed)) == ("planned", 7 if first else 1)
    shown = capsys.readouterr().out
    assert "dry run: nothing was sent" in shown
    for line in ["created      Namespace llm-inference"] if first else ["changed      Deployment", f"image: {image(NEW)}"]:
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
    checkout: Checkout, server: ApiServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.minor = "31"
    with pytest.raises(PolicyError, match=r"runs Kubernetes 1\.31, the manifests were checked against 1\.32"):
        go()
    assert server.objects == {}
    server.minor = "33"
    go()
    assert "the cluster runs Kubernetes 1.33" in capsys.readouterr().err


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
    server.faults = [Fault(500, "GET")]
    with pytest.raises(MissingEnvironmentError, match="does not say what it runs"):
        go()
    assert server.objects == {}


# --- after the first object was sent ---


@pytest.mark.parametrize("code", [429, 500, 503, 0], ids=["429", "500", "503", "connection cut"])
def test_what_passes_by_itself_is_tried_again(checkout: Checkout, server: ApiServer, code: int) -> None:
    go()
    checkout.lock({API: NEW})
    server.faults = [Fault(code, kind="Deployment", times=2)]
    go()
    assert running(server) == image(NEW)


@pytest.mark.parametrize("code", [429, 500, 0], ids=["429", "500", "connection cut"])
def test_reads_are_tried_again_too(checkout: Checkout, server: ApiServer, code: int) -> None:
    server.faults = [Fault(code, "GET", kind="Service", times=2)]
    go()
    assert running(server) == image(OLD)


@pytest.mark.parametrize("kind", ["Deployment", "Service"])
def test_a_partial_apply_is_rolled_back(checkout: Checkout, server: ApiServer, kind: str) -> None:
    """One object is refused, the others are applied; the rollout status alone would call that a success."""
    go()
    checkout.lock({API: NEW})
    checkout.edit("configmap.yaml", "vllm_maxlen: 8192", "vllm_maxlen: 4096")
    server.faults = [Fault(403, kind=kind, times=1)]
    with pytest.raises(
        DeployRolledBackError, match="apply failed.*a policy forbids it.*the last good set runs again"
    ) as caught:
        go()
    assert caught.value.exit_code == ExitCode.DEPLOY_ROLLED_BACK
    assert running(server) == image(OLD)
    assert "vllm_maxlen: 8192" in server.body("ConfigMap", NAME)["data"]["inference.yaml"]
    assert OLD in cluster.last_good("staging").read_text()
    assert json.loads(receipt.path("staging").read_text())["images"][0]["reference"] == image(OLD)


def test_a_conflict_that_appears_after_the_dry_run_is_rolled_back_and_named(checkout: Checkout, server: ApiServer) -> None:
    go()
    checkout.lock({API: NEW})
    server.faults = [Fault(409, kind="Deployment", times=1)]
    with pytest.raises(DeployRolledBackError, match=r'conflict with "kubectl-edit" using apps/v1: \.spec\.replicas'):
        go()
    assert running(server) == image(OLD)


@pytest.mark.parametrize("silent", [False, True], ids=["progress deadline", "never ready"])
def test_a_rollout_that_never_gets_ready_is_rolled_back(checkout: Checkout, server: ApiServer, silent: bool) -> None:
    go()
    checkout.lock({API: NEW})
    server.bad_images, server.silent_failure = {NEW}, silent
    with pytest.raises(DeployRolledBackError, match="does not get ready") as caught:
        go()
    assert ("exceeded its progress deadline" in caught.value.line()) is not silent
    assert running(server) == image(OLD)


def test_a_stale_failure_does_not_spoil_the_rollback(checkout: Checkout, server: ApiServer) -> None:
    """For a while after the rollback the status still tells of the failure before it (facts.md §4.6)."""
    go()
    checkout.lock({API: NEW})
    server.bad_images, server.race = {NEW}, 1.0
    with pytest.raises(DeployRolledBackError):
        go()
    assert running(server) == image(OLD)


def test_a_deploy_after_a_rollback_goes_well(checkout: Checkout, server: ApiServer) -> None:
    go()
    checkout.lock({API: NEW})
    server.bad_images = {NEW}
    with pytest.raises(DeployRolledBackError):
        go()
    server.bad_images = set()
    go()
    assert running(server) == image(NEW)


def test_an_object_that_only_the_failed_set_has_is_named(checkout: Checkout, server: ApiServer) -> None:
    go()
    checkout.lock({API: NEW})
    checkout.add("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: extra, namespace: llm-inference}\n")
    server.bad_images = {NEW}
    with pytest.raises(DeployRolledBackError, match="made by this deploy and still there: ConfigMap llm-inference/extra"):
        go()
    assert server.body("ConfigMap", "extra")


def test_a_first_deploy_that_fails_has_nothing_to_put_back(checkout: Checkout, server: ApiServer) -> None:
    server.bad_images = {OLD}
    with pytest.raises(
        DeployNotRolledBackError, match="there is no last good set to put back.*still there: ConfigMap"
    ) as caught:
        go()
    assert caught.value.exit_code == ExitCode.DEPLOY_NOT_ROLLED_BACK
    assert server.image() == image(OLD)
    assert not cluster.last_good("staging").exists()
    assert not receipt.path("staging").exists()


def test_a_rollback_that_fails_too_says_what_is_where(checkout: Checkout, server: ApiServer) -> None:
    go()
    checkout.lock({API: NEW})
    server.bad_images = {NEW}
    server.faults = [Fault(500, kind="Deployment", after=1)]
    with pytest.raises(DeployNotRolledBackError, match="putting the last good set back failed too") as caught:
        go()
    assert "last-good.yaml by hand" in caught.value.line()
    assert server.image() == image(NEW)


def test_a_rollback_to_pods_that_no_longer_start_is_no_rollback(checkout: Checkout, server: ApiServer) -> None:
    go()
    checkout.lock({API: NEW})
    server.bad_images = {NEW, OLD}
    with pytest.raises(DeployNotRolledBackError, match="does not get ready"):
        go()


def test_a_server_that_dies_in_the_middle_is_not_called_rolled_back(checkout: Checkout, server: ApiServer) -> None:
    go()
    checkout.lock({API: NEW})
    server.faults = [Fault(0, after=2), Fault(0, "GET", after=40)]
    with pytest.raises(DeployNotRolledBackError, match="apply failed"):
        go()


def test_an_image_that_somebody_swaps_during_the_rollout_is_noticed(
    checkout: Checkout, server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Apply and rollout both report success; only reading back shows what runs."""
    go()
    checkout.lock({API: NEW})
    true = Kubectl.rollout
    swapped = []

    def meddled(self: Kubectl, kind: str, namespace: str, name: str, seconds: float) -> object:
        result = true(self, kind, namespace, name, seconds)
        if not swapped:
            swapped.append(True)
            pod = {"containers": [{"name": "inference", "image": "evil.example/x:1"}]}
            server.edit("Deployment", NAME, {"spec": {"template": {"spec": pod}}}, "intruder")
        return result

    monkeypatch.setattr(Kubectl, "rollout", meddled)
    with pytest.raises(
        DeployNotRolledBackError, match=r"runs evil\.example/x:1 at spec\.template\.spec\.containers\[0\]\.image"
    ):
        go()


def test_an_interrupt_puts_the_last_good_set_back(
    checkout: Checkout, server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    go()
    checkout.lock({API: NEW})
    true = Kubectl.rollout
    calls = []

    def interrupted(self: Kubectl, kind: str, namespace: str, name: str, seconds: float) -> object:
        calls.append(name)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return true(self, kind, namespace, name, seconds)

    monkeypatch.setattr(Kubectl, "rollout", interrupted)
    with pytest.raises(DeployRolledBackError, match="interrupted from the keyboard"):
        go()
    assert running(server) == image(OLD)
