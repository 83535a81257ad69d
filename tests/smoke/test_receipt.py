"""The receipt: what is written is what is read, and nothing else is accepted."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import SmokeError
from smoke import receipt
from smoke.receipt import Figure, Host, ProvenImage, Rung, SmokeReceipt, Version

TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
SIMPLE = SmokeReceipt(
    passed=True,
    gpu=False,
    container=True,
    started="2026-11-23T00:00:00+00:00",
    seconds=1.5,
    source="abc",
    engine="26.1.5",
    host=Host("cpu", 2, 1, ()),
    images=(),
    rungs=(Rung("train", 0, "passed", 1.0, 300.0, "", "", ("logs/train.log",)),),
    training=None,
    servings=(),
    answers=(),
    versions=(Version("train", "torch", "2.13.0"),),
    figures=(Figure("train: time", 1.0, "s"), Figure("train: memory", 1.0, "bytes", 2.0)),
)

RUNG: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(SIMPLE.rungs[0])))
# Whole receipts from the types alone; finite numbers, as `write` insists.
st.register_type_strategy(float, st.floats(allow_nan=False, allow_infinity=False))
st.register_type_strategy(str, TEXT)


@given(st.builds(SmokeReceipt))
@settings(max_examples=60, deadline=None, database=None)
def test_round_trip(original: SmokeReceipt) -> None:
    with tempfile.TemporaryDirectory() as folder, mock.patch.dict("os.environ", PINWHEEL_DIST=folder):
        assert receipt.write(original) == Path(folder) / "smoke/receipt.json"
        assert receipt.read() == original
        first = receipt.path().read_bytes()
        receipt.write(original)
        assert receipt.path().read_bytes() == first


def test_none_yet(own_folders: Path) -> None:
    with pytest.raises(SmokeError, match="nothing was proven yet .*run `invoke smoke` first"):
        receipt.read()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("format", 1),
        ("format", "2"),
        ("passed", "true"),
        ("passed", 1),
        ("seconds", "1"),
        ("seconds", True),
        ("rungs", [{**RUNG, "outcome": "fine"}]),
        ("rungs", [{**RUNG, "code": 1.0}]),
        ("rungs", [{**RUNG, "logs": "logs/train.log"}]),
        ("rungs", [{**RUNG, "logs": [1]}]),
        ("rungs", [{**RUNG, "more": 1}]),
        ("rungs", [{name: value for name, value in RUNG.items() if name != "fix"}]),
        ("figures", [{"name": "a", "value": 1.0, "unit": "s"}]),
        ("figures", [{"name": "a", "value": 1.0, "unit": "s", "last": "1"}]),
        ("container", None),
        ("rungs", {}),
        ("host", None),
        ("images", [["digest"]]),
        ("unknown", 1),
    ],
)
def test_refused(own_folders: Path, field: str, value: Any) -> None:
    receipt.write(SIMPLE)
    body = json.loads(receipt.path().read_text())
    receipt.path().write_text(json.dumps({**body, field: value}))
    with pytest.raises(SmokeError, match="not a smoke receipt"):
        receipt.read()


@pytest.mark.parametrize("text", ["", "[]", "null", "{}", "{"])
def test_refused_altogether(own_folders: Path, text: str) -> None:
    receipt.write(SIMPLE)
    receipt.path().write_text(text)
    with pytest.raises(SmokeError, match="not a smoke receipt"):
        receipt.read()


def test_not_a_number_is_not_written(own_folders: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        receipt.write(dataclasses.replace(SIMPLE, seconds=float("nan")))
    assert not receipt.path().exists()


def test_only_a_passed_run_of_the_images_proves_their_digests(own_folders: Path) -> None:
    assert receipt.proven_digests() == frozenset()
    run = dataclasses.replace(
        SIMPLE, images=(ProvenImage("n", "train", "1", "sha256:a"), ProvenImage("m", "api", "1", "sha256:b"))
    )
    receipt.write(run)
    assert receipt.proven_digests() == {"sha256:a", "sha256:b"}
    receipt.write(dataclasses.replace(run, passed=False))
    assert receipt.proven_digests() == frozenset()
    receipt.write(dataclasses.replace(run, container=False))
    assert receipt.proven_digests() == frozenset()
    receipt.path().write_text("{")
    assert receipt.proven_digests() == frozenset()
