"""Going back through real kubectl: which release is chosen, what runs afterwards, and what is said when there is none."""

from __future__ import annotations

import dataclasses
import re
import shutil
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from common.errors import (
    DeployRolledBackError,
    MissingEnvironmentError,
    PolicyError,
    RegistryError,
    UsageError,
)
from k8s import rollback
from k8s.envs import environment
from k8s.envs.environment import ClusterTarget, Environment
from k8s.prepare import gate
from k8s.rollouts import release
from k8s.rollouts.kubectl import Kubectl, Patience
from k8s.rollouts.receipt import DeployReceipt
from k8s.rollouts.release import History
from oci.reference import ImageRef
from registry.verify import Findings
from tests.k8s.conftest import API, NEW, OLD, Checkout
from tests.k8s.prepare import models
from tests.k8s.rollouts.test_release import made
from tests.k8s.simulator.apiserver import ApiServer
from tests.k8s.simulator.steps import BRIEF, CUT, go, image, record, running, states
from tests.k8s.simulator.wire import Fault
from tests.registry.signing import OWN

THIRD = "sha256:" + "d" * 64


def back(*, dry_run: bool = False, yes: bool = True, wait: bool = False, patience: Patience = BRIEF) -> DeployReceipt:
    return rollback.rollback("staging", dry_run=dry_run, yes=yes, wait=wait, patience=patience)


def gone_back(number: int, to: int) -> release.Release:
    return dataclasses.replace(made(number, text=f"set {to}"), rollback_of=to)


@pytest.mark.parametrize(
    ("releases", "expected"),
    [
        ([], []),
        ([made(1)], []),
        ([made(1), made(2), made(3)], [2, 1]),
        ([made(1), made(2, "put back"), made(3)], [1]),
        ([made(1), made(2, text="set 1")], []),
        ([made(1), made(2), gone_back(3, 1)], []),
        ([made(1), made(2), made(3), gone_back(4, 2)], [1]),
        ([made(1), made(2), gone_back(3, 1), made(4)], [3]),
        ([made(1), made(2, "half done")], [1]),
        ([made(1), made(2), made(3, "begun")], [2, 1]),
        ([made(1), made(2), made(3, "put back")], [1]),
        ([made(1, "half done")], []),
    ],
)
def test_what_may_be_gone_back_to(releases: list[release.Release], expected: list[int]) -> None:
    history = History("e", "n", tuple(releases))
    assert [one.number for one in rollback.candidates(history)] == expected


@pytest.mark.host
def test_a_rollback_brings_the_set_before_as_a_release_of_its_own(
    checkout: Checkout, server: ApiServer, capsys: pytest.CaptureFixture[str]
) -> None:
    go()
    checkout.lock({API: NEW})
    checkout.edit("configmap.yaml", "vllm_maxlen: 8192", "vllm_maxlen: 4096")
    go()
    server.requests.clear()
    result = back()
    assert running(server) == image(OLD)
    assert "vllm_maxlen: 8192" in server.body("ConfigMap", "llama-factory-inference")["data"]["inference.yaml"]
    first, _, third = record().releases
    assert (third.number, third.state, third.rollback_of, third.set) == (3, "running", 1, first.set)
    assert result.release == third
    said = capsys.readouterr().out
    assert re.search(r"back to +release 1 \(", said)
    assert "bbbbbbbbbbbb → aaaaaaaaaaaa" in said
    assert not any("force=true" in path and "-preflight" not in path for _, path in server.requests)
    with pytest.raises(PolicyError, match="no earlier release that ran"):
        back()


@pytest.mark.host
def test_a_rollback_works_on_a_machine_that_never_deployed(checkout: Checkout, server: ApiServer) -> None:
    go()
    checkout.lock({API: NEW})
    go()
    shutil.rmtree(checkout.root / "dist")
    back()
    assert running(server) == image(OLD)


@pytest.mark.host
def test_a_dry_run_and_a_missing_yes_send_nothing(
    checkout: Checkout, server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    go()
    checkout.lock({API: NEW})
    go()
    assert back(dry_run=True).result == "planned"
    monkeypatch.setenv("CI", "true")
    with pytest.raises(UsageError, match="no terminal to ask on"):
        back(yes=False)
    assert (running(server), states()) == (image(NEW), [(1, "running"), (2, "running")])


@pytest.mark.host
def test_a_half_done_deploy_is_undone_by_a_rollback(checkout: Checkout, server: ApiServer) -> None:
    go()
    checkout.lock({API: NEW})
    server.faults = [Fault(0, "*", after=12)]
    with pytest.raises(Exception, match="apply failed"):
        go()
    server.faults = []
    back(wait=True)
    assert running(server) == image(OLD)
    assert states() == [(1, "running"), (2, "begun"), (3, "running")]


@pytest.mark.host
def test_a_rollback_that_fails_brings_back_what_ran_before_it(checkout: Checkout, server: ApiServer) -> None:
    go()
    checkout.lock({API: NEW})
    go()
    server.bad_images = {OLD}
    with pytest.raises(DeployRolledBackError, match="does not get ready.*the last good set runs again, release 2"):
        back()
    assert running(server) == image(NEW)
    assert states()[-1] == (3, "put back")


def judging(monkeypatch: pytest.MonkeyPatch, refused: set[str], error: type[Exception] = PolicyError) -> None:
    def judge(images: object, env: Environment) -> tuple[tuple[str, str], ...]:
        found = [one for one in images if isinstance(one, ImageRef)]  # type: ignore[attr-defined]
        if any(one.digest in refused for one in found):
            raise error("no proof")
        return tuple((name, "smoke passed") for name in sorted({str(one) for one in found}))

    monkeypatch.setattr(gate, "check", judge)


@pytest.mark.host
def test_a_set_that_lost_its_proof_is_passed_over(
    checkout: Checkout, server: ApiServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    go()
    for digest in (NEW, THIRD):
        checkout.lock({API: digest})
        go()
    judging(monkeypatch, {NEW})
    back()
    assert running(server) == image(OLD)
    assert record().releases[-1].proof == ((image(OLD), "smoke passed"),)
    assert re.search(r"passed over +release 2 .*no proof", capsys.readouterr().err)


@pytest.mark.host
def test_a_set_whose_model_lost_its_signature_is_not_gone_back_to(
    checkout: Checkout, server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def judge(env: Environment) -> tuple[tuple[str, str], ...]:
        assert env.model
        asked.append(str(env.model.reference))
        raise PolicyError("the model does not carry the signature")

    older = models.named(checkout.root, "staging")
    go()
    models.named(checkout.root, "staging", models.OTHER)
    go()
    monkeypatch.setattr(gate, "check_model", judge)
    with pytest.raises(PolicyError, match="none of 1 earlier releases .* does not carry the signature"):
        back()
    assert asked == [older]
    assert states() == [(1, "running"), (2, "running")]


@pytest.mark.host
@pytest.mark.parametrize(("error", "message"), [(PolicyError, "none of 1 earlier releases"), (RegistryError, "no proof")])
def test_where_nothing_is_proven_nothing_is_sent(
    checkout: Checkout, server: ApiServer, monkeypatch: pytest.MonkeyPatch, error: type[Exception], message: str
) -> None:
    go()
    checkout.lock({API: NEW})
    go()
    judging(monkeypatch, {OLD}, error)
    with pytest.raises(error, match=message):
        back()
    assert running(server) == image(NEW)


@pytest.mark.host
def test_a_record_whose_set_names_a_tag_is_not_used(checkout: Checkout, server: ApiServer) -> None:
    go()
    checkout.lock({API: NEW})
    go()
    history = record()
    first = history.releases[0]
    edited = history.sets[first.set].replace(f"@{OLD}", ":latest")
    forged = dataclasses.replace(first, set=release.digest_of(edited))
    releases = (forged, *history.releases[1:])
    changed = dataclasses.replace(history, releases=releases, sets={forged.set: edited})
    release.write(Kubectl(ClusterTarget("staging"), BRIEF), environment.load("staging"), changed)
    with pytest.raises(PolicyError, match=r"edited: .*:latest.*which is no digest"):
        back()
    assert running(server) == image(NEW)


@pytest.mark.host
@pytest.mark.parametrize(
    ("fault", "error", "message"),
    [
        (Fault(403, "GET", "ConfigMap"), PolicyError, "you may `get` configmaps in llm-inference"),
        (Fault(500, "GET", "ConfigMap"), MissingEnvironmentError, "does not show configmaps"),
        (Fault(0, "GET", "ConfigMap"), MissingEnvironmentError, "does not show configmaps"),
        (Fault(403, "PATCH", "Deployment", dry_run=True), PolicyError, "the cluster refuses the set, nothing was sent"),
        (Fault(403, "*", "Lease"), PolicyError, "the lease llm-inference/pinwheel-staging cannot be taken"),
    ],
    ids=["RBAC read", "500", "cut", "RBAC apply", "RBAC lease"],
)
def test_a_cluster_that_refuses_keeps_what_it_runs(
    checkout: Checkout, server: ApiServer, fault: Fault, error: type[Exception], message: str
) -> None:
    go()
    checkout.lock({API: NEW})
    go()
    server.faults = [fault]
    with pytest.raises(error, match=message):
        back(patience=BRIEF if fault.code else CUT)
    server.faults = []
    assert (running(server), len(states())) == (image(NEW), 2)


@pytest.mark.host
def test_without_the_context_it_says_which_there_are(checkout: Checkout, server: ApiServer, tmp_path: Path) -> None:
    server.kubeconfig(tmp_path / "kubeconfig", "minikube")
    with pytest.raises(MissingEnvironmentError, match="no context 'staging'.*there are: minikube"):
        back()


def test_a_directory_has_no_releases(checkout: Checkout) -> None:
    with pytest.raises(UsageError, match="a directory has no releases"):
        rollback.rollback("rendered")


@pytest.mark.host
def test_a_release_with_an_image_that_is_allowed_no_more_is_passed_over(
    checkout: Checkout, server: ApiServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    checkout.edit("configmap.yaml", "\ndata:\n", f"\ndata:\n  sidecarImage: quay.io/acme/door@{THIRD}\n")
    go()
    checkout.edit("configmap.yaml", f"  sidecarImage: quay.io/acme/door@{THIRD}\n", "")
    go()
    file = checkout.root / "k8s/envs/staging.yaml"
    file.write_text(file.read_text().replace("proof: none\n", "proof: {key: k.pub}\n"))
    (checkout.root / "k.pub").write_bytes(OWN.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    monkeypatch.setattr("registry.inspect.look", lambda ref, *_: (ref, Findings(ref.digest, "k", ())))
    with pytest.raises(PolicyError, match="none of 1 earlier releases"):
        back()
    said = " ".join(capsys.readouterr().err.split())
    assert f"quay.io/acme/door@{THIRD}: no image of ours" in said


@pytest.mark.host
def test_what_became_known_of_an_earlier_set_keeps_nobody_from_it(
    checkout: Checkout, server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    go()
    checkout.lock({API: NEW})
    go()
    file = checkout.root / "k8s/envs/staging.yaml"
    file.write_text(file.read_text().replace("proof: none\n", "proof: {key: k.pub, audit: {max-severity: low}}\n"))
    asked = []

    def judge(images: object, env: Environment, **_: object) -> tuple[tuple[str, str], ...]:
        asked.append(env.proof)
        return ()

    monkeypatch.setattr(gate, "check", judge)
    back()
    assert running(server) == image(OLD)
    assert [one and (one.refuse, one.audit) for one in asked] == [(True, None)]
