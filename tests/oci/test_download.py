"""Fetching a blob into a file: whole, checked and resumable, or not at all, whatever the line and the registry do."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.errors import LockError, RegistryError
from common.files import sha256_bytes
from oci.client.client import Client
from oci.client.target import Registry
from tests.oci.conftest import QUICK, noise
from tests.oci.double import PASSWORD, USER, Double, Handler, answers, serving

DATA = noise(3 << 20)
DIGEST = sha256_bytes(DATA)


@pytest.fixture
def client(double: Double) -> Iterator[Client]:
    with Client(Registry.parse(double.address), QUICK) as made:
        yield made


def fetch(client: Client, target: Path, size: int = len(DATA)) -> None:
    client.download("team/x", DIGEST, size, target)


def at_byte(count: int) -> object:
    """A fault: the answer's body ends early."""

    def act(handler: Handler) -> None:
        # Of the rest that was asked for, so many bytes.
        start = int(handler.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
        status = 206 if start else 200
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(DATA) - start))
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{len(DATA) - 1}/{len(DATA)}")
        handler.end_headers()
        handler.wfile.write(DATA[start : start + count])
        handler.close_connection = True

    return act


@pytest.mark.parametrize("auth", ["", "basic", "bearer"])
def test_a_blob_comes_whole_with_whatever_login_is_asked_for(
    double: Double, client: Client, docker_config: Path, tmp_path: Path, auth: str
) -> None:
    double.auth = auth
    double.blobs["team/x"][DIGEST] = DATA
    known = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    docker_config.write_text(json.dumps({"auths": {double.address: {"auth": known}}}))
    fetch(client, tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == DATA
    assert not (tmp_path / "x.part").exists()


def test_a_redirect_does_not_take_the_password_along(
    double: Double, client: Client, docker_config: Path, tmp_path: Path
) -> None:
    double.auth = "basic"
    known = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    docker_config.write_text(json.dumps({"auths": {double.address: {"auth": known}}}))
    double.blobs["team/x"][DIGEST] = DATA
    with serving() as other:
        other.blobs["team/x"][DIGEST] = DATA
        place = f"http://{other.address}/v2/team/x/blobs/{DIGEST}?signature=x"
        client.exists("team/x", DIGEST)
        double.fail("GET", DIGEST, answers(307, {"Location": place}))
        fetch(client, tmp_path / "x")
        assert [one.headers.get("authorization") for one in other.asked] == [None]
    assert any("authorization" in one.headers for one in double.asked)


@pytest.mark.parametrize("place", ["http://registry.example/x", "ftp://127.0.0.1/x", "file:///etc/passwd"])
def test_a_redirect_to_where_nothing_may_go_is_refused(double: Double, client: Client, tmp_path: Path, place: str) -> None:
    double.fail("GET", DIGEST, answers(302, {"Location": place}))
    with pytest.raises(RegistryError, match="without TLS|points to no address"):
        fetch(client, tmp_path / "x")


def test_a_redirect_in_circles_ends(double: Double, client: Client, tmp_path: Path) -> None:
    double.fail("GET", DIGEST, answers(302, {"Location": f"/v2/team/x/blobs/{DIGEST}"}), 99)
    with pytest.raises(RegistryError, match="in circles"):
        fetch(client, tmp_path / "x")


def test_a_download_that_is_cut_again_and_again_goes_on_where_it_was(double: Double, client: Client, tmp_path: Path) -> None:
    # More cuts than tries: each brings a megabyte, so that none of them counts.
    for _ in range(2):
        double.fail("GET", DIGEST, at_byte(1 << 20))  # type: ignore[arg-type]
    double.fail("GET", DIGEST, at_byte(len(DATA)))  # type: ignore[arg-type]
    fetch(client, tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == DATA
    ranges = [one.headers.get("range") for one in double.asked]
    assert ranges == [None, f"bytes={1 << 20}-", f"bytes={2 << 20}-"]


def test_a_part_of_an_earlier_run_is_gone_on_from(double: Double, client: Client, tmp_path: Path) -> None:
    (tmp_path / "x.part").write_bytes(DATA[: 1 << 20])
    double.fail("GET", DIGEST, at_byte(len(DATA)))  # type: ignore[arg-type]
    fetch(client, tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == DATA
    assert len(double.asked) == 1


@pytest.mark.parametrize("part", [b"other bytes", DATA + b"more", DATA[:-1] + b"?"], ids=["other", "longer", "one bit"])
def test_a_part_that_is_not_of_this_file_is_thrown_away(double: Double, client: Client, tmp_path: Path, part: bytes) -> None:
    double.blobs["team/x"][DIGEST] = DATA
    (tmp_path / "x.part").write_bytes(part)
    fetch(client, tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == DATA


def test_a_registry_without_ranges_gives_the_whole_file(double: Double, client: Client, tmp_path: Path) -> None:
    double.blobs["team/x"][DIGEST] = DATA
    double.fail("GET", DIGEST, at_byte(1 << 20))  # type: ignore[arg-type]
    fetch(client, tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == DATA


def test_another_size_is_refused_before_it_fills_the_disk(double: Double, client: Client, tmp_path: Path) -> None:
    double.blobs["team/x"][DIGEST] = DATA
    with pytest.raises(LockError, match="another size than 5"):
        fetch(client, tmp_path / "x", 5)
    assert not list(tmp_path.glob("x*"))


def test_other_bytes_of_the_right_size_are_refused_and_removed(double: Double, client: Client, tmp_path: Path) -> None:
    double.blobs["team/x"][DIGEST] = DATA[:-1] + b"?"
    with pytest.raises(LockError, match="are not those of sha256"):
        fetch(client, tmp_path / "x")
    assert not list(tmp_path.glob("x*"))


def test_a_registry_that_stays_down_is_given_up(double: Double, client: Client, tmp_path: Path) -> None:
    double.fail("GET", DIGEST, answers(500), 99)
    with pytest.raises(RegistryError, match=r"failed 4 times in a row: the registry answers 500"):
        fetch(client, tmp_path / "x")
    assert double.count("GET", DIGEST) == QUICK.tries


def test_a_blob_that_is_not_there_is_told_at_once(double: Double, client: Client, tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match="fetching x failed .* answers 404"):
        fetch(client, tmp_path / "x")
    assert double.count("GET", DIGEST) == 1
