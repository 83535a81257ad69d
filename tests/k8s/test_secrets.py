"""Secrets through real kubectl: what arrives, what stays, and that a value is seen nowhere else."""

from __future__ import annotations

import base64
import subprocess
from pathlib import Path
from typing import Any

import pytest

from common.errors import MissingEnvironmentError, PolicyError, UsageError
from k8s import secrets
from tests.k8s.conftest import Checkout
from tests.k8s.simulator.apiserver import ApiServer
from tests.k8s.simulator.steps import BRIEF, go
from tests.k8s.simulator.wire import Fault

SECRET = "inference-api-key"
VALUE = "s3cr3t-value-of-a-test"


@pytest.fixture(autouse=True)
def _no_values_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("API_KEY", "INFERENCE_API_KEY_API_KEY"):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture
def two(checkout: Checkout) -> Checkout:
    """The environment lists two keys of one Secret, and no other; what else is needed is not asked for."""
    file = checkout.root / "k8s/envs/staging.yaml"
    text = file.read_text()
    file.write_text(text[: text.index("secrets:")] + f"secrets:\n  llm-inference/{SECRET}: [API_KEY, OTHER]\n")
    deployment = checkout.manifests / "inference/deployment.yaml"
    deployment.write_text(
        deployment.read_text().replace("secretName: model-trust", "secretName: model-trust\n            optional: true")
    )
    return checkout


def put(folder: Path | str = "") -> str:
    return secrets.put("staging", folder=str(folder), patience=BRIEF)


def held(server: ApiServer) -> dict[str, str]:
    data: dict[str, str] = server.body("Secret", SECRET)["data"]
    return {key: base64.b64decode(value).decode() for key, value in data.items()}


@pytest.mark.host
def test_a_secret_is_made_before_the_first_deploy_with_its_namespace(
    two: Checkout, server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INFERENCE_API_KEY_API_KEY", VALUE)
    monkeypatch.setenv("OTHER", "x")
    assert put() == "2 keys written, 0 left as they are, none missing"
    assert held(server) == {"API_KEY": VALUE, "OTHER": "x"}
    labels = server.body("Namespace", "llm-inference")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    go()


@pytest.mark.host
def test_what_is_rotated_leaves_the_other_keys_as_they_are(
    two: Checkout, server: ApiServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("API_KEY", "old")
    monkeypatch.setenv("OTHER", "x")
    put()
    monkeypatch.delenv("API_KEY")
    monkeypatch.delenv("OTHER")
    (tmp_path / "values" / "llm-inference" / SECRET).mkdir(parents=True)
    (tmp_path / "values" / "llm-inference" / SECRET / "API_KEY").write_text(VALUE)
    assert put(tmp_path / "values") == "1 keys written, 1 left as they are, none missing"
    assert held(server) == {"API_KEY": VALUE, "OTHER": "x"}
    said = capsys.readouterr()
    assert f"rotated      Secret llm-inference/{SECRET}: API_KEY, from" in said.out
    assert f"there        Secret llm-inference/{SECRET}: OTHER" in said.out


@pytest.mark.host
def test_a_value_is_in_no_argument_output_or_file(
    two: Checkout, server: ApiServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[Any] = []
    true = subprocess.run

    def watched(argv: Any, **options: Any) -> Any:
        calls.append(argv)
        return true(argv, **options)

    monkeypatch.setattr(subprocess, "run", watched)
    monkeypatch.setattr("common.console._VERBOSE", True)
    monkeypatch.setenv("API_KEY", VALUE)
    monkeypatch.setenv("OTHER", VALUE)
    put()
    server.faults = [Fault(500)]
    with pytest.raises(MissingEnvironmentError, match="the cluster refuses Secret"):
        put()
    said = capsys.readouterr()
    coded = base64.b64encode(VALUE.encode()).decode()
    for text in (said.out, said.err, repr(calls), "\n".join(path for _, path in server.requests)):
        assert VALUE not in text
        assert coded not in text
    written = [file for file in two.root.rglob("*") if file.is_file() and VALUE.encode() in file.read_bytes()]
    assert not written
    assert VALUE not in repr(secrets.offered("n", "s", "API_KEY", ""))


@pytest.mark.host
def test_what_is_missing_is_named_with_its_variable(
    two: Checkout, server: ApiServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OTHER", "x")
    with pytest.raises(PolicyError, match=f"a key is missing.*llm-inference/{SECRET}: API_KEY"):
        put()
    assert held(server) == {"OTHER": "x"}
    assert f"missing      Secret llm-inference/{SECRET}: API_KEY: set INFERENCE_API_KEY_API_KEY" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("value", "message"),
    [("", "a value is empty"), (" \n", "a value is empty"), ("x\n", "ends with a line break"), ("x\r\n", "line break")],
)
def test_a_value_that_cannot_be_meant_is_refused(
    checkout: Checkout, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, value: str, message: str
) -> None:
    (tmp_path / "API_KEY").write_text(value)
    with pytest.raises(UsageError, match=f"{message}.*API_KEY.*nothing was sent"):
        put(tmp_path)
    monkeypatch.setenv("API_KEY", value)
    with pytest.raises(UsageError, match=message):
        put()


@pytest.mark.host
def test_a_key_that_somebody_else_owns_is_not_taken(two: Checkout, server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    go()
    body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": SECRET, "namespace": "llm-inference"}}
    server.create(("v1", "Secret", "llm-inference", SECRET), {**body, "data": {"API_KEY": "eA=="}}, "kubectl-create")
    monkeypatch.setenv("API_KEY", VALUE)
    with pytest.raises(PolicyError, match="API_KEY belongs to kubectl-create.*nothing is ever taken by force"):
        put()
    assert held(server) == {"API_KEY": "x"}


@pytest.mark.host
@pytest.mark.parametrize(
    ("fault", "error", "message"),
    [
        (Fault(403, kind="Secret"), PolicyError, "the cluster refuses Secret.*a policy forbids it"),
        (Fault(403, "GET", "Secret"), PolicyError, "does not show Secret.*let your account `get` Secrets"),
        (Fault(500, kind="Secret"), MissingEnvironmentError, "the cluster refuses Secret"),
        (Fault(0, kind="Secret"), MissingEnvironmentError, "the cluster refuses Secret"),
        (Fault(403, kind="Namespace"), PolicyError, "the cluster refuses the namespace llm-inference"),
    ],
    ids=["RBAC", "RBAC read", "500", "cut", "RBAC namespace"],
)
def test_a_cluster_that_refuses_is_told_of_in_one_line(
    two: Checkout,
    server: ApiServer,
    monkeypatch: pytest.MonkeyPatch,
    fault: Fault,
    error: type[Exception],
    message: str,
) -> None:
    monkeypatch.setenv("API_KEY", VALUE)
    server.faults = [fault]
    if fault.kind == "Secret":
        key = ("v1", "Namespace", "", "llm-inference")
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "llm-inference"}}
        server.apply(key, body, "test", force=True, dry_run=False)
    with pytest.raises(error, match=message) as caught:
        put()
    assert VALUE not in str(caught.value)
    assert "Secret" not in server.kinds()


@pytest.mark.host
def test_without_the_context_it_says_which_there_are(checkout: Checkout, server: ApiServer, tmp_path: Path) -> None:
    server.kubeconfig(tmp_path / "kubeconfig", "minikube")
    with pytest.raises(MissingEnvironmentError, match="no context 'staging'"):
        put()


def test_a_directory_holds_no_secrets(checkout: Checkout) -> None:
    with pytest.raises(UsageError, match="there is no cluster to hold Secrets"):
        secrets.put("rendered")


def test_a_folder_that_is_none_is_named(checkout: Checkout) -> None:
    with pytest.raises(UsageError, match="no such folder"):
        put("no-such-folder-here")


def test_a_servers_words_are_scrubbed_of_the_value() -> None:
    coded = base64.b64encode(VALUE.encode()).decode()
    assert secrets.scrubbed(f"invalid: {VALUE} or {coded}", VALUE.encode()) == "invalid: … or …"
