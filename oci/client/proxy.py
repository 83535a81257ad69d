"""The proxy on the way to a host, as HTTPS_PROXY, HTTP_PROXY and ALL_PROXY name it, and NO_PROXY the exceptions.

NO_PROXY is read in each form that curl, Go or Python take: names with what is below them (`example.com`, `.example.com`,
`*.example.com`), addresses and networks (`10.0.0.0/8`, `fd00::/8`), each with a port or without, and `*` for all.
"""

from __future__ import annotations

import base64
import ipaddress
import os
import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import urllib3

from common.errors import RegistryError, UsageError
from oci.client.target import host_of, is_loopback

# Status of a proxy that wants to know who asks.
NO_LOGIN = 407
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
        return f"the proxy {self._place} of {self.variable}"

    @property
    def _place(self) -> str:
        return urlsplit(self.url).netloc.rpartition("@")[2]

    def refusal(self, said: str, url: str) -> RegistryError:
        """The error where it does not lead to an address; `said` is its status and words, safe to print."""
        fix = f"ask who runs it to let {host_of(url)} through"
        if said.startswith(str(NO_LOGIN)):
            fix = f"write a login that it takes into {self.variable}: http://USER:PASSWORD@HOST:PORT"
        where = f"on the way to {host_of(url)}"
        return RegistryError(f"{self.shown} answers {said}", where=where, fix=f"{fix}; or name the host in NO_PROXY")

    def manager(self, **settings: Any) -> urllib3.ProxyManager:
        """Connections through it."""
        parts, headers = urlsplit(self.url), {}
        if parts.username or parts.password:
            login = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}".encode()
            headers = {"Proxy-Authorization": f"Basic {base64.b64encode(login).decode()}"}
        return urllib3.ProxyManager(f"{parts.scheme}://{self._place}", proxy_headers=headers, **settings)


def chosen(address: str) -> Proxy | None:
    """The proxy for an address; None where it is asked directly, as this machine always is.

    Raises:
        UsageError: the variable holds no address of a proxy.
    """
    parts = urlsplit(address)
    host, port = (parts.hostname or "").rstrip("."), parts.port or {"http": 80}.get(parts.scheme, 443)
    if is_loopback(host) or any(_is_meant(entry, host, port) for entry in _exceptions()):
        return None
    variable, value = _named(parts.scheme)
    try:
        return Proxy(_address(value), variable) if value else None
    except ValueError:
        what = "a SOCKS proxy, which Pinwheel does not speak to" if value.startswith("socks") else "not the address of a proxy"
        raise UsageError(what, where=variable, fix=_FIX) from None


def for_go() -> dict[str, str | None]:
    """The variables that lead a program in Go the same way; None: unset. Such a program knows no ALL_PROXY, for example."""
    found: dict[str, str | None] = {"NO_PROXY": ",".join(_exceptions()) or None, "no_proxy": None}
    for scheme in _SCHEMES:
        _, value = _named(scheme)
        try:
            found[f"{scheme.upper()}_PROXY"] = _address(value) if value else None
        except ValueError:
            found[f"{scheme.upper()}_PROXY"] = value
        found[f"{scheme}_proxy"] = None
    return found


def _named(scheme: str) -> tuple[str, str]:
    """The variable that names the proxy for a scheme, and what it holds; both empty where none does."""
    names = (spelled for name in (f"{scheme}_proxy", "all_proxy") for spelled in (name, name.upper()))
    return next(((name, value) for name in names if (value := os.environ.get(name, "").strip())), ("", ""))


def _address(value: str) -> str:
    """A proxy's whole address, special characters in its login escaped.

    Raises:
        ValueError: it is none.
    """
    parts = urlsplit(value if "://" in value else f"http://{value}")
    login, at, place = parts.netloc.rpartition("@")
    # Reading a port that is no number raises ValueError.
    if not parts.hostname or parts.port == 0 or parts.scheme not in _SCHEMES:
        raise ValueError
    escaped = ":".join(quote(unquote(part), safe="") for part in login.split(":", 1))
    return f"{parts.scheme}://{escaped}{at}{place}"


def _exceptions() -> list[str]:
    """The entries of NO_PROXY, as Go takes them: a dot at the beginning would leave out the name itself."""
    listed = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    return [name for entry in re.split(r"[,\s]+", listed.lower()) if (name := entry.removeprefix("*.").strip("."))]


def _is_meant(entry: str, host: str, port: int) -> bool:
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(entry.strip("[]"), strict=False)
    except ValueError:
        # One of them is a name, or has a port.
        pass
    name, colon, number = entry.rpartition(":")
    if colon and number.isdecimal() and not name.endswith(":"):
        return int(number) == port and _is_meant(name, host, port)
    return entry == "*" or host == entry or host.endswith(f".{entry}")
