"""The user's credentials, in every form in which Docker keeps them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from common.errors import RegistryError
from oci.client import credentials
from oci.client.credentials import Credentials
from oci.client.target import Registry
from tests.oci.double import PASSWORD, USER
from tests.oci.test_auth import ENCODED, login


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
    "an address with the version of the API": {"auths": {"https://R.example.com/v2/": {"auth": ENCODED}}},
    "an address without TLS": {"auths": {"http://r.example.com//": {"auth": ENCODED}}},
    "the port that nobody has to write": {"auths": {"r.example.com:443": {"auth": ENCODED}}},
    "an empty entry beside another spelling": {"auths": {"r.example.com": {}, "https://r.example.com": {"auth": ENCODED}}},
    "nothing for another registry": {"auths": {"other.example.com": None, "r.example.com": {"auth": ENCODED}}},
    "broken lines": {"auths": {"r.example.com": {"auth": f"{ENCODED[:10]}\n{ENCODED[10:]}\r\n"}}},
    "a helper that is switched off": {
        "credsStore": "none",
        "credHelpers": {"r.example.com": ""},
        "auths": {"r.example.com": {"auth": ENCODED}},
    },
}


@pytest.mark.parametrize("body", FORMS.values(), ids=FORMS)
def test_a_login_is_read_in_each_form_that_docker_takes(docker_config: Path, body: dict[str, object]) -> None:
    docker_config.write_text(json.dumps(body))
    assert credentials.read("r.example.com") == Credentials(USER, PASSWORD)


@pytest.mark.parametrize(
    "key", ["r.example.com.evil", "evil-r.example.com", "r.example.com:5000", "r.example.co", "", "https://"]
)
def test_a_login_of_another_registry_is_not_taken(docker_config: Path, key: str) -> None:
    login(docker_config, key)
    assert credentials.read("r.example.com", "team/x") == Credentials()


@pytest.mark.parametrize("text", ["", " \n", "{}", "\ufeff{}", '{"auths": null, "credHelpers": null, "credsStore": null}'])
def test_a_configuration_that_says_nothing_is_none(docker_config: Path, text: str) -> None:
    docker_config.write_text(text, encoding="utf-8")
    assert credentials.read("r.example.com") == Credentials()


@pytest.fixture
def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Makes the credential helper `mine` of a shell script, which has what it is asked for in $asked."""

    def make(script: str) -> None:
        file = tmp_path / "docker-credential-mine"
        file.write_text(f"#!/bin/sh\nasked=$(cat)\n{script}\n")
        file.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=":")

    return make


KNOWN = json.dumps({"ServerURL": "x", "Username": USER, "Secret": PASSWORD})

UNKNOWN = "echo 'credentials not found in native keychain'; exit 1"

ASKED = {
    # What Docker's configuration says, the host, and what the helper knows it by.
    "a host": ({"credsStore": "mine"}, "r.example.com", "r.example.com"),
    "its old address": (
        {"credsStore": "mine", "auths": {"https://r.example.com/v1/": {}}},
        "r.example.com",
        "https://r.example.com/v1/",
    ),
    "a host with capitals": ({"credHelpers": {"R.example.com": "mine"}}, "r.example.com", "r.example.com"),
    "an address in the list of helpers": ({"credHelpers": {"https://r.example.com": "mine"}}, "r.example.com", "r.example.com"),
    "Docker Hub": ({"credsStore": "mine"}, "docker.io", "https://index.docker.io/v1/"),
    "Docker Hub in the list of helpers": (
        {"credHelpers": {"docker.io": "mine"}},
        "index.docker.io",
        "https://index.docker.io/v1/",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize(("body", "host", "known"), ASKED.values(), ids=ASKED)
def test_a_helper_is_asked_by_the_name_that_it_knows(
    helper: Callable[[str], None], docker_config: Path, body: dict[str, object], host: str, known: str
) -> None:
    helper(f"[ \"$asked\" = {known} ] && echo '{KNOWN}' && exit\n{UNKNOWN}")
    docker_config.write_text(json.dumps(body))
    assert credentials.read(host) == Credentials(USER, PASSWORD)


@pytest.mark.slow
@pytest.mark.parametrize(
    "script",
    [
        f"echo 'warning: the vault is old' >&2; echo '{KNOWN}'",
        f"echo 'WARNING: the vault is old'; echo '{KNOWN}'",
        f"echo '{KNOWN}'; echo 'a newer version is there'",
        f"echo; printf '%s\\r\\n' '{KNOWN}'",
    ],
)
def test_a_helper_that_warns_is_heard(helper: Callable[[str], None], docker_config: Path, script: str) -> None:
    helper(script)
    docker_config.write_text('{"credsStore": "mine"}')
    assert credentials.read("r.example.com") == Credentials(USER, PASSWORD)


@pytest.mark.slow
@pytest.mark.parametrize("answer", ["", "{", "[]", '{"Username": "ada"}', '{"Username": 7, "Secret": null}', "no } {"])
def test_a_helper_that_answers_something_else_is_one_line(
    helper: Callable[[str], None], docker_config: Path, answer: str
) -> None:
    helper(f"echo '{answer}'")
    docker_config.write_text('{"credsStore": "mine"}')
    with pytest.raises(RegistryError, match="docker-credential-mine answers, but not with credentials"):
        credentials.read("r.example.com")


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


def test_without_docker_nobody_is_known(docker_config: Path) -> None:
    assert credentials.read("r.example.com") == Credentials()


def test_docker_hub_goes_by_its_old_name(docker_config: Path) -> None:
    login(docker_config, "https://index.docker.io/v1/")
    assert credentials.read("docker.io").username == USER
    assert Registry.parse("docker.io/team").address == "https://registry-1.docker.io"
