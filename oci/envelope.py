"""Signed content and its check: DSSE envelopes (https://github.com/secure-systems-lab/dsse, 1.0.2), ECDSA over P-256.

Cosign's plain image signature is the same without the encoding that keeps types apart: it signs the bytes as they are.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from dataclasses import dataclass
from typing import Any, NoReturn

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key, load_pem_public_key

from common.errors import UsageError

IN_TOTO = "application/vnd.in-toto+json"
# Cosign's "simple signing" payload: a signature over an image's digest.
SIMPLE = "application/vnd.dev.cosign.simplesigning.v1+json"
PublicKey = ec.EllipticCurvePublicKey
# Far more signatures than anybody makes over one content; each costs a verification.
_MOST_SIGNATURES = 100


@dataclass(frozen=True, slots=True)
class Envelope:
    """Bytes with signatures, not verified yet.

    Attributes:
        payload_type: `IN_TOTO`, or `SIMPLE` for content that is signed without the encoding.
        payload: the signed content.
        signatures: over `signed`, by any keys; DER.
    """

    payload_type: str
    payload: bytes
    signatures: tuple[bytes, ...]

    @property
    def signed(self) -> bytes:
        """Exactly the bytes that the signatures cover."""
        return self.payload if self.payload_type == SIMPLE else pae(self.payload_type, self.payload)

    def holds(self, key: PublicKey) -> bool:
        """Whether one of the signatures is the key's."""
        return any(_is_by(key, signature, self.signed) for signature in self.signatures)

    def json(self) -> bytes:
        """As a DSSE envelope of JSON."""
        signatures = [{"keyid": "", "sig": base64.b64encode(signature).decode()} for signature in self.signatures]
        body = {
            "payload": base64.b64encode(self.payload).decode(),
            "payloadType": self.payload_type,
            "signatures": signatures,
        }
        return json.dumps(body, separators=(",", ":")).encode()


def pae(payload_type: str, payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding: the signed bytes contain their own type and lengths."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def parse(data: bytes) -> Envelope:
    """Read a DSSE envelope of an in-toto statement.

    Raises:
        ValueError: it is none.
    """
    try:
        body = read_json(data)
        if body["payloadType"] != IN_TOTO:
            raise ValueError(f"payload type {body['payloadType']!r}")
        if len(body["signatures"]) > _MOST_SIGNATURES:
            raise ValueError(f"more than {_MOST_SIGNATURES} signatures")
        return Envelope(IN_TOTO, decode(body["payload"]), tuple(decode(signature["sig"]) for signature in body["signatures"]))
    except (KeyError, TypeError, AttributeError, RecursionError) as problem:
        raise ValueError(f"no DSSE envelope: {type(problem).__name__}") from None


def read_json(data: bytes) -> Any:
    """Read JSON that means the same to every reader: UTF-8, no key twice, only numbers that JSON allows.

    Python's own reader also takes UTF-16, NaN, and the last of two values; cosign's then reads something else, or nothing.

    Raises:
        ValueError: it is no such JSON.
        RecursionError: it is nested too deeply.
    """
    return json.loads(data.decode("utf-8"), object_pairs_hook=_unique_keys, parse_constant=_no_number)


def decode(text: str) -> bytes:
    """Strict base64.

    Raises:
        ValueError: it is none.
    """
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, TypeError) as problem:
        raise ValueError(f"not base64: {problem}") from None


def public_key(pem: bytes, where: str) -> PublicKey:
    """Read a public key.

    Args:
        pem: the key, PEM.
        where: the key's place, for the error message.

    Raises:
        UsageError: it is no public key of the kind that cosign makes.
    """
    if b"PRIVATE KEY" in pem:
        raise UsageError("this is a private key", where=where, fix="give the public one, `cosign.pub` beside it")
    try:
        key = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm):
        raise UsageError("not a public key in PEM form", where=where, fix="give the file `cosign.pub` of who pushed") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        fix = "sign with a key as `cosign generate-key-pair` makes it"
        raise UsageError("not an ECDSA key over P-256", where=where, fix=fix)
    return key


def private_key(pem: bytes, where: str) -> ec.EllipticCurvePrivateKey:
    """Read a private key that has no passphrase.

    Args:
        pem: the key, PEM.
        where: the key's place, for the error message.

    Raises:
        UsageError: it is no such key over P-256.
    """
    fix = "make one with `openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256`"
    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise UsageError("not a private key without a passphrase in PEM form", where=where, fix=fix) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise UsageError("not an ECDSA key over P-256", where=where, fix=fix)
    return key


def sign(key: ec.EllipticCurvePrivateKey, data: bytes) -> bytes:
    """A signature over bytes, DER."""
    return key.sign(data, ec.ECDSA(hashes.SHA256()))


def fingerprint(key: PublicKey) -> str:
    """A short name of a key: the start of its digest (SubjectPublicKeyInfo, DER)."""
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()[:16]


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    body = dict(pairs)
    # Go's reader ignores the case of keys, so keys that differ only in case are the same key.
    if len({key.casefold() for key in body}) != len(pairs):
        raise ValueError("a key stands twice in an object")
    return body


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number of JSON")


def _is_by(key: PublicKey, signature: bytes, data: bytes) -> bool:
    try:
        key.verify(signature, data, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True
