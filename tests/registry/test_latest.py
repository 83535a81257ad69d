"""Where a signer said something twice, the later word counts, wherever the two lie and in whatever order they are read."""

from __future__ import annotations

import datetime
import itertools
from typing import Any

import pytest

from oci import statement
from oci.attachments import Attached
from registry.policy import Policy
from registry.trust import Trust
from registry.verify import verify
from tests.registry import signing
from tests.registry.signing import DIGEST, NOW, OTHER, OWN
from tests.smoke import receipts

FIRST, LAST = (datetime.datetime.fromisoformat(receipts.STARTED) + datetime.timedelta(hours=n) for n in (0, 1))
BOTH = Trust((OWN.public_key(), OTHER.public_key()))
ANY, ON_GPU = (Policy(signature=False, sbom=False, provenance=False, smoke=smoke) for smoke in ("cpu", "gpu"))
BAD = {"result": "FAILED", "failedTests": ["train"]}
CLEAN = Policy(signature=False, sbom=False, smoke="none", dirty=False)


def smoke(at: datetime.datetime, *, passed: bool, gpu: bool = False, key: Any = OWN) -> Attached:
    said = signing.smoke(started=at.isoformat(), gpu=gpu)
    return signing.attest(statement.SMOKE, said if passed else {**said, **BAD}, key=key)


def built(at: str, *, clean: bool, key: Any = OWN) -> Attached:
    said = signing.build(source=signing.COMMIT + ("" if clean else "-dirty"), finished=at)
    return signing.attest(statement.PROVENANCE, said, key=key)


def holds(attached: tuple[Attached, ...], policy: Policy) -> bool:
    """The verdict, which is the same in whatever order and place they are found."""
    verdicts = {
        verify([Attached(item.envelope, tag) for item in order], DIGEST, BOTH, policy, now=NOW).holds
        for order in itertools.permutations(attached)
        for tag in ("att", "")
    }
    assert len(verdicts) == 1
    return verdicts.pop()


CASES: dict[str, tuple[tuple[Attached, ...], Policy, bool]] = {
    "passed after it failed": ((smoke(FIRST, passed=False), smoke(LAST, passed=True)), ANY, True),
    "failed after it passed": ((smoke(FIRST, passed=True), smoke(LAST, passed=False)), ANY, False),
    "failed and passed at once": ((smoke(FIRST, passed=True), smoke(FIRST, passed=False)), ANY, False),
    "passed, failed, passed": (
        (smoke(FIRST, passed=True), smoke(FIRST, passed=False), smoke(LAST, passed=True)),
        ANY,
        True,
    ),
    "failed on a GPU, later passed on a CPU": (
        (smoke(FIRST, passed=False, gpu=True), smoke(LAST, passed=True)),
        ANY,
        False,
    ),
    "failed on a CPU, later passed on a GPU": (
        (smoke(FIRST, passed=False), smoke(LAST, passed=True, gpu=True)),
        ON_GPU,
        True,
    ),
    "passed on a GPU, later on a CPU": ((smoke(FIRST, passed=True, gpu=True), smoke(LAST, passed=True)), ON_GPU, True),
    "failed by one key, later passed by another": (
        (smoke(FIRST, passed=False), smoke(LAST, passed=True, key=OTHER)),
        ANY,
        False,
    ),
    "built clean after dirty": (
        (built("2026-11-01T00:00:00Z", clean=False), built("2026-11-02T00:00:00Z", clean=True)),
        CLEAN,
        True,
    ),
    "built dirty after clean": (
        (built("2026-11-01T00:00:00Z", clean=True), built("2026-11-02T00:00:00Z", clean=False)),
        CLEAN,
        False,
    ),
    "built, one says no time": ((built("", clean=False), built("2026-11-02T00:00:00Z", clean=True)), CLEAN, False),
    "built, one says no zone": (
        (built("2026-11-01T00:00:00", clean=False), built("2026-11-02T00:00:00Z", clean=True)),
        CLEAN,
        False,
    ),
}


@pytest.mark.parametrize(("attached", "policy", "good"), CASES.values(), ids=CASES)
def test_the_later_word_of_a_signer_counts(attached: tuple[Attached, ...], policy: Policy, good: bool) -> None:
    assert holds(attached, policy) is good


def test_nothing_says_when_an_sbom_was_made_so_each_counts() -> None:
    only = Policy(signature=False, provenance=False, smoke="none")
    empty = {**signing.COMPONENTS, "components": []}
    assert not holds((signing.attest(statement.SBOM, signing.COMPONENTS), signing.attest(statement.SBOM, empty)), only)
