"""What real registries answer where the specification says something else: each quirk is set before the client here.

Most are from public reports, some of them named beside their test.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from common.errors import RegistryError, UsageError
from oci.client.blob import Blob
from oci.client.client import Client, FixedTagError
from oci.client.target import Registry, meant
from oci.descriptor import CONFIG, MANIFEST, Descriptor, canonical
from tests.oci.conftest import QUICK
from tests.oci.double import Double, Handler, answers, digest_of, serving
from tests.oci.test_auth import login

REPOSITORY, CONFIGURATION = "team/image", b"{}"


def manifest_of(number: int) -> bytes:
    config = Descriptor(CONFIG, digest_of(CONFIGURATION), len(CONFIGURATION)).json()
    return canonical(
        {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [], "annotations": {"n": str(number)}}
    )


ONE, OTHER = manifest_of(1), manifest_of(2)


@pytest.fixture
def client(double: Double) -> Client:
    double.blobs[REPOSITORY][digest_of(CONFIGURATION)] = CONFIGURATION
    return Client(Registry(double.address, ""), QUICK, writes=True)


def denied(code: str, message: str, status: int = 403) -> Callable[[Handler], None]:
    return answers(status, {}, json.dumps({"errors": [{"code": code, "message": message}]}).encode())


def holds(double: Double, data: bytes, tag: str = "1") -> None:
    for reference in (tag, digest_of(data)):
        double.manifests[REPOSITORY][reference] = (MANIFEST, data)


# --- tags that cannot be moved (aws/containers-roadmap#2179, goharbor/harbor#17332) ---


def test_a_tag_that_holds_the_manifest_already_is_not_put_again(client: Client, double: Double) -> None:
    holds(double, ONE)
    double.fail("PUT", "manifests/", answers(400), times=9)
    client.put_manifest(REPOSITORY, "1", ONE)
    assert not double.count("PUT", "manifests")


@pytest.mark.parametrize("status", [400, 403, 409, 412, 423])
def test_a_tag_that_was_put_by_a_request_whose_answer_was_lost_is_there(client: Client, double: Double, status: int) -> None:
    def lost(handler: Handler) -> None:
        holds(double, ONE)
        handler.close_connection = True

    double.fail("PUT", "manifests/", lost)
    double.fail("PUT", "manifests/", answers(status))
    client.put_manifest(REPOSITORY, "1", ONE)
    assert double.count("PUT", "manifests") == 2


@pytest.mark.parametrize("status", [400, 403, 409, 412])
def test_a_tag_that_holds_another_and_cannot_be_moved_says_so_and_what_it_holds(
    client: Client, double: Double, status: int
) -> None:
    holds(double, OTHER)
    double.fail("PUT", "manifests/", denied("TAG_INVALID", "the tag exists and the repository is immutable", status), times=9)
    with pytest.raises(FixedTagError, match=f"the tag 1 cannot be moved: it holds {digest_of(OTHER)}") as caught:
        client.put_manifest(REPOSITORY, "1", ONE)
    assert "push another version" in caught.value.line()


def test_where_proof_lies_the_rule_is_to_leave_it_out(client: Client, double: Double) -> None:
    tag = f"{digest_of(ONE).replace(':', '-')}.att"
    holds(double, OTHER, tag)
    double.fail("PUT", "manifests/", answers(400), times=9)
    with pytest.raises(FixedTagError, match="leave out tags that begin with `sha256-`"):
        client.put_manifest(REPOSITORY, tag, ONE)


def test_a_refusal_of_a_tag_that_is_not_there_is_the_registrys_own(client: Client, double: Double) -> None:
    double.fail("PUT", "manifests/", denied("TAG_INVALID", "tags begin with a letter here", 400), times=9)
    with pytest.raises(RegistryError, match="tags begin with a letter here") as caught:
        client.put_manifest(REPOSITORY, "1", ONE)
    assert not isinstance(caught.value, FixedTagError)


# --- answers as they come ---


@pytest.mark.parametrize("status", [200, 201, 202, 204])
def test_any_success_takes_a_manifest(client: Client, double: Double, status: int) -> None:
    """Quay answers 202 (containerd/containerd#3750)."""
    double.fail("PUT", "manifests/", answers(status))
    client.put_manifest(REPOSITORY, "1", ONE)


@pytest.mark.parametrize("status", [200, 201, 202, 204])
def test_any_success_takes_a_blob(client: Client, double: Double, status: int) -> None:
    data = b"layer"

    double.fail("PUT", "blobs/uploads", answers(status))
    with Blob("layer", digest_of(data), len(data), data) as blob:
        client.upload(REPOSITORY, blob, lambda _: None)
    assert double.count("PUT", "uploads") == 1


def test_a_length_of_zero_in_an_answer_to_head_says_nothing(client: Client, double: Double) -> None:
    """Some proxies write it (yusing/godoxy#169); taken for true, gigabytes would go out at every push."""
    for length, there in (("0", True), ("5", True), ("4", False)):
        double.fail("HEAD", "blobs/", answers(200, {"Content-Length": length}))
        assert client.exists(REPOSITORY, digest_of(b"x"), 5) is there


def test_a_blob_that_is_there_with_another_size_is_said(double: Double) -> None:
    said: list[str] = []
    double.fail("HEAD", "blobs/", answers(200, {"Content-Length": "4"}))
    with Client(Registry(double.address, ""), dataclasses.replace(QUICK, warn=said.append)) as client:
        assert not client.exists(REPOSITORY, digest_of(b"x"), 5)
    assert said == [f"{double.address} says that it has 4 of 5 bytes of {digest_of(b'x')}"]


@pytest.mark.parametrize("status", [401, 403, 405, 501])
@pytest.mark.parametrize("size", [5, 9 << 20])
def test_who_takes_no_head_is_asked_by_a_get_whose_body_is_not_read(
    client: Client, double: Double, status: int, size: int
) -> None:
    double.fail("HEAD", "blobs/", answers(status), times=9)
    assert not client.exists(REPOSITORY, digest_of(b"absent"), size)
    double.blobs[REPOSITORY]["sha256:" + "1" * 64] = b"x" * size
    assert client.exists(REPOSITORY, "sha256:" + "1" * 64, size)
    assert not client.exists(REPOSITORY, "sha256:" + "1" * 64, size + 1)


def test_a_storage_that_is_signed_for_get_alone_and_refuses_logins_has_the_blob(double: Double, docker_config: Path) -> None:
    """S3, behind an Artifactory: it refuses a HEAD, and whoever sends a login beside the signature."""
    double.auth = "basic"
    login(docker_config, double.address)
    with serving() as storage, Client(Registry(double.address, ""), QUICK) as client:
        storage.blobs["s3"]["signed"] = b"layer"
        there = {"Location": f"http://{storage.address}/v2/s3/blobs/signed?X-Amz-Signature=s3cret"}
        double.fail("HEAD", "blobs/", answers(401, {"WWW-Authenticate": "Basic"}))
        for method in ("HEAD", "GET"):
            double.fail(method, "blobs/", answers(307, there), times=9)
        storage.fail("HEAD", "", answers(403), times=9)
        assert client.exists(REPOSITORY, digest_of(b"layer"), 5)
        assert client.read_blob(REPOSITORY, digest_of(b"layer"), 5) == b"layer"
    assert any("authorization" in one.headers for one in double.asked)
    assert not any("authorization" in one.headers for one in storage.asked)


NO_LIST: dict[str, Callable[[Handler], None]] = {
    "401": answers(401, {"WWW-Authenticate": "Basic"}),
    "403": answers(403),
    "web page": answers(200, {"Content-Type": "text/html"}, b"<!doctype html><title>Sign in</title>"),
    "null": answers(200, {}, b'{"schemaVersion": 2, "manifests": null}'),
    "nothing": answers(200, {}, b"{}"),
    "no such method": answers(405),
    "no such type": answers(415),
    "gone": answers(410),
    "no content": answers(204),
    "a page that moved to nowhere": answers(303),
}


@pytest.mark.parametrize("answer", NO_LIST.values(), ids=NO_LIST)
def test_a_registry_without_the_referrers_api_has_none_when_the_image_can_be_read(
    client: Client, double: Double, answer: Callable[[Handler], None]
) -> None:
    holds(double, ONE)
    double.fail("GET", "referrers/", answer, times=9)
    assert client.referrers(REPOSITORY, digest_of(ONE), 200) is None


@pytest.mark.parametrize("status", [401, 403])
def test_whoever_may_not_read_the_image_either_is_refused(client: Client, double: Double, status: int) -> None:
    holds(double, ONE)
    double.fail("GET", "", answers(status), times=9)
    with pytest.raises(RegistryError, match=f"the registry refuses: {status}"):
        client.referrers(REPOSITORY, digest_of(ONE), 200)


def test_a_failure_of_the_server_is_no_absence_and_is_said_in_the_words_of_a_reader(client: Client, double: Double) -> None:
    holds(double, ONE)
    double.fail("GET", "referrers/", answers(500), times=99)
    with pytest.raises(RegistryError, match="listing what refers to") as caught:
        client.referrers(REPOSITORY, digest_of(ONE), 200)
    assert "sent" not in caught.value.line()


@pytest.mark.parametrize("status", [401, 403])
def test_a_tag_that_is_refused_beside_a_readable_image_is_not_there(client: Client, double: Double, status: int) -> None:
    """Artifactory hides absent tags from who may not list them."""
    holds(double, ONE)
    double.fail("GET", r"manifests/sha256-", answers(status), times=9)
    tag = f"{digest_of(ONE).replace(':', '-')}.sig"
    assert client.find_manifest(REPOSITORY, tag, beside=digest_of(ONE)) is None
    with pytest.raises(RegistryError):
        client.find_manifest(REPOSITORY, tag)


# --- refusals ---


def test_a_refused_head_is_asked_once_more_for_its_reason(client: Client, double: Double) -> None:
    double.fail("HEAD", "blobs/", answers(403))
    double.fail("GET", "blobs/", denied("DENIED", "the repository team/image does not exist here; somebody has to create it"))
    with pytest.raises(RegistryError, match="somebody has to create it") as caught:
        client.exists(REPOSITORY, digest_of(b"x"))
    assert "docker login" not in caught.value.line()


@pytest.mark.parametrize(
    ("answer", "login"),
    [
        (denied("DENIED", "adding 38.1 MiB will exceed the configured upper limit of 10.0 GiB"), False),
        (denied("DENIED", "requested access to the resource is denied"), True),
        (denied("DENIED", "Your authorization token has expired. Reauthenticate and try again."), True),
        (denied("DENIED", "permission_denied: The token provided does not match expected scopes."), True),
        (denied("TOOMANYREQUESTS", "the project is locked while its artifacts are being scanned for weaknesses"), False),
        (denied("UNAUTHORIZED", "the client does not have the permission that this takes here"), True),
        (answers(403), True),
        (denied("UNAUTHORIZED", "authentication required", 401), True),
    ],
)
def test_a_login_is_advised_only_where_it_could_help(
    client: Client, double: Double, answer: Callable[[Handler], None], login: bool
) -> None:
    double.fail("GET", "manifests/", answer, times=9)
    with pytest.raises(RegistryError) as caught:
        client.manifest(REPOSITORY, "1")
    assert ("docker login" in caught.value.line()) is login


@pytest.mark.parametrize(("writes", "verb"), [(True, "push"), (False, "read")])
def test_who_only_reads_is_not_told_to_push(double: Double, writes: bool, verb: str) -> None:
    double.fail("GET", "manifests/", answers(401), times=9)
    with (
        Client(Registry(double.address, ""), QUICK, writes=writes) as client,
        pytest.raises(RegistryError, match=f"as a user who may {verb} there"),
    ):
        client.manifest(REPOSITORY, "1")


def test_an_upload_that_is_sent_elsewhere_names_both_places(client: Client, double: Double) -> None:
    data = b"layer"
    double.fail("POST", "uploads", answers(202, {"Location": "http://127.0.0.1:1/v2/x?_state=secret"}), times=99)
    with (
        Blob("layer", digest_of(data), len(data), data) as blob,
        pytest.raises(RegistryError, match=rf"refused by 127\.0\.0\.1:1, where {double.address} sends us") as caught,
    ):
        client.upload(REPOSITORY, blob, lambda _: None)
    assert "secret" not in caught.value.line()
    assert "tell it its own address (http.host, or X-Forwarded-Host and -Port)" in caught.value.line()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>", "400 Request has expired"),
        (b"Client sent an HTTP request to an HTTPS server.\n", "400 Client sent an HTTP request to an HTTPS server."),
        (b"<html><head><title>400 Bad Request</title></head></html>", "400 Bad Request"),
        (b"one line\nand another", "answers 400)"),
        (b'{"fault": "x"}', "answers 400)"),
    ],
)
def test_what_stands_around_a_registry_says_why_too(client: Client, double: Double, data: bytes, said: str) -> None:
    double.fail("GET", "manifests/", answers(400, {}, data))
    with pytest.raises(RegistryError) as caught:
        client.manifest(REPOSITORY, "1")
    assert said in caught.value.line()


def test_an_image_in_dockers_own_form_is_asked_for_too(client: Client, double: Double) -> None:
    """Without its type, distribution 2 serves a tag in a form of 2014, which has another digest."""
    holds(double, ONE)
    client.manifest(REPOSITORY, "1")
    assert "application/vnd.docker.distribution.manifest.v2+json" in double.asked[-1].headers["accept"]


@pytest.mark.parametrize(
    "link",
    [
        '</v2/team/image/more,with?last=a,b>; rel="next"',
        "<more,with?last=a,b>;rel=next",
        '</v2/other>; rel="prev", <more,with?last=a,b> ; title="x"; REL="last next"',
    ],
)
def test_the_next_page_is_found_in_each_form(client: Client, double: Double, link: str) -> None:
    listed = [{"digest": digest_of(ONE)}, {"digest": digest_of(OTHER)}]
    double.fail("GET", "referrers/", answers(200, {"link": link}, json.dumps({"manifests": listed[:1]}).encode()))
    double.fail("GET", "more,with.last=a,b", answers(200, {}, json.dumps({"manifests": listed[1:]}).encode()))
    assert client.referrers(REPOSITORY, digest_of(ONE), 200) == listed


@pytest.mark.parametrize(
    ("text", "fix"),
    [
        ("ghcr.io/MyOrg", "a path must be in lower case: ghcr.io/myorg"),
        ("https://r.example.com/a/", "write it without https://: r.example.com/a"),
        ("r.example.com:99999", "write host[:port][/path]"),
    ],
)
def test_a_registry_that_is_written_wrongly_is_said_how_to_write(text: str, fix: str) -> None:
    with pytest.raises(UsageError) as caught:
        Registry.parse(text)
    assert fix in caught.value.line()


def test_nothing_is_guessed_of_a_good_name() -> None:
    assert meant("r.example.com/team/image") == ""


@pytest.mark.parametrize("text", ["[::1]", "[::1]:5000", "127.0.0.1", "localhost:5000"])
def test_this_machine_needs_no_tls_by_any_of_its_names(text: str) -> None:
    assert Registry.parse(text).plain_http


# --- a repository that has to be created first (aws/containers-roadmap#1970) ---

NOT_THERE = answers(404, {}, b'{"errors": [{"code": "NAME_UNKNOWN", "message": "The repository team/image does not exist"}]}')


def hangs_up(handler: Handler) -> None:
    handler.close_connection = True


def upload(client: Client) -> None:
    with Blob("layer", digest_of(b"layer"), 5, b"layer") as blob:
        client.upload(REPOSITORY, blob, lambda _: None)


def test_an_upload_that_is_cut_at_its_start_is_asked_for_the_reason(client: Client, double: Double) -> None:
    double.fail("POST", "uploads", hangs_up, times=99)
    double.fail("GET", "manifests/", NOT_THERE, times=9)
    with pytest.raises(RegistryError, match="The repository team/image does not exist.*create it there first"):
        upload(client)
    assert double.count("POST") == 2


def test_a_refusal_to_who_asks_for_the_reason_is_said(client: Client, double: Double) -> None:
    double.fail("POST", "uploads", hangs_up, times=99)
    double.fail("GET", "manifests/", denied("DENIED", "somebody has to allow ecr:CreateRepository for this user"), times=9)
    with pytest.raises(RegistryError, match="somebody has to allow ecr:CreateRepository"):
        upload(client)


@pytest.mark.parametrize("cuts", [1, 2, 3])
def test_a_repository_that_is_only_not_there_yet_is_pushed_to_after_a_cut(client: Client, double: Double, cuts: int) -> None:
    double.fail("POST", "uploads", hangs_up, times=cuts)
    upload(client)
    assert double.blobs[REPOSITORY][digest_of(b"layer")] == b"layer"


def test_a_start_that_is_answered_with_a_reason_says_it(client: Client, double: Double) -> None:
    double.fail("POST", "uploads", NOT_THERE)
    with pytest.raises(RegistryError, match="NAME_UNKNOWN The repository team/image does not exist.*create it there first"):
        upload(client)


def test_who_only_reads_is_not_told_to_create_anything(double: Double) -> None:
    double.fail("GET", "manifests/", NOT_THERE)
    with Client(Registry(double.address, ""), QUICK) as reader, pytest.raises(RegistryError) as caught:
        reader.manifest(REPOSITORY, "1")
    assert "there is no such repository: look at the name" in caught.value.line()
    assert "create" not in caught.value.line()
