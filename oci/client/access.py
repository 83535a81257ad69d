"""How one registry is reached where the system's settings do not do: with a certificate authority of its own, or by plain HTTP.

What an environment's file says is handed to `Registry`. Everybody else, programs in pods among them, has it from the folder
that PINWHEEL_REGISTRY names: `host` (host[:port]) says which registry is meant, `ca.crt` is its authority in PEM, `plain-http`
holds `true`. A folder without the latter two says nothing. Whatever is said counts for exactly that host.
"""

from __future__ import annotations

import os
import re
import ssl
from dataclasses import dataclass
from pathlib import Path

from common.errors import MissingEnvironmentError

VARIABLE = "PINWHEEL_REGISTRY"
HOST, CA, PLAIN_HTTP = "host", "ca.crt", "plain-http"
_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----")


@dataclass(frozen=True, slots=True)
class Access:
    """How one registry is reached.

    Attributes:
        host: with its port, as references name it; empty: nothing is said of any registry.
        ca: certificates in PEM that count for it, beside those of the system; empty: no others.
        plain_http: whether it is spoken to without TLS.
    """

    host: str = ""
    ca: str = ""
    plain_http: bool = False

    def files(self) -> dict[str, str]:
        """The files of a folder that says this."""
        found = {HOST: self.host}
        if self.ca:
            found[CA] = self.ca
        if self.plain_http:
            found[PLAIN_HTTP] = "true"
        return found


def folder() -> Path | None:
    """Where this process has it from; None where nobody named a folder."""
    named = os.environ.get(VARIABLE, "")
    return Path(named) if named else None


def of_folder() -> Access:
    """What the folder says.

    Raises:
        MissingEnvironmentError: it cannot be read, or makes no sense.
    """
    place = folder()
    if place is None:
        return Access()
    held = {name: _read(place / name) for name in (HOST, CA, PLAIN_HTTP)}
    host, plain = held[HOST].strip(), held[PLAIN_HTTP].strip()
    if not host and not held[CA] and not plain:
        return Access()
    if not host:
        raise _wrong(place / HOST, "it does not say which registry is meant", "write host[:port] into it")
    if plain not in {"", "true"}:
        raise _wrong(place / PLAIN_HTTP, f"expected true, got {plain[:20]!r}", "write true into it, or remove it")
    if plain and held[CA]:
        raise _wrong(place, f"{CA} and {PLAIN_HTTP} at once", "remove one of the two: without TLS nobody shows a certificate")
    try:
        return Access(host, certificates(held[CA]) if held[CA] else "", bool(plain))
    except ValueError as problem:
        raise _wrong(place / CA, str(problem), "name a certificate authority in PEM") from None


def certificates(text: str) -> str:
    """The certificates of a PEM file, and nothing else that may stand there: comments, or a key.

    Raises:
        ValueError: there is none, or one that cannot be read.
    """
    found = "".join(f"{block}\n" for block in _CERTIFICATE.findall(text))
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=found)
    except (ssl.SSLError, ValueError):
        raise ValueError("it holds no certificate in PEM") from None
    return found


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as problem:
        reason = getattr(problem, "strerror", None) or "it is no text"
        raise _wrong(file, f"it cannot be read: {reason}", f"mend it, or unset {VARIABLE}") from None


def _wrong(place: Path, what: str, fix: str) -> MissingEnvironmentError:
    return MissingEnvironmentError(f"{VARIABLE}: {what}", where=str(place), fix=fix)
