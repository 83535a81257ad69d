"""What `--up` looks at before it changes anything; each check says one line."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection
from pathlib import Path

from common import console
from common.errors import MissingEnvironmentError
from common.run import run
from common.tools import CLUSTER_TOOLS, installed
from k8s.single_node import cgroups, network, programs
from k8s.single_node.places import NETWORK

_INSTALL = "run `invoke engine --install`, or install Debian's package {}"
# What the kernel must be able to do, tried in namespaces that end with the trial: the parts use exactly these.
_TRIALS = {
    "overlay file systems": "mount -t tmpfs tmpfs /run && cd /run && mkdir upper work"
    " && mount -t overlay overlay -o lowerdir=/usr,upperdir=upper,workdir=work /mnt",
    "virtual network cables": "ip link add trial0 type veth peer name trial1",
    "network bridges": "ip link add trial0 type bridge",
    "address translation by nftables": "nft add table ip trial"
    " && nft 'add chain ip trial out { type nat hook postrouting priority 100; }'"
    " && nft add rule ip trial out numgen random mod 2 0 masquerade",
    "address translation by iptables": "iptables -t nat -A POSTROUTING -m comment --comment trial -j MASQUERADE",
}
_POLICY_TRIALS = {
    "sets of addresses (ip_set)": "ipset create trial hash:net && iptables -A INPUT -m set --match-set trial src -j DROP",
}
_ISOLATED = ("unshare", "--mount", "--net", "--propagation", "private", "sh", "-ec")
_BRIDGE_FILTER = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")


def check(extras: Collection[str]) -> None:
    """Check this machine.

    Args:
        extras: that are asked for.

    Raises:
        MissingEnvironmentError: the first thing that is missing, and what to do.
    """
    if os.geteuid() != 0:
        raise MissingEnvironmentError("a cluster needs root", fix="run `sudo ./invokew cluster --up`")
    _tools()
    console.done(programs.check_disk(extras))
    console.done(f"control groups: {cgroups.check()}")
    _kernel(extras)
    network.check()
    console.done(f"nobody uses the addresses of {NETWORK}")


def _tools() -> None:
    for tool in CLUSTER_TOOLS:
        if not installed(tool):
            raise MissingEnvironmentError(f"{tool.program} is not installed", fix=_INSTALL.format(tool.package))
    console.done("the tools of the node are installed")


def _kernel(extras: Collection[str]) -> None:
    trials = _TRIALS | (_POLICY_TRIALS if "policies" in extras else {})
    for feature, script in trials.items():
        trial = run([*_ISOLATED, script])
        if trial.code:
            where = (trial.stderr.strip().splitlines() or ["no message"])[-1]
            fix = "load its module, or use another kernel"
            raise MissingEnvironmentError(f"this kernel has no {feature}", where=where, fix=fix)
    if not _BRIDGE_FILTER.exists() and shutil.which("modprobe"):
        run(["modprobe", "br_netfilter"])
    if not _BRIDGE_FILTER.exists():
        fix = "load the module br_netfilter, or use a kernel that has it"
        raise MissingEnvironmentError("this kernel does not filter what crosses a bridge", where=str(_BRIDGE_FILTER), fix=fix)
    console.done(f"the kernel has {', '.join(trials)}")
