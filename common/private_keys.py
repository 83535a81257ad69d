"""Private keys in a file, told by what they are, not by a word: PEM (RFC 7468, RFC 1421), OpenSSH, PGP, PuTTY, DER, PKCS#12.

A header counts only when a key follows it, so that prose and programs that speak of keys pass; so do public keys and
certificates.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator

# Lines of a key may stand in a string of a program or of JSON, where their ends are written `\n` and quotes stand between them.
_BETWEEN = rb"""(?:\\[nr]|[\s"'`,;()|>])"""
_HEADER = re.compile(rb"-----BEGIN ((?:[A-Z0-9]+ )*)PRIVATE KEY( BLOCK)?-----")
# "Proc-Type: 4,ENCRYPTED" of RFC 1421, "Version: …" of OpenPGP: at most so many.
_FIELD = re.compile(_BETWEEN + rb"*([A-Za-z][A-Za-z-]+): ?([^\n\\\"']*)")
_FIELDS = 8
# So much of a key tells what it is; the longest line of base64 has 76 characters.
_READ = 2048
_FEWEST = 40
_PUTTY = re.compile(
    rb"^PuTTY-User-Key-File-[0-9]+: \S+.{0,4000}?^Private-Lines: [0-9]+\r?\n[A-Za-z0-9+/=]{20}", re.MULTILINE | re.DOTALL
)
# "-----BEGIN " once more in base64, as in a Secret of Kubernetes.
_ENCODED = re.compile(rb"LS0tLS1CRUdJTiB[A-Za-z0-9+/]+(?:\s+[A-Za-z0-9+/]{20,})*={0,2}")
_DATA = bytes.fromhex("2a864886f70d010701")  # 1.2.840.113549.1.7.1, id-data: what a PKCS#12 begins with (RFC 7292)
# Ways of encrypting a key: 1.2.840.113549.1.5 (PKCS#5, RFC 8018) and 1.2.840.113549.1.12.1 (PKCS#12).
_ENCRYPTED = (bytes.fromhex("2a864886f70d0105"), bytes.fromhex("2a864886f70d010c01"))
_SEQUENCE, _INTEGER, _OCTETS, _OID = 0x30, 0x02, 0x04, 0x06
# First byte of a packet that holds a secret key or subkey (RFC 9580, 4.2 and 5.5.1): tags 5 and 7, in the old and the new form.
_PGP = frozenset({0x94, 0x95, 0x96, 0x97, 0x9C, 0x9D, 0x9E, 0x9F, 0xC5, 0xC7})


def find(data: bytes) -> Iterator[tuple[str, int]]:
    """Each private key: its kind for people, and the offset at which it begins."""
    yield from _pem(data)
    yield from (("a private key (PuTTY)", match.start()) for match in _PUTTY.finditer(data))
    for match in _ENCODED.finditer(data):
        if next(_pem(_decoded(b"".join(match[0].split()))), None):
            yield "a private key (PEM in base64)", match.start()
    if kind := der(data, whole=True):
        yield kind, 0


def _pem(data: bytes) -> Iterator[tuple[str, int]]:
    for match in _HEADER.finditer(data):
        label = (match[1].decode() + "PRIVATE KEY" + (match[2] or b"").decode()).strip()
        if _is_key(data[match.end() : match.end() + _READ], pgp=bool(match[2])):
            yield f"a private key (PEM, {label})", match.start()


def _is_key(text: bytes, *, pgp: bool) -> bool:
    """Whether what follows a header is a key."""
    encrypted = False
    for _ in range(_FIELDS):
        field = _FIELD.match(text)
        if not field:
            break
        encrypted |= field[1] == b"Proc-Type" and b"ENCRYPTED" in field[2]
        text = text[field.end() :]
    body = re.match(rb"[A-Za-z0-9+/=]*", re.sub(_BETWEEN + rb"+", b"", text))
    key = _decoded(body[0].partition(b"=")[0]) if body and len(body[0]) >= _FEWEST else b""
    if pgp:
        return bool(key) and key[0] in _PGP
    # The ciphertext of the old way of encryption has no form.
    return (encrypted and bool(key)) or key.startswith(b"openssh-key-v1\0") or bool(der(key, whole=False))


def der(data: bytes, *, whole: bool) -> str:
    """The kind of private key that a DER structure is; empty where it is none.

    Args:
        data: where it begins.
        whole: whether it must end where the data end; else they may be cut.
    """
    outer = _element(data, 0)
    if outer is None or outer[0] != _SEQUENCE or (whole and outer[2] != len(data)):
        return ""
    first = _element(data, outer[1])
    second = _element(data, first[2]) if first else None
    if first is None or second is None:
        return ""
    if first[0] == _INTEGER and first[2] - first[1] == 1:
        version = data[first[1]] if first[1] < len(data) else -1
        if second[0] == _SEQUENCE and version in (0, 1) and _oid(data, second):
            return "a private key (PKCS#8)"
        if second[0] == _INTEGER and version in (0, 1) and second[2] - second[1] >= 20:
            return "a private key (PKCS#1 or DSA)"
        if second[0] == _OCTETS and version == 1 and second[2] - second[1] >= 20:
            return "a private key (SEC 1)"
        if second[0] == _SEQUENCE and version == 3 and _oid(data, second) == _DATA:
            return "a private key (PKCS#12)"
    if first[0] == _SEQUENCE and second[0] == _OCTETS and _oid(data, first).startswith(_ENCRYPTED):
        return "a private key (encrypted PKCS#8)"
    return ""


def _oid(data: bytes, sequence: tuple[int, int, int]) -> bytes:
    """The object identifier that a sequence begins with; empty where it begins with something else."""
    element = _element(data, sequence[1])
    return data[element[1] : element[2]] if element and element[0] == _OID else b""


def _element(data: bytes, at: int) -> tuple[int, int, int] | None:
    """Tag, begin and end of the content of the DER element at an offset (X.690, 8.1); it may reach beyond the data."""
    if len(data) < at + 2:
        return None
    tag, length, begin = data[at], data[at + 1], at + 2
    if length >= 0x80:
        count = length & 0x7F
        if not 1 <= count <= 4 or len(data) < begin + count:
            return None
        length, begin = int.from_bytes(data[begin : begin + count], "big"), begin + count
    return tag, begin, begin + length


def _decoded(text: bytes) -> bytes:
    """What base64 stands for, as far as it goes in whole groups of four."""
    try:
        return base64.b64decode(text[: len(text) // 4 * 4], validate=True)
    except (binascii.Error, ValueError):
        return b""
