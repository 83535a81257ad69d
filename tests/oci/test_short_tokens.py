"""Tokens that run out while one request is on its way, each time: slow lines, and proxies that hold a request back.

moby/moby#33558, docker/buildx#324, SUSE/Portus#510.
"""

from __future__ import annotations

import base64
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from common.errors import RegistryError
from oci.client import upload
from oci.client.auth import RefusedError
from tests.oci.conftest import QUICK, Image, noise, send
from tests.oci.double import PASSWORD, USER, Double, answers

Make = Callable[..., Image]
BIG, CHUNKS = noise(1 << 20), dataclasses.replace(QUICK, chunk=1 << 18)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, docker_config: Path, double: Double) -> None:
    monkeypatch.setattr(upload, "_SLOW", 0.1)
    monkeypatch.setattr(upload, "_SMALLEST", 1 << 16)
    known = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    docker_config.write_text(json.dumps({"auths": {double.address: {"auth": known}}}))
    double.auth, double.lifetime = "bearer", 0.5


def test_chunks_get_smaller_until_one_arrives_within_a_tokens_life(double: Double, image: Make) -> None:
    # 256 KiB take 0.75 s, 128 KiB less than a token lasts.
    double.slow = 3
    one = image(BIG)
    send(double.address, one, patience=CHUNKS)
    assert {d: double.blobs["team/small"][d] for d in one.digests} == {d: one.layout.blob(d).read_bytes() for d in one.digests}
    assert double.count("PATCH") < 16


def test_a_line_too_slow_for_any_chunk_says_how_long_a_token_lasts(double: Double, image: Make) -> None:
    double.slow = 30
    with pytest.raises(RegistryError, match=r"the token of .* lasts 1 s, and a request of 65536 bytes takes 2 s") as caught:
        send(double.address, image(BIG[: 1 << 17]), patience=CHUNKS)
    assert "ask who runs the registry for tokens that last longer" in caught.value.line()
    assert "docker login" not in caught.value.line()


def test_a_registry_that_takes_no_chunks_says_so_too(double: Double, image: Make) -> None:
    double.slow, double.chunks = 3, False
    with pytest.raises(RegistryError, match="a request of 1048576 bytes takes 3 s"):
        send(double.address, image(BIG), patience=CHUNKS)


def test_a_refusal_that_comes_at_once_is_no_matter_of_time(double: Double, image: Make) -> None:
    double.fail(
        "PATCH", "uploads", answers(401, {"WWW-Authenticate": f'Bearer realm="http://{double.address}/token"'}), times=99
    )
    with pytest.raises(RefusedError, match="docker login"):
        send(double.address, image(BIG), patience=CHUNKS)
    assert double.count("PATCH") <= 4


def test_a_slow_refusal_of_a_password_is_no_matter_of_tokens(double: Double, image: Make) -> None:
    double.auth, double.slow = "basic", 1
    double.fail("PATCH", "uploads", answers(401, {"WWW-Authenticate": "Basic"}), times=99)
    with pytest.raises(RefusedError, match="docker login"):
        send(double.address, image(BIG), patience=CHUNKS)
