"""Where the tags that proof lies under cannot be moved, new statements refer to the image by its digest, and are read there.

ECR, Harbor, Quay, Artifact Registry and ACR have such rules; they answer with different statuses.
"""

from __future__ import annotations

import pytest

from common.errors import PolicyError, RegistryError
from oci import attachments, signature, statement
from oci.client.client import Client
from oci.client.target import Registry
from registry import inspect
from registry.policy import Policy
from tests.oci.conftest import QUICK
from tests.oci.double import Double, answers
from tests.registry import signing
from tests.registry.pushing import (
    DIGEST,
    LATER,
    MINE,
    REPOSITORY,
    THEIRS,
    attached,
    bundle,
    holds,
    kinds,
    proof,
    push,
    ran,
    reference,
)

pytestmark = pytest.mark.slow

TAG = DIGEST.replace(":", "-")
DIRTY = signing.COMMIT + "-dirty"


@pytest.fixture(params=[400, 403, 409, 412])
def fixed(request: pytest.FixtureRequest, double: Double) -> Double:
    """A registry that lets no tag of cosign's be moved."""
    double.fixed, double.refuses = r"\.(att|sig)$", request.param
    return double


def test_what_is_new_is_attached_by_digest_and_found(fixed: Double, capsys: pytest.CaptureFixture[str]) -> None:
    push(fixed, proof())
    push(fixed, proof(smoke=ran()))
    assert kinds(fixed) == sorted([statement.SIGNATURE, statement.SBOM, statement.PROVENANCE, statement.SMOKE])
    assert [item.tag for item in attached(fixed) if item.envelope] == ["sig", "att", "att", ""]
    assert holds(fixed)
    assert "attached as referrers, which cosign 2 does not read" in capsys.readouterr().err


def test_the_list_under_the_tag_is_kept_only_where_the_registry_keeps_none(fixed: Double) -> None:
    push(fixed, proof())
    push(fixed, proof(smoke=ran()))
    assert (TAG in fixed.manifests[REPOSITORY]) is not fixed.referrers


def test_what_is_attached_by_digest_is_not_attached_twice(fixed: Double) -> None:
    push(fixed, proof())
    push(fixed, proof(smoke=ran()))
    before = dict(fixed.manifests[REPOSITORY])
    push(fixed, proof(smoke=ran()))
    assert fixed.manifests[REPOSITORY] == before


FAILING = {**ran(), "result": "FAILED", "passedTests": ["train"], "failedTests": ["vllm serve: answers"]}


def test_a_failure_that_cannot_be_replaced_is_cured_by_a_later_run(fixed: Double, capsys: pytest.CaptureFixture[str]) -> None:
    push(fixed, proof(smoke=FAILING))
    assert not holds(fixed)
    capsys.readouterr()
    push(fixed, proof(smoke=ran(started=LATER)))
    # Whoever reads the tag alone, as cosign 2 does, refuses the image.
    assert "older statements of this key stay where they cannot be replaced: cosign counts all" in capsys.readouterr().err
    assert holds(fixed)


def test_an_older_run_that_somebody_puts_back_wins_over_no_newer_one(fixed: Double) -> None:
    """Whoever may write to the registry moves the tag, and attaches old words anew: neither makes them the last ones."""
    fixed.fixed = ""
    push(fixed, proof(smoke=ran()))
    passed = next(item for item in attached(fixed) if item.envelope and statement.parse(item.envelope).kind == statement.SMOKE)
    push(fixed, proof(smoke={**FAILING, "pinwheel_smoke": ran(started=LATER)["pinwheel_smoke"]}))
    bundle(fixed, passed)
    assert len(kinds(fixed)) == 5
    assert not holds(fixed)


def test_a_later_failure_takes_the_proof_away_though_the_tag_cannot_be_moved(fixed: Double) -> None:
    push(fixed, proof(smoke=ran()))
    assert holds(fixed)
    push(fixed, proof(smoke={**ran(started=LATER), "result": "FAILED", "failedTests": ["train"]}))
    assert not holds(fixed)


def test_a_second_key_signs_though_the_tag_cannot_be_moved(fixed: Double) -> None:
    push(fixed, proof(), THEIRS)
    push(fixed, proof())
    assert holds(fixed, Policy(smoke="none"))
    assert inspect.look(reference(fixed), THEIRS.public, Policy(smoke="none"))[1].holds
    with Client(Registry(fixed.address, ""), QUICK) as client:
        for key in (MINE, THEIRS):
            signature.verify(client, reference(fixed).pin(DIGEST), key.public)
        # Signed for one place, it is not signed for another.
        other = "team/other"
        fixed.blobs[other], fixed.manifests[other] = fixed.blobs[REPOSITORY], fixed.manifests[REPOSITORY]
        with pytest.raises(PolicyError, match="which is another one"):
            signature.verify(client, type(reference(fixed))(fixed.address, other, digest=DIGEST), MINE.public)


def test_where_nothing_can_be_moved_the_rule_is_named_and_not_another_push(fixed: Double) -> None:
    fixed.fixed, fixed.referrers = "", False
    push(fixed, proof())
    fixed.fixed = "^sha256-"
    # The list of referrers is not there yet: once it can be made.
    push(fixed, proof(smoke=ran()))
    assert holds(fixed)
    with pytest.raises(RegistryError, match=rf"{TAG}\.att cannot be moved: .* failed: the tag {TAG} cannot be moved") as caught:
        push(fixed, proof(smoke=ran(started=LATER)))
    assert "let the rule leave out tags that begin with `sha256-`" in caught.value.line()


def test_a_registry_that_takes_no_such_manifest_has_its_words_and_the_rule_said(fixed: Double) -> None:
    push(fixed, proof())
    fixed.fail(
        "PUT", "manifests/sha256:", answers(415, {}, b'{"errors": [{"code": "UNSUPPORTED", "message": "no artifacts here"}]}')
    )
    with pytest.raises(RegistryError, match=r"no artifacts here.*let the rule leave out tags that begin with `sha256-`"):
        push(fixed, proof(smoke=ran()))


def test_a_registry_whose_api_does_not_say_that_it_noted_the_subject_is_asked(fixed: Double) -> None:
    """The answer to the PUT lacks OCI-Subject, and the list has it all the same: no second list is made."""
    push(fixed, proof())
    fixed.silent = True
    push(fixed, proof(smoke=ran()))
    assert (TAG in fixed.manifests[REPOSITORY]) is not fixed.referrers
    assert holds(fixed)


@pytest.mark.parametrize("lists", [True, False], ids=["in both", "in the tag alone"])
def test_both_lists_are_read_and_each_thing_once(fixed: Double, lists: bool) -> None:
    """A registry that got the API later may not list what was there before."""
    push(fixed, proof())
    fixed.referrers = False
    push(fixed, proof(smoke=ran()))
    fixed.referrers = True
    if not lists:
        fixed.fail("GET", "referrers/", answers(200, {}, b'{"manifests": []}'), times=9)
    assert [item.tag for item in attached(fixed)].count("") == 1
    assert holds(fixed)


def test_a_tag_that_holds_no_list_of_referrers_is_not_written_over(fixed: Double) -> None:
    push(fixed, proof())
    fixed.referrers = False
    fixed.manifests[REPOSITORY][TAG] = fixed.manifests[REPOSITORY]["1"]
    with pytest.raises(RegistryError, match=f"the tag {TAG} holds no list of referrers"):
        push(fixed, proof(smoke=ran()))
    assert attachments.left_out(attached(fixed)) == []
