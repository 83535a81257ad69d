"""An inventory is read as it was written, or refused: never half believed."""

from __future__ import annotations

import contextlib
import dataclasses
import json

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from common.files import sha256_bytes
from images import inventory
from images.layer import Layer

LISTING = json.dumps({"opt/venv/a\udc80.py": ["0" * 64, "a"]}, sort_keys=True)
LAYER = Layer("a 1", "k" * 64, "sha256:" + "1" * 64, "sha256:" + "2" * 64, 1, 2, sha256_bytes(LISTING.encode()))
LINES = [json.dumps(dataclasses.asdict(LAYER)), LISTING]


def packed(*lines: str) -> bytes:
    return zstandard.ZstdCompressor().compress("\n".join(lines).encode())


def test_what_was_written_is_read() -> None:
    assert inventory.read(packed(*LINES, *LINES)) == [(LAYER, LISTING)] * 2


WRONG = {
    "no zstd": b"[]",
    "empty": packed(""),
    "half": packed(LINES[0]),
    "other files": packed(LINES[0], "{}"),
    "no JSON": packed("{", LISTING),
    "no layer": packed("{}", LISTING),
    "a list": packed("[1]", LISTING),
    "no digest": packed(json.dumps(dataclasses.asdict(dataclasses.replace(LAYER, digest="sha256:x"))), LISTING),
    "size is a text": packed(LINES[0].replace('"size": 1', '"size": "1"'), LISTING),
    "deep": packed("[" * 100_000, LISTING),
    "no UTF-8": zstandard.ZstdCompressor().compress(b"\xff\n\xff"),
}


@pytest.mark.parametrize("data", WRONG.values(), ids=WRONG)
def test_what_is_none_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        inventory.read(data)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
@given(st.data())
def test_damage_never_gives_other_files_for_a_layer(data: st.DataObject) -> None:
    whole = bytearray(packed(*LINES))
    place = data.draw(st.integers(0, len(whole) - 1))
    whole[place] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(ValueError):
        for one, listing in inventory.read(bytes(whole)):
            assert sha256_bytes(listing.encode()) == one.listing


def test_a_bomb_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inventory, "_LARGEST", 1000)
    with pytest.raises(ValueError, match="too large"):
        inventory.read(packed(*LINES * 10))
