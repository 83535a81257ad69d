"""What everybody may know of the cluster of this machine (`invoke cluster`, k8s/single_node/): where it lies, its addresses."""

from __future__ import annotations

import os
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path

from common import paths

# The two ends of the cable between the machine and the cluster.
HOST_ADDRESS = IPv4Interface("10.233.0.1/30")
NODE_ADDRESS = IPv4Interface("10.233.0.2/30")
API_PORT = 6443
API_SERVICE = IPv4Address("10.233.128.1")
# How the references of images begin that its node holds and no registry has.
LOCAL_IMAGES = "localhost/pinwheel/"
# The embedded registry as the cluster sees it.
REGISTRY = f"{HOST_ADDRESS.ip}:5001"


def home() -> Path:
    """The folder of all that the cluster writes, but for its programs."""
    return paths.state() / "single-node"


def kubeconfig() -> Path:
    """The administrator's; the user's own file is never touched."""
    return home() / "kubeconfig"


def kubectl() -> Path:
    """A link to the kubectl of the cluster's version."""
    return home() / "kubectl"


def registry_authority() -> Path:
    """The certificate authority of the registry at `REGISTRY`."""
    return home() / "certificates" / "registry-ca.crt"


def without_proxy() -> dict[str, str]:
    """The variables with which a program asks no proxy of the user's for the cluster."""
    known = os.environ.get("NO_PROXY") or os.environ.get("no_proxy") or ""
    direct = ",".join(filter(None, [known, f"{NODE_ADDRESS.ip},{API_SERVICE}"]))
    return {"NO_PROXY": direct, "no_proxy": direct}
