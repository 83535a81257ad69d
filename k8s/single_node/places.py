"""Names, addresses and paths of the cluster; nothing here does anything."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from common import single_node
from common.single_node import REGISTRY

NODE = "pinwheel"
DOMAIN = "cluster.local"
# All addresses lie in this network; the machine itself sees only HOST_ADDRESS and NODE_ADDRESS.
NETWORK = IPv4Network("10.233.0.0/16")
PODS = IPv4Network("10.233.64.0/18")
SERVICES = IPv4Network("10.233.128.0/20")
DNS_SERVICE: IPv4Address = SERVICES[10]
# The two ends of the cable between the machine and the cluster.
HOST_LINK, NODE_LINK = "pinwheel0", "pinwheel1"
# A folder in each hierarchy of the cgroups, and a table of nftables.
CGROUP = "pinwheel"
TABLE = "pinwheel_cluster"
CONTAINERD = Path("/run/containerd/containerd.sock")
# What may be added: NetworkPolicies that are enforced, and the metrics API.
EXTRAS = ("policies", "metrics")
# Where the Docker Engine and Pinwheel's own client look for the certificate authority of a registry.
DOCKER_CERTIFICATES = Path("/etc/docker/certs.d") / REGISTRY
# The programs whose names a user needs; they go by these names in the folder of the programs.
KUBERNETES = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "kubelet", "kubectl")


@dataclass(frozen=True, slots=True)
class Home:
    """The folder of a cluster: all that it writes, but for its programs."""

    root: Path

    @classmethod
    def of_this_machine(cls) -> Home:
        """The one that the settings of this process name."""
        return cls(single_node.home())

    @property
    def kubeconfig(self) -> Path:
        """The administrator's; the user's own file is never touched."""
        return self.root / "kubeconfig"

    @property
    def kubectl(self) -> Path:
        """A link to the program of the cluster's version."""
        return self.root / "kubectl"

    @property
    def logs(self) -> Path:
        """A file for each part."""
        return self.root / "logs"

    @property
    def certificates(self) -> Path:
        """Keys, certificates, and the parts' own kubeconfigs."""
        return self.root / "certificates"

    @property
    def config(self) -> Path:
        """The parts' configuration files."""
        return self.root / "config"

    @property
    def volumes(self) -> Path:
        """A folder for each PersistentVolume."""
        return self.root / "volumes"

    @property
    def process(self) -> Path:
        """Notes the first process inside; see namespaces.py."""
        return self.root / "process.json"

    @property
    def settings(self) -> Path:
        """What was asked for: extras, pretended GPUs."""
        return self.root / "settings.json"

    @property
    def sysctls(self) -> Path:
        """Values of the kernel that the kubelet changes, as they were before."""
        return self.root / "sysctls.json"
