from __future__ import annotations

from pathlib import Path

import pytest

from common.errors import MissingEnvironmentError, PolicyError
from common.run import Result
from k8s.envs import environment
from k8s.envs.environment import ClusterTarget
from k8s.rollouts import kubectl
from k8s.rollouts.conflicts import Conflict, conflicts
from k8s.rollouts.kubectl import Kubectl, Patience

ADVICE = "\nPlease review the fields above--they currently have other managers. Here\n* …\nSee https://x.example/#conflicts\n"


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (
            'error: Apply failed with 1 conflict: conflict with "kubectl-edit" using apps/v1: .spec.replicas',
            [Conflict("kubectl-edit", ".spec.replicas")],
        ),
        ('error: Apply failed with 1 conflict: conflict with "argocd": .data.x', [Conflict("argocd", ".data.x")]),
        (
            'conflict with "hpa" with subresource "scale" using apps/v1 at 2026-01-01T00:00:00Z: .spec.replicas',
            [Conflict("hpa", ".spec.replicas")],
        ),
        (
            'Apply failed with 3 conflicts: conflicts with "a" using apps/v1:\n- .spec.x\n'
            '- .spec.template.spec.containers[name="c"].image\nconflicts with "b":\n- .spec.y' + ADVICE,
            [
                Conflict("a", ".spec.x"),
                Conflict("a", '.spec.template.spec.containers[name="c"].image'),
                Conflict("b", ".spec.y"),
            ],
        ),
        ("Error from server (Forbidden): no", []),
    ],
)
def test_conflicts_are_read_by_owner_and_field(said: str, expected: list[Conflict]) -> None:
    assert list(conflicts(said)) == expected


def test_advice_is_left_out_but_nothing_after_it() -> None:
    said = kubectl.brief(Result(1, "", f"error: a conflict{ADVICE}Error from server (Forbidden): denied\n"))
    assert said == "a conflict | (Forbidden): denied"


@pytest.mark.parametrize(
    ("said", "error"),
    [
        ("Error from server (InternalError): etcd", MissingEnvironmentError),
        ("The connection to the server 127.0.0.1:1 was refused … connection refused", MissingEnvironmentError),
        ("Error from server (Forbidden): quota", PolicyError),
        ('The Service "x" is invalid: spec', PolicyError),
    ],
)
def test_a_server_that_is_away_is_no_policy(said: str, error: type[Exception]) -> None:
    assert isinstance(kubectl.refusal(Result(1, "", said), "what", "fix"), error)


def test_an_environment_may_name_the_file_of_its_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    monkeypatch.setenv("PINWHEEL_STATE", str(tmp_path))
    rest = "registry: r.example\nkubernetes: '1.32'\nproof: none\n"
    found = []
    for file in ("~/.kube/staging", "/etc/kube/config", "single-node/kubeconfig"):
        text = f"target: {{cluster: {{context: c, kubeconfig: {file}}}}}\n{rest}"
        target = environment.parse(text, "e", "e.yaml").target
        assert isinstance(target, ClusterTarget)
        found.append((target.kubeconfig, target.of_this_machine))
    assert found == [
        ("/home/ada/.kube/staging", False),
        ("/etc/kube/config", False),
        (f"{tmp_path}/single-node/kubeconfig", True),
    ]
    argv = Kubectl(ClusterTarget("c", "", "/etc/kube/config"), Patience()).argv(["get", "pods"])
    assert argv == ["kubectl", "--kubeconfig=/etc/kube/config", "--context", "c", "get", "pods"]


def test_without_a_cluster_on_this_machine_the_way_to_one_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PINWHEEL_STATE", str(tmp_path))
    target = ClusterTarget("pinwheel", "", str(tmp_path / "single-node" / "kubeconfig"))
    with pytest.raises(MissingEnvironmentError, match="there is no cluster on this machine .*invoke cluster --up"):
        Kubectl(target, Patience())


def test_the_cluster_of_this_machine_is_asked_by_its_own_kubectl_and_no_proxy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PINWHEEL_STATE", str(tmp_path))
    monkeypatch.setenv("NO_PROXY", "example.com")
    (tmp_path / "single-node").mkdir()
    (tmp_path / "single-node" / "kubectl").write_text("#!/bin/sh\necho $NO_PROXY\n")
    (tmp_path / "single-node" / "kubectl").chmod(0o755)
    target = ClusterTarget("pinwheel", "", str(tmp_path / "single-node" / "kubeconfig"))
    assert Kubectl(target, Patience()).call(["version"]).stdout == "example.com,10.233.0.2,10.233.128.1\n"
