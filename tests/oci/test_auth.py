"""Who the user is: Docker's configuration and helpers, tokens that expire, refusals that tell what to do and no secret."""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from common.errors import ExitCode, RegistryError
from oci.client import credentials
from oci.client.auth import RefusedError, _challenge
from oci.client.client import Client
from oci.client.credentials import Credentials
from oci.client.patience import Patience
from oci.client.target import Registry
from tests.oci.conftest import QUICK, Image, noise, send
from tests.oci.double import IDENTITY, PASSWORD, USER, Double, answers, digest_of

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


@pytest.mark.parametrize(
    "text",
    [
        '{"auths": {"r.example.com": {"auth": "!"}}}',
        '{"auths": {"r.example.com": {"auth": "bm9jb2xvbg=="}}}',
    ],
)
def test_a_docker_configuration_that_is_broken_is_named_without_its_text(docker_config: Path, text: str) -> None:
    docker_config.write_text(text)
    with pytest.raises(RegistryError, match="your Docker credentials cannot be read.*docker login r.example.com"):
        credentials.read("r.example.com")


@pytest.mark.parametrize("key", ["credsStore", "credHelpers"])
def test_a_credential_helper_that_is_missing_is_named(docker_config: Path, key: str) -> None:
    docker_config.write_text(json.dumps({key: "none" if key == "credsStore" else {"r.example.com": "none"}}))
    with pytest.raises(
        RegistryError, match=r"docker-credential-none is not installed \(r.example.com in .*config.json\): install it"
    ):
        credentials.read("r.example.com")


FORMS = {
    "user and password": {"auths": {"r.example.com": {"username": USER, "password": PASSWORD}}},
    "an address for a name": {"auths": {"https://r.example.com/v1/": {"auth": ENCODED}}},
    "an empty entry of another registry": {"auths": {"other.example.com": {"auth": ""}, "r.example.com": {"auth": ENCODED}}},
    "an entry although the store is missing": {"credsStore": "none", "auths": {"r.example.com": {"auth": ENCODED}}},
}


@pytest.mark.parametrize("body", FORMS.values(), ids=FORMS)
def test_a_login_is_read_in_each_form_that_docker_takes(docker_config: Path, body: dict[str, object]) -> None:
    docker_config.write_text(json.dumps(body))
    assert credentials.read("r.example.com") == Credentials(USER, PASSWORD)


def test_a_login_in_a_variable_counts_before_the_file(docker_config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    login(docker_config, "r.example.com", {"username": "file", "password": "x"})
    monkeypatch.setenv("DOCKER_AUTH_CONFIG", json.dumps({"auths": {"r.example.com": {"auth": ENCODED}}}))
    assert credentials.read("r.example.com") == Credentials(USER, PASSWORD)
    monkeypatch.setenv("DOCKER_AUTH_CONFIG", json.dumps({"auths": {"other.example.com": {"auth": ENCODED}}}))
    assert credentials.read("r.example.com").username == "file"
    monkeypatch.setenv("DOCKER_AUTH_CONFIG", "{")
    with pytest.raises(RegistryError, match=r"cannot be read: JSONDecodeError \(r.example.com in DOCKER_AUTH_CONFIG\)"):
        credentials.read("r.example.com")


def test_the_entry_with_the_longest_path_counts(docker_config: Path) -> None:
    other = {"username": "somebody", "password": "else"}
    entries = {"r.example.com/team": {"auth": ENCODED}, "r.example.com": other, "r.example.com/tea": other}
    docker_config.write_text(json.dumps({"auths": entries}))
    assert credentials.read("r.example.com", "team/x").username == USER
    assert credentials.read("r.example.com", "teams/x").username == "somebody"


@pytest.mark.slow
def test_a_credential_helper_that_hangs_is_named(docker_config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helper = tmp_path / "docker-credential-mine"
    helper.write_text("#!/bin/sh\nexec sleep 2\n")
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr("oci.client.credentials._HELPER", 0.1)
    docker_config.write_text(json.dumps({"credsStore": "mine"}))
    with pytest.raises(
        RegistryError, match="your credential helper docker-credential-mine gives no answer .*docker login r.example.com"
    ):
        credentials.read("r.example.com")


def test_credentials_that_are_asked_for_ahead_fail_only_who_needs_them(double: Double, docker_config: Path) -> None:
    docker_config.write_text('{"credsStore": "none"}')
    with Client(Registry.parse(double.address), QUICK) as client:
        client.prepare()
        assert not client.exists("a", digest_of(b"x"))
        double.auth = "bearer"
        with pytest.raises(RegistryError, match="your credential helper docker-credential-none is not installed"):
            client.exists("a", digest_of(b"x"))


def test_without_docker_nobody_is_known(docker_config: Path) -> None:
    assert credentials.read("r.example.com") == Credentials()


def test_docker_hub_goes_by_its_old_name(docker_config: Path) -> None:
    login(docker_config, "https://index.docker.io/v1/")
    assert credentials.read("docker.io").username == USER
    assert Registry.parse("docker.io/team").address == "https://registry-1.docker.io"


def test_a_challenge_is_read_in_every_form() -> None:
    bearer = 'Bearer realm="https://t.example.com/a?b=c,d",service="s",scope="repository:a/b:pull,push"'
    for lines in ([bearer], ['Basic realm="x"', bearer], [f'Basic realm="x", {bearer}'], [bearer.replace("Bearer", "bearer")]):
        found = _challenge(lines)
        assert found is not None
        assert found.bearer
        assert (found.realm, found.service, found.scope) == ("https://t.example.com/a?b=c,d", "s", "repository:a/b:pull,push")
    assert _challenge(['BASIC realm="x"']) is not None
    for nothing in ([], [""], ["Negotiate"], ['Digest realm="x", nonce="y"'], ["Bearer"]):
        assert _challenge(nothing) is None


def test_reading_asks_for_no_right_to_write(double: Double, docker_config: Path) -> None:
    double.auth = "bearer"
    login(docker_config, double.address)
    with Client(Registry.parse(double.address), QUICK) as client:
        assert not client.exists("team/small", digest_of(b"x"))
    assert {scope for scopes, _ in double.tokens.values() for scope in scopes} == {"repository:team/small:pull"}


def test_the_bounds_are_those_of_the_documentation() -> None:
    assert (Patience().tries, Patience().parallel, Patience().chunk) == (6, 4, 32 << 20)
