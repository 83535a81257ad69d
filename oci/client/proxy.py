"""The proxy on the way to a server, as HTTPS_PROXY, HTTP_PROXY and ALL_PROXY name it, and NO_PROXY the exceptions."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import requests.utils
import urllib3

from common.errors import UsageError
from oci.client.target import Server, is_loopback

_SCHEMES = frozenset({"http", "https"})
_FIX = "write it as http://HOST:PORT, or name the registry's host in NO_PROXY"


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy that requests go through.

    Attributes:
        url: its address; may hold a password.
        variable: that names it.
    """

    url: str = field(repr=False)
    variable: str

    @property
    def shown(self) -> str:
        """Its host and port, and where they come from."""
        return f"the proxy {urlsplit(self.url).netloc.rpartition('@')[2]} of {self.variable}"

    def manager(self, **settings: Any) -> urllib3.ProxyManager:
        """Connections through it."""
        user, password = requests.utils.get_auth_from_url(self.url)
        headers = urllib3.make_headers(proxy_basic_auth=f"{user}:{password}") if user else None
        return urllib3.ProxyManager(self.url, proxy_headers=headers, **settings)


def chosen(server: Server) -> Proxy | None:
    """The proxy for a server; None where it is asked directly, as this machine always is.

    Raises:
        UsageError: the variable holds no address of a proxy.
    """
    if is_loopback(urlsplit(server.address).hostname or ""):
        return None
    found = requests.utils.select_proxy(server.address, requests.utils.get_environ_proxies(server.address))
    if not found:
        return None
    names = [f"{urlsplit(server.address).scheme}_proxy", "all_proxy"]
    names = [spelled for name in names for spelled in (name, name.upper())]
    variable = next((name for name in names if os.environ.get(name) == found), "the system's settings")
    url = found if "://" in found else f"http://{found}"
    try:
        parts = urlsplit(url)
        # Reading a port that is no number raises ValueError.
        if not parts.hostname or parts.port == 0 or parts.scheme not in _SCHEMES:
            raise ValueError
    except ValueError:
        what = "a SOCKS proxy, which Pinwheel does not speak to" if url.startswith("socks") else "not the address of a proxy"
        raise UsageError(what, where=variable, fix=_FIX) from None
    return Proxy(url, variable)
