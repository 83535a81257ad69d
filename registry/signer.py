"""Signing with cosign: keys in files, in a KMS or in a variable, as cosign names them.

Cosign only signs bytes (`sign-blob`); this package makes them and attaches them. So every kind of key works that cosign
knows, and no registry, proxy or login is configured twice. Without a key (Fulcio, Rekor) cosign attaches by itself.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from common import console, paths
from common.engine_address import INSTALL
from common.errors import MissingEnvironmentError, UsageError
from common.files import write_whole
from common.run import Result, run
from oci import envelope
from oci.envelope import PublicKey

VARIABLE = "PINWHEEL_KEY"
MISSING = "run `./invokew engine --install`, which takes it from Debian"
# Seconds for cosign; a KMS answers in a few.
_LIMIT = 120.0


def folder() -> Path:
    """The folder of the key pair that is made on first use; git ignores it."""
    return paths.ROOT / ".keys"


@dataclass(frozen=True, slots=True)
class Signer:
    """A key to sign with.

    Attributes:
        key: as cosign names it: a file, a KMS URI, `env://NAME`.
        public: its public half.
    """

    key: str
    public: PublicKey

    def sign(self, data: bytes) -> bytes:
        """A signature over bytes, DER.

        Raises:
            MissingEnvironmentError: cosign is missing, or cannot use the key.
        """
        with tempfile.TemporaryDirectory(prefix="pinwheel-") as scratch:
            file, signature = Path(scratch) / "data", Path(scratch) / "signature"
            file.write_bytes(data)
            argv = ["sign-blob", "--yes", "--key", self.key, *_offline("sign-blob"), "--output-signature", str(signature)]
            _cosign([*argv, str(file)], what="signing with cosign")
            try:
                return envelope.decode(signature.read_text().strip())
            except (OSError, ValueError):
                fix = f"Pinwheel knows cosign 2.5 to 3.1: {MISSING}"
                raise MissingEnvironmentError("cosign left no signature", where=self.key, fix=fix) from None


def signer(key: str = "") -> Signer:
    """The key to sign with.

    Args:
        key: as cosign names it; empty: that of PINWHEEL_KEY, else the checkout's own, made now if there is none.

    Raises:
        UsageError: there is no such file.
        MissingEnvironmentError: cosign is missing, or cannot use the key.
    """
    name = key or os.environ.get(VARIABLE, "")
    if "PRIVATE KEY" in name:
        fix = f"name its file, a KMS URI, or env://NAME of a variable that holds it; now {VARIABLE} holds the key"
        raise UsageError("a key itself was given where its name belongs", where=VARIABLE, fix=fix)
    if name and "://" not in name and not Path(name).is_file():
        raise UsageError("there is no such key", where=name, fix="name a file that cosign made, or a KMS URI")
    name = name or str(_own())
    return Signer(name, envelope.public_key(_public(name), name))


def public_key(key: str = "") -> PublicKey:
    """The public key to verify with.

    Args:
        key: its file, or a URI that cosign knows; empty: that of the checkout's own pair.

    Raises:
        UsageError: there is none, or it is no public key.
        MissingEnvironmentError: cosign is needed and missing, or cannot use the URI.
    """
    if "://" in key:
        return envelope.public_key(_public(key), key)
    file = Path(key) if key else checked_folder() / "cosign.pub"
    try:
        pem = file.read_bytes()
    except OSError as problem:
        fix = "name the public key of who pushed: --key FILE"
        raise UsageError(f"no public key can be read: {problem.strerror}", where=paths.shown(file), fix=fix) from None
    return envelope.public_key(pem, paths.shown(file))


def attest_keyless(image: str, kind: str, predicate: Path) -> None:
    """Let cosign sign and attach a statement by itself, with the identity of its OIDC login and the log Rekor.

    Args:
        image: reference by digest.
        kind: the predicate's type.
        predicate: the file that holds it.

    Raises:
        MissingEnvironmentError: cosign is missing or fails.
    """
    argv = ["attest", "--yes", "--type", kind, "--predicate", str(predicate), image]
    _cosign(argv, what=f"attesting {kind} with cosign")


def sign_keyless(image: str) -> None:
    """Let cosign sign an image by itself; as `attest_keyless`."""
    _cosign(["sign", "--yes", image], what="signing with cosign")


def check_keyless(image: str, kinds: Sequence[str]) -> None:
    """Let cosign read back what it attached, by any identity; a verifier decides which identity counts.

    Raises:
        MissingEnvironmentError: cosign fails: something is not there, or does not hold.
    """
    anybody = ["--certificate-identity-regexp", ".+", "--certificate-oidc-issuer-regexp", ".+"]
    _cosign(["verify", *anybody, image], what="reading the signature back with cosign")
    for kind in kinds:
        _cosign(["verify-attestation", *anybody, "--type", kind, image], what=f"reading {kind} back with cosign")


def checked_folder() -> Path:
    """The folder of the checkout's own keys, whether it is there or not.

    A link, or a link in it, may lead to a folder that git does not ignore, that others may read, or to somebody else's key.

    Raises:
        UsageError: it or a key in it is a link, or something else that is not made here.
    """
    home = folder()
    fix = "put what it leads to in its place, or name your key: --key FILE"
    if home.is_symlink() or (home.exists() and not home.is_dir()):
        raise UsageError("the place of the checkout's own keys is no folder", where=paths.shown(home), fix=fix)
    for file in sorted([*home.glob("*.key"), *home.glob("*.pub")]):
        if file.is_symlink() or not file.is_file():
            raise UsageError("a key of the checkout's own is no file", where=paths.shown(file), fix=fix)
    return home


@contextlib.contextmanager
def own_folder() -> Iterator[Path]:
    """The folder of the checkout's own keys, made if it is missing and held: two that begin together use the same pair.

    Raises:
        UsageError: something else lies in its place.
    """
    home = checked_folder()
    home.mkdir(mode=0o700, exist_ok=True)
    home.chmod(0o700)
    with (home / ".lock").open("w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        yield home


def make_pair() -> tuple[bytes, bytes]:
    """A new key pair (ECDSA over P-256): the private half without a passphrase, and the public one; PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return private, key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def keep_pair(home: Path, name: str, private: bytes, public: bytes) -> None:
    """Write a key pair: `NAME.pub`, and last the private half, `NAME.key`. If that is there, the pair is complete.

    Args:
        home: the folder, held.
        name: of the pair.
        private: PEM.
        public: PEM.
    """
    write_whole(home / f"{name}.pub", public)
    write_whole(home / f"{name}.key", private, mode=0o600)


def _own() -> Path:
    """The checkout's own key pair."""
    with own_folder() as home:
        key = home / "cosign.key"
        if not key.exists():
            with tempfile.TemporaryDirectory(dir=home, prefix=".new-") as scratch:
                made = Path(scratch) / "cosign"
                _cosign(["generate-key-pair", "--output-key-prefix", str(made)], what="making a key pair")
                keep_pair(home, "cosign", made.with_suffix(".key").read_bytes(), made.with_suffix(".pub").read_bytes())
            console.info(f"made a key pair to sign with: {paths.shown(home)}; who verifies needs cosign.pub of it")
        # A key that was copied here may have any mode.
        key.chmod(0o600)
    return key


def _public(key: str) -> bytes:
    return _cosign(["public-key", "--key", key], what="reading the public key with cosign").stdout.encode()


def _offline(command: str) -> list[str]:
    """The options that make cosign sign without a log and without asking any service."""
    options = _cosign([command, "--help"], what="asking cosign for its options").stdout
    # Cosign 3 asks a service and writes bundles by default; cosign 2 has no such options.
    newer = ["--use-signing-config=false", "--new-bundle-format=false"] if "--use-signing-config" in options else []
    return ["--tlog-upload=false", *newer]


def _cosign(argv: Sequence[str], *, what: str) -> Result:
    # Without a variable cosign asks at the terminal.
    password = os.environ.get("COSIGN_PASSWORD", "")
    return run(
        ["cosign", *argv],
        error=MissingEnvironmentError,
        what=what,
        fix=f"cosign's message says why; a key with a password needs COSIGN_PASSWORD (cosign missing: {INSTALL})",
        env={"COSIGN_PASSWORD": password},
        passes=[part.removeprefix("env://") for part in argv if part.startswith("env://")],
        timeout=_LIMIT,
        missing=MISSING,
    )
