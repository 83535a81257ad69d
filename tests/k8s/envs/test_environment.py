from __future__ import annotations

import re
from datetime import date
from pathlib import Path

import pytest

from common.errors import UsageError
from k8s.envs import environment
from k8s.envs.environment import ClusterTarget, DirectoryTarget
from k8s.envs.proof import AuditLimit, Gate
from k8s.envs.trusted_signers import Signers, TrustedKey
from k8s.envs.without_proof import WithoutProof
from registry.keyless import Identity
from registry.policy import Policy
from tests.k8s.conftest import Checkout

GOOD = "target: {cluster: {context: c}}\nregistry: r.example/llm\nkubernetes: '1.32'\nproof: none\n"
RENDER = GOOD.replace("cluster: {context: c}", "directory: {path: x}")


def test_the_environments_of_the_project_are_read(checkout: Checkout) -> None:
    local, production, rendered, staging = (environment.load(name) for name in environment.names())
    assert isinstance(local.target, ClusterTarget)
    assert local.target.of_this_machine
    assert rendered.target == DirectoryTarget(checkout.root / "dist/rendered")
    assert (staging.target, production.target) == (
        ClusterTarget("staging", "llm-inference"),
        ClusterTarget("production", "llm-inference"),
    )
    assert [env.gpu for env in (local, rendered, staging, production)] == [False, False, True, True]


def test_an_unknown_environment_names_those_there_are(checkout: Checkout) -> None:
    known = "there are: local, production, rendered, staging"
    with pytest.raises(UsageError, match=re.escape(f"no environment 'qa' (k8s/envs): {known}")):
        environment.load("qa")
    with pytest.raises(UsageError, match="no environment"):
        environment.load("../envs/local")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD + "pods: 4\n", "pods: unknown key (e.yaml)"),
        (GOOD.replace("context: c", "context: c, user: u"), "target.cluster.user: unknown key"),
        (RENDER.replace("path: x", "path: x, mode: 1"), "target.directory.mode: unknown key"),
        (GOOD.replace("cluster: {context: c}", "docker: {}"), "target.docker: unknown key"),
        (GOOD.replace("{cluster: {context: c}}", "{cluster: {context: c}, directory: {path: x}}"), "exactly one of"),
        (GOOD.replace("{cluster: {context: c}}", "staging"), "target: expected a mapping, got 'staging'"),
        (GOOD.replace("context: c", "context: c, namespace: 5"), "target.cluster.namespace: expected a string, got 5"),
        (GOOD.replace("context: c", ""), "target.cluster.context: missing"),
        (GOOD.replace("context: c", "context: 5"), "target.cluster.context: expected a string, got 5"),
        (GOOD.replace("registry: r.example/llm\n", ""), "registry: missing"),
        (GOOD.replace("r.example/llm", "https://r.example"), "registry: 'https://r.example' is not a registry host"),
        (GOOD.replace("r.example/llm", "llm"), "registry: 'llm' is not a registry host"),
        (GOOD.replace("'1.32'", "1.32"), "kubernetes: expected a string, got 1.32"),
        (GOOD.replace("1.32", "1.12"), "kubernetes: no schema for version '1.12', there are 1.25, 1.26"),
        (GOOD + "secrets: {key: [A]}\n", "secrets.key: write namespace/name"),
        (GOOD + "secrets: {n/key: A}\n", "secrets.n/key: write the list of the keys"),
        (GOOD + "secrets: {n/key: []}\n", "secrets.n/key: write the list of the keys"),
        (GOOD + "substitute: {a: b}\n", "substitute: unknown key"),
        (GOOD + "accelerator: amd\n", "accelerator: expected nvidia or none, got 'amd'"),
        (GOOD.replace("context: c", "context: c, kubeconfig: 5"), "target.cluster.kubeconfig: expected a string, got 5"),
        (GOOD.replace("proof: none\n", ""), "proof: missing (e.yaml)"),
        (GOOD.replace("none", "some"), "proof: expected a mapping, got 'some'"),
        (GOOD.replace("none", "{}"), "proof.key: missing"),
        (GOOD.replace("none", "{key: k, refuse: 'no'}"), "proof.refuse: expected true or false, got 'no'"),
        (GOOD.replace("none", "{key: k, warn: true}"), "proof.warn: unknown key"),
        (GOOD.replace("none", "{key: k, audit: {}}"), "proof.audit.max-severity: missing"),
        (GOOD.replace("none", "{key: k, audit: {max-severity: malware}}"), "malware is never allowed"),
        (GOOD.replace("none", "{key: k, audit: {max-severity: bad}}"), "proof.audit.max-severity: expected unimportant, low"),
        (GOOD.replace("none", "{key: k, audit: {max-severity: low, max-age-days: 0}}"), "proof.audit.max-age-days: expected"),
        (GOOD.replace("none", "{key: k, audit: {max-severity: low, days: 1}}"), "proof.audit.days: unknown key"),
        (
            GOOD.replace("none", "{key: k, audit: {max-severity: low}, policy: {sbom: false}}"),
            "proof.audit: what an image",
        ),
        (
            GOOD.replace("none", "{key: k, policy: {smoke: tpu}}"),
            "smoke: 'tpu' is not allowed (e.yaml, proof",
        ),
        (GOOD.replace("none", "{key: k, policy: {cosign: true}}"), "unknown key 'cosign'"),
        (GOOD + "gpu-labels: amd\n", "gpu-labels: expected nvidia or none, got 'amd'"),
        (GOOD + "gpu-labels: false\n", "gpu-labels: expected nvidia or none, got False"),
        (GOOD + "gpu-labels: null\n", "gpu-labels: expected nvidia or none, got None"),
        (GOOD + "gpu-labels: [none]\n", "gpu-labels: expected nvidia or none, got ['none']"),
        (GOOD + "mutators: a\n", "mutators: expected a list of strings, got 'a'"),
        (GOOD + "mutators: [{a: b}]\n", "mutators: expected a list of strings"),
        (GOOD + "without-proof: true\n", "without-proof: expected a mapping, got True"),
        (GOOD + "without-proof: {people: [a]}\n", "without-proof.hours: missing"),
        (GOOD + "without-proof: {hours: 1000}\n", "without-proof.hours: expected a number from 1 to 720, got 1000"),
        (GOOD + "without-proof: {hours: 1, people: a}\n", "without-proof.people: expected a list of strings"),
        (GOOD + "without-proof: {hours: 1, allowed: true}\n", "without-proof.allowed: unknown key"),
        (GOOD + "registry: x.example\n", "the key registry stands twice (e.yaml:5)"),
        (GOOD + "x: yes\n", "yes means different things"),
        ("", "0 YAML documents, not one"),
        ("- a\n", "expected a mapping, got ['a']"),
        ("a: [\n", "not YAML"),
        (GOOD + "---\n" + GOOD, "2 YAML documents, not one"),
    ],
)
def test_a_wrong_environment_is_refused_with_file_and_key(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        environment.parse(text, "e", "e.yaml")
    assert message in caught.value.line()
    assert "e.yaml" in caught.value.line()


def test_an_absolute_directory_is_taken_as_it_is(tmp_path: Path) -> None:
    one = environment.parse(RENDER.replace("path: x", f"path: {tmp_path}"), "e", "e.yaml")
    assert one.target == DirectoryTarget(tmp_path)


@pytest.mark.parametrize(("text", "labels"), [("", True), ("gpu-labels: nvidia\n", True), ("gpu-labels: none\n", False)])
def test_nodes_carry_nvidias_labels_unless_it_is_said_that_they_do_not(text: str, labels: bool) -> None:
    assert environment.parse(GOOD + text, "e", "e.yaml").gpu_labels is labels


def test_the_gate_is_read_and_refuses_unless_told_to_warn(checkout: Checkout) -> None:
    text = GOOD.replace("none", "{key: keys/a.pub, policy: {smoke: gpu, max-age-days: 7}}")
    gate = environment.parse(text, "e", "e.yaml").proof
    assert gate == Gate(
        Signers((TrustedKey(str(checkout.root / "keys/a.pub")),)), Policy(smoke="gpu", max_age_days=7), refuse=True
    )
    audited = environment.parse(GOOD.replace("none", "{key: k, audit: {max-severity: medium}}"), "e", "e.yaml").proof
    assert audited
    assert audited.audit == AuditLimit("medium", 7)
    warned = environment.parse(GOOD.replace("none", "{key: /a.pub, refuse: false}"), "e", "e.yaml").proof
    assert warned == Gate(Signers((TrustedKey("/a.pub"),)), Policy(), refuse=False)


@pytest.mark.parametrize("proof", ["none", "{key: k, refuse: false}"])
def test_production_cannot_do_without_proof(proof: str) -> None:
    with pytest.raises(UsageError, match="production always asks for proof"):
        environment.parse(GOOD.replace("none", proof), "production", "production.yaml")


def test_the_projects_clusters_ask_for_proof_from_a_gpu() -> None:
    for name in ("staging", "production"):
        gate = environment.load(name).proof
        assert gate is not None
        assert (gate.refuse, gate.policy.smoke) == (True, "gpu")


def test_production_names_who_may_deploy_without_proof() -> None:
    strict = GOOD.replace("none", "{key: k}") + "deploy-keys: d.pub\n"
    for people in ("", "people: [], "):
        with pytest.raises(UsageError, match="without-proof.people: production names who may deploy without proof"):
            environment.parse(f"{strict}without-proof: {{{people}hours: 1}}\n", "production", "e.yaml")
    named = environment.parse(f"{strict}without-proof: {{people: [Ada], hours: 1}}\n", "production", "e.yaml")
    assert named.without_proof == WithoutProof(frozenset({"Ada"}), 1)


@pytest.mark.parametrize(
    ("written", "signers"),
    [
        ("{key: [/a.pub, /b.pub]}", Signers((TrustedKey("/a.pub"), TrustedKey("/b.pub")))),
        (
            "{key: [{file: /a.pub, until: 2027-01-31}, {file: /b.pub, from: 2027-01-01}]}",
            Signers((TrustedKey("/a.pub", None, date(2027, 1, 31)), TrustedKey("/b.pub", date(2027, 1, 1)))),
        ),
        (
            "{identities: [{issuer: 'https://i.example', subject: a@example.com}]}",
            Signers((), (Identity("https://i.example", "a@example.com"),)),
        ),
    ],
)
def test_several_keys_and_identities_may_be_trusted(written: str, signers: Signers) -> None:
    gate = environment.parse(GOOD.replace("none", written), "e", "e.yaml").proof
    assert gate is not None
    assert gate.signers == signers


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("{key: []}", "proof.key: name the file of a public key, or a list of them"),
        ("{key: [1]}", "proof.key[0]: expected a mapping, got 1"),
        ("{key: [{file: k, until: soon}]}", "until: 'soon' is no day"),
        ("{key: [{file: k, from: 2027-02-01, until: 2027-01-31}]}", "until: 2027-01-31 is before 2027-02-01"),
        ("{key: [{file: k, since: 2027-02-01}]}", "since: unknown key"),
        ("{identities: [{issuer: i}]}", "proof.identities[0].subject: missing"),
        ("{identities: []}", "proof.key: missing"),
        ("{identities: [{issuer: i, subject: s, name: x}]}", "name: unknown key"),
    ],
)
def test_a_signer_that_cannot_be_meant_is_refused(written: str, message: str) -> None:
    with pytest.raises(UsageError) as refused:
        environment.parse(GOOD.replace("none", written), "e", "e.yaml")
    assert message in refused.value.line()
