"""Envelopes: what is signed is exactly what is read, and nothing altered passes."""

from __future__ import annotations

import base64
import json

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import UsageError
from oci import envelope, statement
from oci.envelope import IN_TOTO, Envelope
from tests.registry import signing
from tests.registry.signing import DIGEST, OTHER, OWN

PAYLOAD = statement.make(statement.SMOKE, signing.REPOSITORY, DIGEST, signing.smoke())
GOOD = signing.sealed(IN_TOTO, PAYLOAD, OWN)
DATA = GOOD.json()
QUIET = settings(deadline=None, database=None)


def test_the_encoding_is_that_of_the_specification() -> None:
    # The example of DSSE's protocol.md.
    assert envelope.pae("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )


def test_what_is_written_is_read_and_holds_for_its_key_alone() -> None:
    read = envelope.parse(DATA)
    assert read == GOOD
    assert read.holds(OWN.public_key())
    assert not read.holds(OTHER.public_key())


def test_one_good_signature_among_others_is_enough() -> None:
    others = signing.sealed(IN_TOTO, b"x", OTHER)
    both = Envelope(IN_TOTO, GOOD.payload, (b"", b"\x30\x00", *others.signatures, *GOOD.signatures))
    assert both.holds(OWN.public_key())


@QUIET
@given(st.integers(0, len(GOOD.payload) - 1), st.integers(1, 255))
def test_a_payload_altered_in_any_byte_does_not_hold(place: int, change: int) -> None:
    altered = bytearray(GOOD.payload)
    altered[place] ^= change
    assert not Envelope(IN_TOTO, bytes(altered), GOOD.signatures).holds(OWN.public_key())


@QUIET
@given(st.integers(0, len(GOOD.signatures[0]) - 1), st.integers(1, 255))
def test_a_signature_altered_in_any_byte_does_not_hold(place: int, change: int) -> None:
    altered = bytearray(GOOD.signatures[0])
    altered[place] ^= change
    assert not Envelope(IN_TOTO, GOOD.payload, (bytes(altered),)).holds(OWN.public_key())


@QUIET
@given(st.text(max_size=40).filter(lambda kind: kind != IN_TOTO))
def test_bytes_signed_as_one_type_do_not_hold_as_another(kind: str) -> None:
    assert not Envelope(kind, GOOD.payload, GOOD.signatures).holds(OWN.public_key())


@QUIET
@given(st.integers(0, len(DATA) - 1), st.binary(min_size=1, max_size=3))
def test_an_envelope_altered_anywhere_is_refused_does_not_hold_or_means_the_same(place: int, put: bytes) -> None:
    altered = DATA[:place] + put + DATA[place + len(put) :]
    try:
        read = envelope.parse(altered)
    except ValueError:
        return
    # JSON has room for what means nothing: the key's id, a blank, a field that nobody reads.
    assert (read.payload, read.payload_type) == (GOOD.payload, IN_TOTO) or not read.holds(OWN.public_key())


@QUIET
@given(
    st.binary(max_size=200)
    | st.recursive(
        st.none() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner) | st.dictionaries(st.sampled_from(["payloadType", "payload", "signatures", "sig"]), inner)
        ),
    ).map(lambda body: json.dumps(body).encode())
)
def test_what_is_no_envelope_is_refused_without_a_crash(data: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - json's own words are many
        envelope.parse(data)


@pytest.mark.parametrize(
    "payload",
    [
        PAYLOAD.replace(b'"result":"PASSED"', b'"result":"FAILED","result":"PASSED"'),
        PAYLOAD.replace(b'"result":"PASSED"', b'"Result":"FAILED","result":"PASSED"'),
        PAYLOAD.replace(b'"seconds":312.518', b'"seconds":NaN'),
        PAYLOAD.decode().encode("utf-16"),
        PAYLOAD.decode().encode("utf-32-le"),
        b"\xef\xbb\xbf" + PAYLOAD,
    ],
    ids=["a key twice", "a key in two cases", "no number", "UTF-16", "UTF-32", "byte order mark"],
)
def test_a_statement_that_another_reader_would_read_otherwise_is_none(payload: bytes) -> None:
    assert payload != PAYLOAD
    with pytest.raises(ValueError, match=r"twice|no number|codec|BOM|column 2"):
        statement.parse(signing.sealed(IN_TOTO, payload, OWN))


def test_an_envelope_with_signatures_without_end_is_none() -> None:
    body = json.loads(DATA)
    body["signatures"] *= 101
    with pytest.raises(ValueError, match="more than 100 signatures"):
        envelope.parse(json.dumps(body).encode())


@pytest.mark.parametrize("text", ["a", "!!!!", "YQ", "Y Q==", "YQ==\n", None, 3])
def test_base64_is_read_strictly(text: str) -> None:
    with pytest.raises(ValueError, match="base64|string"):
        envelope.decode(text)


def test_a_statement_signed_as_a_plain_signature_is_none() -> None:
    as_plain = signing.signed(envelope.SIMPLE, GOOD.payload).envelope
    assert as_plain is not None
    with pytest.raises(ValueError, match="no statement"):
        statement.parse(as_plain)


def test_a_plain_signature_in_an_envelope_is_none() -> None:
    payload = statement.make_signature("team/x", DIGEST)
    body = {"payloadType": envelope.SIMPLE, "payload": base64.b64encode(payload).decode(), "signatures": []}
    with pytest.raises(ValueError, match="payload type"):
        envelope.parse(json.dumps(body).encode())


def pem(key: ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey) -> bytes:
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def test_a_public_key_is_read_and_named_by_its_bytes() -> None:
    key = envelope.public_key(pem(OWN.public_key()), "x")
    assert envelope.fingerprint(key) == envelope.fingerprint(OWN.public_key()) != envelope.fingerprint(OTHER.public_key())


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "not a public key"),
        (b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "not a public key"),
        (pem(ec.generate_private_key(ec.SECP384R1()).public_key()), "not an ECDSA key over P-256"),
        (pem(ed25519.Ed25519PrivateKey.generate().public_key()), "not an ECDSA key over P-256"),
        (OWN.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), "this is a private key"),
    ],
    ids=["empty", "broken", "other curve", "other kind", "private"],
)
def test_what_is_no_public_key_for_us_is_refused_without_showing_it(data: bytes, said: str) -> None:
    with pytest.raises(UsageError, match=said) as refused:
        envelope.public_key(data, "some.pub")
    assert "some.pub" in refused.value.line()
    assert "BEGIN" not in refused.value.line()
