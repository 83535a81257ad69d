"""What passes for a safetensors file."""

from __future__ import annotations

import contextlib
import json
import pickle
import re
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import LockError
from oci import safetensors
from tests.lockfiles.hub_server import pointer, tensors_file
from tests.lockfiles.models.steps import CODE


def header(text: bytes, data: bytes = b"", length: int | None = None) -> bytes:
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def one(**changes: Any) -> bytes:
    return json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4], **changes}}).encode()


WRONG = {
    "renamed torch file": (CODE["pytorch_model.bin"], "it is a zip file, as torch.save writes them: a pickle"),
    "renamed pickle": (pickle.dumps(list(range(99))), "it is a pickle"),
    "lfs pointer": (pointer(b"x"), "it is a Git LFS pointer"),
    "page": (b"<!DOCTYPE html><html></html>", "it is a page for people"),
    "empty": (b"", "a header of 0 bytes in a file of 0"),
    "short": (b"\x05\0\0", "a header of 5 bytes in a file of 3"),
    "header longer than file": (header(one(), b"1234", 4000), "a header of 4000 bytes"),
    "no object": (header(b"[1]"), "no JSON object"),
    "padded in front": (header(b" {}"), "no JSON object"),
    "no json": (header(b"{a}"), "no JSON object"),
    "not utf-8": (header(b'{"\xff": 1}'), "no JSON object"),
    "key twice": (header(b'{"__metadata__": {}, "__metadata__": {}}'), "unique keys"),
    "nan": (header(one(shape=[float("nan")]), b"1234"), "no JSON object"),
    "deep": (header(b"{" + b'"a":{' * 100_000), "no JSON object"),
    "metadata of numbers": (header(b'{"__metadata__": {"a": 1}}'), "__metadata__"),
    "no offsets": (header(b'{"a": {"dtype": "F32", "shape": [1]}}'), "lacks dtype, shape or data_offsets"),
    "negative": (header(one(shape=[-1]), b"1234"), "no proper"),
    "boolean": (header(one(data_offsets=[False, 4]), b"1234"), "no proper"),
    "three offsets": (header(one(data_offsets=[0, 4, 4]), b"1234"), "no proper"),
    "beyond the end": (header(one(), b"123"), "lies at 0 to 4 of 3 bytes"),
    "backwards": (header(one(data_offsets=[4, 0]), b"1234"), "lies at 4 to 0"),
    "wrong size": (header(one(shape=[2]), b"1234"), "has another size than its 4 bytes"),
    "something behind": (header(one(), b"1234" + b"PK\x03\x04"), "leave bytes that none of them owns"),
    "overlap": (
        header(
            b'{"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]},"b":{"dtype":"U8","shape":[2],"data_offsets":[2,4]}}',
            b"1234",
        ),
        "overlap",
    ),
}


@pytest.mark.parametrize(("data", "message"), WRONG.values(), ids=WRONG)
def test_what_is_no_safetensors_file_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(LockError, match=re.escape(message)):
        safetensors.check("model.safetensors", len(data), lambda count: data[:count])


GOOD = {
    "two tensors": tensors_file(a=[1.0], b=[2.0, 3.0]),
    "no tensor": header(b"{}"),
    "empty tensor": header(one(shape=[0], data_offsets=[0, 0])),
    "scalar": header(one(shape=[]), b"1234"),
    "dtype of tomorrow": header(one(dtype="F3_E1M1", shape=[9]), b"1234"),
    "header beyond the first request": header(b'{"__metadata__":{"a":"' + b"x" * (1 << 18) + b'"}}'),
}


@pytest.mark.parametrize("data", GOOD.values(), ids=GOOD)
def test_a_safetensors_file_is_taken(data: bytes) -> None:
    safetensors.check("model.safetensors", len(data), lambda count: data[:count])


@given(st.one_of(st.binary(max_size=60), st.binary(max_size=60).map(lambda text: header(b"{" + text))), st.integers(0, 80))
def test_no_file_gets_past_the_check_by_breaking_it(data: bytes, cut: int) -> None:
    # Any other exception would be a way through.
    with contextlib.suppress(LockError):
        safetensors.check("x", len(data), lambda count: data[:cut][:count])
