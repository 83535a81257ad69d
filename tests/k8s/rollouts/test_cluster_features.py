"""What the plan says that the cluster lacks: one line each, and nothing that nobody knows."""

from __future__ import annotations

import json
from typing import Any

import pytest

from common.run import Result
from k8s.objects.manifests import Manifest
from k8s.rollouts import cluster_features
from tests.k8s.rollouts.scripted import Scripted

NOT_FOUND = Result(1, "", "Error from server (NotFound): the server could not find the requested resource")
FORBIDDEN = Result(1, "", "Error from server (Forbidden): User may not do this")
AWAY = Result(1, "", "Error from server (ServiceUnavailable): the server is currently unable to handle the request")
THERE = Result(0, "{}", "")
METRICS, CLASSES = "metrics.k8s.io", "get storageclasses"


def made(kind: str, spec: dict[str, Any] | None = None, **metadata: Any) -> Manifest:
    body = {"apiVersion": "v1", "kind": kind, "metadata": {"name": "x", "namespace": "n", **metadata}, "spec": spec or {}}
    return Manifest("x.yaml", body, {})


def classes(*defaults: str) -> Result:
    key = "storageclass.kubernetes.io/is-default-class"
    found = [
        {"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": f"c{n}", "annotations": {key: one}}}
        for n, one in enumerate(defaults)
    ]
    return Result(0, json.dumps({"kind": "List", "items": found}), "")


SCALER, CLAIM = made("HorizontalPodAutoscaler"), made("PersistentVolumeClaim")


def told(capsys: pytest.CaptureFixture[str], *objects: Manifest, there: tuple[Manifest, ...] = (), **answers: Result) -> str:
    one = Scripted()
    one.answers = {METRICS: answers.get("metrics", THERE), CLASSES: answers.get("classes", classes("true"))}
    cluster_features.tell(one, objects, {manifest.identity for manifest in there})
    return capsys.readouterr().err.strip()


def test_a_cluster_that_has_all_is_told_nothing_of(capsys: pytest.CaptureFixture[str]) -> None:
    assert told(capsys, SCALER, CLAIM) == ""


def test_an_autoscaler_without_a_metrics_api_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    line = (
        "the cluster has no metrics API (metrics.k8s.io/v1beta1): HorizontalPodAutoscaler n/x stands still until metrics-server"
    )
    assert told(capsys, SCALER, metrics=NOT_FOUND) == f"! {line} is installed"


def test_a_metrics_api_that_is_away_is_not_called_missing(capsys: pytest.CaptureFixture[str]) -> None:
    assert "does not answer: HorizontalPodAutoscaler n/x stands still while" in told(capsys, SCALER, metrics=AWAY)


@pytest.mark.parametrize("kind", ["Pods", "Object", "External"])
def test_other_metrics_come_from_other_apis(capsys: pytest.CaptureFixture[str], kind: str) -> None:
    scaler = made("HorizontalPodAutoscaler", {"metrics": [{"type": kind}]})
    assert f"{'external' if kind == 'External' else 'custom'}.metrics.k8s.io" in told(capsys, scaler, metrics=NOT_FOUND)


def test_what_we_may_not_ask_is_not_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert told(capsys, SCALER, CLAIM, metrics=FORBIDDEN, classes=FORBIDDEN) == ""


def test_a_set_without_autoscaler_and_claim_asks_nothing() -> None:
    one = Scripted()
    cluster_features.tell(one, [made("ConfigMap")], ())
    assert one.asked == []


@pytest.mark.parametrize("found", [classes(), classes("false")], ids=["none", "none by default"])
def test_a_claim_without_a_class_where_there_is_no_default_is_one_line(
    capsys: pytest.CaptureFixture[str], found: Result
) -> None:
    line = told(capsys, CLAIM, classes=found)
    assert line.startswith(
        "! the cluster has no default StorageClass, and the claims of PersistentVolumeClaim n/x name none: they wait; "
    )
    assert line.endswith("one of c0" if "c0" in found.stdout else "there is no other either")


@pytest.mark.parametrize(
    "spec", [{"storageClassName": "c0"}, {"storageClassName": ""}, {"volumeName": "v"}], ids=["a class", "no class", "a volume"]
)
def test_a_claim_that_says_where_it_lies_needs_no_default(capsys: pytest.CaptureFixture[str], spec: dict[str, Any]) -> None:
    assert told(capsys, made("PersistentVolumeClaim", spec), classes=classes()) == ""


def test_a_claim_that_is_there_has_its_volume(capsys: pytest.CaptureFixture[str]) -> None:
    assert told(capsys, CLAIM, there=(CLAIM,), classes=classes()) == ""


def test_a_claim_of_a_workload_counts_too(capsys: pytest.CaptureFixture[str]) -> None:
    one = made("StatefulSet", {"volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {}}]})
    assert "the claims of StatefulSet n/x" in told(capsys, one, there=(one,), classes=classes())


def test_a_set_that_brings_its_default_class_needs_no_other(capsys: pytest.CaptureFixture[str]) -> None:
    own = made("StorageClass", annotations={"storageclass.kubernetes.io/is-default-class": "true"})
    assert told(capsys, CLAIM, own, classes=classes()) == ""


def test_that_policies_are_enforced_is_not_claimed_and_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    cluster_features.tell(Scripted(), [made("NetworkPolicy"), made("NetworkPolicy")], ())
    said = capsys.readouterr().out.strip()
    assert said == "not checked  whether the cluster enforces the 2 NetworkPolicies of the set"
