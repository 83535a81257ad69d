"""Which certificates a server may have, as the system, `requests` and Docker are configured."""

from __future__ import annotations

import os
import ssl
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
        MissingEnvironmentError: a file of certificates that the user names cannot be read.
    """
    # Reading all certificates takes a while, and loopback needs none.
    context = None if server.plain_http else ssl.create_default_context(cafile=ca) if ca else _context(server.host)
    if context and more:
        context.load_verify_locations(cadata=more)
    settings: dict[str, Any] = {"maxsize": connections, "ssl_context": context, "blocksize": PIECE}
    return on_the_way.manager(**settings) if on_the_way else urllib3.PoolManager(**settings)


def _context(host: str) -> ssl.SSLContext:
    # The system's certificates, or those of SSL_CERT_FILE and SSL_CERT_DIR.
    context = ssl.create_default_context()
    named = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")
    more = [Path(named)] if named else []
    folder = CERTS_D / host
    more += sorted(folder.glob("*.crt")) if folder.is_dir() else []
    for path in more:
        try:
            context.load_verify_locations(capath=path) if path.is_dir() else context.load_verify_locations(cafile=path)
        except OSError as problem:  # ssl.SSLError is one
            raise MissingEnvironmentError(
                f"no certificates can be read: {problem.strerror or problem.args[-1]}",
                where=str(path),
                fix="mend the file, or unset REQUESTS_CA_BUNDLE",
            ) from None
    return context
