"""Which certificates a server may have, and which we show it, as the system, `requests` and Docker are configured."""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import urllib3

from common.errors import MissingEnvironmentError
from oci.client.proxy import Proxy
from oci.client.target import Server

# Docker's folder of certificates by registry: https://docs.docker.com/engine/security/certificates
CERTS_D = Path("/etc/docker/certs.d")
# Bytes sent at once: enough for the speed of a disk, few enough that a slow connection is not taken for a dead one.
PIECE = 1 << 18
# Seconds to find out which of several client certificates a server takes.
_PROBE = 30.0


@dataclass(frozen=True, slots=True)
class Pair:
    """A client certificate and its private key: files."""

    certificate: Path
    key: Path


def folder(host: str) -> tuple[Path, list[str]]:
    """Docker's folder of certificates for a host, and the names in it; none where there is no such folder.

    Raises:
        MissingEnvironmentError: it cannot be read.
    """
    place = CERTS_D / host
    try:
        return place, sorted(path.name for path in place.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return place, []
    except OSError as problem:
        raise _unreadable(place, problem.strerror or "") from None


def pairs(host: str) -> tuple[Pair, ...]:
    """The user's client certificates for a host, by Docker's rules: each `NAME.cert` has its `NAME.key` beside it.

    Raises:
        MissingEnvironmentError: half a pair is missing, or cannot be read.
    """
    place, names = folder(host)
    for name in names:
        stem, _, ending = name.rpartition(".")
        other = {"cert": f"{stem}.key", "key": f"{stem}.cert"}.get(ending, name)
        if other not in names:
            fix = f"put {other} beside it; the certificate of an authority is to end in .crt"
            raise MissingEnvironmentError(
                f"half of a client certificate: there is no {other}", where=str(place / name), fix=fix
            )
    return tuple(Pair(place / name, place / f"{name.removesuffix('.cert')}.key") for name in names if name.endswith(".cert"))


def refuses(problem: BaseException | None) -> str:
    """What a server says of our certificate, in the words of TLS (RFC 8446, 6.2), where it ends a connection for it."""
    while problem is not None:
        if isinstance(problem, ssl.SSLError) and (problem.reason or "").partition("_ALERT_")[2] in _OF_CERTIFICATES:
            return problem.reason.partition("_ALERT_")[2].lower().replace("_", " ")
        inner = problem.args[-1] if problem.args else None
        problem = inner if isinstance(inner, BaseException) else problem.__cause__ or problem.__context__
    return ""


# A server that gets none, and wants one, says one of the first three; by its version of TLS.
_OF_CERTIFICATES = frozenset(
    {
        *("CERTIFICATE_REQUIRED", "HANDSHAKE_FAILURE", "BAD_CERTIFICATE", "UNSUPPORTED_CERTIFICATE", "CERTIFICATE_REVOKED"),
        *("CERTIFICATE_EXPIRED", "CERTIFICATE_UNKNOWN", "UNKNOWN_CA", "ACCESS_DENIED", "DECRYPT_ERROR"),
    }
)


def pool(
    server: Server, connections: int, ca: Path | None = None, more: str = "", on_the_way: Proxy | None = None
) -> urllib3.PoolManager:
    """Connections to a server and to where it redirects; for several threads.

    Args:
        server: where the connections lead.
        connections: kept open to each host.
        ca: the one file of certificates that count; default: the system's and the user's.
        more: certificates in PEM that count beside those of the system and the user.
        on_the_way: the proxy.

    Raises:
        MissingEnvironmentError: a file of certificates, or of a key, that the user names cannot be read.
    """

    def connected(pair: Pair | None) -> urllib3.PoolManager:
        # Reading all certificates takes a while, and loopback needs none.
        context = None if server.plain_http else ssl.create_default_context(cafile=ca) if ca else _context(server.host)
        if context and more:
            context.load_verify_locations(cadata=more)
        if context and pair:
            _show(context, pair)
        settings: dict[str, Any] = {"maxsize": connections, "ssl_context": context, "blocksize": PIECE}
        return on_the_way.manager(**settings) if on_the_way else urllib3.PoolManager(**settings)

    own = () if server.plain_http or ca else pairs(server.host)
    # OpenSSL shows one certificate, and cannot be asked which of them the server would take: the first that it takes is shown.
    for pair in own[:-1]:
        if _takes(connected(pair), server):
            return connected(pair)
    return connected(own[-1] if own else None)


def _takes(pool: urllib3.PoolManager, server: Server) -> bool:
    try:
        answer = pool.request("GET", f"{server.address}/v2/", retries=False, redirect=False, timeout=_PROBE)
    except urllib3.exceptions.HTTPError:
        # The words that it refuses with may be lost behind the end of the connection.
        return False
    finally:
        pool.clear()
    # nginx says so in a web page.
    return answer.status != 400


def _show(context: ssl.SSLContext, pair: Pair) -> None:
    def passphrase() -> str:
        raise ValueError

    for path in (pair.certificate, pair.key):
        try:
            path.read_bytes()
        except OSError as problem:
            raise _unreadable(path, problem.strerror or "") from None
    try:
        context.load_cert_chain(pair.certificate, pair.key, passphrase)
    except ValueError:
        what, fix = "a client certificate's key has a passphrase", "store the key without one, for your user alone (chmod 600)"
        raise MissingEnvironmentError(what, where=str(pair.key), fix=fix) from None
    except ssl.SSLError as problem:
        reason = "the key is another certificate's" if problem.reason == "KEY_VALUES_MISMATCH" else "it is no PEM"
        what, fix = f"a client certificate cannot be used: {reason}", "mend the pair, or move it out of that folder"
        raise MissingEnvironmentError(what, where=f"{pair.certificate}, {pair.key.name}", fix=fix) from None


def _context(host: str) -> ssl.SSLContext:
    # The system's certificates, or those of SSL_CERT_FILE and SSL_CERT_DIR.
    context = ssl.create_default_context()
    named = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")
    more = [Path(named)] if named else []
    place, names = folder(host)
    for path in [*more, *(place / name for name in names if name.endswith(".crt"))]:
        try:
            context.load_verify_locations(capath=path) if path.is_dir() else context.load_verify_locations(cafile=path)
        except OSError as problem:  # ssl.SSLError is one
            raise MissingEnvironmentError(
                f"no certificates can be read: {problem.strerror or problem.args[-1]}",
                where=str(path),
                fix="mend the file, or unset REQUESTS_CA_BUNDLE",
            ) from None
    return context


def _unreadable(path: Path, reason: str) -> MissingEnvironmentError:
    what = f"the registry's certificates cannot be read: {reason}"
    return MissingEnvironmentError(what, where=str(path), fix="let your user read it, or ask whose machine this is")
