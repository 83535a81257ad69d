"""Keyless signatures, offline, by sigstore's own library and the public trust root.

`keyless/cosign-attestation.json` is a public record: an attestation of an OCI image that cosign signed in February 2025 and
logged in Rekor; it lies among cosign's own test data (Apache-2.0).
"""

from __future__ import annotations

import base64
import importlib.resources
import json
import socket
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from common.errors import UsageError
from registry import keyless
from registry.keyless import Identity, NotVerifiedError
from registry.signer import make_pair

BUNDLE = (Path(__file__).parent / "keyless" / "cosign-attestation.json").read_bytes()
WHO = Identity("https://github.com/login/oauth", "cody@soyland.com")
OTHER = Identity("https://accounts.google.com", "cody@soyland.com")
Body = dict[str, Any]


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise AssertionError("a service was asked")

    monkeypatch.setattr(socket.socket, "connect", refused)
    monkeypatch.setattr(socket, "getaddrinfo", refused)


def root(tmp_path: Path, change: Callable[[Body], None]) -> str:
    """The public trust root with a change."""
    brought = importlib.resources.files("sigstore") / "_store" / urllib.parse.quote(keyless._PUBLIC, safe="")
    body = json.loads((brought / "trusted_root.json").read_text())
    change(body)
    file = tmp_path / "root.json"
    file.write_text(json.dumps(body))
    return str(file)


def another_key(instances: list[Body]) -> None:
    der = base64.b64encode(base64.b64decode("".join(make_pair()[1].decode().splitlines()[1:-1]))).decode()
    for instance in instances:
        instance["publicKey"]["rawBytes"] = der


def later(parts: list[Body]) -> None:
    for part in parts:
        part["validFor"] = {"start": "2100-01-01T00:00:00Z"}


def test_a_recorded_public_attestation_holds_for_its_identity(tmp_path: Path) -> None:
    assert keyless.signer(BUNDLE, [OTHER, WHO]) == WHO
    assert keyless.signer(BUNDLE, [WHO], root(tmp_path, lambda _: None)) == WHO


@pytest.mark.parametrize(
    "identity",
    [
        OTHER,
        Identity(WHO.issuer, "cody@soyland.org"),
        Identity(WHO.issuer, ".*"),
        Identity(WHO.issuer, ""),
        Identity("", WHO.subject.upper()),
        Identity(f"{WHO.issuer}/", WHO.subject),
    ],
    ids=["issuer", "subject", "pattern", "empty", "capitals", "slash"],
)
def test_another_identity_is_refused(identity: Identity) -> None:
    with pytest.raises(NotVerifiedError, match="match|issuer"):
        keyless.signer(BUNDLE, [identity])


def test_nobody_is_asked_for_means_nobody_holds() -> None:
    with pytest.raises(NotVerifiedError, match="no identity is asked for"):
        keyless.signer(BUNDLE, [])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda body: another_key(body["tlogs"]), "log entry|key"),
        (lambda body: another_key(body["ctlogs"]), "SCT"),
        (lambda body: later(body["certificateAuthorities"]), "Fulcio certificates not found"),
        (lambda body: later([log["publicKey"] for log in body["tlogs"]]), "."),
        (lambda body: body.update(certificateAuthorities=body["certificateAuthorities"][:1]), "chain"),
    ],
    ids=[
        "another log's key",
        "another certificate log's key",
        "authority not valid yet",
        "log not valid yet",
        "other authority",
    ],
)
def test_another_trust_root_is_refused(tmp_path: Path, change: Callable[[Body], None], message: str) -> None:
    file = root(tmp_path, change)
    with pytest.raises(NotVerifiedError, match=message):
        keyless.signer(BUNDLE, [WHO], file)


def edited(change: Callable[[Body], None]) -> bytes:
    body = json.loads(BUNDLE)
    change(body)
    return json.dumps(body).encode()


def other_payload(body: Body) -> None:
    statement = base64.b64decode(body["dsseEnvelope"]["payload"]).replace(b"foo", b"fOo")
    body["dsseEnvelope"]["payload"] = base64.b64encode(statement).decode()


def other_time(body: Body) -> None:
    body["verificationMaterial"]["tlogEntries"][0]["integratedTime"] = "1740780000"


def other_signature(body: Body) -> None:
    raw = bytearray(base64.b64decode(body["dsseEnvelope"]["signatures"][0]["sig"]))
    raw[-1] ^= 1
    body["dsseEnvelope"]["signatures"][0]["sig"] = base64.b64encode(raw).decode()


@pytest.mark.parametrize(
    "bundle",
    [
        edited(other_payload),
        edited(other_time),
        edited(other_signature),
        edited(lambda body: body["verificationMaterial"].update(tlogEntries=[])),
        edited(lambda body: body["dsseEnvelope"].update(signatures=[])),
        edited(lambda body: body.update(mediaType="application/vnd.dev.sigstore.bundle+json;version=9")),
        b"",
        b"[]",
        b"\xff\xfe",
        b"[" * 100_000,
    ],
    ids=["payload", "time", "signature", "no log entry", "no signature", "version", "empty", "list", "bytes", "deep"],
)
def test_an_edited_bundle_is_one_line(bundle: bytes) -> None:
    with pytest.raises(NotVerifiedError) as caught:
        keyless.signer(bundle, [WHO])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{}", "no json", '{"mediaType": "x", "tlogs": 7}'])
def test_a_trust_root_that_is_none_is_one_line(tmp_path: Path, text: str) -> None:
    file = tmp_path / "root.json"
    file.write_text(text)
    with pytest.raises((UsageError, NotVerifiedError)) as caught:
        keyless.signer(BUNDLE, [WHO], str(file))
    assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match=r"no trust root.*absent\.json"):
        keyless.signer(BUNDLE, [WHO], str(tmp_path / "absent.json"))
