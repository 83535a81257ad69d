"""Keys of one's own, and a cosign that is not the one we know: what a user is told."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from common.errors import MissingEnvironmentError, UsageError
from registry import signer
from registry.signer import Signer
from tests.registry.signing import OWN


@pytest.mark.parametrize("kind", ["link", "file"])
def test_keys_are_made_in_a_folder_of_the_checkout_and_nowhere_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.delenv("PINWHEEL_KEY", raising=False)
    elsewhere, place = tmp_path / "elsewhere", tmp_path / ".keys"
    elsewhere.mkdir(mode=0o755)
    if kind == "link":
        place.symlink_to(elsewhere)
    else:
        place.write_text("")
    monkeypatch.setattr(signer, "folder", lambda: place)
    with pytest.raises(UsageError, match=r"keys is no folder.*\.keys.*--key FILE"):
        signer.signer()
    assert (list(elsewhere.iterdir()), elsewhere.stat().st_mode & 0o777) == ([], 0o755)


@pytest.mark.parametrize("what", ["the folder", "the public key", "the private key", "a pipe"])
def test_a_linked_pair_is_refused_by_verify_as_by_push(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """Whoever can put a link there decides whose signatures count."""
    monkeypatch.delenv("PINWHEEL_KEY", raising=False)
    theirs, place = tmp_path / "theirs", tmp_path / ".keys"
    theirs.mkdir()
    pem = OWN.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (theirs / "cosign.pub").write_bytes(pem)
    (theirs / "cosign.key").write_bytes(b"x")
    if what == "the folder":
        place.symlink_to(theirs)
    else:
        place.mkdir()
        (place / "cosign.pub").write_bytes(pem)
        name = "cosign.key" if what == "the private key" else "cosign.pub"
        (place / name).unlink(missing_ok=True)
        (place / name).symlink_to(theirs / name) if what != "a pipe" else os.mkfifo(place / name)
    monkeypatch.setattr(signer, "folder", lambda: place)
    for use in (signer.public_key, signer.signer):
        with pytest.raises(UsageError, match=r"is no f(older|ile) .*--key FILE"):
            use()


def cosign(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    (folder / "cosign").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "cosign").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def test_a_key_that_was_copied_here_for_all_to_read_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signer, "folder", lambda: tmp_path)
    (tmp_path / "cosign.key").write_text("")
    (tmp_path / "cosign.key").chmod(0o644)
    assert signer._own() == tmp_path / "cosign.key"
    assert (tmp_path / "cosign.key").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "leaves", ["true", '[ "$2" = --help ] || echo "{}" > "$(dirname "$8")/signature"'], ids=["none", "JSON"]
)
def test_a_cosign_that_leaves_another_thing_than_a_signature_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, leaves: str
) -> None:
    cosign(tmp_path, monkeypatch, leaves)
    with pytest.raises(MissingEnvironmentError, match="cosign left no signature"):
        Signer("any.key", OWN.public_key()).sign(b"x")


def test_a_cosign_too_old_for_an_option_says_so_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cosign(tmp_path, monkeypatch, '[ "$2" = --help ] || { echo "Error: unknown flag: --tlog-upload" >&2; exit 1; }')
    with pytest.raises(MissingEnvironmentError, match="signing with cosign failed.*unknown flag: --tlog-upload"):
        Signer("any.key", OWN.public_key()).sign(b"x")
