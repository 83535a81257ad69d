"""What runs left in a cluster: what is listed, what may be deleted, and what stays whatever is asked."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import yaml

from common.errors import PolicyError, RegistryError, UsageError
from common.run import Result
from k8s.rollouts import consent
from k8s.training import artifact, leftovers
from k8s.training.names import NAMESPACE
from tests.k8s.conftest import Checkout

NOW = datetime.datetime(2026, 3, 31, 12, tzinfo=datetime.UTC)
REPOSITORY = "registry.example.com/llm/models/example-tiny"


def version(letter: str) -> str:
    return f"sft-{letter * 12}"


def digest(letter: str) -> str:
    return f"{REPOSITORY}@sha256:{letter * 64}"


def days_ago(days: float) -> str:
    return (NOW - datetime.timedelta(days=days)).strftime("%Y-%m-%dT%H:%M:%SZ")


def meta(name: str, letter: str, days: float) -> dict[str, Any]:
    return {
        "name": name,
        "namespace": NAMESPACE,
        "creationTimestamp": days_ago(days),
        "labels": {"pinwheel.io/version": version(letter)},
        "annotations": {"pinwheel.io/experiment": "experiments/example/tiny/sft.yaml"},
    }


def flow(letter: str, phase: str, days: float, model: str = "") -> dict[str, Any]:
    node = {
        "templateName": "register",
        "phase": "Succeeded",
        "outputs": {"parameters": [{"name": "model", "value": model}]},
    }
    status = {"phase": phase, "finishedAt": days_ago(days), "nodes": {"a": node} if model else {}}
    return {"metadata": meta(version(letter), letter, days + 1), "status": status}


def config(letter: str, days: float) -> dict[str, Any]:
    run = json.dumps({"model": REPOSITORY})
    return {"metadata": meta(f"experiment-{version(letter)}", letter, days), "data": {"run.json": run}}


class Cluster:
    """Stands for kubectl."""

    def __init__(self) -> None:
        self.flows: list[dict[str, Any]] = []
        self.configs: list[dict[str, Any]] = []
        self.serves: list[str] = []
        self.deleted: list[tuple[str, str]] = []
        self.refuses = ""
        # What happens while somebody is asked.
        self.meanwhile: Callable[[], object] = lambda: None

    def preflight(self, _: str) -> None: ...

    def request(self, args: Sequence[str]) -> Result:
        resource, namespace = args[1], args[3]
        if resource in self.refuses.split():
            return Result(1, "", f"Error from server (Forbidden): cannot list {resource}")
        deployments = [{"spec": {"template": {"metadata": {"annotations": {"pinwheel.io/model": one}}}}} for one in self.serves]
        items = {"workflows.argoproj.io": self.flows, "configmaps": self.configs, "deployments.apps": deployments}[resource]
        assert namespace == ("llm-inference" if resource == "deployments.apps" else NAMESPACE)
        return Result(0, json.dumps({"kind": "List", "items": items}), "")

    def delete(self, text: str) -> Result:
        self.deleted += [(body["kind"], body["metadata"]["name"]) for body in yaml.safe_load_all(text)]
        return Result(1, "", "Forbidden") if "delete" in self.refuses else Result(0, "", "")


@pytest.fixture
def cluster(checkout: Checkout, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    made = Cluster()

    def asked(question: str, *, yes: bool) -> None:
        assert question == "delete that in cluster of context staging"
        made.meanwhile()

    monkeypatch.setattr(leftovers, "Kubectl", lambda *_: made)
    # The registry knows of the model `a…` that it is of the run `a…`.
    monkeypatch.setattr(artifact, "version_of", lambda model, _: version(model.digest[-1]))
    monkeypatch.setattr(consent, "ask", asked)
    return made


def prune(*, yes: bool = True) -> str:
    return leftovers.runs("staging", prune=True, yes=yes, now=NOW)


def both(letter: str) -> list[tuple[str, str]]:
    return [("Workflow", version(letter)), ("ConfigMap", f"experiment-{version(letter)}")]


def test_what_is_there_is_listed_and_nothing_is_deleted(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    cluster.flows = [flow("a", "Succeeded", 0.25, digest("a")), flow("b", "Running", 0)]
    cluster.configs = [config("a", 1), config("b", 1), config("c", 40)]
    cluster.serves = [digest("a")]
    assert leftovers.runs("staging", now=NOW) == (
        "runs that left something in cluster of context staging: 3;"
        " ended 7 days ago or more and not served: 1, which --prune deletes"
    )
    rows = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    file = "experiments/example/tiny/sft.yaml"
    assert rows[1:4] == [
        f"{version('b')} Running - Workflow, ConfigMap {file}",
        f"{version('a')} Succeeded 6 h ago Workflow, ConfigMap yes {file}",
        f"{version('c')} gone 40 days ago ConfigMap {file}",
    ]
    assert cluster.deleted == []


def test_old_runs_that_are_not_served_go_the_workflows_first(cluster: Cluster) -> None:
    cluster.flows = [flow("a", "Succeeded", 8, digest("a")), flow("b", "Failed", 8), flow("e", "Succeeded", 8, digest("e"))]
    cluster.configs = [config(one, 9) for one in "abce"]
    cluster.serves = [digest("e")]
    assert prune() == "objects deleted: 5, of runs: 3"
    assert cluster.deleted == [
        ("Workflow", version("a")),
        ("Workflow", version("b")),
        *(("ConfigMap", f"experiment-{version(one)}") for one in "abc"),
    ]


@pytest.mark.parametrize("phase", ["Running", "Pending", "", "Unknown"])
def test_a_run_that_has_not_ended_stays_however_old_it_is(cluster: Cluster, phase: str) -> None:
    cluster.flows, cluster.configs = [flow("a", phase, 300)], [config("a", 300)]
    prune()
    assert cluster.deleted == []


def test_a_run_that_ended_less_than_a_week_ago_stays(cluster: Cluster) -> None:
    cluster.flows, cluster.configs = [flow("a", "Failed", 6.9)], [config("a", 300), config("b", 6.9)]
    prune()
    assert cluster.deleted == []


def test_a_run_whose_end_nobody_tells_stays(cluster: Cluster) -> None:
    cluster.flows, cluster.configs = [flow("a", "Failed", 300)], [config("a", 300)]
    del cluster.flows[0]["status"]["finishedAt"]
    prune()
    assert cluster.deleted == []


def test_the_run_of_the_served_model_stays_also_when_its_workflow_is_gone(cluster: Cluster) -> None:
    cluster.configs, cluster.serves = [config("a", 300), config("b", 300)], [digest("a")]
    prune()
    assert cluster.deleted == [("ConfigMap", f"experiment-{version('b')}")]


def test_where_the_registry_does_not_tell_the_run_all_of_that_model_stay(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def away(*_: object) -> str:
        raise RegistryError("the registry does not answer", where="registry.example.com")

    monkeypatch.setattr(artifact, "version_of", away)
    cluster.configs, cluster.serves = [config("a", 300), config("b", 300)], [digest("a")]
    other = config("c", 300)
    other["data"]["run.json"] = json.dumps({"model": "registry.example.com/llm/models/example-other"})
    cluster.configs.append(other)
    prune()
    assert cluster.deleted == [("ConfigMap", f"experiment-{version('c')}")]
    captured = capsys.readouterr()
    assert "nobody can tell" in captured.out
    assert "the registry does not tell which run" in " ".join(captured.err.split())


def test_what_only_looks_like_a_runs_object_is_left_alone(cluster: Cluster) -> None:
    cluster.configs, cluster.flows = [config("a", 300)], [flow("a", "Succeeded", 300)]
    cluster.configs[0]["metadata"]["name"] = "mine"
    cluster.flows[0]["metadata"]["name"] = "mine"
    assert prune() == "no run left anything in cluster of context staging"


def test_a_run_that_is_begun_again_while_somebody_is_asked_stays(cluster: Cluster) -> None:
    cluster.configs = [config("a", 300), config("b", 300)]
    cluster.meanwhile = lambda: cluster.flows.append(flow("a", "Pending", 0))
    prune()
    assert cluster.deleted == [("ConfigMap", f"experiment-{version('b')}")]


def test_nothing_is_deleted_that_nobody_agreed_to(cluster: Cluster) -> None:
    def no() -> None:
        raise UsageError("the plan was not agreed to")

    cluster.configs, cluster.meanwhile = [config("a", 300)], no
    with pytest.raises(UsageError, match="not agreed"):
        prune(yes=False)
    assert cluster.deleted == []


def test_a_cluster_that_refuses_says_so(cluster: Cluster) -> None:
    cluster.configs = [config("a", 300)]
    cluster.refuses = "delete"
    with pytest.raises(PolicyError, match="does not delete all of it"):
        prune()
    cluster.refuses = "configmaps"
    with pytest.raises(PolicyError, match="does not show the configmaps"):
        prune()


def test_nothing_runs_in_a_directory(cluster: Cluster) -> None:
    with pytest.raises(UsageError, match="nothing runs there"):
        leftovers.runs("rendered")
