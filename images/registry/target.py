"""Which registry is meant."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from common.errors import UsageError
from common.refs import ImageRef


@dataclass(frozen=True, slots=True)
class Registry:
    """Where images go.

    Attributes:
        host: with optional port.
        prefix: path before an image's name, ends in a slash; or empty.
    """

    host: str
    prefix: str

    @classmethod
    def parse(cls, text: str) -> Registry:
        """Parse `host[:port][/path]`.

        Raises:
            UsageError: it is no such thing.
        """
        hostname, _, path = text.strip("/").partition("/")
        try:
            ref = ImageRef.parse(f"{hostname}/{path + '/' if path else ''}name")
        except ValueError:
            ref = None
        if ref is None or ref.registry != hostname:
            raise UsageError(f"not a registry: {text!r}", fix="write host[:port][/path], as in registry.example.com:5000/team")
        return cls(hostname, f"{path}/" if path else "")

    @property
    def plain_http(self) -> bool:
        """Whether it is on this machine, where TLS protects nothing; any other registry must speak TLS."""
        name = self.host.rpartition(":")[0] or self.host
        return is_loopback(name.strip("[]"))

    @property
    def address(self) -> str:
        """Where its API answers, without a slash at the end."""
        # Docker Hub's images are named after a host that serves web pages.
        host = "registry-1.docker.io" if self.host in {"docker.io", "index.docker.io"} else self.host
        return f"{'http' if self.plain_http else 'https'}://{host}"

    def ref(self, name: str, version: str) -> ImageRef:
        """The reference of an image there, by tag."""
        return ImageRef(self.host, self.prefix + name, version)


def is_loopback(hostname: str) -> bool:
    """Whether a host name, without port and brackets, is this machine's own."""
    try:
        return ipaddress.ip_address(hostname).is_loopback
    except ValueError:
        return hostname == "localhost"
