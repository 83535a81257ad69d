"""Each rule refuses its wrong set, by name, and lets the set beside it pass."""

from __future__ import annotations

import re

import pytest

from common import paths
from tests.k8s.pairs import PAIRS
from tests.k8s.rules.judged import told

RULES = {name for file in (paths.K8S / "rules").glob("*.py") for name in re.findall(r'@rule\("([^"]+)"\)', file.read_text())}


def test_every_rule_has_a_pair() -> None:
    assert PAIRS.keys() == RULES


@pytest.mark.parametrize("rule", PAIRS)
def test_a_rule_refuses_the_wrong_set_and_nothing_refuses_the_right_one_beside_it(rule: str) -> None:
    pair = PAIRS[rule]
    assert told(pair.right) == []
    assert rule in {one.partition(":")[0] for one in told(pair.wrong)}
