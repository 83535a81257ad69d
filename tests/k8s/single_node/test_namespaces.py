"""The namespaces with parts that are shell scripts: what starts again, what stays inside, what is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from common.single_node import HOST_ADDRESS, NODE_ADDRESS
from k8s.single_node import cgroups, namespaces, network
from k8s.single_node.places import CGROUP, HOST_LINK, SERVICES, TABLE, Home
from tests.k8s.single_node import machine

pytestmark = [
    pytest.mark.host,
    pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root"),
    pytest.mark.skipif(Path("/sys/class/net", HOST_LINK).exists(), reason="a cluster runs: `invoke cluster --down` ends it"),
]


@pytest.fixture
def home() -> Iterator[Home]:
    with tempfile.TemporaryDirectory(prefix="pinwheel-") as folder:
        home = Home(Path(folder))
        yield home
        namespaces.stop(home)


def spec(home: Home, **scripts: str) -> dict[str, Any]:
    parts = [{"name": name, "argv": ["/bin/sh", "-c", script], "wait": ""} for name, script in scripts.items()]
    return {
        "folders": [str(home.root)],
        "node": str(NODE_ADDRESS),
        "services": str(SERVICES),
        "logs": str(home.logs),
        "path": "/usr/sbin:/usr/bin:/sbin:/bin",
        "parts": parts,
    }


def soon(condition: Callable[[], object], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.05)


def log(home: Home, part: str) -> str:
    file = home.logs / f"{part}.log"
    return file.read_text() if file.exists() else ""


def test_nothing_is_left_after_parts_that_mount_and_write_and_fork(home: Home) -> None:
    before = machine.snapshot(home.root)
    busy = (
        "mount -t tmpfs tmpfs /mnt; mkdir -p /var/lib/kubelet /run/x; touch /var/lib/kubelet/f /run/x/f /var/log/pods;"
        "ip link add left type dummy; nft add table ip left; (setsid sleep 1000 &); echo done; sleep 1000"
    )
    running = namespaces.start(home, spec(home, busy=busy))
    soon(lambda: "done" in log(home, "busy"))
    during = machine.left(before, machine.snapshot(home.root))
    # What may be seen from outside while it runs, and nothing else.
    assert set(during) == {"processes", "interfaces", "cgroups", "tables", "files"}
    assert during["interfaces"] == {HOST_LINK}
    assert during["tables"] == {f"table inet {TABLE}"}
    assert all(name.startswith(str(home.root)) for name in during["files"])
    assert running.pid in cgroups.members()
    namespaces.stop(home)
    for file in home.logs.iterdir():
        file.unlink()
    home.logs.rmdir()
    assert machine.left(before, machine.snapshot(home.root)) == {}
    assert namespaces.running(home) is None


def test_a_part_that_ends_is_started_again_and_orphans_are_reaped(home: Home) -> None:
    script = "echo started; (sleep 0.1 &); sleep 0.3; exit 3"
    running = namespaces.start(home, spec(home, short=script))
    soon(lambda: log(home, "short").count("started") >= 3)
    assert "short ended with 3" in log(home, "inside")
    states = subprocess.run(["ps", "-o", "stat=", "--ppid", str(running.pid)], capture_output=True, text=True, check=True)
    assert "Z" not in states.stdout


def test_a_part_waits_for_what_it_needs(home: Home) -> None:
    body = spec(home, first="sleep 0.5; touch /run/ready; sleep 1000", second="ls /run/ready; sleep 1000")
    body["parts"][1]["wait"] = "/run/ready"
    namespaces.start(home, body)
    soon(lambda: "/run/ready" in log(home, "second"))
    assert "No such file" not in log(home, "second")


def test_a_killed_first_process_takes_all_with_it_and_start_mends(home: Home) -> None:
    body = spec(home, part="echo $$ started; sleep 1000")
    running = namespaces.start(home, body)
    soon(lambda: log(home, "part"))
    os.kill(running.pid, signal.SIGKILL)
    soon(lambda: not cgroups.members())
    assert namespaces.running(home) is None
    again = namespaces.start(home, body)
    assert again.pid != running.pid
    assert namespaces.running(home) == again
    soon((home.logs / "part.log.1").exists)


def test_another_process_with_the_same_number_is_not_taken_for_it(home: Home) -> None:
    namespaces.start(home, spec(home, part="sleep 1000"))
    note = json.loads(home.process.read_text())
    home.process.write_text(json.dumps({**note, "pid": os.getpid()}))
    assert namespaces.running(home) is None
    home.process.write_text(json.dumps(note))


def test_only_the_registrys_port_is_reached_from_inside(home: Home) -> None:
    import http.server
    import threading

    allowed, other = [
        http.server.ThreadingHTTPServer(("0.0.0.0", port), http.server.SimpleHTTPRequestHandler) for port in (5001, 0)
    ]
    for server in (allowed, other):
        threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        running = namespaces.start(home, spec(home, part="sleep 1000"))
        enter = namespaces.enter(running.pid)
        assert network.connected()

        def reached(address: str, port: int) -> bool:
            program = f"import socket; socket.create_connection(('{address}', {port}), 2)"
            return subprocess.run([*enter, "python3", "-c", program], capture_output=True, check=False).returncode == 0

        assert reached(str(HOST_ADDRESS.ip), 5001)
        assert not reached(str(HOST_ADDRESS.ip), other.server_port)
        # Nor with a route that a pod with privileges could add.
        subprocess.run([*enter, "ip", "route", "add", "default", "via", str(HOST_ADDRESS.ip)], check=True)
        outside = subprocess.run(["hostname", "-I"], capture_output=True, text=True, check=True).stdout.split()[0]
        assert not reached(outside, other.server_port)
        assert not reached("192.0.2.254", 53)
    finally:
        for server in (allowed, other):
            server.shutdown()
            server.server_close()


def test_settings_of_the_kernel_are_put_back_and_others_changes_stay(home: Home) -> None:
    panic = Path("/proc/sys/kernel/panic_on_oops")
    before = panic.read_text()
    namespaces.start(home, spec(home, part="echo 1 > /proc/sys/kernel/panic_on_oops; echo done; sleep 1000"))
    soon(lambda: "done" in log(home, "part"))
    namespaces.stop(home)
    assert panic.read_text() == before


def test_folders_that_runc_makes_beside_the_controllers_go_too(home: Home) -> None:
    """With v1 and v2 mounted, runc makes a folder for each container in both."""
    mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines() if line.split()[2] == "cgroup2"]
    if not mounts:
        pytest.skip("no cgroup v2 is mounted here")
    folder = Path(mounts[0], CGROUP, "kubepods", "pod")
    script = f"mkdir -p {folder}; echo $$ > {folder}/cgroup.procs; echo done; sleep 1000"
    namespaces.start(home, spec(home, part=script))
    soon(lambda: "done" in log(home, "part"))
    namespaces.stop(home)
    assert not Path(mounts[0], CGROUP).exists()


def test_cgroups_are_where_they_belong() -> None:
    assert all(folder.name == CGROUP for folder in cgroups.folders())
    assert cgroups.check().startswith("cgroup v")
