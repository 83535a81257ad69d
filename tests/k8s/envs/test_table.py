from __future__ import annotations

import re

import pytest

from common.errors import UsageError
from k8s.envs import environment
from k8s.envs import table as compare
from tests.k8s.conftest import Checkout
from tests.k8s.envs.test_environment import GOOD, RENDER


def marks(*texts: str) -> dict[str, str]:
    envs = [environment.parse(text, f"e{number}", "e.yaml") for number, text in enumerate(texts)]
    return {row[1]: row[0] for row in compare.rows(envs)}


def test_what_clusters_differ_in_is_marked() -> None:
    other = GOOD.replace("context: c", "context: d").replace("none", "{key: k, policy: {smoke: gpu}}")
    found = marks(GOOD, other + "secrets: {n/s: [A, B]}\ngpu-labels: none\n")
    assert {name for name, mark in found.items() if mark == "≠"} >= {
        "target",
        "proof",
        "proof smoke",
        "secret n/s",
        "gpu-labels",
    }
    assert {name for name, mark in found.items() if not mark} >= {"registry", "kubernetes"}


def test_what_only_a_directory_has_otherwise_is_marked_apart() -> None:
    found = marks(GOOD, GOOD, RENDER + "accelerator: none\n")
    assert (found["target"], found["accelerator"], found["registry"]) == ("·", "·", "")


def test_the_projects_environments_are_shown_with_their_defaults(
    checkout: Checkout, capsys: pytest.CaptureFixture[str]
) -> None:
    assert re.match(r"4 environments; clusters differ in \d+ of \d+ settings", compare.show())
    shown = capsys.readouterr().out
    assert re.search(r"≠ +target +context pinwheel +context production +directory dist/rendered +context staging", shown)
    assert re.search(r"gpu-labels +nvidia +nvidia +nvidia +nvidia", shown)
    assert re.search(r"≠ +accelerator +none +nvidia +none +nvidia", shown)


def test_a_wrong_environment_is_named(checkout: Checkout) -> None:
    (checkout.root / "k8s/envs/broken.yaml").write_text("a: 1\n")
    with pytest.raises(UsageError, match=re.escape("target: missing (k8s/envs/broken.yaml)")):
        compare.show()
