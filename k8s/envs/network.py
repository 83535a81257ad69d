"""Where the pods of an environment go: how its registry is reached, and on which ports registry, hub and API server answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from urllib.parse import urlsplit

from common import paths, single_node
from common.errors import UsageError
from common.reader import Keys
from oci.client import access
from oci.client.access import Access
from oci.reference import ImageRef

REGISTRY, HUB, API_SERVER = "registry", "hub", "api-server"
PURPOSES = (REGISTRY, HUB, API_SERVER)
# A NetworkPolicy sees the API server's port in some clusters before, in others after the Service's address is translated.
_PORTS: Mapping[str, tuple[int, ...]] = MappingProxyType({REGISTRY: (443,), HUB: (443,), API_SERVER: (443, 6443)})


@dataclass(frozen=True, slots=True)
class Network:
    """What an environment says of its network.

    Attributes:
        host: of the registry, with its port where the address has one.
        ca: the file of the registry's certificate authority; empty: the system knows it.
        plain_http: whether the registry is spoken to without TLS.
        ports: of registry, hub and API server, by these names.
    """

    host: str = ""
    ca: str = ""
    plain_http: bool = False
    ports: Mapping[str, tuple[int, ...]] = field(default_factory=lambda: _PORTS)

    def access(self) -> Access:
        """How the registry is reached from here: as the environment says; where it says nothing as PINWHEEL_REGISTRY does.

        Raises:
            UsageError: the file of the authority cannot be read, or holds no certificate.
            MissingEnvironmentError: the folder of PINWHEEL_REGISTRY makes no sense.
        """
        return self.said() if self.ca or self.plain_http else access.of_folder()

    def said(self) -> Access:
        """How the registry is reached as the environment alone says.

        Raises:
            UsageError: the file of the authority cannot be read, or holds no certificate.
        """
        if not self.ca:
            return Access(self.host, plain_http=self.plain_http)
        where, fix = paths.shown(Path(self.ca)), "name a file with the registry's certificate authority in PEM at registry.ca"
        if self.host == single_node.REGISTRY:
            fix = "bring the cluster of this machine up: `invoke cluster --up`"
        try:
            return Access(self.host, access.certificates(Path(self.ca).read_text(errors="replace")))
        except OSError as problem:
            raise UsageError(f"registry.ca cannot be read: {problem.strerror}", where=where, fix=fix) from None
        except ValueError as problem:
            raise UsageError(f"registry.ca: {problem}", where=where, fix=fix) from None

    def rows(self) -> dict[str, str]:
        """What is said, for people."""
        found = {"registry ca": paths.shown(Path(self.ca)) if self.ca else "the system's"}
        found["registry plain-http"] = "yes" if self.plain_http else "no"
        return found | {f"ports {name}": ", ".join(map(str, ports)) for name, ports in self.ports.items()}


def parse(top: Keys, *, strict: bool) -> tuple[str, Network]:
    """Take the keys of this module out of an environment's file.

    Args:
        top: the file.
        strict: whether plain HTTP is refused.

    Returns:
        The registry's address, and the rest.

    Raises:
        UsageError: one holds something else than it may.
    """
    if isinstance(top.body.get(REGISTRY), dict):
        keys, key = top.below(REGISTRY), "host"
    else:
        keys, key = Keys({REGISTRY: top.text(REGISTRY)}, top.file, fix=top.fix), REGISTRY
    address = keys.text(key).rstrip("/")
    try:
        host, port = ImageRef.parse(f"{address}/x").registry, urlsplit(f"//{address}").port
        if not host or port == 0:
            raise ValueError("no host")
    except ValueError:
        raise keys.refused(key, f"{address!r} is not a registry host with an optional path") from None
    ca, plain = keys.text("ca") if "ca" in keys else "", keys.flag("plain-http", default=False)
    keys.end()
    if host == single_node.REGISTRY and not ca:
        ca = str(single_node.registry_authority())
    if plain and ca:
        raise keys.refused("plain-http", "without TLS nobody shows a certificate: keep ca or plain-http")
    if plain and strict:
        raise keys.refused("plain-http", "production speaks TLS")
    named = top.below("ports", optional=True)
    ports = dict(_PORTS) | {REGISTRY: (port or (80 if plain else 443),)}
    ports |= {name: _ports(named, name) for name in _PORTS if name in named}
    named.end()
    return address, Network(host, str(paths.ROOT / ca) if ca else "", plain, ports)


def _ports(keys: Keys, name: str) -> tuple[int, ...]:
    value = keys.take(name, list, "a list of ports such as [443]")
    if not value or not all(type(one) is int and 0 < one < 65536 for one in value):
        raise keys.refused(name, f"expected a list of ports such as [443], got {value!r}")
    return tuple(sorted(set(value)))
