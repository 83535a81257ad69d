"""The namespaces that the cluster runs in: starting their first process, entering them, ending them.

The kernel ends all processes of a process namespace with its first one, unmounts what only they had mounted, and removes their
network. So nothing of this can be forgotten, whatever happens to this program.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import child_environment, paths
from common.errors import MissingEnvironmentError
from common.files import write_whole
from common.run import which
from k8s.single_node import cgroups, network
from k8s.single_node.places import Home

# Kernel settings of the whole machine that the kubelet changes at its start (pkg/kubelet/cm, setupKernelTunables).
SYSCTLS = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}


@dataclass(frozen=True, slots=True)
class Running:
    """The first process inside.

    Attributes:
        pid: its number on this machine.
        spec: what it was started with.
    """

    pid: int
    spec: Mapping[str, Any]


def running(home: Home) -> Running | None:
    """The first process inside, where it lives."""
    try:
        noted = json.loads(home.process.read_text())
        pid, started, spec = int(noted["pid"]), str(noted["started"]), dict(noted["spec"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    # The number alone may be another process's by now.
    return Running(pid, spec) if _started(pid) == started else None


def start(home: Home, spec: Mapping[str, Any]) -> Running:
    """Start the first process inside and connect it to the machine; it starts the parts and starts again those that end.

    Args:
        home: the cluster's folder.
        spec: what inside.py is to do; see there.

    Raises:
        MissingEnvironmentError: the kernel refuses.
    """
    stop(home)
    _keep_sysctls(home)
    cgroups.make()
    home.logs.mkdir(parents=True, exist_ok=True)
    argv = [which("unshare", fix="install Debian's util-linux"), "--mount", "--net", "--pid", "--fork", "--kill-child"]
    argv += ["--propagation", "private", sys.executable, "-P", "-m", "k8s.single_node.inside"]
    log = home.logs / "inside.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=out,
            text=True,
            cwd=paths.ROOT,
            env={**child_environment.chosen("unshare", child_environment.NETWORK), "PYTHONPATH": str(paths.ROOT)},
            start_new_session=True,
        )
    assert process.stdin  # noqa: S101
    assert process.stdout  # noqa: S101
    with process.stdin, process.stdout:
        answer = process.stdout.readline().strip()
        if not answer.isdecimal():
            last = (log.read_text(errors="replace").strip().splitlines() or ["no message"])[-1]
            raise MissingEnvironmentError("new namespaces cannot be made", where=last, fix=f"run as root; {log} says more")
        pid = int(answer)
        try:
            for number in (process.pid, pid):
                cgroups.join(number)
            network.connect(pid)
            note = {"pid": pid, "started": _started(pid), "spec": dict(spec)}
            write_whole(home.process, json.dumps(note, indent=1), 0o600)
        except BaseException:
            os.kill(pid, signal.SIGKILL)
            raise
        process.stdin.write(json.dumps(spec))
    # Nobody waits for its end here, and Python is not to complain about that.
    process.returncode = 0
    return Running(pid, spec)


def enter(pid: int) -> Sequence[str]:
    """What stands before a command line so that it runs inside."""
    return ["nsenter", "--target", str(pid), "--mount", "--net", "--pid", "--"]


def stop(home: Home) -> None:
    """End all processes of the cluster and take away what the kernel does not: cable, rules, cgroups, changed settings.

    Raises:
        MissingEnvironmentError: a process does not end within some seconds.
    """
    alive = running(home)
    if alive:
        with suppress(ProcessLookupError):
            os.kill(alive.pid, signal.SIGKILL)
    end = time.monotonic() + 20
    while remaining := cgroups.members():
        # The registry, and what an interrupted start left.
        for pid in remaining:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > end:
            raise MissingEnvironmentError("processes of the cluster do not end", where=str(sorted(remaining)), fix="end them")
        time.sleep(0.05)
    home.process.unlink(missing_ok=True)
    network.disconnect()
    cgroups.remove()
    _restore_sysctls(home)


def _started(pid: int) -> str:
    """When a process was started, in clock ticks after boot (proc_pid_stat(5), field 22); with the boot that it belongs to."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    if fields[0] == "Z":
        return ""
    return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {fields[19]}"


def _keep_sysctls(home: Home) -> None:
    if not home.sysctls.exists():
        write_whole(home.sysctls, json.dumps({name: _sysctl(name).read_text().strip() for name in SYSCTLS}))


def _restore_sysctls(home: Home) -> None:
    """Put back what the kubelet changed, unless somebody else changed it since."""
    with suppress(OSError, ValueError):
        for name, before in json.loads(home.sysctls.read_text()).items():
            if name in SYSCTLS and _sysctl(name).read_text().strip() == SYSCTLS[name] != before:
                _sysctl(name).write_text(before)
    home.sysctls.unlink(missing_ok=True)


def _sysctl(name: str) -> Path:
    return Path("/proc/sys") / name
