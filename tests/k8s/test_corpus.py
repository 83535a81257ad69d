"""`check` says of every object of the corpus what the real server says, but where a reason for something else is written."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from tests.k8s import corpus
from tests.k8s.corpus import DIFFERENCES, GOOD, STRICTER, UNKNOWN, Case
from tests.k8s.rules.judged import told

CASES = corpus.cases()


def verdict(case: Case) -> list[str]:
    """What is found wrong with an object among those around it; what those lack without it is not counted."""
    name = case.body["metadata"].get("name")
    around = [one for one in corpus.AROUND if (one["kind"], one["metadata"]["name"]) != (case.body["kind"], name)]
    text = "".join(f"---\n{json.dumps(one)}\n" for one in (*around, case.body))
    aside = "".join(f"---\n{json.dumps(one)}\n" for one in around)
    return [one for one in told(text) if one not in told(aside)]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_verdict_is_the_servers_or_has_a_reason(case: Case) -> None:
    wrong = verdict(case)
    assert (not wrong) is (case.server if case.name not in DIFFERENCES else not case.server), wrong


def test_every_kind_of_the_set_is_there_right_and_wrong() -> None:
    assert len(CASES) >= 300
    assert max(Counter(case.name for case in CASES).values()) == 1
    for kind in GOOD:
        verdicts = {case.server for case in CASES if case.name.startswith(f"{kind}: ")}
        assert True in verdicts, kind
    assert 100 < sum(case.server for case in CASES) < len(CASES) - 100


def test_every_difference_is_of_a_case_and_says_why() -> None:
    names = {case.name for case in CASES}
    for name, reason in DIFFERENCES.items():
        assert name in names
        assert reason.startswith((STRICTER, UNKNOWN))
