"""The whole set of the project through real kubectl to the simulator: all namespaces, every kind, all workloads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.k8s.conftest import API, NEW, OLD, Checkout
from tests.k8s.prepare import models
from tests.k8s.simulator.apiserver import ApiServer
from tests.k8s.simulator.steps import go

pytestmark = pytest.mark.host
TRAIN = "llama-factory-train"
NAMESPACES = {"llm-argo", "llm-dev-ui", "llm-inference", "llm-training"}


@pytest.fixture
def cluster(checkout: Checkout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    models.named(checkout.root, "staging")
    with ApiServer() as api:
        monkeypatch.setenv("KUBECONFIG", str(api.kubeconfig(tmp_path / "kubeconfig", "staging")))
        monkeypatch.setenv("KUBECACHEDIR", str(tmp_path / "kube-cache"))
        yield api


def test_the_first_deploy_makes_four_namespaces_and_runs_both_workloads(checkout: Checkout, cluster: ApiServer) -> None:
    result = go()
    made = {(kind, namespace, name) for _, kind, namespace, name in cluster.objects}
    sent = {(one.kind, one.namespace, one.name) for one in checkout.check()[0].objects}
    assert sent <= made
    assert {name for kind, _, name in made if kind == "Namespace"} == NAMESPACES
    images = Counter(one.reference for one in result.images)
    # The server and what fetches its model; the web UI and the six steps of the workflow.
    assert images == {f"registry.example.com/llm/{API}@{OLD}": 4, f"registry.example.com/llm/{TRAIN}@{NEW}": 7}
    assert ("WorkflowTemplate", "llm-training", "llama-factory-train") in made


def test_a_second_deploy_changes_nothing_and_a_new_image_changes_its_workloads_alone(
    checkout: Checkout, cluster: ApiServer
) -> None:
    go()
    assert go().changed == ()
    checkout.lock({API: OLD, TRAIN: OLD})
    assert sorted(go().changed) == [
        ("Deployment llm-dev-ui/llama-factory-webui", "changed"),
        ("WorkflowTemplate llm-training/llama-factory-train", "changed"),
    ]
