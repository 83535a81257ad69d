"""The cable between the machine and the cluster, and the rules that keep the cluster's packets on this machine.

The cluster's end lies in its own network namespace, which has no default route. The machine forwards nothing that comes from
the cable, whatever its own setting, and takes nothing from it but calls to the registry: the one way out of the cluster.
"""

from __future__ import annotations

import ipaddress
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from common.errors import MissingEnvironmentError
from common.run import run
from common.single_node import HOST_ADDRESS, REGISTRY
from k8s.single_node.places import HOST_LINK, NETWORK, NODE_LINK, TABLE

_FIX = "the cluster's addresses are fixed: remove that route or address"
_RULES = f"""
table inet {TABLE} {{
    chain input {{
        type filter hook input priority -10; policy accept;
        iifname "{HOST_LINK}" ct state established,related accept
        iifname "{HOST_LINK}" tcp dport {REGISTRY.rpartition(":")[2]} accept
        iifname "{HOST_LINK}" drop
    }}
    chain forward {{
        type filter hook forward priority -10; policy accept;
        iifname "{HOST_LINK}" drop
        oifname "{HOST_LINK}" drop
    }}
}}
"""


def check() -> None:
    """Check that nobody on this machine uses the cluster's addresses.

    Raises:
        MissingEnvironmentError: a route or an address lies in the cluster's network.
    """
    addresses = [(entry["ifname"], info["local"]) for entry in _ip("address") for info in entry["addr_info"]]
    routes = [(entry.get("dev", "?"), entry["dst"]) for entry in _ip("route", "show", "table", "all")]
    for device, name in [*addresses, *routes]:
        with suppress(ValueError):  # `default`, and addresses of version 6 with a zone
            network = ipaddress.ip_network(name, strict=False)
            if device != HOST_LINK and network.version == 4 and network.prefixlen and network.overlaps(NETWORK):
                raise MissingEnvironmentError(f"the network {NETWORK} is in use", where=f"{name} of {device}", fix=_FIX)


def connect(pid: int) -> None:
    """Lay the cable to the namespace of process `pid`, and the rules.

    Raises:
        MissingEnvironmentError: the kernel refuses.
    """
    disconnect()
    _run("nft", "-f", "-", stdin=_RULES)
    _run("ip", "link", "add", HOST_LINK, "type", "veth", "peer", "name", NODE_LINK, "netns", str(pid))
    _run("ip", "address", "add", str(HOST_ADDRESS), "dev", HOST_LINK)
    _run("ip", "link", "set", HOST_LINK, "up")
    # Beside the rules: this holds where a user flushes all tables.
    Path(f"/proc/sys/net/ipv4/conf/{HOST_LINK}/forwarding").write_text("0")
    Path(f"/proc/sys/net/ipv6/conf/{HOST_LINK}/disable_ipv6").write_text("1")


def connected() -> bool:
    """Whether cable and rules are there, and the cable forwards nothing."""
    forwarding = Path(f"/proc/sys/net/ipv4/conf/{HOST_LINK}/forwarding")
    there = forwarding.exists() and forwarding.read_text().strip() == "0"
    return there and run(["nft", "list", "table", "inet", TABLE]).code == 0


def disconnect() -> None:
    """Remove the cable and the rules, where they are."""
    if Path("/sys/class/net", HOST_LINK).exists():
        run(["ip", "link", "delete", HOST_LINK])
    if run(["nft", "list", "table", "inet", TABLE]).code == 0:
        _run("nft", "delete", "table", "inet", TABLE)


def _ip(*arguments: str) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = json.loads(_run("ip", "-json", *arguments) or "[]")
    return entries


def _run(*argv: str, stdin: str | None = None) -> str:
    return run(list(argv), error=MissingEnvironmentError, what=" ".join(argv[:3]), stdin=stdin).stdout
