"""`check --server`: the environment's API server judges each object by a dry run, and holds nothing afterwards."""

from __future__ import annotations

import json

import pytest

from common.errors import ExitCode, MissingEnvironmentError, PolicyError, UsageError
from k8s import check
from k8s.check import JSON
from tests.k8s.conftest import Checkout
from tests.k8s.simulator.apiserver import ApiServer
from tests.k8s.simulator.steps import BRIEF, CUT, NAME, go
from tests.k8s.simulator.wire import Fault

pytestmark = pytest.mark.host

NAMESPACE = "llm-inference"


def ask(checkout: Checkout, form: str = "", *, env: str = "staging") -> str:
    return check.run_check([str(checkout.manifests)], env, form, server=True, patience=BRIEF)


def writes(server: ApiServer) -> list[tuple[str, str]]:
    return [one for one in server.requests if one[0] != "GET" and "dryRun=All" not in one[1]]


def made(server: ApiServer) -> None:
    """The namespace of the set, and nothing of the set in it."""
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    server.apply(("v1", "Namespace", "", NAMESPACE), body, "somebody", force=False, dry_run=False)


def test_a_set_that_the_server_takes_is_clean_and_nothing_of_it_is_there(checkout: Checkout, server: ApiServer) -> None:
    made(server)
    before = dict(server.objects)
    outcome = ask(checkout)
    number = outcome.split()[0]
    assert outcome.endswith(f"; its server takes {number} of them")
    assert server.objects == before
    assert writes(server) == []
    # Every object was asked about, in a way that the server keeps nothing of, and as a deploy sends it.
    asked = [path for method, path in server.requests if method == "PATCH"]
    assert len(asked) == int(number)
    assert all("fieldManager=pinwheel" in path and "fieldValidation=Strict" in path for path in asked)


def test_what_the_server_refuses_is_a_finding_among_the_others(
    checkout: Checkout, server: ApiServer, capsys: pytest.CaptureFixture[str]
) -> None:
    made(server)
    checkout.edit("hpa.yaml", "minReplicas: 1", "minReplicas: 5")
    words = 'admission webhook "policy.example.com" denied the request: no team label'
    server.faults = [Fault(403, kind="Service", dry_run=True, message=words)]
    with pytest.raises(PolicyError, match="2 findings in 2 files") as caught:
        ask(checkout)
    assert caught.value.exit_code == ExitCode.POLICY
    said = " ".join(capsys.readouterr().err.split())
    assert "[autoscaler-bounds]" in said
    assert f"Service {NAMESPACE}/{NAME}: the server refuses it: " in said
    assert f"{words}: mend what it names [server]" in said
    assert writes(server) == []


def test_a_namespace_that_does_not_exist_yet_is_said_and_fails_nothing(
    checkout: Checkout, server: ApiServer, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = ask(checkout, JSON)
    read = capsys.readouterr()
    assert "its server takes 1 of" in outcome  # the Namespace itself
    assert f"not asked: there is no namespace {NAMESPACE} yet: " in " ".join(read.err.split())
    body, _ = json.JSONDecoder().raw_decode(read.out)
    assert body["clean"]
    assert [one.partition(": ")[0] for one in body["unasked"]] == [f"there is no namespace {NAMESPACE} yet"]
    assert not server.objects


def test_a_kind_that_the_set_defines_is_said_and_one_that_nobody_defines_is_a_finding(
    checkout: Checkout, server: ApiServer, capsys: pytest.CaptureFixture[str]
) -> None:
    made(server)
    definition = (
        "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {name: parts.acme.example.com}\n"
        "spec:\n  group: acme.example.com\n  scope: Namespaced\n  names: {kind: Part, plural: parts, singular: part}\n"
        "  versions:\n    - name: v1\n      served: true\n      storage: true\n"
        "      schema: {openAPIV3Schema: {type: object, properties: {spec: {type: object}}}}\n---\n"
    )
    part = f"apiVersion: acme.example.com/v1\nkind: Part\nmetadata: {{name: a, namespace: {NAMESPACE}}}\nspec: {{}}\n"
    checkout.add(definition + part)
    ask(checkout)
    said = " ".join(capsys.readouterr().err.split())
    assert f"not asked: the cluster has no kind Part yet, which the set brings: Part {NAMESPACE}/a" in said
    checkout.add(part)
    crds = checkout.root / "k8s" / "crds"
    crds.mkdir()
    (crds / "parts.yaml").write_text(definition)
    with pytest.raises(PolicyError, match="1 finding in 1 file"):
        ask(checkout)
    assert "kind: the cluster has no kind Part (acme.example.com/v1): install what brings it" in " ".join(
        capsys.readouterr().err.split()
    )


def test_a_field_that_somebody_else_owns_is_a_finding(
    checkout: Checkout, server: ApiServer, capsys: pytest.CaptureFixture[str]
) -> None:
    go()
    server.edit("Service", NAME, {"apiVersion": "v1", "kind": "Service", "spec": {"type": "NodePort"}}, "kubectl-edit")
    with pytest.raises(PolicyError, match="1 finding"):
        ask(checkout)
    assert "spec.type belongs to kubectl-edit: take the field out of the manifest" in " ".join(capsys.readouterr().err.split())


def test_a_server_that_does_not_answer_is_a_missing_environment(checkout: Checkout, server: ApiServer) -> None:
    server.faults = [Fault(503, dry_run=True)]
    made(server)
    with pytest.raises(MissingEnvironmentError) as caught:
        check.run_check([str(checkout.manifests)], "staging", server=True, patience=CUT)
    assert caught.value.exit_code == ExitCode.ENVIRONMENT
    server.away = True
    with pytest.raises(MissingEnvironmentError, match="does not answer"):
        check.run_check([str(checkout.manifests)], "staging", server=True, patience=CUT)


def test_an_environment_without_a_cluster_has_no_server_to_ask(checkout: Checkout) -> None:
    with pytest.raises(UsageError, match="rendered is rendered into a directory: there is no server to ask"):
        ask(checkout, env="rendered")
