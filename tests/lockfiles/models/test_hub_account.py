"""The user's endpoint and token: used there, and nowhere else."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.errors import MissingEnvironmentError
from lockfiles import models
from lockfiles.models import lockfile as models_lock
from tests.lockfiles.hub_server import HubServer, serving
from tests.lockfiles.models.steps import SECRET, lock


def all_output(capfd: pytest.CaptureFixture[str]) -> str:
    said = capfd.readouterr()
    return said.out + said.err


@pytest.mark.parametrize("way", ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH", "HF_HOME", "XDG_CACHE_HOME"])
def test_the_token_goes_to_the_hub_and_nowhere_else(
    server: HubServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, way: str, capfd: pytest.CaptureFixture[str]
) -> None:
    server.secret = SECRET
    if way.endswith("TOKEN"):
        monkeypatch.setenv(way, f" {SECRET}\n")
    else:
        if way == "XDG_CACHE_HOME":
            monkeypatch.delenv("HF_HOME")
        file = tmp_path / {"HF_TOKEN_PATH": "token", "HF_HOME": "hf/token", "XDG_CACHE_HOME": "huggingface/token"}[way]
        file.parent.mkdir(exist_ok=True)
        file.write_text(SECRET + "\n")
        monkeypatch.setenv(way, str(file if way == "HF_TOKEN_PATH" else file.parent if way == "HF_HOME" else tmp_path))
    monkeypatch.setattr("common.console._VERBOSE", True)
    lock()
    models.fetch()
    sent = {(one.server, one.token) for one in server.asked}
    assert sent == {("hub", f"Bearer {SECRET}"), ("cdn", "")}
    assert SECRET not in models_lock.lock_path().read_text() + all_output(capfd)


def test_a_netrc_entry_for_the_hub_does_not_replace_the_token(
    server: HubServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password other\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("HF_TOKEN", SECRET)
    server.secret = SECRET
    lock()
    assert {one.token for one in server.asked_for("", "hub")} == {f"Bearer {SECRET}"}


def test_credentials_in_the_endpoint_stay_with_it(
    server: HubServer, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", server.endpoint.replace("http://", "http://user:pass@"))
    lock()
    models.fetch()
    assert {one.token for one in server.asked} == {"Basic dXNlcjpwYXNz", ""}
    assert {one.token for one in server.asked_for("", "cdn")} == {""}
    assert "user:pass" not in models_lock.lock_path().read_text() + all_output(capfd)


def test_a_mirror_on_another_host_does_not_get_the_token(locked: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", SECRET)
    with serving("/elsewhere") as mirror:
        # It has nothing: every file is asked for there, and then at the hub.
        monkeypatch.setenv("PINWHEEL_MIRROR", mirror.endpoint.removesuffix("/elsewhere"))
        models.fetch()
    assert {one.token for one in mirror.asked} == {""}
    assert {one.token for one in locked.asked_for("", "hub")} == {f"Bearer {SECRET}"}


def test_a_user_who_wants_no_token_sent_is_heeded(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", SECRET)
    monkeypatch.setenv("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")
    lock()
    assert {one.token for one in server.asked} == {""}


def test_a_token_that_the_hub_refuses_is_named_and_not_shown(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server.secret = "another"
    monkeypatch.setenv("HF_TOKEN", SECRET)
    with pytest.raises(MissingEnvironmentError, match="your hub refuses your token: renew HF_TOKEN") as refused:
        lock()
    assert SECRET not in refused.value.line()


def test_a_malformed_token_is_refused_and_not_shown(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", f"{SECRET}\nX-Other: 1")
    with pytest.raises(MissingEnvironmentError, match="odd characters") as refused:
        lock()
    assert SECRET not in refused.value.line()
    assert refused.value.__context__ is None
    assert server.asked == []


def test_a_token_file_that_cannot_be_read_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path))
    with pytest.raises(MissingEnvironmentError, match="token file cannot be read"):
        lock()
