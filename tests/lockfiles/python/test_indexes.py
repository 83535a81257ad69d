"""A private index beside the public one: who is asked for what, with whose login, and which namesake never wins."""

from __future__ import annotations

import json
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from common import offline, paths
from common.errors import LockError, MissingEnvironmentError, UsageError
from lockfiles import check, fetching, inputs, lock, lockfile, store
from lockfiles.python import index as index_
from lockfiles.python import settings
from tests.lockfiles.conftest import OLD, versions
from tests.lockfiles.small_index import Index, serving

pytestmark = pytest.mark.slow

LOGIN = "alice:s3cret/pass"


@pytest.fixture
def private(index: Index, monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    """The user's further index, called acme, with a login; it has `acme` 1.0 and a private namesake of `two`."""
    with serving() as server:
        server.login = LOGIN
        server.add("acme", "1.0", "two", uploaded=OLD)
        server.add("two", "0.5", extras=["private"], uploaded=OLD)
        monkeypatch.setenv("UV_INDEX", f"acme={server.address}")
        monkeypatch.setenv("UV_INDEX_ACME_USERNAME", "alice")
        monkeypatch.setenv("UV_INDEX_ACME_PASSWORD", "s3cret/pass")
        yield server


def ask(locks: Path, *requires: str, more: str = "") -> None:
    (locks / "small.in").write_text(f"requires = {json.dumps(requires)}\n{more}")


def said(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join("".join(capsys.readouterr()).split())


def asked(server: Index, project: str) -> bool:
    return any(path == f"simple/{project}/" for path, _ in server.asked)


TAKEN = '[sources]\nacme = { index = "acme" }\n'


def test_a_package_comes_from_the_index_that_its_input_names(index: Index, private: Index, locks: Path) -> None:
    # Whoever publishes the name on the public index, with a version as high as they like, is not even asked.
    index.add("acme", "99.0", uploaded=OLD)
    del private.files["files/two-0.5-py3-none-any.whl"]
    ask(locks, "acme", more=TAKEN)
    lock.write_all()
    assert versions() == {"acme": "1.0", "two": "1.0"}
    assert not asked(index, "acme")
    assert check.check()
    text = (locks / "small.lock").read_text() + (locks / "small.in").read_text()
    assert "127.0.0.1" not in text
    assert "s3cret" not in text


def test_a_package_that_its_index_lacks_is_not_taken_from_the_public_one(index: Index, private: Index, locks: Path) -> None:
    index.add("ghost", "1.0", uploaded=OLD)
    ask(locks, "ghost", more='[sources]\nghost = { index = "acme" }\n')
    with pytest.raises(LockError, match="ghost was not found"):
        lock.write_all()
    assert not asked(index, "ghost")


def test_a_public_namesake_of_a_private_package_is_refused(index: Index, private: Index, locks: Path) -> None:
    index.add("acme", "99.0", uploaded=OLD)
    ask(locks, "acme")
    with pytest.raises(LockError, match=r"acme is on two of your indexes.*acme \(UV_INDEX\).*\[sources\] acme = ") as refused:
        lock.write_all()
    assert 'acme = { index = "acme" } or { index = "default" }' in refused.value.line()
    assert not (locks / "small.lock").exists()


def test_a_private_namesake_of_a_public_package_does_not_slip_in_either(index: Index, private: Index, locks: Path) -> None:
    # `two` is asked for by acme alone: nobody wrote its name.
    ask(locks, "acme", more=TAKEN)
    with pytest.raises(LockError, match="two is on two of your indexes"):
        lock.write_all()
    for home, version in (("acme", "0.5"), ("default", "1.0")):
        ask(locks, "acme", "two", more=f'{TAKEN}two = {{ index = "{home}" }}\n')
        lock.write_all()
        assert versions() == {"acme": "1.0", "two": version}


def test_an_override_of_such_a_package_looks_on_its_own_index(index: Index, private: Index, locks: Path) -> None:
    index.add("acme", "1.5", uploaded=OLD)
    index.add("user", "1.0", "acme>=7", uploaded=OLD)
    private.add("acme", "1.5", "three", uploaded=OLD)
    private.add("acme", "2.0", uploaded=OLD)
    ask(locks, "acme", "user", more=f'overrides = ["acme<2"]\n{TAKEN}')
    lock.write_all()
    assert versions() == {"acme": "1.5", "three": "1.0", "user": "1.0"}
    assert not asked(index, "acme")
    check.check()


def test_an_index_that_mirrors_another_has_no_namesakes(index: Index, private: Index, locks: Path) -> None:
    private.files["files/two-1.0-py3-none-any.whl"] = index.files["files/two-1.0-py3-none-any.whl"]
    ask(locks, "acme", more=TAKEN)
    lock.write_all()
    assert versions() == {"acme": "1.0", "two": "1.0"}


@pytest.mark.parametrize("variable", ["PIP_EXTRA_INDEX_URL", "UV_EXTRA_INDEX_URL", "UV_INDEX", "pip.conf", "uv.toml"])
def test_a_further_index_is_never_passed_over_in_silence(
    index: Index,
    private: Index,
    locks: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    variable: str,
) -> None:
    private.login = ""
    monkeypatch.delenv("UV_INDEX")
    if variable == "pip.conf":
        (tmp_path / "pip.conf").write_text(f"[global]\nextra-index-url = {private.address}\n")
        monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    elif variable == "uv.toml":
        (paths.ROOT / "uv.toml").write_text(f'extra-index-url = ["{private.address}"]\n')
    else:
        monkeypatch.setenv(variable, private.address)
    with pytest.raises(LockError, match="two is on two of your indexes.*one without a name"):
        lock.write_all()
    del private.files["files/two-0.5-py3-none-any.whl"]
    lock.write_all()
    told = {"pip.conf": "your pip configuration"}.get(variable, variable)
    assert f"of your further indexes no package is taken: one without a name ({told}); what comes from one" in said(capsys)


def test_find_links_are_never_passed_over_in_silence(
    index: Index, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("UV_FIND_LINKS", "/somewhere")
    lock.write_all()
    assert "find-links is not looked at (UV_FIND_LINKS)" in said(capsys)


def test_an_index_by_a_name_that_the_settings_lack_is_said_with_what_to_set(
    index: Index, locks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("UV_INDEX", raising=False)
    ask(locks, "acme", more='[sources]\nacme = { index = "team-x" }\n')
    with pytest.raises(
        MissingEnvironmentError, match='no index team-x: set UV_INDEX="team-x=ADDRESS".*UV_INDEX_TEAM_X_USERNAME'
    ):
        lock.write_all()


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ('[sources]\nother = { index = "acme" }\n', "sources.other: nothing in requires asks for it"),
        ('[sources]\none = { index = "https://x.example.com" }\n', "sources.one: not the name of an index"),
        ('[sources]\none = { url = "acme" }\n', "sources.one: it is neither an index nor a path"),
        ('[sources]\none = { index = "a", path = "b" }\n', "sources.one: it is neither an index nor a path"),
        ('[sources]\none = { path = "~/one" }\n', "sources.one: not a path"),
    ],
)
def test_a_source_that_makes_no_sense_is_refused(locks: Path, more: str, expected: str) -> None:
    ask(locks, "one", more=more)
    with pytest.raises(UsageError, match=expected):
        inputs.read_set("small")


def test_neither_check_nor_a_fetch_from_the_store_needs_the_index_or_its_login(
    index: Index, private: Index, locks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del private.files["files/two-0.5-py3-none-any.whl"]
    ask(locks, "acme", more=TAKEN)
    lock.write_all()
    monkeypatch.setattr("lockfiles.debian.resolver.fetch", lambda _: None)
    fetching.fetch(["small"])
    assert all(store.has(wheel.artifact) for wheel in lockfile.read_set("small").wheels)
    for name in ("UV_INDEX", "UV_INDEX_ACME_USERNAME", "UV_INDEX_ACME_PASSWORD"):
        monkeypatch.delenv(name)
    for server in (index, private):
        server.asked.clear()
    check.check()
    fetching.fetch(["small"])
    with offline.forced(wanted=True):
        fetching.fetch(["small"])
    assert index.asked + private.asked == []


def test_a_login_goes_to_its_own_index_alone_and_into_no_argument_or_message(
    index: Index, private: Index, locks: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started: list[str] = []
    run = subprocess.run

    def watched(argv: list[str], **more: object) -> object:
        started.append(" ".join(argv))
        return run(argv, **more)  # type: ignore[call-overload]

    monkeypatch.setattr(subprocess, "run", watched)
    monkeypatch.setenv("PINWHEEL_VERBOSE", "1")
    # The login may stand in the address as well.
    monkeypatch.delenv("UV_INDEX_ACME_USERNAME")
    monkeypatch.delenv("UV_INDEX_ACME_PASSWORD")
    monkeypatch.setenv("UV_INDEX", f"acme={private.address.replace('//', '//alice:s3cret%2Fpass@')}")
    del private.files["files/two-0.5-py3-none-any.whl"]
    ask(locks, "acme", more=TAKEN)
    lock.write_all()
    private.login = "bob:other"
    ask(locks, "acme==1.0", more=TAKEN)
    with pytest.raises(MissingEnvironmentError) as refused:
        lock.write_all("acme")
    everything = "\n".join([*started, said(capsys), refused.value.line(), repr(settings.further())])
    assert "s3cret" not in everything
    assert started


@pytest.mark.parametrize(("status", "expected"), [(401, "asks for a login"), (403, "your login may not read it")])
def test_a_refusal_by_the_index_is_said_as_such(index: Index, private: Index, locks: Path, status: int, expected: str) -> None:
    private.wrong["simple/acme/"] = [status] * 20
    ask(locks, "acme", more=TAKEN)
    with pytest.raises(
        MissingEnvironmentError, match=rf"your index acme refuses acme: .*{expected} \(HTTP {status}\)"
    ) as refused:
        lock.write_all()
    assert "set UV_INDEX_ACME_USERNAME and UV_INDEX_ACME_PASSWORD, or put a login for its host into netrc" in refused.value.fix


@pytest.mark.parametrize(
    ("body", "kind", "expected"),
    [
        (b"hello", "text/plain", "is no page of a package index: UnsupportedContentTypeError .*/simple"),
        (b'{"x":', "application/vnd.pypi.simple.v1+json", "is no page of a package index: JSONDecodeError .*/simple"),
        (
            b'{"meta":{"api-version":"2.0"},"name":"acme","files":[]}',
            "application/vnd.pypi.simple.v1+json",
            "is no page of a package index: UnsupportedRepoVersionError",
        ),
        (b"<html><title>Sign in</title><form></form>", "text/html", "a page of acme that lists no file: .* want a login"),
    ],
)
def test_an_answer_that_is_no_list_of_files_is_said_as_such(
    body: bytes, kind: str, expected: str, index: Index, private: Index, locks: Path
) -> None:
    private.instead["simple/acme/"] = (body, kind)
    ask(locks, "acme", more=TAKEN)
    with pytest.raises((LockError, MissingEnvironmentError), match=expected):
        lock.write_all()
    assert not (locks / "small.lock").exists()


def test_of_two_logins_on_one_server_the_nearer_one_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    places = [f"{name}=https://{name}:pw@proxy.example.com/{name}/simple" for name in ("one", "two")]
    monkeypatch.setenv("UV_INDEX", " ".join(places))
    monkeypatch.setenv("UV_DEFAULT_INDEX", "https://proxy.example.com/all/simple")
    with index_.session() as http:
        for name in ("one", "two"):
            request = requests.Request("GET", f"https://proxy.example.com/{name}/files/x.whl")
            sent = http.prepare_request(request).headers["Authorization"]
            assert sent == requests.auth._basic_auth_str(name, "pw")
        other = http.prepare_request(requests.Request("GET", "https://cdn.example.com/one/files/x.whl"))
        assert "Authorization" not in other.headers


def test_the_default_index_and_its_name_come_from_uv_toml_too(monkeypatch: pytest.MonkeyPatch, locks: Path) -> None:
    for name in ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_INDEX"):
        monkeypatch.delenv(name, raising=False)
    (paths.ROOT / "uv.toml").write_text(
        '[[index]]\nname = "acme"\nurl = "https://acme.example.com/simple"\nexplicit = true\n'
        '[[index]]\nname = "main"\nurl = "https://proxy.example.com/simple"\ndefault = true\n'
    )
    assert (settings.default().name, settings.default().url) == ("main", "https://proxy.example.com/simple")
    assert [one.name for one in settings.further()] == ["acme"]
    assert settings.named("acme").url == "https://acme.example.com/simple"
    assert settings.named("default") == settings.named("main") == settings.default()
    (paths.ROOT / "uv.toml").write_text("index = 1\n")
    with pytest.raises(MissingEnvironmentError, match="odd `index`"):
        settings.default()


def test_an_index_that_tells_no_upload_times_keeps_no_cooldown_and_says_so(
    index: Index, private: Index, locks: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    private._uploaded.clear()
    del private.files["files/two-0.5-py3-none-any.whl"]
    ask(locks, "acme", "one", more=TAKEN)
    lock.write_all()
    assert versions()["acme"] == "1.0"
    assert "the cooldown of 7 days cannot be kept for acme" in said(capsys)


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE", ""])
def test_an_index_with_an_authority_of_its_own(
    index: Index, locks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "ca.pem"
    subject = [
        "-subj",
        "/CN=localhost",
        "-addext",
        "subjectAltName=IP:127.0.0.1",
        "-addext",
        "basicConstraints=critical,CA:FALSE",
    ]
    argv = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    subprocess.run([*argv, "-keyout", str(key), "-out", str(certificate), *subject], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    for name in ("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    with serving(context) as server:
        server.files, server._uploaded = index.files, index._uploaded
        monkeypatch.setenv("UV_DEFAULT_INDEX", server.address)
        if variable:
            monkeypatch.setenv(variable, str(certificate))
            lock.write_all()
            assert versions() == {"one": "1.0", "two": "1.0"}
            monkeypatch.setenv(variable, str(tmp_path / "gone.pem"))
            with pytest.raises(MissingEnvironmentError, match=f"{variable} names no file of certificates"):
                lock.write_all("one")
        else:
            with pytest.raises(
                MissingEnvironmentError, match="a certificate that is not trusted here.*set SSL_CERT_FILE or PIP_CERT"
            ):
                lock.write_all()
