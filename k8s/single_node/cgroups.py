"""The cluster's control groups: one folder in each hierarchy, for its programs (`system`) and for its pods (`kubepods`).

With cgroup v1 each controller is a hierarchy of its own; with v2, for which this is written and on which it was never run,
there is one, in which a folder gives its controllers to those below it by `cgroup.subtree_control` (cgroups(7)). Where both are
mounted the controllers are those of v1; runc makes folders of the same names in v2 as well, which limit nothing.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

from common.errors import MissingEnvironmentError
from k8s.single_node.places import CGROUP

# What the kubelet cannot do without.
_NEEDED_V1 = frozenset({"cpu", "cpuacct", "cpuset", "memory", "pids", "devices", "freezer"})
_NEEDED_V2 = ("cpuset", "cpu", "io", "memory", "pids")


def check() -> str:
    """Say which version is used.

    Raises:
        MissingEnvironmentError: a controller is missing.
    """
    mounted = _mounted("cgroup")
    if mounted:
        there = {name for options in mounted.values() for name in options.split(",")}
        missing = sorted(_NEEDED_V1 - there)
        version = "cgroup v1"
    else:
        unified = next(iter(_mounted("cgroup2")), None)
        there = set((unified / "cgroup.controllers").read_text().split()) if unified else set()
        missing = sorted(set(_NEEDED_V2) - there)
        version = "cgroup v2, on which Pinwheel's cluster was never tried"
    if missing:
        fix = "mount it below /sys/fs/cgroup, or boot a kernel that has it"
        raise MissingEnvironmentError(f"a cgroup controller is missing: {', '.join(missing)}", where="/proc/mounts", fix=fix)
    return version


def make() -> None:
    """Make the folders where they are missing."""
    for folder in folders():
        system = folder / "system"
        for path in (folder, system):
            path.mkdir(exist_ok=True)
            for name in ("cpuset.cpus", "cpuset.mems"):
                # A new cpuset of v1 has no processor and takes no process.
                if (path / name).exists() and not (path / name).read_text().strip():
                    (path / name).write_text((path.parent / name).read_text())
            control = path.parent / "cgroup.subtree_control"
            if control.exists():
                control.write_text(" ".join(f"+{name}" for name in _NEEDED_V2))


def join(pid: int) -> None:
    """Put a process, and with it all that it starts from now on, among the cluster's programs."""
    for folder in folders():
        (folder / "system" / "cgroup.procs").write_text(str(pid))


def members() -> set[int]:
    """All processes of the cluster."""
    found = set()
    for folder in _everywhere():
        for file in folder.rglob("cgroup.procs"):
            with suppress(OSError):  # a group that just ended
                found |= {int(pid) for pid in file.read_text().split()}
    return found


def remove() -> None:
    """Remove the folders, whose processes have ended.

    Raises:
        MissingEnvironmentError: one is still in use after some seconds.
    """
    end = time.monotonic() + 10
    while remaining := [folder for folder in _everywhere() if folder.exists()]:
        for folder in remaining:
            for path, _, _ in os.walk(folder, topdown=False):
                with suppress(OSError):
                    Path(path).rmdir()
        if time.monotonic() > end:
            raise MissingEnvironmentError("a cgroup is still in use", where=str(remaining[0]), fix="end its processes")
        if any(folder.exists() for folder in remaining):
            time.sleep(0.05)


def folders() -> list[Path]:
    """The cluster's folder in each hierarchy that has controllers for it, there or not."""
    return [mount / CGROUP for mount in _mounted("cgroup") or _mounted("cgroup2")]


def _everywhere() -> list[Path]:
    """The cluster's folder in every hierarchy that is mounted, there or not."""
    return [mount / CGROUP for mount in (*_mounted("cgroup"), *_mounted("cgroup2"))]


def _mounted(kind: str) -> dict[Path, str]:
    """Where the hierarchies of this kind are mounted, and with which options, the controllers among them."""
    rows = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    return {Path(row[1]): row[3] for row in rows if row[2] == kind}
