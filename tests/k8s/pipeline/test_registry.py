"""The client of registries: who it says it is and to whom, and what it does when the line is bad."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from common.files import sha256_bytes
from k8s.pipeline import wire
from k8s.pipeline.registry import Reference, Repository
from k8s.pipeline.wire import REGISTRY, RefusedError
from tests.k8s.pipeline.conftest import log_in
from tests.oci.conftest import noise
from tests.oci.double import IDENTITY, PASSWORD, Double, Handler, answers, cuts, serving

DATA = noise(3 << 20)
DIGEST = sha256_bytes(DATA)


def repository(double: Double, *, writes: bool = True) -> Repository:
    return Repository(Reference(double.address, "team/x"), writes=writes)


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
def test_a_blob_goes_up_once_and_comes_back(double: Double, quick: Path, tmp_path: Path, auth: str) -> None:
    double.auth = auth
    if auth:
        log_in(quick, double.address)
    one = repository(double)
    assert one.upload(DIGEST, len(DATA), DATA)
    assert not one.upload(DIGEST, len(DATA), DATA)
    repository(double, writes=False).download(DIGEST, len(DATA), tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == DATA


def test_an_identity_token_is_exchanged(double: Double, quick: Path) -> None:
    double.auth = "bearer"
    (quick / "config.json").write_text(json.dumps({"auths": {double.address: {"identitytoken": IDENTITY}}}))
    assert repository(double).upload(DIGEST, len(DATA), DATA)


def test_a_token_that_ran_out_is_asked_for_anew(double: Double, quick: Path) -> None:
    double.auth = "bearer"
    log_in(quick, double.address)
    one = repository(double)
    one.upload(DIGEST, len(DATA), DATA)
    double.tokens.clear()
    assert one.has(DIGEST, len(DATA))
    assert double.count("GET", "/token") == 2


@pytest.mark.parametrize("auth", ["basic", "bearer"])
def test_a_wrong_password_is_told_and_not_shown(double: Double, quick: Path, auth: str) -> None:
    double.auth = auth
    log_in(quick, double.address, password="wrong-secret")
    with pytest.raises(RefusedError, match="config.json") as problem:
        repository(double).upload(DIGEST, len(DATA), DATA)
    assert problem.value.code == REGISTRY
    assert "wrong-secret" not in str(problem.value)


def test_no_login_where_one_is_needed_is_told(double: Double) -> None:
    double.auth = "basic"
    with pytest.raises(RefusedError, match="asks for a login, and .* holds none for it"):
        repository(double).has(DIGEST, 1)


def test_the_login_with_the_longest_path_counts(double: Double, quick: Path) -> None:
    double.auth = "basic"
    log_in(quick, f"{double.address}/team")
    known = json.loads((quick / "config.json").read_text())
    known["auths"][f"https://{double.address}/v1/"] = {"username": "somebody", "password": "else"}
    known["auths"][f"{double.address}/tea"] = {"username": "somebody", "password": "else"}
    (quick / "config.json").write_text(json.dumps(known))
    assert repository(double).upload(DIGEST, len(DATA), DATA)


def test_a_redirect_does_not_take_the_password_along(double: Double, quick: Path, tmp_path: Path) -> None:
    double.auth = "basic"
    log_in(quick, double.address)
    double.blobs["team/x"][DIGEST] = DATA
    with serving() as other:
        other.blobs["team/x"][DIGEST] = DATA
        place = f"http://{other.address}/v2/team/x/blobs/{DIGEST}?signature=x"
        one = repository(double)
        one.has(DIGEST, len(DATA))
        double.fail("GET", DIGEST, answers(307, {"Location": place}))
        one.download(DIGEST, len(DATA), tmp_path / "x")
        assert [one.headers.get("authorization") for one in other.asked] == [None]
    assert any("authorization" in one.headers for one in double.asked)


@pytest.mark.parametrize("place", ["http://registry.example/x", "ftp://127.0.0.1/x", "file:///etc/passwd"])
def test_a_redirect_to_where_nothing_may_go_is_refused(double: Double, tmp_path: Path, place: str) -> None:
    double.fail("GET", DIGEST, answers(302, {"Location": place}))
    with pytest.raises(RefusedError, match="without TLS"):
        repository(double).download(DIGEST, len(DATA), tmp_path / "x")


def test_a_redirect_in_circles_ends(double: Double, tmp_path: Path) -> None:
    double.fail("GET", DIGEST, answers(302, {"Location": f"/v2/team/x/blobs/{DIGEST}"}), 99)
    with pytest.raises(RefusedError, match="in circles"):
        repository(double).download(DIGEST, len(DATA), tmp_path / "x")


def test_a_registry_without_tls_elsewhere_is_never_asked() -> None:
    one = Repository(Reference("registry.invalid:5000", "x"))
    assert one._base.startswith("https://")


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_an_upload_survives_a_cut_and_a_busy_registry(double: Double, method: str) -> None:
    double.fail(method, "/uploads/", answers(503))
    double.fail(method, "/uploads/", answers(429, {"Retry-After": "0"}))
    double.fail("PUT", "/uploads/", cuts(1 << 20))
    assert repository(double).upload(DIGEST, len(DATA), DATA)
    assert double.blobs["team/x"][DIGEST] == DATA


def test_a_blob_that_was_taken_although_the_answer_was_lost_does_not_go_again(double: Double) -> None:
    def loses(handler: Handler) -> None:
        double.blobs["team/x"][DIGEST] = handler.rfile.read(int(handler.headers["Content-Length"]))
        handler.close_connection = True

    double.fail("PUT", "/uploads/", loses)
    repository(double).upload(DIGEST, len(DATA), DATA)
    assert double.blobs["team/x"][DIGEST] == DATA
    assert double.count("PUT", "/uploads/") == 1


def test_a_registry_that_stays_down_is_given_up(double: Double) -> None:
    double.fail("POST", "/uploads/", answers(500), 99)
    with pytest.raises(RefusedError, match=r"failed 6 times, at last: 127.0.0.1:\d+ answers 500"):
        repository(double).upload(DIGEST, len(DATA), DATA)
    assert double.count("POST") == wire.TRIES


def test_a_wait_that_a_registry_asks_for_is_bounded(double: Double) -> None:
    double.fail("HEAD", DIGEST, answers(429, {"Retry-After": "99999999"}))
    begun = time.monotonic()
    assert not repository(double).has(DIGEST, 1)
    assert time.monotonic() - begun < 2


def test_what_a_registry_says_of_a_refusal_cannot_echo_secrets(double: Double) -> None:
    said = b'{"errors":[{"code":"DENIED","message":"password ' + PASSWORD.encode() + b'"}]}'
    double.fail("POST", "/uploads/", answers(403, {}, said))
    with pytest.raises(RefusedError, match="answers 403 DENIED") as problem:
        repository(double).upload(DIGEST, len(DATA), DATA)
    assert PASSWORD not in str(problem.value)


def test_a_download_that_is_cut_again_and_again_goes_on_where_it_was(double: Double, tmp_path: Path) -> None:
    # More cuts than tries: each brings a megabyte, so that none of them counts.
    for _ in range(2):
        double.fail("GET", DIGEST, at_byte(1 << 20))  # type: ignore[arg-type]
    double.fail("GET", DIGEST, at_byte(len(DATA)))  # type: ignore[arg-type]
    repository(double).download(DIGEST, len(DATA), tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == DATA
    ranges = [one.headers.get("range") for one in double.asked]
    assert ranges == [None, f"bytes={1 << 20}-", f"bytes={2 << 20}-"]


def test_a_part_of_an_earlier_run_is_gone_on_from(double: Double, tmp_path: Path) -> None:
    (tmp_path / "x.part").write_bytes(DATA[: 1 << 20])
    double.fail("GET", DIGEST, at_byte(len(DATA)))  # type: ignore[arg-type]
    repository(double).download(DIGEST, len(DATA), tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == DATA
    assert len(double.asked) == 1


@pytest.mark.parametrize("part", [b"other bytes", DATA + b"more", DATA[:-1] + b"?"], ids=["other", "longer", "one bit"])
def test_a_part_that_is_not_of_this_file_is_thrown_away(double: Double, tmp_path: Path, part: bytes) -> None:
    double.blobs["team/x"][DIGEST] = DATA
    (tmp_path / "x.part").write_bytes(part)
    repository(double).download(DIGEST, len(DATA), tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == DATA


def test_a_registry_without_ranges_gives_the_whole_file(double: Double, tmp_path: Path) -> None:
    double.blobs["team/x"][DIGEST] = DATA
    double.fail("GET", DIGEST, at_byte(1 << 20))  # type: ignore[arg-type]
    repository(double).download(DIGEST, len(DATA), tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == DATA


def test_another_size_is_refused_before_it_fills_the_disk(double: Double, tmp_path: Path) -> None:
    double.blobs["team/x"][DIGEST] = DATA
    with pytest.raises(RefusedError, match="another size than 5"):
        repository(double).download(DIGEST, 5, tmp_path / "x")
    assert not list(tmp_path.glob("x*"))
