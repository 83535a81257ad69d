"""A sigstore of a test's own: an authority, a certificate log and a transparency log, and what they say of a signature.

Made as Fulcio and Rekor make it (RFC 6962, 3; rekor's `dsse` 0.0.1), so that sigstore's own library verifies it by `root`.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import json
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, ObjectIdentifier

from oci.bundle import TYPE
from oci.envelope import IN_TOTO, Envelope
from registry.keyless import Identity

_SCTS, _ISSUER = ObjectIdentifier("1.3.6.1.4.1.11129.2.4.2"), ObjectIdentifier("1.3.6.1.4.1.57264.1.1")
_MINUTES = datetime.timedelta(minutes=1)
_CHECKED = ec.ECDSA(hashes.SHA256())


def _key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def _der(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


@dataclass
class OwnSigstore:
    """One such service; `now` is the time that it believes it is."""

    now: datetime.datetime = field(default_factory=lambda: datetime.datetime.now(datetime.UTC).replace(microsecond=0))
    authority: ec.EllipticCurvePrivateKey = field(default_factory=_key)
    certificates: ec.EllipticCurvePrivateKey = field(default_factory=_key)
    log: ec.EllipticCurvePrivateKey = field(default_factory=_key)

    def __post_init__(self) -> None:
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "an authority of a test")])
        made = x509.CertificateBuilder(
            self._name, self._name, self.authority.public_key(), 1, self.now - 99 * _MINUTES, self.now + 99 * _MINUTES
        )
        made = made.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        made = made.add_extension(_usage(signs=False), critical=True)
        identifier = x509.SubjectKeyIdentifier.from_public_key(self.authority.public_key())
        self._root = made.add_extension(identifier, critical=False).sign(self.authority, hashes.SHA256())

    def root(self, file: Path) -> str:
        """Write the trust root; returns the file's name."""
        start = {"validFor": {"start": (self.now - 99 * _MINUTES).isoformat()}}

        def listed(key: ec.EllipticCurvePrivateKey) -> dict[str, Any]:
            public = {"rawBytes": _text(_der(key)), "keyDetails": "PKIX_ECDSA_P256_SHA_256", **start}
            number = {"keyId": _text(hashlib.sha256(_der(key)).digest())}
            return {"baseUrl": "https://log.example.test", "hashAlgorithm": "SHA2_256", "publicKey": public, "logId": number}

        chain = {"certificates": [{"rawBytes": _text(self._root.public_bytes(Encoding.DER))}]}
        body = {
            "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
            "tlogs": [listed(self.log)],
            "ctlogs": [listed(self.certificates)],
            "certificateAuthorities": [
                {"subject": {"organization": "x", "commonName": "x"}, "uri": "https://x.test", "certChain": chain, **start}
            ],
        }
        file.write_text(json.dumps(body))
        return str(file)

    def bundle(self, payload: bytes, who: Identity) -> bytes:
        """Sign a statement as somebody; the key is thrown away."""
        key = _key()
        certificate = self._certificate(key, who)
        signature = key.sign(Envelope(IN_TOTO, payload, ()).signed, _CHECKED)
        envelope = json.loads(Envelope(IN_TOTO, payload, (signature,)).json())
        material = {"certificate": {"rawBytes": _text(certificate.public_bytes(Encoding.DER))}}
        entry = self._logged(payload, signature, certificate)
        body = {"mediaType": TYPE, "verificationMaterial": {**material, "tlogEntries": [entry]}, "dsseEnvelope": envelope}
        return json.dumps(body).encode()

    def _certificate(self, key: ec.EllipticCurvePrivateKey, who: Identity) -> x509.Certificate:
        made = x509.CertificateBuilder(
            self._name,
            x509.Name([]),
            key.public_key(),
            x509.random_serial_number(),
            self.now - _MINUTES,
            self.now + 9 * _MINUTES,
        )
        subject = x509.RFC822Name(who.subject) if "://" not in who.subject else x509.UniformResourceIdentifier(who.subject)
        for extension, critical in (
            (_usage(signs=True), True),
            (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), False),
            (x509.AuthorityKeyIdentifier.from_issuer_public_key(self.authority.public_key()), False),
            (x509.SubjectAlternativeName([subject]), True),
            (x509.UnrecognizedExtension(_ISSUER, who.issuer.encode()), False),
        ):
            made = made.add_extension(extension, critical)
        # The log of certificates signs what the authority is about to issue.
        before = made.sign(self.authority, hashes.SHA256()).tbs_certificate_bytes
        at = int(self.now.timestamp() * 1000)
        entry = hashlib.sha256(_der(self.authority)).digest() + len(before).to_bytes(3) + before
        signed = self.certificates.sign(struct.pack("!BBQH", 0, 0, at, 1) + entry + b"\0\0", _CHECKED)
        number = hashlib.sha256(_der(self.certificates)).digest()
        stamp = struct.pack("!B32sQHBBH", 0, number, at, 0, 4, 3, len(signed)) + signed
        stamps = struct.pack("!HH", len(stamp) + 2, len(stamp)) + stamp
        # OCTET STRING.
        made = made.add_extension(x509.UnrecognizedExtension(_SCTS, bytes([4, len(stamps)]) + stamps), critical=False)
        return made.sign(self.authority, hashes.SHA256())

    def _logged(self, payload: bytes, signature: bytes, certificate: x509.Certificate) -> dict[str, Any]:
        def digest(data: bytes) -> dict[str, str]:
            return {"algorithm": "sha256", "value": hashlib.sha256(data).hexdigest()}

        signatures = [{"signature": _text(signature), "verifier": _text(certificate.public_bytes(Encoding.PEM))}]
        spec = {"envelopeHash": digest(b""), "payloadHash": digest(payload), "signatures": signatures}
        body = json.dumps({"apiVersion": "0.0.1", "kind": "dsse", "spec": spec}).encode()
        number, at = hashlib.sha256(_der(self.log)).digest(), int(self.now.timestamp())
        # The only leaf of its tree.
        root = hashlib.sha256(b"\0" + body).digest()
        promised = {"body": _text(body), "integratedTime": at, "logID": number.hex(), "logIndex": 0}
        promise = self.log.sign(json.dumps(promised, separators=(",", ":")).encode(), _CHECKED)
        note = f"log.example.test\n1\n{_text(root)}\n"
        note += f"\n— log.example.test {_text(number[:4] + self.log.sign(note.encode(), _CHECKED))}\n"
        proof = {"logIndex": "0", "treeSize": "1", "rootHash": _text(root), "hashes": [], "checkpoint": {"envelope": note}}
        return {
            "logIndex": "0",
            "logId": {"keyId": _text(number)},
            "kindVersion": {"kind": "dsse", "version": "0.0.1"},
            "integratedTime": str(at),
            "inclusionPromise": {"signedEntryTimestamp": _text(promise)},
            "inclusionProof": proof,
            "canonicalizedBody": _text(body),
        }


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=not signs,
        crl_sign=not signs,
        encipher_only=False,
        decipher_only=False,
    )
