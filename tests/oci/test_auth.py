"""Who the user is: Docker's configuration and helpers, tokens that expire, refusals that tell what to do and no secret."""

from __future__ import annotations

import base64
import json
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from urllib3 import HTTPHeaderDict

from common.errors import ExitCode, RegistryError
from oci.client.access import Access
from oci.client.answer import Answer
from oci.client.auth import Auth, RefusedError, _challenge
from oci.client.client import Client
from oci.client.credentials import Credentials
from oci.client.patience import Patience
from oci.client.target import Registry
from tests.oci.conftest import QUICK, Image, noise, send
from tests.oci.double import IDENTITY, PASSWORD, USER, Double, Handler, answers, digest_of

Make = Callable[..., Image]
ENCODED = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
SECRETS = (PASSWORD, ENCODED, IDENTITY, "token-")


def login(config: Path, address: str, entry: dict[str, str] | None = None) -> None:
    config.write_text(json.dumps({"auths": {address: entry if entry is not None else {"auth": ENCODED}}}))


@pytest.mark.parametrize("kind", ["basic", "bearer"])
def test_a_user_whom_docker_knows_may_push(double: Double, image: Make, docker_config: Path, kind: str) -> None:
    double.auth = kind
    login(docker_config, double.address)
    send(double.address, image(noise(100_000)))
    assert "1" in double.manifests["team/small"]


def test_an_identity_token_is_exchanged(double: Double, image: Make, docker_config: Path) -> None:
    double.auth = "bearer"
    login(docker_config, double.address, {"auth": ENCODED, "identitytoken": IDENTITY})
    send(double.address, image(b"x"))
    assert double.count("POST", "/token") > 0
    assert double.count("GET", "/token") == 0


@pytest.mark.slow
@pytest.mark.parametrize(("key", "user", "secret"), [("credsStore", USER, PASSWORD), ("credHelpers", "<token>", IDENTITY)])
def test_a_credential_helper_is_asked(
    double: Double,
    image: Make,
    docker_config: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    key: str,
    user: str,
    secret: str,
) -> None:
    helper = tmp_path / "docker-credential-mine"
    answer = json.dumps({"ServerURL": double.address, "Username": user, "Secret": secret})
    helper.write_text(f"#!/bin/sh\n[ \"$1 $(cat)\" = 'get {double.address}' ] && echo '{answer}'\n")
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    docker_config.write_text(json.dumps({key: "mine" if key == "credsStore" else {double.address: "mine"}}))
    double.auth = "bearer"
    send(double.address, image(b"x"))
    assert "1" in double.manifests["team/small"]


@pytest.mark.slow
def test_a_token_is_asked_once_for_each_scope(double: Double, image: Make, docker_config: Path) -> None:
    double.auth = "bearer"
    login(docker_config, double.address)
    send(double.address, image(noise(300_000), noise(200_000, 2), b"x"))
    assert double.count("GET", "/token") == 1


def test_a_token_that_runs_out_in_mid_push_is_renewed(double: Double, image: Make, docker_config: Path) -> None:
    double.auth = "bearer"
    login(docker_config, double.address)

    def revoke(handler: object) -> None:
        double.tokens.clear()
        answers(401, {"WWW-Authenticate": f'Bearer realm="http://{double.address}/token",service="double"'})(handler)  # type: ignore[arg-type]

    # Sooner than the token says: only the 401 tells.
    double.fail("PATCH", "uploads", revoke)
    send(double.address, image(noise(300_000)))
    assert "1" in double.manifests["team/small"]
    assert double.count("GET", "/token") == 2


@pytest.mark.slow
def test_a_mount_asks_for_both_repositories(double: Double, image: Make, docker_config: Path) -> None:
    double.auth = "bearer"
    login(docker_config, double.address)
    shared = noise(2 << 20)
    send(double.address, image(shared), repository="team/train")
    sent = send(double.address, image(shared, b"x"), repository="team/api", others=("team/train",))
    assert sent.mounted == len(shared)


@pytest.mark.slow
def test_a_repository_the_user_may_not_read_only_costs_the_mount(double: Double, image: Make, docker_config: Path) -> None:
    double.auth = "bearer"
    login(docker_config, double.address)
    shared = noise(2 << 20)
    send(double.address, image(shared), repository="secret/train")
    double.readable = {"team/.*"}
    sent = send(double.address, image(shared), repository="team/api", others=("secret/train",))
    assert sent.mounted == 0
    assert "1" in double.manifests["team/api"]


@pytest.mark.slow
def test_another_repository_that_is_forbidden_is_not_asked_for_with_the_own_one(
    double: Double, image: Make, docker_config: Path
) -> None:
    double.auth, double.forbids, double.readable = "bearer", True, {"team/.*"}
    login(docker_config, double.address)
    # Whom the own repository lets read without a token, the other one is the first to ask for one.
    double.fail("HEAD", "team/api", answers(404), times=9)
    send(double.address, image(noise(2 << 20), noise(2 << 20, 2)), repository="team/api", others=("secret/train",))
    assert "1" in double.manifests["team/api"]
    assert double.count("GET", "/token.*secret") > 0


def test_a_registry_that_asks_for_a_password_is_not_sent_an_empty_one(double: Double) -> None:
    double.auth = "basic"
    with Client(Registry.parse(double.address), QUICK) as client:
        for _ in range(2):
            with pytest.raises(RefusedError, match="401"):
                client.exists("team/small", digest_of(b"x"))
    assert not [one for one in double.asked if "authorization" in one.headers]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["basic", "bearer"])
@pytest.mark.parametrize("entry", [None, {"auth": base64.b64encode(b"ada:wrong-pass").decode()}])
def test_a_user_who_is_not_let_in_is_told_to_log_in(
    double: Double, image: Make, docker_config: Path, kind: str, entry: dict[str, str] | None
) -> None:
    double.auth = kind
    if entry:
        login(docker_config, double.address, entry)
    with pytest.raises(RefusedError, match=rf"refuses: .*401.*`docker login {double.address}`") as caught:
        send(double.address, image(b"x"))
    assert caught.value.exit_code == ExitCode.REGISTRY
    assert "wrong-pass" not in str(caught.value)


def test_a_user_who_may_not_push_there_is_told_so(double: Double, image: Make) -> None:
    double.fail("POST", "uploads", answers(403, {}, b'{"errors":[{"code":"DENIED","message":"read only"}]}'))
    with pytest.raises(RefusedError, match="403 DENIED read only.*docker login"):
        send(double.address, image(b"x"))


@pytest.mark.parametrize("kind", ["basic", "bearer"])
@pytest.mark.parametrize("status", [400, 403, pytest.param(503, marks=pytest.mark.slow)])
def test_a_registry_that_echoes_secrets_does_not_get_them_shown(
    double: Double,
    image: Make,
    docker_config: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    status: int,
) -> None:
    monkeypatch.setattr("common.console._VERBOSE", True)
    caplog.set_level(logging.DEBUG)
    double.auth = kind
    login(docker_config, double.address)

    def echo(handler: object) -> None:
        told = f"you sent {handler.headers['Authorization']} and {PASSWORD}"  # type: ignore[attr-defined]
        body = json.dumps({"errors": [{"code": "DENIED", "message": told}]}).encode()
        answers(status, {}, body)(handler)  # type: ignore[arg-type]

    double.fail("PUT", "manifests", echo, times=9)
    with pytest.raises(RegistryError) as caught:
        send(double.address, image(b"x"))
    seen = "".join([str(caught.value), repr(caught.value), *capfd.readouterr(), caplog.text])
    assert "DENIED you sent" in seen
    assert not [secret for secret in SECRETS if secret in seen]


@pytest.mark.parametrize("path", ["uploads", "manifests"])
def test_a_digest_that_is_none_is_shown_without_secrets_and_what_a_terminal_obeys(
    double: Double, image: Make, docker_config: Path, path: str
) -> None:
    double.auth = "bearer"
    login(docker_config, double.address)

    def echo(handler: object) -> None:
        told = f"\x1b[2J{handler.headers['Authorization']}"  # type: ignore[attr-defined]
        answers(201, {"Docker-Content-Digest": told})(handler)  # type: ignore[arg-type]

    double.fail("PUT", path, echo, times=9)
    with pytest.raises(RegistryError, match=r"took .* for  ?\[2JBearer \*\*\*") as caught:
        send(double.address, image(b"x"))
    assert "\x1b" not in str(caught.value)
    assert not [secret for secret in SECRETS if secret in str(caught.value)]


def test_a_token_that_was_replaced_is_still_a_secret(double: Double, image: Make, docker_config: Path) -> None:
    double.auth = "bearer"
    login(docker_config, double.address)
    first: list[str] = []

    def revoke(handler: object) -> None:
        first.append(handler.headers["Authorization"].removeprefix("Bearer "))  # type: ignore[attr-defined]
        double.tokens.clear()
        challenge = f'Bearer realm="http://{double.address}/token",service="double"'
        answers(401, {"WWW-Authenticate": challenge})(handler)  # type: ignore[arg-type]

    def echo(handler: object) -> None:
        body = json.dumps({"errors": [{"code": "DENIED", "message": f"once you were {first[0]}"}]}).encode()
        answers(400, {}, body)(handler)  # type: ignore[arg-type]

    double.fail("PATCH", "uploads", revoke)
    double.fail("PUT", "manifests", echo)
    with pytest.raises(RegistryError, match=r"DENIED once you were \*\*\*") as caught:
        send(double.address, image(noise(300_000)))
    assert "token-" not in str(caught.value)


def test_secrets_do_not_stand_in_what_is_printed_by_accident() -> None:
    assert "pass" not in repr(Credentials("ada", "pass", "pass")).replace("password", "")


@pytest.mark.parametrize("realm", ["http://tokens.example.com/token", "http://192.0.2.1/token", "ftp://127.0.0.1/token"])
def test_credentials_do_not_go_to_a_token_server_without_tls(
    double: Double, image: Make, docker_config: Path, realm: str
) -> None:
    login(docker_config, double.address)
    double.fail("HEAD", "", answers(401, {"WWW-Authenticate": f'Bearer realm="{realm}",service="x"'}), times=9)
    with pytest.raises(RegistryError, match="credentials somewhere without TLS"):
        send(double.address, image(b"x"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "data", [b"", b"[]", b'{"token": ""}', b'{"token": 7}', b'{"token": "a b"}', b'{"token":"x","expires_in":"?"}']
)
def test_a_token_server_that_gives_none_is_named(double: Double, image: Make, docker_config: Path, data: bytes) -> None:
    double.auth = "bearer"
    login(docker_config, double.address)
    double.fail("GET", "/token", answers(200, {}, data), times=9)
    with pytest.raises(RegistryError, match="gives no token"):
        send(double.address, image(b"x"))


@pytest.mark.slow
@pytest.mark.parametrize("realm", ["http://[bad/x", "https://h:abc/", "https://h:99999/", "https:///token", "nowhere"])
def test_a_realm_that_is_no_address_is_named(double: Double, image: Make, docker_config: Path, realm: str) -> None:
    login(docker_config, double.address)
    double.fail("HEAD", "", answers(401, {"WWW-Authenticate": f'Bearer realm="{realm}",service="x"'}), times=9)
    with pytest.raises(RegistryError, match="the registry points to no address .*ask who runs it"):
        send(double.address, image(b"x"))


@pytest.mark.slow
def test_a_token_server_that_is_busy_is_asked_again(double: Double, image: Make, docker_config: Path) -> None:
    double.auth = "bearer"
    login(docker_config, double.address)
    double.fail("GET", "/token", answers(503), times=2)
    send(double.address, image(b"x"))


def test_credentials_that_are_asked_for_ahead_fail_only_who_needs_them(double: Double, docker_config: Path) -> None:
    docker_config.write_text('{"credsStore": "none"}')
    with Client(Registry.parse(double.address), QUICK) as client:
        client.prepare()
        assert not client.exists("a", digest_of(b"x"))
        double.auth = "bearer"
        with pytest.raises(RegistryError, match="your credential helper docker-credential-none is not installed"):
            client.exists("a", digest_of(b"x"))


def test_a_challenge_is_read_in_every_form() -> None:
    bearer = 'Bearer realm="https://t.example.com/a?b=c,d",service="s",scope="repository:a/b:pull,push"'
    for lines in ([bearer], ['Basic realm="x"', bearer], [f'Basic realm="x", {bearer}'], [bearer.replace("Bearer", "bearer")]):
        found = _challenge(lines)
        assert found is not None
        assert found.bearer
        assert (found.realm, found.service, found.scope) == ("https://t.example.com/a?b=c,d", "s", "repository:a/b:pull,push")
    for lines in (
        [f'{bearer}, Basic realm="x"'],
        ["Negotiate", bearer],
        [f"Negotiate YII=, {bearer}"],
        ['Digest realm="d", nonce="n"', bearer],
        [bearer.replace("=", " = ", 1).replace(",service", ' , error-description="no \\"x\\", y" ,service')],
        [bearer.replace("service", "error=insufficient scope,service")],
    ):
        assert _challenge(lines) == _challenge([bearer])
    plain = _challenge(["Bearer realm=https://t.example.com/a?b=c,service=s,scope=repository:a/b:pull"])
    assert plain is not None
    assert (plain.realm, plain.service, plain.scope) == ("https://t.example.com/a?b=c", "s", "repository:a/b:pull")
    for basic in (
        ['BASIC realm="x"'],
        ["Basic"],
        ["Negotiate, Basic"],
        ["Negotiate", "basic"],
        ['Basic realm=""'],
        ["Basic realm="],
    ):
        assert _challenge(basic) == _challenge(['Basic realm="x"'])
    assert not _challenge(['Basic realm="Bearer realm=x, Bearer y=z"']).bearer  # type: ignore[union-attr]
    for nothing in ([], [""], ["Negotiate"], ['Digest realm="x", nonce="y"'], ["Bearer"]):
        assert _challenge(nothing) is None


def test_a_challenge_that_is_made_to_take_long_is_read_at_once() -> None:
    began = time.monotonic()
    for line in ("a" * 60_000, "a " * 30_000, 'a="' * 20_000, "Basic " * 10_000, "a=," * 20_000):
        _challenge([line])
    assert time.monotonic() - began < 2


TOKENS = {
    "token": {"token": "t"},
    "access_token": {"access_token": "t"},
    "both": {"token": "t", "access_token": "t"},
    "an empty one": {"token": "", "access_token": "t"},
    "null": {"token": None, "access_token": "t", "refresh_token": None, "expires_in": None},
    "no time": {"token": "t", "expires_in": 0},
    "a time in words": {"token": "t", "expires_in": "300"},
    "a time with a fraction": {"token": "t", "expires_in": 299.5, "issued_at": "yesterday"},
    "a time that is over": {"token": "t", "expires_in": -5},
}


@pytest.mark.parametrize("answer", TOKENS.values(), ids=TOKENS)
@pytest.mark.parametrize("status", [200, 201])
def test_a_token_is_read_in_each_form(double: Double, answer: dict[str, object], status: int) -> None:
    double.auth = "bearer"
    double.tokens["t"] = ({"repository:a:pull"}, time.monotonic() + 60)
    double.fail("GET", "/token", answers(status, {}, json.dumps(answer).encode()), times=9)
    with Client(Registry.parse(double.address), QUICK) as client:
        assert not client.exists("a", digest_of(b"x"))


def test_a_token_server_that_moved_is_followed_and_the_login_stays(double: Double, docker_config: Path) -> None:
    double.auth = "bearer"
    login(docker_config, double.address)
    elsewhere = f"http://localhost:{double.address.rpartition(':')[2]}/token?{{}}"

    def moved(handler: Handler) -> None:
        answers(307, {"Location": elsewhere.format(handler.path.partition("?")[2])})(handler)

    double.fail("GET", "/token", moved)
    with Client(Registry.parse(double.address), QUICK) as client, suppress(RefusedError):
        client.exists("a", digest_of(b"x"))
    first, second = [one for one in double.asked if one.path.startswith("/token")]
    assert "authorization" in first.headers
    assert "authorization" not in second.headers
    assert second.headers["host"].startswith("localhost:")


def test_a_token_that_nobody_has_to_log_in_for_is_got_by_plain_http_where_that_is_said(docker_config: Path) -> None:
    login(docker_config, "r.example.com")
    asked: list[tuple[str, str, dict[str, str]]] = []

    def fetch(method: str, url: str, headers: dict[str, str], _: bytes) -> Answer:
        asked.append((method, url, headers))
        return Answer(200, HTTPHeaderDict(), b'{"token": "t"}', url)

    auth = Auth(Registry("r.example.com", "", Access("r.example.com", plain_http=True)), fetch)
    challenge = HTTPHeaderDict({"WWW-Authenticate": 'Bearer realm="http://t.example.com/token"'})
    assert auth.challenged(Answer(401, challenge, b"", ""), ("repository:a:pull",), "")
    assert auth.header(("repository:a:pull",)) == "Bearer t"
    assert asked == [("GET", "http://t.example.com/token?scope=repository%3Aa%3Apull", {})]


def test_no_service_is_named_where_the_registry_names_none(double: Double, docker_config: Path) -> None:
    """Some token servers refuse an empty one."""
    login(docker_config, double.address)
    double.fail("HEAD", "", answers(401, {"WWW-Authenticate": f'Bearer realm="http://{double.address}/token?a=b"'}))
    with Client(Registry.parse(double.address), QUICK) as client:
        client.exists("a", digest_of(b"x"))
    assert [one.path for one in double.asked if "/token" in one.path] == ["/token?a=b&scope=repository%3Aa%3Apull"]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b'{"details": "too many failed login attempts"}', "too many failed login attempts"),
        (b'{"error": "invalid_grant", "error_description": "account locked"}', "invalid_grant account locked"),
        (b'{"errors": [{"code": "DENIED", "message": "no such robot"}]}', "DENIED no such robot"),
        (b'{"message": "Bad credentials"}', "Bad credentials"),
        (f'{{"message": "no {PASSWORD} here"}}'.encode(), "no \\*\\*\\* here"),
        (b"[]", ""),
    ],
)
def test_a_token_server_says_why_in_its_own_words(double: Double, docker_config: Path, data: bytes, words: str) -> None:
    double.auth = "bearer"
    login(docker_config, double.address)
    double.fail("GET", "/token", answers(401, {}, data), times=9)
    with (
        Client(Registry.parse(double.address), QUICK) as client,
        pytest.raises(RefusedError, match=f"the token server answers 401.*{words}.*docker login"),
    ):
        client.exists("a", digest_of(b"x"))


def test_reading_asks_for_no_right_to_write(double: Double, docker_config: Path) -> None:
    double.auth = "bearer"
    login(docker_config, double.address)
    with Client(Registry.parse(double.address), QUICK) as client:
        assert not client.exists("team/small", digest_of(b"x"))
    assert {scope for scopes, _ in double.tokens.values() for scope in scopes} == {"repository:team/small:pull"}


def test_the_bounds_are_those_of_the_documentation() -> None:
    assert (Patience().tries, Patience().parallel, Patience().chunk) == (6, 4, 32 << 20)
