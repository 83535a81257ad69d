"""Certificate authorities of your own in an image, as Debian's update-ca-certificates(8) puts them there, and for Python.

`certificates` in shared.toml or image.toml names files of the repository: PEM, one certificate each. In the image they lie in
`/usr/local/share/ca-certificates`, in the bundle `/etc/ssl/certs/ca-certificates.crt`, and beside it by subject
(openssl-rehash(1)). Python's `ssl` reads that already; certifi, which requests and httpx ask, does not: for them two variables
name the bundle.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from common import console, git, paths
from common.errors import BuildError
from common.files import sha256_bytes
from common.reader import Keys
from common.run import run
from images import secret_scan

FOLDER = "etc/ssl/certs"
BUNDLE = f"{FOLDER}/ca-certificates.crt"
_PLACE = "usr/local/share/ca-certificates"
# OpenSSL, and by it httpx and Python itself; requests and what is built on it.
_VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\.(crt|pem)")
_FIX = "name a file of the repository that holds one certificate in PEM; docs/images.md"


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate authority.

    Attributes:
        name: of its file in the image, without the ending.
        pem: the certificate alone, as PEM; comments beside it are left out.
        sha256: of `pem`.
    """

    name: str
    pem: str
    sha256: str


def environment(certificates: Iterable[Certificate]) -> dict[str, str]:
    """What tells Python's libraries of them; nothing where there are none."""
    return dict.fromkeys(_VARIABLES, f"/{BUNDLE}") if any(certificates) else {}


def read(keys: Keys) -> tuple[Certificate, ...]:
    """The certificates that a settings file names, in its order.

    Raises:
        UsageError: a file is missing, holds something else or a secret, git ignores it, or two have one name.
    """
    names = keys.texts("certificates", ())
    found = tuple(_certificate(keys, name) for name in names)
    for name in git.ignored(paths.ROOT / name for name in names):
        raise keys.refused(
            "certificates", f"git ignores {name}: no revision would name what the image holds", "`git add -f` it"
        )
    if len({one.name for one in found}) != len(found) or len({one.sha256 for one in found}) != len(found):
        raise keys.refused("certificates", "two of them have one name, or are the same certificate", "leave one out")
    return found


def _certificate(keys: Keys, name: str) -> Certificate:
    file = paths.ROOT / name
    if not _NAME.fullmatch(file.name) or name.startswith("/") or ".." in name.split("/"):
        raise keys.refused("certificates", f"expected paths below the repository that end in .crt or .pem, got {name!r}", _FIX)
    try:
        data = file.read_bytes()
        if secret := secret_scan.find(file.name, data):
            raise keys.refused(
                "certificates", f"{name}:{secret.line} holds {secret.kind}", "take it out; whoever saw it has it"
            )
        one, *more = x509.load_pem_x509_certificates(data)
    except OSError as problem:
        raise keys.refused("certificates", f"{name} cannot be read: {problem.strerror}", _FIX) from None
    except ValueError:
        # DER, as Windows saves it: a sequence (X.690, 8.9) with a length of two bytes.
        fix = f"`openssl x509 -inform der -in {name} -out FILE` writes PEM" if data.startswith(b"\x30\x82") else _FIX
        raise keys.refused("certificates", f"{name} holds no certificate in PEM", fix) from None
    if more:
        what = f"{name} holds {1 + len(more)} certificates: Debian takes one for each file"
        raise keys.refused("certificates", what, "split it")
    if one.issuer != one.subject and not _may_sign(one):
        what = f"{name} is the certificate of a server, and of no authority: nothing that it signed could be trusted"
        raise keys.refused("certificates", what, f"name its authority's, {one.issuer.rfc4514_string()}")
    pem = one.public_bytes(Encoding.PEM).decode()
    return Certificate(file.name.rpartition(".")[0], pem, sha256_bytes(pem.encode()).removeprefix("sha256:"))


def _may_sign(certificate: x509.Certificate) -> bool:
    """Whether it may sign others (RFC 5280, 4.2.1.9)."""
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, ValueError):
        return False


def tell_expired(certificates: Iterable[Certificate]) -> None:
    """Say which are not valid today; they are not refused: an image of last year must be the same when it is built again."""
    today = datetime.datetime.now(datetime.UTC)
    for one in certificates:
        found = x509.load_pem_x509_certificate(one.pem.encode())
        first, last = found.not_valid_before_utc, found.not_valid_after_utc
        if not first <= today <= last:
            told = f"expired on {last:%Y-%m-%d}" if last < today else f"is not valid before {first:%Y-%m-%d}"
            console.warn(f"the certificate {one.name} {told}: programs in the image will not trust what it signed")


def bundle(base: str, certificates: Iterable[Certificate]) -> str:
    """The bundle of the base with these certificates behind it."""
    return base + "".join(one.pem for one in certificates)


def files(certificates: Iterable[Certificate]) -> Iterator[tuple[str, str]]:
    """Path and content of the files that Debian's administrator would put there."""
    for one in certificates:
        yield f"{_PLACE}/{one.name}.crt", one.pem


def links(certificates: Iterable[Certificate], tree: Path, taken: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Path and target of the links beside the bundle: by name, and by the hash of the subject, by which OpenSSL looks.

    Args:
        certificates: those of the image.
        tree: the base's root file system, whose openssl tells the hash.
        taken: names of links that the base has there.

    Raises:
        BuildError: the base has no openssl.
    """
    names = set(taken)
    for one in certificates:
        yield f"{FOLDER}/{one.name}.pem", f"/{_PLACE}/{one.name}.crt"
        number, subject = 0, _subject_hash(tree, one)
        while f"{subject}.{number}" in names:
            number += 1
        names.add(f"{subject}.{number}")
        yield f"{FOLDER}/{subject}.{number}", f"{one.name}.pem"


def _subject_hash(tree: Path, certificate: Certificate) -> str:
    libraries = ":".join(str(tree / folder) for folder in ("lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"))
    argv: list[str | Path] = [
        tree / "lib64/ld-linux-x86-64.so.2",
        "--library-path",
        libraries,
        tree / "usr/bin/openssl",
        "x509",
        "-noout",
    ]
    what = "asking the base's openssl for the subject of a certificate"
    fix = "base.in must hold ca-certificates and openssl"
    done = run([*argv, "-subject_hash"], stdin=certificate.pem, inherit=False, error=BuildError, what=what, fix=fix)
    return done.stdout.strip()
