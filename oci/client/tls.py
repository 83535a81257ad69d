"""What is wrong with TLS to a server that a second try cannot mend, by its reason, and what mends it."""

from __future__ import annotations

import datetime
import ssl
from contextlib import closing
from typing import Any
from urllib.parse import urlsplit

import urllib3
from cryptography import x509

from common.errors import MissingEnvironmentError, RegistryError
from oci.client import trust
from oci.client.proxy import Proxy
from oci.client.target import Server, host_of

# OpenSSL's X509_V_ERR_… for not yet valid, expired; for another name, another address; for no known issuer, itself as issuer.
_TIMES, _NAMES, _ITSELF = frozenset({9, 10}), frozenset({62, 64}), frozenset({18})
_LEAF = 21
# Seconds for the one question after a failure: which certificate it was.
_LOOK = 10.0


def refusal(problem: BaseException, url: str, server: Server, on_the_way: Proxy | None) -> RegistryError | None:
    """The error, where the problem is one of certificates; None where it is another.

    Args:
        problem: as urllib3 or ssl raised it.
        url: the address that was asked for.
        server: that the client speaks to; may have sent us to the address.
        on_the_way: the proxy.
    """
    host = host_of(url)
    if said := trust.refuses(problem):
        return _of_ours(said, host, server)
    cause: BaseException | None = problem
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            what = f"{server.called}'s certificate is not trusted: {cause.verify_message}"
            return RegistryError(what, where=host, fix=_mend(cause.verify_code, url, server, on_the_way))
        if isinstance(cause, ssl.SSLError) and cause.reason in {"WRONG_VERSION_NUMBER", "HTTP_REQUEST"}:
            fix = "give it a certificate, or say `plain-http` of it where that will do (README, Settings)"
            return RegistryError(f"{server.called} does not speak TLS", where=host, fix=fix)
        inner = cause.args[-1] if cause.args else None
        cause = inner if isinstance(inner, BaseException) else cause.__cause__ or cause.__context__
    return None


def _of_ours(said: str, host: str, server: Server) -> RegistryError:
    """The server ended the connection for want of a certificate of ours, or because of it."""
    place = trust.CERTS_D / server.host
    try:
        own = trust.pairs(server.host)
    except MissingEnvironmentError:
        own = ()
    if not own:
        asks = "ends the TLS handshake; it may ask" if "handshake" in said else "asks"
        what = f"{server.called} {asks} for a client certificate"
        return RegistryError(what, where=f"{host}: {said}", fix=f"put the pair client.cert and client.key into {place}")
    shown = ", ".join(f"{pair.certificate} {_until(pair)}".strip() for pair in own)
    fix = f"ask who runs it for a pair that it takes, and put that into {place}"
    return RegistryError(f"{server.called} refuses the client certificate: {said}", where=f"{host}; {shown}", fix=fix)


def _until(pair: trust.Pair) -> str:
    try:
        certificate = x509.load_pem_x509_certificate(pair.certificate.read_bytes())
    except (OSError, ValueError):
        return ""
    end = certificate.not_valid_after_utc
    return f"{'expired on' if end < datetime.datetime.now(datetime.UTC) else 'valid until'} {end:%Y-%m-%d %H:%M} UTC"


def _mend(code: int, url: str, server: Server, on_the_way: Proxy | None) -> str:
    """What mends a certificate that is not trusted, by OpenSSL's code for the reason."""
    host = urlsplit(url).hostname or ""
    if code in _TIMES:
        now = datetime.datetime.now(datetime.UTC)
        found = _presented(url, on_the_way)
        said = ""
        if found:
            said = (
                f"it is valid from {found.not_valid_before_utc:%Y-%m-%d %H:%M} to {found.not_valid_after_utc:%Y-%m-%d %H:%M}; "
            )
        return f"{said}this machine's clock says {now:%Y-%m-%d %H:%M} UTC: mend the clock, or have the certificate renewed"
    if code in _NAMES:
        names = ", ".join(_names(_presented(url, on_the_way))) or "other names"
        return f"it is for {names}, not for {host}: ask by a name that it is for, or have one made for this name"
    place = trust.CERTS_D / server.host / "ca.crt"
    what = "the certificate itself, which nobody else vouches for," if code in _ITSELF else "the CA"
    more = "let it send its whole chain; or " if code == _LEAF else ""
    fix = f"{more}put {what} into {place}, or name it in SSL_CERT_FILE; "
    return fix + "of an environment's registry: as `registry.ca` in the environment's file"


def _presented(url: str, on_the_way: Proxy | None) -> x509.Certificate | None:
    """The certificate that a server shows, looked at once more without being trusted; nothing is sent."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    pools = on_the_way.manager(ssl_context=context) if on_the_way else urllib3.PoolManager(ssl_context=context)
    parts = urlsplit(url)
    try:
        pool: Any = pools.connection_from_host(parts.hostname, parts.port, parts.scheme)
        # Not by a request: urllib3 would warn of it.
        with closing(pool._get_conn(_LOOK)) as connection:
            connection.timeout = _LOOK
            pool._prepare_proxy(connection) if on_the_way else connection.connect()
            return x509.load_der_x509_certificate(connection.sock.getpeercert(binary_form=True))
    except (urllib3.exceptions.HTTPError, OSError, ValueError, AttributeError, TypeError):
        return None
    finally:
        pools.clear()


def _names(certificate: x509.Certificate | None) -> list[str]:
    if certificate is None:
        return []
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return []
    names = [str(name.value) for name in found]
    return [name for name in names[:5] if name.isprintable()]
