"""The first process in the cluster's namespaces: sets up mounts and network, starts the parts, starts again those that end.

It says its process number on this machine, then reads what to do from standard input, one JSON object:

    folders   kept as they are, wherever they lie: the cluster's own and that of its programs
    node      the node's address with its prefix, `services` their network: to be reached through the cable
    parts     a list of {name, argv, wait}; `wait` is what must be there first: a path, or host:port, or an address of https
              that answers 200; or empty
    logs      the folder of the parts' logs
    path      the PATH of the parts
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from k8s.single_node.places import NODE_LINK

# <sys/mount.h>
_BIND, _REC, _SHARED = 0x1000, 0x4000, 0x100000
# Seconds before a part that ended is started again, and between two looks at what a part waits for.
_AGAIN, _TICK = 1.0, 0.05


@dataclass(slots=True)
class _Part:
    name: str
    argv: list[str]
    wait: str
    pid: int = 0
    due: float = 0.0


def main() -> None:
    """Run until killed."""
    # /proc is still the machine's: the process's own number there is the one that others know it by.
    print(Path("/proc/self").readlink(), flush=True)
    spec: dict[str, Any] = json.load(sys.stdin)
    signal.signal(signal.SIGTERM, _end)
    _mount([Path(folder) for folder in spec["folders"]])
    _connect(spec["node"], spec["services"])
    logs = Path(spec["logs"])
    parts = [_Part(part["name"], part["argv"], part["wait"]) for part in spec["parts"]]
    for part in parts:
        with suppress(FileNotFoundError):
            (logs / f"{part.name}.log").replace(logs / f"{part.name}.log.1")
    # Not the user's environment: a proxy for the outside world must not be asked for addresses of the cluster.
    environment = {"PATH": spec["path"], "HOME": "/root", "TMPDIR": "/run", "LANG": "C.UTF-8"}
    _watch(parts, logs, environment)


def _watch(parts: list[_Part], logs: Path, environment: dict[str, str]) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    while True:
        for pid, status in _ended():
            for part in parts:
                if part.pid == pid:
                    print(f"{part.name} ended with {os.waitstatus_to_exitcode(status)}", file=sys.stderr, flush=True)
                    part.pid, part.due = 0, time.monotonic() + _AGAIN
        for part in parts:
            if not part.pid and part.due <= time.monotonic() and _there(part.wait):
                part.pid = _spawn(part, logs / f"{part.name}.log", environment)
        idle = all(part.pid for part in parts)
        signal.sigtimedwait({signal.SIGCHLD}, 60.0 if idle else _TICK)


def _ended() -> list[tuple[int, int]]:
    """Processes that ended, with their states: parts, and orphans, which the first process inherits."""
    ended = []
    with suppress(ChildProcessError):
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            ended.append(found)
    return ended


def _spawn(part: _Part, log: Path, environment: dict[str, str]) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    return os.posix_spawn(
        part.argv[0],
        part.argv,
        environment,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), flags, 0o640),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
        setsigmask=[],
        setsigdef=[signal.SIGPIPE, signal.SIGINT],
    )


def _there(condition: str) -> bool:
    if not condition or condition.startswith("/"):
        return not condition or Path(condition).exists()
    if condition.startswith("https:"):
        return _answers(condition)
    host, _, port = condition.rpartition(":")
    try:
        socket.create_connection((host, int(port)), 1).close()
    except OSError:
        return False
    return True


def _answers(address: str) -> bool:
    # Only whether it is ready is asked, of this very namespace.
    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    try:
        with urllib.request.urlopen(address, timeout=2, context=trusting) as answer:  # noqa: S310 - https, as was looked at
            return bool(answer.status == 200)
    except OSError:
        return False


def _mount(folders: list[Path]) -> None:
    """Cover what the parts write to at fixed paths, so that none of it reaches the machine: /run, and changes in /var."""
    kept = [(folder, os.open(folder, os.O_PATH | os.O_DIRECTORY)) for folder in folders]
    _call_mount("tmpfs", "/run", "tmpfs", 0, "mode=755")
    for name in ("upper", "work"):
        Path("/run/changes", name).mkdir(parents=True)
    _call_mount("overlay", "/var", "overlay", 0, "lowerdir=/var,upperdir=/run/changes/upper,workdir=/run/changes/work")
    for folder, handle in kept:
        folder.mkdir(parents=True, exist_ok=True)
        _call_mount(f"/proc/self/fd/{handle}", str(folder), "", _BIND | _REC, "")
        os.close(handle)
    _call_mount("proc", "/proc", "proc", 0, "")
    # The kubelet hands mounts of volumes on to containers.
    _call_mount("", "/", "", _SHARED | _REC, "")


def _call_mount(source: str, target: str, kind: str, flags: int, data: str) -> None:
    """mount(2); Python has no call of its own for it, and the program mount(8) resolves /proc/self/fd itself."""
    libc = ctypes.CDLL(None, use_errno=True)
    arguments = [os.fsencode(source), os.fsencode(target), os.fsencode(kind) or None]
    if libc.mount(*arguments, ctypes.c_ulong(flags), os.fsencode(data) or None):
        number = ctypes.get_errno()
        raise OSError(number, f"mounting {kind or source}: {os.strerror(number)}", target)


def _connect(node: str, services: str) -> None:
    """Bring the network up: loopback, the cable, and no way further. Addresses of Services are translated on their way out."""
    for command in (
        "link set lo up",
        f"address add {node} dev {NODE_LINK}",
        f"link set {NODE_LINK} up",
        f"route add {services} dev {NODE_LINK}",
    ):
        subprocess.run(["/usr/sbin/ip", *command.split()], check=True)
    for name in ("ipv4/ip_forward", "bridge/bridge-nf-call-iptables"):
        Path("/proc/sys/net", name).write_text("1")


def _end(*_: object) -> None:
    # The kernel ends the others with this process.
    os._exit(0)


if __name__ == "__main__":
    main()
