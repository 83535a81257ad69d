"""Pushing into a registry that stalls, cuts, forgets, refuses and lies; the double keeps count of what it was sent."""

from __future__ import annotations

import dataclasses
import email.utils
import json
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.errors import BuildError, RegistryError
from oci.client.client import Client
from oci.client.http import Request
from oci.client.patience import ONCE, StoppedError, asked_to_wait
from oci.client.target import Registry
from tests.oci.conftest import QUICK, Image, noise, send
from tests.oci.double import Double, Handler, answers, cuts, digest_of, forgets, serving, stalls
from tests.waiting import eventually

Make = Callable[..., Image]
BIG = noise(300_000)  # five chunks of 64 KiB, the last a part of one


def whole(double: Double, image: Image, repository: str = "team/small") -> None:
    """All bytes are there, and the manifest is the layout's, by tag and by digest."""
    held = double.blobs[repository]
    assert {digest: held[digest] for digest in image.digests} == {d: image.layout.blob(d).read_bytes() for d in image.digests}
    for reference in ("1", digest_of(image.manifest)):
        assert double.manifests[repository][reference][1] == image.manifest


@pytest.mark.parametrize("absolute", [False, True])
def test_chunks_arrive_whole_and_each_byte_once(double: Double, image: Make, absolute: bool) -> None:
    double.absolute = absolute
    one = image(BIG, b"small", b"")
    sent = send(double.address, one)
    whole(double, one)
    total = sum(one.layout.blob(digest).stat().st_size for digest in one.digests)
    assert (sent.sent, sent.there, sent.mounted) == (total, 0, 0)
    assert double.received == total
    assert double.count("PATCH") == 4
    assert not double.sessions


def test_the_manifest_goes_last(double: Double, image: Make) -> None:
    send(double.address, image(BIG, b"small"))
    asked = [(one.method, one.path) for one in double.asked]
    (manifest,) = [n for n, (method, path) in enumerate(asked) if method == "PUT" and "/manifests/" in path]
    assert any("/blobs/" in path for _, path in asked[:manifest])
    assert not any("/blobs/" in path for _, path in asked[manifest:])


def test_what_is_there_is_not_sent_again(double: Double, image: Make) -> None:
    one = image(BIG, b"small")
    send(double.address, one)
    before = double.received
    again = send(double.address, one)
    assert double.received == before
    assert again.sent == 0


def test_a_blob_of_another_size_is_not_taken_for_ours(double: Double, image: Make) -> None:
    one = image(BIG)
    double.blobs["team/small"][one.digests[1]] = b"truncated by a full disk"
    send(double.address, one)
    whole(double, one)


@pytest.mark.slow
@pytest.mark.parametrize("after", [0, 1, 2, 30_000, 65_535])
def test_a_cut_in_mid_chunk_goes_on_from_the_byte_that_arrived(double: Double, image: Make, after: int) -> None:
    double.fail("PATCH", "uploads", cuts(after))
    one = image(BIG)
    send(double.address, one)
    whole(double, one)
    # Ends are inclusive: of a session with one byte nothing can be told from an empty one, and that byte goes twice.
    twice = double.received - sum(one.layout.blob(digest).stat().st_size for digest in one.digests)
    assert twice <= 1 or after == 1


@pytest.mark.slow
def test_a_registry_that_keeps_no_part_of_a_cut_request_gets_that_chunk_again(double: Double, image: Make) -> None:
    double.keeps_parts = False
    double.fail("PATCH", "uploads", cuts(40_000))
    one = image(BIG)
    send(double.address, one)
    whole(double, one)


@pytest.mark.slow
def test_a_cut_at_the_last_request_is_taken_up(double: Double, image: Make) -> None:
    double.fail("PUT", "uploads", cuts(10_000))
    one = image(BIG)
    send(double.address, one)
    whole(double, one)


@pytest.mark.slow
def test_an_answer_that_is_lost_after_the_blob_is_whole_costs_nothing(double: Double, image: Make) -> None:
    one = image(BIG)
    digest = one.digests[1]

    def keeps_and_cuts(handler: object) -> None:
        double.blobs["team/small"][digest] = BIG
        double.sessions.clear()
        cuts(1 << 20)(handler)  # type: ignore[arg-type]

    double.fail("PUT", f"uploads.*{digest.partition(':')[2]}", keeps_and_cuts)
    # One after the other: the session of another blob would be forgotten as well.
    send(double.address, one, patience=dataclasses.replace(QUICK, parallel=1))
    whole(double, one)
    assert double.received == sum(one.layout.blob(d).stat().st_size for d in one.digests)


@pytest.mark.parametrize("method", ["PATCH", "PUT"])
def test_a_forgotten_session_starts_over(double: Double, image: Make, method: str) -> None:
    double.fail(method, "uploads", forgets)
    one = image(BIG)
    send(double.address, one)
    whole(double, one)


def test_a_session_forgotten_every_time_ends_in_one_request_for_the_blob(double: Double, image: Make) -> None:
    double.fail("PATCH", "uploads", forgets, times=99)
    one = image(BIG)
    send(double.address, one)
    whole(double, one)
    assert double.count("PATCH") == 3


@pytest.mark.slow
@pytest.mark.parametrize("status", [405, 413, 416, 501])
def test_a_registry_without_chunks_gets_blobs_whole_and_is_not_asked_again(double: Double, image: Make, status: int) -> None:
    double.fail("PATCH", "uploads", answers(status), times=99)
    one = image(BIG, noise(200_000, 2))
    send(double.address, one, patience=dataclasses.replace(QUICK, parallel=1))
    whole(double, one)
    assert double.count("PATCH") == 1


def test_a_registry_that_takes_no_second_chunk_gets_blobs_whole(double: Double, image: Make) -> None:
    """GitHub's says 416 to it, though it says itself that this part is due."""

    def second(handler: Handler) -> None:
        session = handler.session()
        assert session is not None
        handler.take(None if session else session)
        handler.answer(*((416, {"Range": f"0-{len(session) - 1}"}) if session else (202, {})))

    double.fail("PATCH", "uploads", second, times=99)
    one = image(noise(400_000))
    send(double.address, one, patience=dataclasses.replace(QUICK, parallel=1))
    whole(double, one)
    # Two sessions' worth: one asks what the registry holds, the other believes that it takes none.
    assert double.count("PATCH") <= 3


@pytest.mark.parametrize("headers", [{}, {"Location": ""}], ids=["no Location", "an empty one"])
def test_a_session_that_is_named_by_its_number_alone_is_used(double: Double, image: Make, headers: dict[str, str]) -> None:
    double.sessions["a-number"] = bytearray()
    double.fail("POST", "uploads", answers(202, {**headers, "Docker-Upload-UUID": "a-number?state=a%3Db"}))
    one = image(noise(200_000))
    send(double.address, one, patience=dataclasses.replace(QUICK, parallel=1))
    whole(double, one)
    assert double.count("PATCH", "/v2/team/small/blobs/uploads/a-number") > 1


@pytest.mark.parametrize("status", [200, 201, 204])
def test_any_success_opens_a_session(double: Double, image: Make, status: int) -> None:
    double.sessions["7"] = bytearray()
    double.fail("POST", "uploads", answers(status, {"location": "7?state=a%3Db"}))
    one = image(noise(100_000))
    send(double.address, one, patience=dataclasses.replace(QUICK, parallel=1))
    whole(double, one)


@pytest.mark.slow
def test_a_chunk_that_is_too_large_is_halved_and_the_next_blob_begins_with_what_went(double: Double, image: Make) -> None:
    double.largest = 3 << 19
    one = image(noise(5 << 20), noise(4 << 20, 2))
    send(double.address, one, patience=dataclasses.replace(QUICK, chunk=4 << 20, parallel=1))
    whole(double, one)
    sent = [r.body for r in double.asked if r.method == "PATCH"]
    assert sent == [4 << 20, 2 << 20, *[1 << 20] * 4, *[1 << 20] * 3]


@pytest.mark.slow
def test_a_last_chunk_that_is_too_large_is_halved_too(double: Double, image: Make) -> None:
    double.largest = 3 << 19
    one = image(noise(3 << 20))
    send(double.address, one, patience=dataclasses.replace(QUICK, chunk=4 << 20, parallel=1))
    whole(double, one)
    assert [r.body for r in double.asked if r.method in {"PATCH", "PUT"} and r.body > 1000] == [3 << 20, *[3 << 19] * 2]


@pytest.mark.slow
def test_chunks_are_not_halved_below_what_the_registry_asks_for(double: Double, image: Make) -> None:
    double.largest, double.least = 1 << 20, 3 << 20
    with pytest.raises(RegistryError, match="uploading the layer 'layer 1' failed .* answers 413"):
        send(double.address, image(noise(9 << 20)), patience=dataclasses.replace(QUICK, chunk=4 << 20, parallel=1))
    assert [r.body for r in double.asked if r.method == "PATCH"] == [4 << 20, 3 << 20]


def test_the_least_chunk_a_registry_takes_is_honoured(double: Double, image: Make) -> None:
    double.least = 100_000
    one = image(BIG)
    send(double.address, one)
    whole(double, one)
    assert [r.body for r in double.asked if r.method == "PATCH"] == [100_000, 100_000]


@pytest.mark.slow
@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_burst_of_failures_is_outlasted(double: Double, image: Make, status: int) -> None:
    for method in ("HEAD", "POST", "PATCH", "PUT", "GET"):
        double.fail(method, "/v2/", answers(status), times=2)
    one = image(BIG)
    send(double.address, one, patience=dataclasses.replace(QUICK, parallel=1, tries=10))
    whole(double, one)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "path"), [("HEAD", "blobs"), ("POST", "uploads"), ("PATCH", "uploads"), ("PUT", "manifests")]
)
def test_failures_without_end_are_given_up_after_so_many(double: Double, image: Make, method: str, path: str) -> None:
    double.fail(method, path, answers(503), times=999)
    with pytest.raises(RegistryError, match=r"failed 4 times in a row: the registry answers 503 .*then run it again"):
        send(double.address, image(BIG), patience=dataclasses.replace(QUICK, parallel=1))
    assert double.count(method, path) == 4
    assert not double.manifests["team/small"]


@pytest.mark.slow
def test_a_wait_that_is_asked_for_is_kept(double: Double, image: Make) -> None:
    double.fail("POST", "uploads", answers(429, {"Retry-After": "1"}))
    began = time.monotonic()
    send(double.address, image(b"x"))
    assert time.monotonic() - began >= 1


@pytest.mark.slow
def test_a_wait_that_is_too_long_is_an_error(double: Double, image: Make) -> None:
    double.fail("POST", "uploads", answers(429, {"Retry-After": "86400"}), times=9)
    with pytest.raises(RegistryError, match="asks to wait 86400 s"):
        send(double.address, image(b"x"))


def test_both_forms_of_retry_after_are_read() -> None:
    assert asked_to_wait({"Retry-After": "7"}) == 7
    assert 200 < asked_to_wait({"Retry-After": email.utils.formatdate(time.time() + 300, usegmt=True)}) <= 301
    assert asked_to_wait({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0
    assert [asked_to_wait(h) for h in ({}, {"Retry-After": "soon"}, {"Retry-After": "-5"}, {"Retry-After": ""})] == [0] * 4


@pytest.mark.slow
def test_a_registry_that_says_nothing_is_given_up(double: Double, image: Make) -> None:
    double.fail("POST", "uploads", stalls(1), times=9)
    patience = dataclasses.replace(QUICK, tries=2, read=0.1, parallel=1)
    with pytest.raises(RegistryError, match="2 times in a row: no answer in time"):
        send(double.address, image(b"x"), patience=patience)


def _no_thread_is_left() -> bool:
    """Whether nothing of a push goes on; one that Ctrl-C met just as it began ends by itself a moment later."""
    return not any(thread.name.startswith("ThreadPoolExecutor") for thread in threading.enumerate())


def _ctrl_c() -> None:
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


def _interrupt(handler: Handler) -> None:
    _ctrl_c()
    stalls(600)(handler)


@pytest.mark.slow
@pytest.mark.parametrize(("method", "path"), [("HEAD", "blobs"), ("PATCH", "uploads"), ("PUT", "uploads"), ("GET", "token")])
@pytest.mark.parametrize("end", ["failure", "Ctrl-C"])
def test_whatever_is_waited_for_a_failure_or_ctrl_c_ends_it(
    double: Double, image: Make, docker_config: Path, method: str, path: str, end: str
) -> None:
    docker_config.write_text(json.dumps({"auths": {double.address: {"auth": "YWRhOnMzY3JldC1wYXNz"}}}))
    double.auth = "bearer"
    one = image(BIG, noise(200_000, 2))
    # The first to come ends all, a little after the second waits.
    ends = _interrupt if end == "Ctrl-C" else answers(422)

    def late(handler: Handler) -> None:
        double.ended.wait(0.3)
        ends(handler)

    double.fail(method, path, late)
    double.fail(method, path, stalls(600), times=99)
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt if end == "Ctrl-C" else RegistryError):
        send(double.address, one, patience=dataclasses.replace(QUICK, read=600, commit=600))
    assert time.monotonic() - began < 300
    eventually(_no_thread_is_left)
    assert not double.manifests["team/small"]


@pytest.mark.slow
def test_an_answer_without_end_ends_with_ctrl_c(double: Double, image: Make) -> None:
    def trickles(handler: Handler) -> None:
        handler.take(None)
        handler.send_response(500)
        handler.send_header("Connection", "close")
        handler.end_headers()
        _ctrl_c()
        while not double.ended.wait(0.1):
            handler.wfile.write(b"x")

    double.fail("POST", "uploads", trickles)
    with pytest.raises(KeyboardInterrupt):
        send(double.address, image(b"x"))
    eventually(_no_thread_is_left)


def test_a_client_that_was_stopped_asks_nothing_more(double: Double) -> None:
    with Client(Registry.parse(double.address), QUICK) as client:
        client.stop()
        with pytest.raises(StoppedError):
            client.exists("a", digest_of(b""))
    assert not double.asked


@pytest.mark.slow
@pytest.mark.parametrize("location", ["http://[bad/x", "https://h:abc/", "https://h:99999/", "https:///x"])
@pytest.mark.parametrize(("method", "status"), [("HEAD", 307), ("POST", 202), ("PATCH", 202), ("PATCH", 307)])
def test_a_location_that_is_no_address_is_named(double: Double, image: Make, location: str, method: str, status: int) -> None:
    double.fail(method, "blobs", answers(status, {"Location": location}), times=99)
    with pytest.raises(RegistryError, match="the registry points to no address .*ask who runs it"):
        send(double.address, image(BIG))


def test_a_registry_that_is_down_is_named() -> None:
    with Client(Registry.parse("127.0.0.1:1"), ONCE) as client, pytest.raises(RegistryError) as caught:
        client.exists("a", digest_of(b""))
    assert "asking for a@sha256:" in caught.value.what
    assert "connection refused" in caught.value.what
    assert caught.value.where == "127.0.0.1:1"


def test_a_blob_altered_on_disk_never_gets_there_whole(double: Double, image: Make) -> None:
    one = image(BIG, b"fine")
    path = one.layout.blob(one.digests[1])
    path.write_bytes(BIG[:150_000] + b"!" + BIG[150_001:])
    with pytest.raises(BuildError, match="the layer 'layer 1' was altered") as caught:
        send(double.address, one)
    assert caught.value.where == str(path)
    assert one.digests[1] not in double.blobs["team/small"]
    assert not double.manifests["team/small"]


def test_a_blob_that_is_missing_or_short_is_found_before_anything_is_sent(double: Double, image: Make) -> None:
    one = image(BIG, b"fine")
    path = one.layout.blob(one.digests[1])
    path.write_bytes(BIG[:-1])
    with pytest.raises(BuildError, match="'layer 1' has 299999 bytes and not 300000"):
        send(double.address, one)
    path.unlink()
    with pytest.raises(BuildError, match="'layer 1' is missing"):
        send(double.address, one)
    assert not double.asked


def test_a_layout_swept_while_it_is_sent_loses_nothing(double: Double, image: Make) -> None:
    one = image(BIG)
    kept = {digest: one.layout.blob(digest).read_bytes() for digest in one.digests}

    def sweep(handler: object) -> None:
        one.layout.sweep(set())
        answers(503)(handler)  # type: ignore[arg-type]

    double.fail("HEAD", "blobs", sweep)
    send(double.address, one)
    assert double.blobs["team/small"] == kept


@pytest.mark.slow
def test_shared_layers_are_mounted_and_not_sent(double: Double, image: Make) -> None:
    shared = noise(2 << 20, 3)
    first, second = image(shared, b"a"), image(shared, b"b")
    send(double.address, first, repository="team/train")
    before = double.received
    sent = send(double.address, second, repository="team/api", others=("team/none", "team/train"))
    whole(double, second, "team/api")
    assert sent.mounted == len(shared)
    assert double.received - before == sent.sent < 1000


@pytest.mark.slow
@pytest.mark.parametrize("act", [answers(503), answers(403), answers(202, {"Location": "http://[bad/x"}), cuts(0)])
def test_a_mount_that_fails_is_not_tried_again_and_the_bytes_are_sent(
    double: Double, image: Make, act: Callable[[Handler], None]
) -> None:
    one = image(noise(2 << 20, 3))
    send(double.address, one, repository="team/train")
    double.fail("POST", "mount=", act, times=99)
    sent = send(double.address, one, repository="team/api", others=("team/train",))
    whole(double, one, "team/api")
    assert sent.mounted == 0
    assert double.count("POST", "mount=") == 1


@pytest.mark.slow
def test_another_repository_that_gives_no_answer_is_asked_once(double: Double, image: Make) -> None:
    one = image(noise(2 << 20, 3), noise(2 << 20, 4))
    double.fail("HEAD", "team/broken", answers(503), times=99)
    send(double.address, one, others=("team/broken",), patience=dataclasses.replace(QUICK, parallel=1))
    whole(double, one)
    assert double.count("HEAD", "team/broken") == 1


@pytest.mark.slow
def test_a_registry_that_does_not_mount_gets_the_bytes_into_the_session_it_opened(double: Double, image: Make) -> None:
    shared = noise(2 << 20, 3)
    one = image(shared)
    send(double.address, one, repository="team/train")
    double.mounts = False
    posts = double.count("POST")
    sent = send(double.address, one, repository="team/api", others=("team/train",))
    whole(double, one, "team/api")
    assert sent.mounted == 0
    assert double.count("POST") - posts == len(one.digests)
    assert not double.sessions


@pytest.mark.slow
def test_a_registry_that_claims_a_blob_it_has_not_is_sent_it_after_all(double: Double, image: Make) -> None:
    one = image(BIG)
    double.pretends = {one.digests[1]}
    double.fail("HEAD", one.digests[1], answers(200, {"Content-Length": str(len(BIG))}), times=99)
    send(double.address, one)
    whole(double, one)


def test_a_registry_that_overlooks_for_a_moment_what_it_was_just_sent_is_asked_again(double: Double, image: Make) -> None:
    double.fail("PUT", "manifests", answers(400, {}, b'{"errors":[{"code":"MANIFEST_BLOB_UNKNOWN"}]}'))
    one = image(BIG)
    send(double.address, one)
    whole(double, one)
    assert double.received == sum(one.layout.blob(digest).stat().st_size for digest in one.digests)


def test_a_registry_that_misses_blobs_whatever_it_is_sent_is_refused(double: Double, image: Make) -> None:
    double.fail("PUT", "manifests", answers(400, {}, b'{"errors":[{"code":"MANIFEST_BLOB_UNKNOWN"}]}'), times=9)
    with pytest.raises(RegistryError, match="MANIFEST_BLOB_UNKNOWN.*it said that it has blobs which it does not have"):
        send(double.address, image(BIG))


@pytest.mark.parametrize("path", ["uploads", "manifests"])
def test_a_registry_that_takes_what_it_is_sent_for_something_else_is_refused(double: Double, image: Make, path: str) -> None:
    double.fail("PUT", path, answers(201, {"Docker-Content-Digest": digest_of(b"other")}), times=9)
    with pytest.raises(RegistryError, match=f"took .*{digest_of(b'other')}"):
        send(double.address, image(b"x"))


@pytest.mark.slow
def test_a_wrong_digest_in_chunks_is_tried_in_one_request(double: Double, image: Make) -> None:
    """Some registries take chunks, drop one, and only notice at the end."""
    double.fail("PATCH", "uploads", answers(202, {"Range": "0-65535"}))
    one = image(BIG)
    send(double.address, one)
    whole(double, one)


def test_a_manifest_that_is_refused_says_why(double: Double, image: Make) -> None:
    told = json.dumps({"errors": [{"code": "DENIED", "message": "quota of 5 GB\nexceeded"}]}).encode()
    double.fail("PUT", "manifests", answers(422, {}, told))
    with pytest.raises(RegistryError, match=r"pushing .*/team/small:1 failed .*answers 422 DENIED quota of 5 GB exceeded"):
        send(double.address, image(b"x"))


def test_the_upload_goes_where_the_location_says_and_credentials_do_not(
    double: Double, image: Make, docker_config: Path
) -> None:
    docker_config.write_text(json.dumps({"auths": {double.address: {"auth": "YWRhOnMzY3JldC1wYXNz"}}}))
    double.auth = "basic"
    with serving() as storage:
        storage.sessions["elsewhere"] = bytearray()
        address = f"http://{storage.address}/v2/team/small/blobs/uploads/elsewhere?state=a%3Db"
        one = image(b"only one")
        double.blobs["team/small"][one.digests[0]] = one.layout.blob(one.digests[0]).read_bytes()

        def elsewhere(handler: object) -> None:
            double.blobs["team/small"][one.digests[1]] = b"only one"
            answers(202, {"Location": address})(handler)  # type: ignore[arg-type]

        # Once the double knows the user: a request without credentials would prove nothing.
        double.fail("POST", "uploads", elsewhere)
        send(double.address, one)
    assert storage.blobs["team/small"] == {one.digests[1]: b"only one"}
    assert any("authorization" in request.headers for request in double.asked)
    assert not any("authorization" in request.headers for request in storage.asked)


def test_a_registry_off_this_machine_is_never_spoken_to_without_tls() -> None:
    with Client(Registry.parse("registry.invalid"), ONCE) as client, pytest.raises(RegistryError, match="without TLS"):
        client._wire.send(Request("GET", "http://registry.invalid/v2/"))


def test_redirects_in_circles_end(double: Double) -> None:
    double.fail("GET", "manifests", answers(307, {"Location": "/v2/a/manifests/1"}), times=99)
    with (
        Client(Registry.parse(double.address), QUICK) as client,
        pytest.raises(RegistryError, match="redirects in circles"),
    ):
        client.manifest("a", "1")


def test_an_endless_answer_is_not_read(double: Double) -> None:
    double.fail("GET", "manifests", answers(200, {}, b"x" * (9 << 20)))
    with Client(Registry.parse(double.address), QUICK) as client, pytest.raises(RegistryError, match="more than 8 MiB"):
        client.manifest("a", "1")


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    faults=st.lists(
        st.tuples(st.sampled_from(["HEAD", "POST", "PATCH", "PUT", "GET"]), st.integers(0, 4), st.integers(0, 70_000)),
        max_size=8,
    ),
    keeps=st.booleans(),
)
def test_whatever_fails_the_bytes_are_right_or_the_error_is_clear(
    image: Make, faults: list[tuple[str, int, int]], keeps: bool
) -> None:
    """Any mix of cuts, forgotten sessions and refusals in any order."""
    one = image(noise(150_000), b"small")
    with serving() as double:
        double.keeps_parts = keeps
        for method, kind, after in faults:
            act = [cuts(after), forgets, answers(503), answers(416), answers(202)][kind]
            double.fail(method, "uploads" if method != "HEAD" else "blobs", act)
        try:
            send(double.address, one, patience=dataclasses.replace(QUICK, parallel=2, pause=0.001))
        except RegistryError as problem:
            assert problem.fix  # noqa: PT017 - either outcome is right
            assert not double.manifests["team/small"]
        else:
            whole(double, one)
