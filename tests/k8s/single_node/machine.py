"""What a cluster could leave on a machine, counted."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from k8s.single_node import namespaces

# Where programs that run as root leave files; without what changes by itself, or belongs to the engine.
_PLACES = ("/etc", "/opt", "/run", "/usr/lib", "/usr/libexec", "/usr/local", "/var/lib", "/var/log")
_NOT_OURS = ("/run/docker", "/var/lib/docker", "/var/lib/apt", "/var/lib/dpkg", "/run/containerd/s", "/run/user")


def snapshot(*folders: Path) -> dict[str, set[str]]:
    """Processes, mounts, interfaces, cgroups, firewall tables, settings of the kernel, and files.

    Args:
        folders: whose files count beside those of the system, and processes whose command lines name them.
    """
    marks = (":/pinwheel/", "/single-node/", *map(str, folders))
    return {
        "processes": {line for line in _processes() if any(mark in line for mark in marks)},
        # Containers of an engine come and go beside the cluster, with mounts and interfaces of their own names.
        "mounts": {mount for mount in _mounts() if not mount.startswith(_NOT_OURS)},
        "interfaces": {link.name for link in Path("/sys/class/net").iterdir() if not link.name.startswith(("veth", "br-"))},
        "cgroups": {str(path) for path in Path("/sys/fs/cgroup").glob("*") if path.name == "pinwheel"}
        | {str(path) for path in Path("/sys/fs/cgroup").glob("*/pinwheel")},
        "tables": set(_output("nft", "list", "tables").splitlines()),
        "rules": {line for line in _output("iptables-save").splitlines() if line.startswith("-A")},
        "settings": {f"{name}={Path('/proc/sys', name).read_text().strip()}" for name in namespaces.SYSCTLS},
        "files": {name for place in (*_PLACES, *map(str, folders)) for name in _files(place)},
    }


def left(before: dict[str, set[str]], after: dict[str, set[str]]) -> dict[str, set[str]]:
    """What is there now and was not before, and which settings changed."""
    return {kind: new for kind in before if (new := after[kind] - before[kind])}


def _mounts() -> Iterator[str]:
    return (line.split()[1] for line in Path("/proc/mounts").read_text().splitlines())


def _processes() -> Iterator[str]:
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal() and int(folder.name) != os.getpid():
            try:
                command = (folder / "cmdline").read_bytes().replace(bytes(1), b" ").decode(errors="replace")
                yield f"{folder.name} {command} {(folder / 'cgroup').read_text()}"
            except OSError:
                continue


def _files(place: str) -> Iterator[str]:
    for folder, folders, files in os.walk(place):
        folders[:] = [name for name in folders if f"{folder}/{name}" not in _NOT_OURS]
        yield from (f"{folder}/{name}" for name in (*files, *folders))


def _output(*argv: str) -> str:
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout
