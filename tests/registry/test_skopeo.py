"""The second reader's login: what our own client found, for as long as it reads, and nothing where none may be sent."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from oci.client.access import Access
from oci.client.target import Registry
from oci.reference import ImageRef
from registry import skopeo
from tests.oci.double import IDENTITY, PASSWORD, USER

HOST = "r.example.com"
REF = ImageRef(HOST, "team/image", "1")
ENCODED = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()


def said(target: Registry) -> dict[str, Any]:
    with skopeo._login(target, REF) as file:
        assert file.stat().st_mode & 0o777 == 0o600
        body: dict[str, Any] = json.loads(file.read_text())
    assert not file.exists()
    return body


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ({"auth": ENCODED}, {"auth": ENCODED}),
        ({"username": USER, "password": PASSWORD}, {"auth": ENCODED}),
        ({"identitytoken": IDENTITY}, {"auth": base64.b64encode(b"<token>:").decode(), "identitytoken": IDENTITY}),
    ],
)
def test_it_gets_the_login_in_the_one_form_that_it_reads(tmp_path: Path, entry: dict[str, str], told: dict[str, str]) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"auths": {f"https://{HOST}/v2/": entry}}))
    assert said(Registry(HOST, "")) == {"auths": {HOST: told}}


def test_a_helper_that_nobody_needs_stops_no_push(tmp_path: Path) -> None:
    """Docker Desktop's configuration, without its program, and a registry that asks for no login."""
    (tmp_path / "config.json").write_text('{"credsStore": "desktop.exe"}')
    assert said(Registry(HOST, "")) == {"auths": {}}


@pytest.mark.parametrize("known", [True, False], ids=["known", "unknown"])
def test_its_own_file_counts_where_our_client_has_no_login(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    own = {"auths": {HOST: {"auth": base64.b64encode(b"podman:login").decode()}}}
    (tmp_path / "podman.json").write_text(json.dumps(own))
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(tmp_path / "podman.json"))
    ours = {"auths": {HOST: {"auth": ENCODED}}}
    (tmp_path / "config.json").write_text(json.dumps(ours if known else {}))
    assert said(Registry(HOST, "")) == (ours if known else own)
    assert said(Registry(HOST, "", Access(HOST, plain_http=True))) == {"auths": {}}
    assert skopeo._environment(tmp_path / "x")["REGISTRY_AUTH_FILE"] == str(tmp_path / "x")
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(tmp_path / "absent.json"))
    assert said(Registry(HOST, "")) == (ours if known else {"auths": {}})


def test_no_login_goes_where_others_read_along(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"auths": {HOST: {"auth": ENCODED}}}))
    assert said(Registry(HOST, "", Access(HOST, plain_http=True))) == {"auths": {}}
