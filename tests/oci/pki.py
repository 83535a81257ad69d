"""Certificates as tests want them: an authority, what it issued, for whom and until when."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)


@dataclass(frozen=True)
class Issued:
    """A certificate and its key; an authority's, where `issue` made it without an issuer."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    def key_pem(self, passphrase: str = "") -> bytes:
        how: KeySerializationEncryption = BestAvailableEncryption(passphrase.encode()) if passphrase else NoEncryption()
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, how)

    def write(self, place: Path, name: str, ending: str = "crt") -> Path:
        """As `NAME.crt` and `NAME.key`; returns the first."""
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{name}.key").write_bytes(self.key_pem())
        (place / f"{name}.{ending}").write_bytes(self.pem)
        return place / f"{name}.{ending}"


def issue(by: Issued | None = None, *, name: str = "", start: float = -1, end: float = 30) -> Issued:
    """Make a certificate.

    Args:
        by: its issuer; none: it is an authority's own.
        name: the host, or address, that it is for.
        start: days from now, as `end`.
        end: days from now.
    """
    key, now, number = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC), x509.random_serial_number()
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name or f"authority {number}"[:60])])
    issuer = by.certificate.subject if by else subject
    made = x509.CertificateBuilder(issuer, subject, key.public_key(), number, now + timedelta(start), now + timedelta(end))
    if name:
        try:
            alternative: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(name))
        except ValueError:
            alternative = x509.DNSName(name)
        made = made.add_extension(x509.SubjectAlternativeName([alternative]), critical=False)
    else:
        made = made.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    return Issued(made.sign(by.key if by else key, hashes.SHA256()), key)
