"""Policies: what may stand in one, and that nothing else is taken."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common import paths
from common.errors import UsageError
from registry import policy
from registry.policy import Policy
from smoke.rungs import table
from tests.smoke import receipts

KEYS = ["signature", "sbom", "provenance", "smoke", "max-age-days", "dirty", "rungs", "builder"]


def test_an_empty_policy_is_the_default() -> None:
    assert policy.parse({}, "x") == Policy()
    assert Policy().smoke == "cpu"


def test_every_key_is_read() -> None:
    body = {
        **{"signature": False, "sbom": False, "provenance": False, "smoke": "gpu", "max-age-days": 7, "dirty": False},
        **{"rungs": ["train"], "builder": "https://ci.example.com"},
    }
    assert sorted(body) == sorted(KEYS)
    assert policy.parse(body, "x") == Policy(
        signature=False,
        sbom=False,
        provenance=False,
        smoke="gpu",
        max_age_days=7,
        dirty=False,
        rungs=frozenset({"train"}),
        builder="https://ci.example.com",
    )


@pytest.mark.parametrize(
    "body",
    [
        [],
        None,
        "gpu",
        {"signature": False, "sbom": False, "provenance": False, "smoke": "none"},
        {"smok": "gpu"},
        {"max_age_days": 1},
        {1: 2},
        {"smoke": "tpu"},
        {"smoke": True},
        {"signature": 1},
        {"signature": "true"},
        {"max-age-days": True},
        {"max-age-days": -1},
        {"max-age-days": 1.5},
        {"rungs": "train"},
        {"rungs": ["trane"]},
        {"rungs": [1]},
        {"rungs": []},
        {"rungs": ["train", "train"]},
        {"rungs": ["GPU memory given back"]},
        {"rungs": ["GPU memory given back"], "smoke": "cpu"},
        {"rungs": ["train"], "smoke": "none"},
        {"builder": ""},
        {"dirty": None},
    ],
    ids=repr,
)
def test_anything_else_is_refused_with_its_place(body: Any) -> None:
    with pytest.raises(UsageError, match=r"\(staging.yaml\): see docs/proof.md"):
        policy.parse(body, "staging.yaml")


@settings(deadline=None, database=None)
@given(
    st.dictionaries(
        st.sampled_from(KEYS), st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.lists(st.text(max_size=3))
    )
)
def test_a_policy_is_read_or_refused(body: dict[str, Any]) -> None:
    try:
        assert isinstance(policy.parse(body, "x"), Policy)
    except UsageError:
        assert body


def test_by_default_every_rung_of_the_ladder_must_have_passed() -> None:
    assert Policy(smoke="gpu").wanted_rungs() == frozenset(table.KNOWN) == frozenset(receipts.names(gpu=True, container=True))
    assert Policy(smoke="cpu").wanted_rungs() == frozenset(receipts.names(gpu=False, container=True))


def test_the_policy_that_the_document_shows_is_read(tmp_path: Path) -> None:
    (shown,) = re.findall(r"```toml\n(.*?)```", (paths.ROOT / "docs/proof.md").read_text(), re.DOTALL)
    file = tmp_path / "policy.toml"
    file.write_text(shown)
    assert policy.read(file) == Policy(rungs=frozenset({"train", "vllm serve: answers"}))
    assert {*tomllib.loads(shown), "builder"} == set(KEYS)


@pytest.mark.parametrize("text", ["smoke = ", "[smoke]\n", "smoke = 'gpu'\nsmoke = 'cpu'\n", "\x00"])
def test_a_file_that_holds_something_else_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "policy.toml"
    file.write_text(text)
    with pytest.raises(UsageError, match=re.escape(str(file))):
        policy.read(file)


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bytes.toml").write_bytes(b"\xff")
    for file in (tmp_path / "none.toml", tmp_path, tmp_path / "bytes.toml"):
        with pytest.raises(UsageError):
            policy.read(file)
