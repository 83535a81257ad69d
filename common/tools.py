"""The programs of Debian that the stages need: which they are, and whether they are installed."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

# Where Debian and Docker put plugins of Docker's client, which run alone as well.
PLUGINS = "/usr/libexec/docker/cli-plugins:/usr/lib/docker/cli-plugins:/usr/local/lib/docker/cli-plugins"
# Where Debian puts the programs that connect containers to networks.
CNI_PLUGINS = Path("/usr/lib/cni")


@dataclass(frozen=True, slots=True)
class Tool:
    """A program that a stage needs.

    Attributes:
        program: its name on PATH.
        package: the Debian package that holds it.
        newer: whether Debian 12's version is too old and the next release's is taken.
        need: the stage that needs it, for people.
    """

    program: str
    package: str
    newer: bool
    need: str


TOOLS = (
    Tool("mmdebstrap", "mmdebstrap", newer=False, need="build: the base layer"),
    Tool("dockerd", "docker.io", newer=True, need="smoke: the engine"),
    Tool("containerd", "containerd", newer=True, need="smoke: the engine's image store"),
    Tool("docker-buildx", "docker-buildx", newer=True, need="test, bench: the reference images"),
    Tool("docker-registry", "docker-registry", newer=True, need="push: the embedded registry"),
    Tool("skopeo", "skopeo", newer=False, need="push"),
    Tool("cosign", "cosign", newer=True, need="push: proof"),
    Tool("kubectl", "kubectl", newer=True, need="deploy to a cluster"),
)
# What the cluster of this machine needs beside what Pinwheel builds for it. `invoke engine` installs it, and does without.
CLUSTER_TOOLS = (
    Tool("ip", "iproute2", newer=False, need="cluster"),
    Tool("runc", "runc", newer=False, need="cluster: the containers of pods"),
    Tool("nsenter", "util-linux", newer=False, need="cluster"),
    Tool("unshare", "util-linux", newer=False, need="cluster"),
    Tool("mount", "mount", newer=False, need="cluster"),
    Tool("ps", "procps", newer=False, need="cluster"),
    Tool("bridge", "containernetworking-plugins", newer=False, need="cluster: the network of pods"),
    Tool("iptables", "iptables", newer=False, need="cluster: the network of pods"),
    Tool("nft", "nftables", newer=False, need="cluster: Services"),
    Tool("conntrack", "conntrack", newer=False, need="cluster: Services"),
    Tool("ipset", "ipset", newer=False, need="cluster: NetworkPolicies"),
)
# Only the project's own tests need them.
TEST_TOOLS = (
    Tool("chromedriver", "chromium-driver", newer=False, need="test: the web UI in a browser"),
    Tool("busybox", "busybox-static", newer=False, need="test: what pods of the cluster run"),
)


def installed(tool: Tool) -> str:
    """The path of the tool, or nothing."""
    if tool.package == "containernetworking-plugins":
        # Another package has a program of the same name on PATH.
        return shutil.which(tool.program, path=str(CNI_PLUGINS)) or ""
    return shutil.which(tool.program, path=":".join([os.environ.get("PATH", ""), "/usr/sbin:/sbin", PLUGINS])) or ""
