"""What earlier releases left: named always, deleted when it is asked for, and then only what is ours and can be made again."""

from __future__ import annotations

import re
from typing import Any

import pytest

from common.errors import DeployNotRecordedError, UsageError
from k8s.pipeline.model_annotation import ANNOTATION
from k8s.rollouts import prune
from tests.k8s.conftest import API, NEW, OLD, Checkout
from tests.k8s.prepare import models
from tests.k8s.simulator.apiserver import ApiServer
from tests.k8s.simulator.steps import NAME, go, image, record, running, states
from tests.k8s.simulator.wire import Fault

pytestmark = pytest.mark.host

LABELS = "labels: {app.kubernetes.io/part-of: pinwheel}"
EXTRA = f"""
apiVersion: v1
kind: ConfigMap
metadata: {{name: extra, namespace: llm-inference, {LABELS}}}
---
apiVersion: v1
kind: ConfigMap
metadata: {{name: zweites, namespace: llm-inference, {LABELS}}}
"""
CLAIM = f"""
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {{name: data, namespace: llm-inference, {LABELS}}}
spec: {{accessModes: [ReadWriteOnce], resources: {{requests: {{storage: 1Gi}}}}}}
"""


def leave(checkout: Checkout, text: str = EXTRA) -> None:
    """Deploy a set with more in it than the next one has."""
    checkout.add(text)
    go()
    (checkout.manifests / "added.yaml").unlink()


def names(server: ApiServer) -> set[str]:
    return {key[3] for key in server.objects}


def test_without_being_asked_it_is_named_in_one_line_and_stays(
    checkout: Checkout, server: ApiServer, capsys: pytest.CaptureFixture[str]
) -> None:
    leave(checkout, EXTRA + "---" + CLAIM)
    capsys.readouterr()
    go()
    said = [line.strip() for line in capsys.readouterr().out.splitlines() if "left " in line]
    assert said == [
        "left         of earlier releases, not in this set: ConfigMap llm-inference/extra, ConfigMap llm-inference/zweites; "
        "--prune deletes that; PersistentVolumeClaim llm-inference/data (holds data); not deleted here"
    ]
    assert names(server) >= {"extra", "zweites", "data"}


def test_asked_for_it_is_listed_deleted_and_recorded_and_what_holds_data_stays(
    checkout: Checkout, server: ApiServer, capsys: pytest.CaptureFixture[str]
) -> None:
    leave(checkout, EXTRA + "---" + CLAIM)
    capsys.readouterr()
    result = go(prune=True)
    said = capsys.readouterr().out
    assert "delete       ConfigMap llm-inference/extra: not in this set" in said
    assert "left         PersistentVolumeClaim llm-inference/data (holds data): not in this set, not deleted here" in said
    assert names(server) & {"extra", "zweites", "data"} == {"data"}
    assert record().releases[-1].pruned == ("ConfigMap llm-inference/extra", "ConfigMap llm-inference/zweites")
    assert ("ConfigMap llm-inference/extra", "deleted") in result.changed
    assert go(prune=True).changed == ()


def test_a_dry_run_lists_and_deletes_nothing(checkout: Checkout, server: ApiServer, capsys: pytest.CaptureFixture[str]) -> None:
    leave(checkout)
    capsys.readouterr()
    go(dry_run=True, prune=True)
    assert "delete       ConfigMap llm-inference/extra" in capsys.readouterr().out
    assert "extra" in names(server)


def test_it_is_asked_for_with_the_number_of_what_goes(
    checkout: Checkout, server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave(checkout)
    go()
    monkeypatch.setenv("CI", "true")
    with pytest.raises(UsageError, match="apply 0 changes and delete 2 objects to staging"):
        go(prune=True, yes=False)
    assert "extra" in names(server)


@pytest.mark.parametrize("what", ["label taken away", "made anew by somebody else"])
def test_what_is_no_longer_ours_is_left(checkout: Checkout, server: ApiServer, what: str) -> None:
    leave(checkout)
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "extra", "namespace": "llm-inference"}}
    server.remove("ConfigMap", "extra")
    if what == "made anew by somebody else":
        body["metadata"]["labels"] = {"app.kubernetes.io/part-of": "pinwheel"}  # type: ignore[index]
    manager = "pinwheel" if what == "label taken away" else "argocd"
    server.apply(("v1", "ConfigMap", "llm-inference", "extra"), body, manager, force=True, dry_run=False)
    go(prune=True)
    assert names(server) & {"extra", "zweites"} == {"extra"}


def test_nothing_is_deleted_before_the_new_set_runs(checkout: Checkout, server: ApiServer) -> None:
    leave(checkout)
    checkout.lock({API: NEW})
    server.bad_images = {NEW}
    with pytest.raises(Exception, match="the last good set runs again"):
        go(prune=True)
    assert names(server) >= {"extra", "zweites"}


def test_what_cannot_be_deleted_is_named_and_the_set_stays(checkout: Checkout, server: ApiServer) -> None:
    leave(checkout)
    checkout.lock({API: NEW})
    server.faults = [Fault(403, "DELETE", "ConfigMap", after=1)]
    with pytest.raises(
        DeployNotRecordedError,
        match=r"the set runs, but 1 of 2 objects were not deleted: ConfigMap llm-inference/zweites: .*again with --prune",
    ):
        go(prune=True)
    assert (running(server), names(server) & {"extra", "zweites"}) == (image(NEW), {"zweites"})
    assert states()[-1] == (2, "running")
    assert record().releases[-1].pruned == ("ConfigMap llm-inference/extra",)


def test_an_interrupt_while_it_deletes_leaves_the_set_running_and_says_what_is_left(
    checkout: Checkout, server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave(checkout)
    true, calls = prune._deleted, []

    def interrupted(*arguments: object) -> str:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return true(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(prune, "_deleted", interrupted)
    with pytest.raises(DeployNotRecordedError, match="1 of 2 objects were not deleted: interrupted from the keyboard"):
        go(prune=True)
    assert running(server) == image(OLD)
    assert states()[-1] == (2, "running")
    monkeypatch.undo()


def test_a_workload_whose_model_was_taken_away_has_no_pods_and_is_no_leftover(
    checkout: Checkout, server: ApiServer, capsys: pytest.CaptureFixture[str]
) -> None:
    go()
    models.without(checkout.root, "staging")
    server.edit("Deployment", NAME, {"spec": {"template": {"metadata": {"annotations": {ANNOTATION: ""}}}}}, "kubectl-edit")
    capsys.readouterr()
    go(prune=True)
    said = capsys.readouterr()
    assert f"Deployment llm-inference/{NAME}: none yet, so no pods" in said.out
    assert "not in this set" not in said.out
    assert server.body("Deployment", NAME)["spec"]["replicas"] == 0
    assert server.kinds() >= {"Deployment", "HorizontalPodAutoscaler", "PodDisruptionBudget"}
    assert record().releases[-1].pruned == ()


def user(kind: str, name: str, status: dict[str, Any], *, owner: str = "") -> dict[str, Any]:
    """A pod that mounts the ConfigMap `extra`, or a workflow whose pods do."""
    volumes = [{"name": "tools", "configMap": {"name": "extra"}}]
    metadata: dict[str, Any] = {"name": name, "namespace": "llm-inference"}
    if owner:
        metadata["ownerReferences"] = [{"apiVersion": "apps/v1", "kind": owner, "name": "old", "uid": "1"}]
    if kind == "Pod":
        spec = {"containers": [{"name": "c", "image": "i"}], "volumes": volumes}
        return {"apiVersion": "v1", "kind": kind, "metadata": metadata, "spec": spec, "status": status}
    stored = {"volumes": volumes, "templates": []}
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": kind,
        "metadata": metadata,
        "spec": {"workflowTemplateRef": {"name": "t"}},
        "status": {**status, "storedWorkflowTemplateSpec": stored},
    }


@pytest.mark.parametrize(
    ("body", "kept"),
    [
        (user("Workflow", "run", {"phase": "Running"}), "is used by Workflow run"),
        (user("Workflow", "run", {}), "is used by Workflow run"),
        (user("Workflow", "run", {"phase": "Failed"}), ""),
        (user("Pod", "web", {"phase": "Running"}), "is used by Pod web"),
        (user("Pod", "web", {"phase": "Pending"}), "is used by Pod web"),
        (user("Pod", "web", {"phase": "Succeeded"}), ""),
    ],
    ids=["runs", "begins", "ended", "pod runs", "pod begins", "pod ended"],
)
def test_a_config_map_that_is_still_mounted_is_left(
    checkout: Checkout, server: ApiServer, capsys: pytest.CaptureFixture[str], body: dict[str, Any], kept: str
) -> None:
    leave(checkout)
    server.put(body)
    capsys.readouterr()
    go(prune=True)
    said = " ".join(capsys.readouterr().out.split())
    assert kept in said
    assert bool(kept) == ("extra" in names(server))
    assert "zweites" not in names(server)
    if kept:
        server.remove(body["kind"], body["metadata"]["name"])
        go(prune=True)
        assert "extra" not in names(server)


def test_a_pod_that_the_rollout_should_have_ended_is_seen_before_its_config_map_goes(
    checkout: Checkout, server: ApiServer, capsys: pytest.CaptureFixture[str]
) -> None:
    leave(checkout)
    server.put(user("Pod", "old-pod", {"phase": "Running"}, owner="ReplicaSet"))
    capsys.readouterr()
    result = go(prune=True)
    said = " ".join(capsys.readouterr().out.split())
    assert "delete ConfigMap llm-inference/extra: not in this set" in said
    assert "left ConfigMap llm-inference/extra: is used by Pod old-pod; a later deploy with --prune deletes it" in said
    assert names(server) & {"extra", "zweites"} == {"extra"}
    assert result.release
    assert result.release.pruned == ("ConfigMap llm-inference/zweites",)


def test_where_pods_may_not_be_listed_no_config_map_is_deleted(
    checkout: Checkout, server: ApiServer, capsys: pytest.CaptureFixture[str]
) -> None:
    leave(checkout)
    server.forbidden = {("list", "pods")}
    capsys.readouterr()
    go(prune=True)
    assert "nobody can tell whether it is used: the cluster does not show the pods of llm-inference" in " ".join(
        capsys.readouterr().out.split()
    )
    assert names(server) >= {"extra", "zweites"}


def test_a_namespace_is_never_deleted() -> None:
    for kind in ("Namespace", "Secret", "PersistentVolumeClaim", "CustomResourceDefinition"):
        assert re.match("holds|takes|is nowhere", prune._NEVER[kind])
