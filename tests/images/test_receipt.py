"""The build receipt: what is written is read, and what an older version wrote still is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from common.errors import BuildError
from images import receipt
from images.receipt import BuildReceipt, BuiltImage

IMAGE = BuiltImage("small", "train", "1", "sha256:0", "", 1, 1, "", (), 580, ("7.5",))
TOOLKIT = "sha256:" + "7" * 64


def written(**changes: object) -> None:
    file = receipt.write(BuildReceipt("abc", (IMAGE,), "2026-11-23T17:00:00+00:00", TOOLKIT))
    body = {**json.loads(file.read_text()), **changes}
    file.write_text(json.dumps({name: value for name, value in body.items() if value is not None}))


def test_when_a_build_ended_and_with_which_toolkit_is_kept(own_folders: Path) -> None:
    written()
    assert receipt.read() == BuildReceipt("abc", (IMAGE,), "2026-11-23T17:00:00+00:00", TOOLKIT)


def test_a_receipt_from_before_it_said_so_still_reads(own_folders: Path) -> None:
    written(finished=None, toolkit=None)
    assert receipt.read() == BuildReceipt("abc", (IMAGE,))


@pytest.mark.parametrize(
    "wrong",
    [
        {"finished": "soon"},
        {"finished": "2026-11-23T17:00:00"},
        {"finished": "2026-11-23T17:00:00+02:00"},
        {"finished": 1},
        {"toolkit": "sha256:7"},
        {"toolkit": 7},
    ],
    ids=str,
)
def test_a_time_or_a_digest_that_is_none_is_refused(own_folders: Path, wrong: dict[str, object]) -> None:
    written(**wrong)
    with pytest.raises(BuildError, match="not a build receipt"):
        receipt.read()
