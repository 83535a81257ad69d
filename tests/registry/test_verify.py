"""The verdict: what holds, and a table of what does not."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from oci import statement
from oci.attachments import Attached
from oci.envelope import IN_TOTO, Envelope
from registry import provenance
from registry.policy import Policy
from registry.verify import Finding, Findings, Place, verify
from tests.registry import signing
from tests.registry.signing import DIGEST, NOW, OTHER, OWN, attest, everything, smoke
from tests.smoke import receipts

Change = Callable[[list[Attached]], list[Attached]]
ELSEWHERE = receipts.API_DIGEST
SIGNATURE, BOM, BUILD, SMOKE = range(4)


def judged(attached: list[Attached], policy: Policy | None = None, now: datetime.datetime = NOW) -> Findings:
    return verify(attached, DIGEST, OWN.public_key(), policy or Policy(), now=now)


def test_all_that_a_push_attaches_holds() -> None:
    found = judged(everything())
    assert found.holds
    assert [(one.name, one.state) for one in found.findings] == [
        ("signature", "holds"),
        ("SBOM", "holds"),
        ("provenance", "holds"),
        ("smoke", "holds"),
    ]
    said = {one.name: one.text for one in found.findings}
    assert said["SBOM"] == "CycloneDX 1.7, 2 components"
    assert f"revision {signing.COMMIT}, 6 inputs" in said["provenance"]
    assert "passed on CPU (AMD EPYC)" in said["smoke"]


def test_a_result_from_a_gpu_does_for_either() -> None:
    for wanted in (Policy(smoke="gpu"), Policy(smoke="cpu")):
        assert judged(everything(gpu=True), wanted).holds


def without(index: int) -> Change:
    return lambda all_: [one for number, one in enumerate(all_) if number != index]


def instead(index: int, make: Callable[[], Attached]) -> Change:
    return lambda all_: [*all_[:index], make(), *all_[index + 1 :]]


def beside(make: Callable[[], Attached]) -> Change:
    return lambda all_: [*all_, make()]


def altered(attached: Attached) -> Attached:
    """The statement says something else than was signed."""
    assert attached.envelope is not None
    payload = attached.envelope.payload.replace(b"FAILED", b"PASSED")
    return Attached(Envelope(IN_TOTO, payload, attached.envelope.signatures), "att")


def forged(attached: Attached) -> Attached:
    """The signature is another one."""
    assert attached.envelope is not None
    (one,) = attached.envelope.signatures
    return Attached(Envelope(IN_TOTO, attached.envelope.payload, (one[:-1] + bytes([one[-1] ^ 1]),)), "att")


def failed() -> dict[str, Any]:
    return {**smoke(), "result": "FAILED", "passedTests": ["train"], "failedTests": ["vllm serve: answers"]}


def pinned(**more: Any) -> dict[str, Any]:
    said = smoke()
    return {**said, "pinwheel_smoke": {**said["pinwheel_smoke"], **more}}


HERE, LATER = datetime.datetime.fromisoformat(receipts.STARTED), NOW + datetime.timedelta(days=30)
ATTEMPTS: list[tuple[str, Change, Policy, str]] = [
    ("nothing attached", lambda _: [], Policy(), "signature missing"),
    ("no signature", without(SIGNATURE), Policy(), "signature missing"),
    ("no SBOM", without(BOM), Policy(), "SBOM missing"),
    ("no provenance", without(BUILD), Policy(), "provenance missing"),
    ("no smoke result", without(SMOKE), Policy(), "smoke missing"),
    ("signature of another key", instead(SIGNATURE, lambda: signing.signature(key=OTHER)), Policy(), "not signed by key"),
    ("signature of another image", instead(SIGNATURE, lambda: signing.signature(ELSEWHERE)), Policy(), "another image"),
    ("result of another key", instead(SMOKE, lambda: attest(statement.SMOKE, smoke(), key=OTHER)), Policy(), "not signed by"),
    ("result altered", instead(SMOKE, lambda: altered(attest(statement.SMOKE, failed()))), Policy(), "altered since"),
    ("signature altered", instead(SMOKE, lambda: forged(attest(statement.SMOKE, smoke()))), Policy(), "altered since"),
    ("a failed result", instead(SMOKE, lambda: attest(statement.SMOKE, failed())), Policy(), "result FAILED"),
    ("a failed result beside", beside(lambda: attest(statement.SMOKE, failed())), Policy(), "result FAILED"),
    (
        "passed, and rungs failed",
        instead(SMOKE, lambda: attest(statement.SMOKE, {**failed(), "result": "PASSED"})),
        Policy(),
        "1 rung",
    ),
    ("replayed", instead(SMOKE, lambda: attest(statement.SMOKE, smoke(), digest=ELSEWHERE)), Policy(), "another image"),
    (
        "run without the image",
        instead(SMOKE, lambda: attest(statement.SMOKE, smoke(train_digest=ELSEWHERE))),
        Policy(),
        "not about",
    ),
    ("a CPU where a GPU is asked", lambda all_: all_, Policy(smoke="gpu"), "a GPU is asked for"),
    (
        "a GPU that has no name",
        instead(SMOKE, lambda: attest(statement.SMOKE, pinned(gpu=True))),
        Policy(smoke="gpu"),
        "a GPU is asked",
    ),
    ("too old", lambda all_: all_, Policy(max_age_days=1), "2 days old, and 1 are allowed"),
    (
        "from the future",
        instead(SMOKE, lambda: attest(statement.SMOKE, smoke(started="2099-01-01T00:00:00+00:00"))),
        Policy(),
        "future",
    ),
    (
        "no time zone",
        instead(SMOKE, lambda: attest(statement.SMOKE, smoke(started="2026-11-23T17:00:00"))),
        Policy(),
        "a time without a zone",
    ),
    ("no time", instead(SMOKE, lambda: attest(statement.SMOKE, smoke(started="now"))), Policy(), "not of the form"),
    (
        "rung lacking",
        instead(SMOKE, lambda: attest(statement.SMOKE, {**smoke(), "passedTests": ["train"]})),
        Policy(),
        "rungs asked for",
    ),
    (
        "no extension",
        instead(SMOKE, lambda: attest(statement.SMOKE, {"result": "PASSED", "failedTests": []})),
        Policy(),
        "not of the form",
    ),
    (
        "no list of failures",
        instead(SMOKE, lambda: attest(statement.SMOKE, {**smoke(), "failedTests": {}})),
        Policy(),
        "no list of names",
    ),
    (
        "no list of passed rungs",
        instead(SMOKE, lambda: attest(statement.SMOKE, {**smoke(), "passedTests": {"train": 1}})),
        Policy(rungs=frozenset({"train"})),
        "no list of names",
    ),
    (
        "dirty sources",
        instead(BUILD, lambda: attest(statement.PROVENANCE, signing.build(source=signing.COMMIT + "-dirty"))),
        Policy(dirty=False),
        "differed",
    ),
    (
        "unknown sources",
        instead(BUILD, lambda: attest(statement.PROVENANCE, signing.build(source="unknown"))),
        Policy(),
        "names no revision",
    ),
    ("another builder", lambda all_: all_, Policy(builder="https://ci.example.com"), "is asked for"),
    (
        "another build type",
        instead(BUILD, lambda: attest(statement.PROVENANCE, {**signing.build(), "buildDefinition": {"buildType": "x"}})),
        Policy(),
        "another kind",
    ),
    ("provenance of nothing", instead(BUILD, lambda: attest(statement.PROVENANCE, {})), Policy(), "not of the form"),
    (
        "an SBOM of another kind",
        instead(BOM, lambda: attest(statement.SBOM, {**signing.COMPONENTS, "bomFormat": "SPDX"})),
        Policy(),
        "not CycloneDX",
    ),
]


@pytest.mark.parametrize(("change", "policy", "said"), [one[1:] for one in ATTEMPTS], ids=[one[0] for one in ATTEMPTS])
def test_what_is_no_proof_is_refused_with_its_reason(change: Change, policy: Policy, said: str) -> None:
    found = judged(change(everything()), policy)
    assert not found.holds
    assert said in "; ".join(f"{one.name} {one.state}: {one.text}" for one in found.wrong)


def test_each_thing_refused_leaves_the_others_standing() -> None:
    found = judged(without(BOM)(everything()))
    assert [one.name for one in found.wrong] == ["SBOM"]


@pytest.mark.parametrize(
    "more",
    [
        attest(statement.SMOKE, failed(), key=OTHER),
        attest(statement.SMOKE, failed(), digest=ELSEWHERE),
        signing.signature(key=OTHER),
        attest("https://example.com/other", {"any": "thing"}),
        Attached(None, "att", {"annotations": {"predicateType": statement.SMOKE}}),
        Attached(Envelope(IN_TOTO, b"not JSON", (b"",)), "att"),
        Attached(Envelope(IN_TOTO, b"[]", (b"",)), "att"),
        Attached(Envelope(IN_TOTO, b"{}", (b"",)), "att"),
    ],
    ids=["other key", "other image", "other signature", "other kind", "unreadable", "no JSON", "no object", "no statement"],
)
def test_what_others_put_beside_good_proof_changes_nothing(more: Attached) -> None:
    assert judged([more, *everything()]).holds
    assert judged([*everything(), more]).holds


def test_what_cannot_be_read_is_not_called_missing() -> None:
    attached = [*without(SMOKE)(everything()), Attached(None, "att", {"annotations": {"predicateType": statement.SMOKE}})]
    assert judged(attached).wrong == (Finding("smoke", "bad", "something attached cannot be read"),)


@pytest.mark.parametrize("key", [OWN, OTHER], ids=["signed", "a stranger's"])
def test_nothing_that_is_shown_reaches_the_terminal_as_it_is(key: Any) -> None:
    hostile = {**signing.build(), "buildDefinition": {"buildType": "\x1b[2J\nLONE" + "x" * 9999}}
    payload = statement.make(statement.PROVENANCE, signing.REPOSITORY, DIGEST, hostile).replace(b"LONE", b"\\ud800")
    found = judged(instead(BUILD, lambda: signing.signed(IN_TOTO, payload, key))(everything()))
    strange = Attached(Envelope(IN_TOTO, b'{"_type": "' + b"x" * 9999 + b'"}', (b"",)), "att")
    strange = Attached(strange.envelope, "att", {"annotations": {"predicateType": statement.SBOM}})
    for one in (*found.findings, *judged([strange]).findings):
        assert one.text.isprintable()
        assert len(one.text) <= 400


def test_what_is_not_asked_for_may_be_absent_or_bad() -> None:
    lax = Policy(signature=False, sbom=False, provenance=False, smoke="none")
    assert judged([], lax).holds
    assert {one.state for one in judged([], lax).findings} == {"not asked"}
    assert judged(instead(SMOKE, lambda: attest(statement.SMOKE, failed()))(everything()), lax).holds


def test_dirty_sources_are_shown_where_they_will_do() -> None:
    found = judged(
        instead(BUILD, lambda: attest(statement.PROVENANCE, signing.build(source=f"{signing.COMMIT}-dirty")))(everything())
    )
    assert found.holds
    assert f"revision {signing.COMMIT}, DIRTY" in found.findings[BUILD].text


def test_a_subset_of_the_rungs_will_do_where_the_policy_says_so() -> None:
    few = instead(SMOKE, lambda: attest(statement.SMOKE, {**smoke(), "passedTests": ["train"]}))(everything())
    assert judged(few, Policy(rungs=frozenset({"train"}))).holds


def test_age_counts_to_the_day() -> None:
    week = Policy(max_age_days=7)
    assert judged(everything(), week, HERE + datetime.timedelta(days=7)).holds
    assert not judged(everything(), week, HERE + datetime.timedelta(days=7, seconds=1)).holds
    assert not judged(everything(), week, LATER).holds


def test_cosigns_older_statement_type_is_read_as_well() -> None:
    one = attest(statement.SMOKE, smoke()).envelope
    assert one is not None
    old = signing.signed(IN_TOTO, one.payload.replace(b"Statement/v1", b"Statement/v0.1"))
    assert judged(instead(SMOKE, lambda: old)(everything())).holds


def test_a_signature_in_a_bundle_counts() -> None:
    assert judged(instead(SIGNATURE, lambda: attest(statement.SIGNATURE, {}))(everything())).holds


def test_the_builder_that_is_asked_for_will_do() -> None:
    assert judged(everything(), Policy(builder=provenance.builder())).holds


HOME = Place("llama-factory-train", signing.BUILT.config_digest)


def found_at(place: Place, attached: list[Attached]) -> Findings:
    return verify(attached, DIGEST, OWN.public_key(), Policy(), place=place, now=NOW)


def test_proof_holds_where_the_image_is_what_it_says() -> None:
    assert found_at(HOME, everything()).holds


@pytest.mark.parametrize(
    "place",
    [Place("llama-factory-api", HOME.config), Place("train", HOME.config), Place("", HOME.config)],
    ids=["another role", "another name", "no name"],
)
def test_the_proof_of_one_image_is_none_under_the_name_of_another(place: Place) -> None:
    assert [one.state for one in found_at(place, everything()).findings] == ["bad"] * 4


@pytest.mark.parametrize("config", ["", "sha256:" + "e" * 64])
def test_the_proof_of_one_configuration_is_none_of_another(config: str) -> None:
    found = found_at(Place(HOME.name, config), everything())
    assert found.findings[BUILD].state == "bad"
    assert "of the configuration sha256:ccc" in found.findings[BUILD].text
    ran = smoke()
    ran["configuration"][1]["annotations"]["config"] = HOME.config
    found = found_at(Place(HOME.name, config), instead(SMOKE, lambda: attest(statement.SMOKE, ran))(everything()))
    assert "it ran with the configuration" in found.findings[SMOKE].text


def test_a_digest_that_ran_as_another_image_is_not_proven() -> None:
    for field, value in (("name", "llama-factory-api"), ("annotations", {"role": "api"}), ("annotations", {"role": "x"})):
        ran = smoke()
        ran["configuration"][1][field] = value
        found = found_at(HOME, instead(SMOKE, partial(attest, statement.SMOKE, ran))(everything()))
        assert found.findings[SMOKE].state == "bad", (field, value)


def spoilt(index: int, kind: str, said: dict[str, Any], path: str, value: Any) -> Change:
    """The predicate, with another value at a path; `...` takes the key out."""
    said = json.loads(json.dumps(said))
    *above, last = path.split("/")
    at: Any = said
    for key in above:
        at = at[int(key) if isinstance(at, list) else key]
    last_ = int(last) if isinstance(at, list) else last
    if value is ...:
        del at[last_]
    else:
        at[last_] = value
    return instead(index, lambda: attest(kind, said))


INPUTS = "buildDefinition/resolvedDependencies"
LOCK, PACKAGE = (
    {"name": "lockfiles/x.lock", "digest": {"sha256": "a" * 64}},
    {"uri": "pkg:pypi/x@1", "digest": {"sha256": "a" * 64}},
)
SOURCE = signing.build()["buildDefinition"]["resolvedDependencies"][0]
NOTHING: Any = ...
SAID = (
    (BOM, statement.SBOM, signing.COMPONENTS),
    (BUILD, statement.PROVENANCE, signing.build()),
    (SMOKE, statement.SMOKE, smoke()),
)
INSTEAD: dict[str, list[Any]] = {
    "components": [[], NOTHING, None, {}, "jieba", [{}], [1], {"a": 1}],
    "components/0/hashes": [[], NOTHING, [{"alg": "MD5", "content": "a"}]],
    "components/1/purl": [NOTHING],
    "components/1/hashes/0/content": ["a"],
    INPUTS: [[], NOTHING, None, [SOURCE], [LOCK, PACKAGE], [SOURCE, LOCK], [SOURCE, PACKAGE], [SOURCE, {}, LOCK, PACKAGE]],
    f"{INPUTS}/0/digest/gitCommit": ["", NOTHING, None, "main", "HEAD", "0" * 40, "abc", "A" * 40, "unknown", 1],
    f"{INPUTS}/2/digest": [{}, NOTHING, {"sha256": "x"}],
    "buildDefinition/externalParameters/image": ["another", "", NOTHING, None, "../train", 1],
    "buildDefinition/internalParameters/inputs": ["", NOTHING, None, "x"],
    "passedTests": [[], ["train", "train"]],
}
EMPTY = [
    (*next(one for one in SAID if path.partition("/")[0] in one[2]), path, other)
    for path, others in INSTEAD.items()
    for other in others
]


@pytest.mark.parametrize(("index", "kind", "said", "path", "value"), EMPTY)
def test_proof_that_says_nothing_is_none(index: int, kind: str, said: dict[str, Any], path: str, value: Any) -> None:
    everywhere = Policy(rungs=frozenset())
    found = judged(spoilt(index, kind, said, path, value)(everything()), everywhere)
    assert found.findings[index].state == "bad", found.findings[index]
