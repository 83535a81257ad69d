"""Which registry is meant."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import urljoin, urlsplit

from common.errors import RegistryError, UsageError
from oci.client import access
from oci.client.access import Access
from oci.reference import ImageRef


class Server(Protocol):
    """Where requests go.

    Attributes:
        host: with its port, for messages.
        address: where it answers, without a slash at the end.
        plain_http: whether requests may go there without TLS.
        called: what it is called in messages: `the registry`.
    """

    @property
    def host(self) -> str: ...  # noqa: D102 - see above
    @property
    def address(self) -> str: ...  # noqa: D102
    @property
    def plain_http(self) -> bool: ...  # noqa: D102
    @property
    def called(self) -> str: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class Registry:
    """Where images go.

    Attributes:
        host: with optional port.
        prefix: path before an image's name, ends in a slash; or empty.
        access: how it is reached, if that is for this host; default: what PINWHEEL_REGISTRY says.
    """

    host: str
    prefix: str
    access: Access = field(default_factory=access.of_folder)

    @classmethod
    def parse(cls, text: str) -> Registry:
        """Parse `host[:port][/path]`.

        Raises:
            UsageError: the text is something else.
            MissingEnvironmentError: the folder of PINWHEEL_REGISTRY makes no sense.
        """
        hostname, _, path = text.strip("/").partition("/")
        try:
            ref = ImageRef.parse(f"{hostname}/{path + '/' if path else ''}name")
            # Reading a port above 65535 raises ValueError.
            _ = urlsplit(f"//{hostname}").port
        except ValueError:
            ref = None
        if ref is None or ref.registry != hostname:
            if fix := meant(text):
                raise UsageError(f"not a registry: {text!r}", fix=fix)
            raise UsageError(f"not a registry: {text!r}", fix="write host[:port][/path], as in registry.example.com:5000/team")
        return cls(hostname, f"{path}/" if path else "")

    @property
    def called(self) -> str:
        """What messages call it."""
        return "the registry"

    @property
    def local(self) -> bool:
        """Whether it is on this machine."""
        return is_loopback(urlsplit(f"//{self.host}").hostname or "")

    @property
    def plain_http(self) -> bool:
        """Whether somebody said so of this host, or it is on this machine, where TLS protects nothing; others need TLS."""
        return self.access.plain_http if self._is_meant else self.local

    @property
    def in_the_clear(self) -> bool:
        """Whether others could read along: then no login is sent."""
        return self.plain_http and not self.local

    @property
    def ca(self) -> str:
        """Certificates in PEM that count for this host beside those of the system; or empty."""
        return self.access.ca if self._is_meant else ""

    @property
    def _is_meant(self) -> bool:
        return self.host.lower() == self.access.host.lower() and bool(self.access.ca or self.access.plain_http)

    @property
    def address(self) -> str:
        """Where its API answers, without a slash at the end."""
        # Docker Hub's images are named after a host that serves web pages.
        host = "registry-1.docker.io" if self.host in {"docker.io", "index.docker.io"} else self.host
        return f"{'http' if self.plain_http else 'https'}://{host}"

    def ref(self, name: str, version: str) -> ImageRef:
        """The reference of an image there, by tag."""
        return ImageRef(self.host, self.prefix + name, version)


def meant(text: str) -> str:
    """What somebody meant who wrote a registry or reference with an address's scheme, or with capitals; empty: neither."""
    scheme, found, rest = text.partition("://")
    if found:
        return f"write it without {scheme}://: {rest.rstrip('/')}"
    host, slash, path = text.partition("/")
    if slash and path != path.lower():
        return f"a path must be in lower case: {host}/{path.lower()}"
    return ""


def resolve(host: str, base: str, named: str) -> str:
    """The whole address for what a server names in a Location or a realm.

    Args:
        host: the registry's, for the error.
        base: the address of the request; `named` may be relative to it.
        named: as the server wrote it.

    Raises:
        RegistryError: it is no address.
    """
    try:
        url = urljoin(base, named)
        parts = urlsplit(url)
        # Reading a port that is no number raises ValueError.
        if parts.hostname and parts.port != 0:
            return url
    except ValueError:
        pass
    raise RegistryError("the registry points to no address", where=host, fix="ask who runs it to mend the addresses it names")


def host_of(url: str) -> str:
    """The host that an address names, with the port; without user and password, which it may hold too."""
    return urlsplit(url).netloc.rpartition("@")[2]


def is_loopback(hostname: str) -> bool:
    """Whether a host name, without port and brackets, is this machine's own."""
    try:
        return ipaddress.ip_address(hostname).is_loopback
    except ValueError:
        return hostname == "localhost"
