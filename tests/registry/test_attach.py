"""Proof into a registry and out of it again: the double shows what was asked, and has the referrers API or not."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from common.errors import PolicyError, RegistryError, UsageError
from oci import attachments, reading, statement
from oci.attachments import Attached
from oci.client.client import Client
from oci.client.target import Registry
from oci.descriptor import INDEX, MANIFEST, canonical
from registry import attach, inspect, provenance, signer
from registry.policy import Policy
from tests.oci.conftest import QUICK
from tests.oci.double import PASSWORD, USER, Double, answers, digest_of
from tests.registry import signing
from tests.registry.pushing import (
    CONFIG,
    DIGEST,
    IMAGE,
    LATER,
    REPOSITORY,
    THEIRS,
    ago,
    attached,
    bundle,
    holds,
    kinds,
    proof,
    push,
    ran,
    reference,
)
from tests.registry.signing import OTHER, OWN

pytestmark = pytest.mark.slow


def results(double: Double) -> list[dict[str, Any]]:
    said = [statement.parse(one.envelope) for one in attached(double) if one.envelope]
    return [one.predicate for one in said if one.kind == statement.SMOKE]


ALL = sorted([statement.SIGNATURE, statement.SBOM, statement.PROVENANCE, statement.SMOKE])


def test_what_is_attached_is_found_and_holds(double: Double) -> None:
    push(double, proof(smoke=ran()))
    assert kinds(double) == ALL
    assert holds(double)
    assert {tag for tag in double.manifests[REPOSITORY] if tag.startswith("sha256-")} == {
        f"{DIGEST.replace(':', '-')}.sig",
        f"{DIGEST.replace(':', '-')}.att",
    }


def test_the_same_proof_again_sends_nothing(double: Double) -> None:
    push(double, proof(smoke=ran()))
    double.asked.clear()
    push(double, proof(smoke=ran()))
    assert {one.method for one in double.asked} <= {"GET", "HEAD"}
    assert kinds(double) == ALL


def test_a_new_run_takes_the_place_of_the_last(double: Double) -> None:
    push(double, proof(smoke=ran()))
    push(double, proof(smoke=ran(started=LATER)))
    assert [one["pinwheel_smoke"]["started"] for one in results(double)] == [LATER]
    assert kinds(double) == ALL


def test_a_run_on_a_cpu_does_not_displace_one_on_a_gpu(double: Double, capsys: pytest.CaptureFixture[str]) -> None:
    push(double, proof(smoke=ran(gpu=True)))
    push(double, proof(smoke=ran()))
    assert [one["pinwheel_smoke"]["gpu"] for one in results(double)] == [True]
    assert holds(double, Policy(smoke="gpu"))
    assert "the result from a GPU that is attached stays" in capsys.readouterr().err
    push(double, proof(smoke=ran(gpu=True, started=LATER)))
    assert [one["pinwheel_smoke"]["started"] for one in results(double)] == [LATER]


def failing(**options: Any) -> dict[str, Any]:
    return {**ran(**options), "result": "FAILED", "passedTests": ["train"], "failedTests": ["vllm serve: answers"]}


def outcomes(double: Double) -> list[tuple[bool, str]]:
    return sorted((one["pinwheel_smoke"]["gpu"], one["result"]) for one in results(double))


def test_a_failed_run_takes_the_proof_away_until_a_later_one_passes(double: Double, capsys: pytest.CaptureFixture[str]) -> None:
    push(double, proof(smoke=ran()))
    push(double, proof(smoke=failing(started=LATER)))
    assert outcomes(double) == [(False, "FAILED")]
    assert not holds(double)
    assert "its last smoke run FAILED" in capsys.readouterr().err
    # Somebody who still has yesterday's receipt pushes it.
    push(double, proof(smoke=ran()))
    assert outcomes(double) == [(False, "FAILED")]
    assert "the result from a later run that is attached stays" in capsys.readouterr().err
    push(double, proof(smoke=ran(started=ago(0))))
    assert holds(double)


def test_a_failure_on_a_gpu_displaces_a_pass_and_no_cpu_cures_it(double: Double) -> None:
    push(double, proof(smoke=ran(gpu=True)))
    push(double, proof(smoke=failing(gpu=True, started=LATER)))
    push(double, proof(smoke=ran(started=ago(0))))
    assert outcomes(double) == [(True, "FAILED")]
    assert not holds(double)


def test_a_failure_on_a_cpu_stands_beside_a_pass_on_a_gpu_until_a_run_passes(double: Double) -> None:
    push(double, proof(smoke=ran(gpu=True)))
    push(double, proof(smoke=failing(started=LATER)))
    assert outcomes(double) == [(False, "FAILED"), (True, "PASSED")]
    assert not holds(double)
    assert not holds(double, Policy(smoke="gpu"))
    push(double, proof(smoke=ran(started=ago(0))))
    assert outcomes(double) == [(True, "PASSED")]
    assert holds(double, Policy(smoke="gpu"))


def test_without_a_key_a_failed_run_is_not_attached(double: Double, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[str] = []
    monkeypatch.setattr(signer, "sign_keyless", lambda _: called.append("sign"))
    monkeypatch.setattr(signer, "attest_keyless", lambda _, kind, __: called.append(kind))
    monkeypatch.setattr(signer, "check_keyless", lambda _, read: called.extend(read))
    with Client(Registry.parse(f"{double.address}/team"), QUICK, writes=True) as client:
        attach._keyless(client, proof(smoke=failing()))
    assert called == ["sign", *[statement.SBOM, statement.PROVENANCE] * 2]


def test_a_builder_that_is_no_uri_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PINWHEEL_BUILDER", "my desk")
    with pytest.raises(UsageError, match="'my desk' is no URI.*PINWHEEL_BUILDER"):
        attach._builder()
    monkeypatch.setenv("PINWHEEL_BUILDER", "")
    assert attach._builder() == provenance.builder()


def test_another_build_of_the_same_digest_replaces_provenance_alone(double: Double) -> None:
    push(double, proof(smoke=ran()))
    push(double, proof(source=signing.COMMIT + "-dirty"))
    assert kinds(double) == ALL
    assert not holds(double, Policy(dirty=False))


def test_an_image_without_a_passed_run_gets_the_other_three(double: Double) -> None:
    push(double, proof())
    assert kinds(double) == sorted(set(ALL) - {statement.SMOKE})
    assert not holds(double)
    assert holds(double, Policy(smoke="none"))


def test_what_another_key_attached_stays(double: Double) -> None:
    push(double, proof(smoke=ran()), THEIRS)
    push(double, proof(smoke=ran()))
    assert kinds(double) == sorted([*ALL, *ALL])
    assert holds(double)
    assert inspect.look(reference(double), OTHER.public_key(), Policy())[1].holds


def test_proof_of_an_image_that_is_not_there_is_not_pushed(double: Double) -> None:
    double.manifests[REPOSITORY].clear()
    with pytest.raises(RegistryError, match="404"):
        push(double, proof())
    assert not double.count("PUT")


def test_a_registry_that_does_not_keep_what_it_takes_is_found_out(double: Double) -> None:
    double.fail("PUT", r"manifests/.*\.att", answers(201))
    with pytest.raises(RegistryError, match=r"does not hold all of it: SBOM missing; provenance missing; smoke missing"):
        push(double, proof(smoke=ran()))
    push(double, proof(smoke=ran()))
    double.fail("PUT", r"manifests/.*\.att", answers(201))
    with pytest.raises(RegistryError, match=r"does not hold all of it: smoke is another"):
        push(double, proof(smoke=ran(started=LATER)))


@pytest.mark.parametrize("late", [r"\.att$", r"\.sig$"])
def test_proof_that_can_be_read_only_after_a_while_is_waited_for(double: Double, late: str) -> None:
    """A replica, or a cache, that answers with what it had: once before the push, once within, twice after it."""
    double.fail("GET", late, answers(404), times=4)
    push(double, proof(smoke=ran()))
    assert kinds(double) == ALL


def test_a_push_that_was_cut_short_is_completed_by_the_next(double: Double) -> None:
    double.fail("PUT", r"manifests/.*\.att", answers(400))
    with pytest.raises(RegistryError):
        push(double, proof(smoke=ran()))
    assert kinds(double) == [statement.SIGNATURE]
    push(double, proof(smoke=ran()))
    assert kinds(double) == ALL


def test_credentials_are_those_of_a_push(double: Double, tmp_path: Path) -> None:
    push(double, proof(smoke=ran()))
    double.auth = "bearer"
    with pytest.raises(RegistryError, match="401"):
        holds(double)
    known = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    (tmp_path / "config.json").write_text(json.dumps({"auths": {double.address: {"auth": known}}}))
    assert holds(double)
    push(double, proof(smoke=ran(started=LATER)))
    assert [one["pinwheel_smoke"]["started"] for one in results(double)] == [LATER]


def everything() -> list[Attached]:
    return [
        signing.attest(statement.SIGNATURE, {}, digest=DIGEST),
        signing.attest(statement.SBOM, signing.COMPONENTS, digest=DIGEST),
        signing.attest(statement.PROVENANCE, signing.build(config_digest=CONFIG), digest=DIGEST),
        signing.attest(statement.SMOKE, ran(), digest=DIGEST),
    ]


def test_bundles_of_others_are_read_by_the_referrers_api_and_by_its_tag(double: Double) -> None:
    bundle(double, *everything())
    assert kinds(double) == ALL
    assert holds(double)
    assert double.count("GET", "/referrers/")


def test_a_bundle_that_names_another_subject_is_passed_over(double: Double) -> None:
    bundle(double, *everything())
    for reference_, (kind, data) in list(double.manifests[REPOSITORY].items()):
        altered = data.replace(b'"subject":{"digest":"' + DIGEST.encode(), b'"subject":{"digest":"sha256:' + b"0" * 64)
        if altered != data:
            # The registry's list says one thing, the manifest another.
            del double.manifests[REPOSITORY][reference_]
            double.manifests[REPOSITORY][digest_of(altered)] = (kind, altered)
            index = double.manifests[REPOSITORY].get(DIGEST.replace(":", "-"))
            if index:
                double.manifests[REPOSITORY][DIGEST.replace(":", "-")] = (
                    INDEX,
                    index[1].replace(reference_.encode(), digest_of(altered).encode()),
                )
    assert not attached(double)


def page(link: str, manifests: list[dict[str, Any]]) -> Any:
    """One page of a list of referrers."""
    return answers(200, {"Link": link} if link else {}, json.dumps({"manifests": manifests}).encode())


def other(number: int) -> dict[str, Any]:
    return {"mediaType": MANIFEST, "digest": digest_of(str(number).encode()), "size": 1}


def test_referrers_are_read_to_the_last_page(double: Double) -> None:
    bundle(double, signing.attest(statement.SMOKE, failing(), digest=DIGEST))
    last = [{"digest": digest_of(data)} for name, (_, data) in double.manifests[REPOSITORY].items() if b"subject" in data]
    double.fail("GET", r"/referrers/sha256:[0-9a-f]{64}$", page(f'</v2/{REPOSITORY}/referrers/2?n=1>; rel="next"', [other(1)]))
    double.fail("GET", r"/referrers/2", page('</elsewhere>; rel="first", <3>; rel=next', [other(2)]))
    double.fail("GET", r"/referrers/3", page("", last))
    assert [one["result"] for one in results(double)] == ["FAILED"]


@pytest.mark.parametrize("listed", [[other(1)], []], ids=["full pages", "empty pages"])
def test_a_list_of_referrers_without_end_is_refused(double: Double, listed: list[dict[str, Any]]) -> None:
    double.fail("GET", r"/referrers/", page('<?n=1>; rel="next"', listed), times=999)
    with pytest.raises(RegistryError, match="more than 2000 manifests refer to one image, or pages without end"):
        attached(double)
    assert double.count("GET", "/referrers/") <= 50


def test_more_referrers_than_are_worked_through_are_refused_and_not_cut(double: Double) -> None:
    double.fail("GET", r"/referrers/", page("", [other(number) for number in range(2001)]))
    with pytest.raises(RegistryError, match="more than 2000 manifests"):
        attached(double)


@pytest.mark.parametrize(("things", "size"), [(201, 10), (17, 4 << 10)], ids=["many", "large"])
def test_more_than_anybody_attaches_is_refused_before_it_fills_the_memory(
    double: Double, monkeypatch: pytest.MonkeyPatch, things: int, size: int
) -> None:
    monkeypatch.setattr(reading, "MOST", 200)
    monkeypatch.setattr(reading, "MOST_BYTES", 64 << 10)
    layers = []
    for number in range(things):
        data = str(number).encode().ljust(size)
        double.blobs[REPOSITORY][digest_of(data)] = data
        layers.append({"mediaType": attachments.DSSE, "digest": digest_of(data), "size": size})
    for number, tag in enumerate(("sig", "att")):
        half = layers[number::2]
        manifest = canonical({"schemaVersion": 2, "layers": half})
        double.manifests[REPOSITORY][f"{DIGEST.replace(':', '-')}.{tag}"] = (MANIFEST, manifest)
    with pytest.raises(RegistryError, match="are attached to one image"):
        attached(double)


def test_a_signature_counts_only_where_cosign_looks_for_it(double: Double) -> None:
    push(double, proof(smoke=ran()))
    tags = double.manifests[REPOSITORY]
    tags[f"{DIGEST.replace(':', '-')}.att"] = tags.pop(f"{DIGEST.replace(':', '-')}.sig")
    assert statement.SIGNATURE not in kinds(double)


def test_a_registry_that_fails_is_no_verdict(double: Double) -> None:
    push(double, proof(smoke=ran()))
    double.fail("GET", r"\.att", answers(500), times=99)
    with pytest.raises(RegistryError), Client(Registry(double.address, ""), QUICK) as client:
        attachments.read(client, REPOSITORY, DIGEST)


def test_a_manifest_that_is_not_what_the_digest_names_is_refused(double: Double) -> None:
    double.manifests[REPOSITORY][DIGEST] = (MANIFEST, IMAGE + b" ")
    with pytest.raises(RegistryError, match="serves other bytes for sha256:"):
        inspect.look(reference(double).pin(DIGEST), OWN.public_key(), Policy())


@pytest.fixture
def key(tmp_path: Path) -> str:
    file = tmp_path / "own.pub"
    file.write_bytes(OWN.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return str(file)


def test_verify_shows_a_table_and_the_digest_of_a_tag(double: Double, key: str, capsys: pytest.CaptureFixture[str]) -> None:
    push(double, proof(smoke=ran()))
    capsys.readouterr()
    outcome = inspect.show(f"{double.address}/{REPOSITORY}:1", key)
    said = capsys.readouterr().out
    assert f"{double.address}/{REPOSITORY}:1 is {double.address}/{REPOSITORY}@{DIGEST}" in said
    assert said.count("✓ holds") == 4
    assert f"@{DIGEST} carries what the policy asks for" in outcome


def test_verify_refuses_with_every_reason_and_its_own_exit_code(double: Double, key: str, tmp_path: Path) -> None:
    push(double, proof(smoke=ran(), source=f"{signing.COMMIT}-dirty"))
    policy = tmp_path / "policy.toml"
    policy.write_text('smoke = "gpu"\ndirty = false\n')
    with pytest.raises(PolicyError, match="provenance bad: .*differed.*; smoke bad: .*a GPU is asked for") as refused:
        inspect.show(f"{double.address}/{REPOSITORY}@{DIGEST}", key, str(policy))
    assert refused.value.exit_code == 15


@pytest.mark.parametrize(
    "text", ["", "llama-factory-train", "127.0.0.1:1/Team/x", "127.0.0.1:1/x@sha256:abc", "https://r.example.com/x"]
)
def test_verify_refuses_what_is_no_reference(text: str, key: str) -> None:
    with pytest.raises(UsageError, match="write HOST/NAME:TAG|must be in lower case: 127|without https://"):
        inspect.show(text, key)


def test_verify_says_which_key_is_missing(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no public key can be read.*none.pub.*--key FILE"):
        inspect.show("127.0.0.1:1/x:1", str(tmp_path / "none.pub"))
