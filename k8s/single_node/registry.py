"""The embedded registry as the cluster sees it: the data of the one on loopback, with TLS, at the cable of the cluster."""

from __future__ import annotations

from common import host
from common.files import write_whole
from common.single_node import REGISTRY
from k8s.single_node import cgroups
from k8s.single_node.places import DOCKER_CERTIFICATES, Home

ADDRESS = REGISTRY


def start(home: Home) -> None:
    """Start it, and tell the Docker Engine and Pinwheel's own client whose certificates to believe.

    Raises:
        MissingEnvironmentError: docker-registry is not installed or does not come up.
    """
    authority = home.certificates / "registry-ca.crt"
    write_whole(DOCKER_CERTIFICATES / "ca.crt", authority.read_bytes())
    if answers(home):
        # Only the Docker Engine's copy of the certificate was gone.
        return
    tls = host.Tls(home.certificates / "registry.crt", home.certificates / "registry.key", authority)
    pid = host.serve_registry(ADDRESS, home.root / "registry.yml", home.logs / "registry.log", tls)
    # It ends with the cluster.
    cgroups.join(pid)


def answers(home: Home) -> bool:
    """Whether it answers, with a certificate that its authority issued."""
    authority = home.certificates / "registry-ca.crt"
    trusted = DOCKER_CERTIFICATES / "ca.crt"
    same = authority.exists() and trusted.exists() and trusted.read_bytes() == authority.read_bytes()
    return same and host.registry_answers(ADDRESS, authority)
