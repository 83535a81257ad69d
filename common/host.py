"""What this machine needs beside Python: tools, a Docker Engine, a registry. Reports them; installs and starts what is missing.

Nothing that already works is touched: an engine that answers is used as it is, a tool on PATH is never replaced.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import requests

from common import apt, child_environment, console, engine_address, paths, single_node
from common.engine_address import INSTALL
from common.errors import MissingEnvironmentError
from common.files import write_whole
from common.run import run, which
from common.tools import CLUSTER_TOOLS, TOOLS, Tool, installed

if TYPE_CHECKING:
    # Slow to load, and most commands need no engine.
    import docker

REGISTRY = "127.0.0.1:5000"
_DAEMON_JSON = Path("/etc/docker/daemon.json")


@dataclass(frozen=True, slots=True)
class Tls:
    """How a registry of ours proves who it is: files.

    Attributes:
        certificate: its own.
        key: of the certificate.
        authority: the certificate of whoever issued it.
    """

    certificate: Path
    key: Path
    authority: Path


def engine() -> docker.DockerClient:
    """A client of the engine that DOCKER_HOST, the current context or the ordinary socket names.

    Raises:
        UsageError: that is no address.
        MissingEnvironmentError: none answers, it is too old, or it keeps images in the old store.
    """
    import docker
    import docker.errors

    where = engine_address.address()
    try:
        client = docker.from_env(timeout=600)
        version = client.version()
        info = client.info()
    except (docker.errors.DockerException, requests.RequestException, OSError) as problem:
        raise engine_address.silent(where, problem) from problem
    try:
        _check_engine(where, version, info)
    except MissingEnvironmentError:
        client.close()
        raise
    return client


def _check_engine(where: str, answer: dict[str, Any], info: dict[str, Any]) -> None:
    if engine_address.is_podman(where, answer):
        raise engine_address.podman(where, answer)
    version = str(answer["Version"])
    numbers = re.match(r"(\d+)\.(\d+)", version)
    if numbers is None or (int(numbers[1]), int(numbers[2])) < engine_address.OLDEST:
        oldest = ".".join(map(str, engine_address.OLDEST))
        raise MissingEnvironmentError(
            f"Docker Engine {version} is too old",
            fix=f"install {oldest} or newer; `invoke engine --install` does on a machine without one",
        )
    # Only this store keeps an image's digest through `docker load`, and with it the tie between proof and push.
    if not any(pair[-1].startswith("io.containerd.snapshotter") for pair in info.get("DriverStatus") or []):
        raise MissingEnvironmentError(
            f"Docker Engine {version} does not use the containerd image store",
            where=str(_DAEMON_JSON),
            fix='add {"features": {"containerd-snapshotter": true}} and restart it',
        )


def registry_answers(address: str = REGISTRY, authority: Path | None = None) -> bool:
    """Whether a registry of this machine speaks the distribution API at `address`.

    Args:
        address: host and port.
        authority: the certificate of whoever issued the registry's; None: it speaks plain HTTP.
    """
    with requests.Session() as session:
        # A proxy of the user's does not lead to this machine.
        session.trust_env = False
        session.verify = str(authority) if authority else True
        try:
            answer = session.get(f"{'https' if authority else 'http'}://{address}/v2/", timeout=5)
        except requests.RequestException:
            return False
    return answer.status_code == 200 and "docker-distribution-api-version" in answer.headers


def default_registry() -> str:
    """Where a push goes that names no registry: the embedded one, by the address that a running cluster of this machine sees.

    Both addresses have the same data. But what is signed is signed for one of them, and a deploy asks for it there.
    """
    authority = single_node.registry_authority()
    runs = authority.exists() and registry_answers(single_node.REGISTRY, authority)
    return single_node.REGISTRY if runs else REGISTRY


def report() -> str:
    """Print which tools and services are there and which are missing; returns the outcome in a few words.

    Raises:
        MissingEnvironmentError: something is missing; the first such thing.
    """
    rows = [(tool.program, installed(tool) or "missing", tool.need) for tool in TOOLS]
    problem: MissingEnvironmentError | None = None
    try:
        client = engine()
        rows.append(("engine", f"Docker {client.version()['Version']}", "smoke: runs the images"))
        client.close()
    except MissingEnvironmentError as failure:
        problem = failure
        rows.append(("engine", failure.what, "smoke: runs the images"))
    registry_runs = registry_answers()
    rows.append(("registry", f"http://{REGISTRY}" if registry_runs else "not running", "push: the embedded registry"))
    rows += [(tool.program, installed(tool) or "missing", tool.need) for tool in CLUSTER_TOOLS]
    console.table(("what", "state", "needed for"), rows)
    # An engine that answers may run elsewhere, with its tools.
    absent = [tool.program for tool in _needed(engine_answers=problem is None) if not installed(tool)]
    if absent:
        raise MissingEnvironmentError(f"missing: {', '.join(absent)}", fix=INSTALL)
    if problem:
        raise problem
    if not registry_runs:
        raise MissingEnvironmentError("the embedded registry does not run", where=REGISTRY, fix=INSTALL)
    return f"everything needed is here; registry on {REGISTRY}"


def install(*more: Tool) -> None:
    """Install what is missing from Debian's packages and start the engine and the registry where none answers.

    Args:
        more: tools beside those that every stage needs.

    Raises:
        MissingEnvironmentError: not root, apt fails, or a service does not come up; with the end of its log.
    """
    running, ours = _running_engine(), engine_address.address() == engine_address.LOCAL
    absent = [tool for tool in (*_needed(engine_answers=running or not ours), *CLUSTER_TOOLS, *more) if not installed(tool)]
    if absent:
        with console.step(f"installing {', '.join(tool.package for tool in absent)}"):
            apt.install(
                [tool.package for tool in absent if not tool.newer], newer=[tool.package for tool in absent if tool.newer]
            )
    if not running and engine_address.installable(engine_address.address()):
        with console.step("starting the Docker Engine"):
            _start_engine()
    engine().close()
    start_registry()


def _needed(*, engine_answers: bool) -> list[Tool]:
    return [tool for tool in TOOLS if not (engine_answers and tool.program in ("dockerd", "containerd"))]


def registry_settings(address: str, data: Path, *, secret: str = "", http: Any = None, more: Any = None) -> str:
    """The settings file of Debian's docker-registry.

    Args:
        address: where it listens, with plain HTTP unless `http` says otherwise: loopback only.
        data: the directory of what it stores.
        secret: signs the state of uploads, so that they go on after a restart; default: each start makes its own.
        http: further keys of `http`: `tls`.
        more: further sections, or other ones: `auth`, `log`.
    """
    # Deleting is allowed so that a developer can free the disk.
    storage = {"filesystem": {"rootdirectory": str(data)}, "delete": {"enabled": True}}
    listens = {"addr": address, **({"secret": secret} if secret else {}), **(http or {})}
    settings = {"version": 0.1, "log": {"level": "warn"}, "storage": storage, "http": listens}
    # JSON is YAML.
    return json.dumps({**settings, **(more or {})})


def start_registry() -> None:
    """Start the embedded registry where none answers.

    Raises:
        MissingEnvironmentError: docker-registry is not installed or does not come up.
    """
    if registry_answers():
        return
    home = paths.state() / "registry"
    with console.step(f"starting the embedded registry on {REGISTRY}"):
        serve_registry(REGISTRY, home / "config.yml", home / "registry.log")


def serve_registry(address: str, config: Path, log: Path, tls: Tls | None = None) -> int:
    """Start the embedded registry at an address. Several at once have the same data.

    Args:
        address: host and port.
        config: where its configuration is written.
        log: where its output goes.
        tls: None: it speaks plain HTTP.

    Returns:
        The number of its process.

    Raises:
        MissingEnvironmentError: docker-registry is not installed or does not come up.
    """
    program = which("docker-registry", fix=INSTALL)
    home = paths.state() / "registry"
    try:
        # Fixed and shared, so that an upload goes on where it was when the registry is started again, or at the other address.
        if not (home / "secret").exists():
            write_whole(home / "secret", secrets.token_hex(32), 0o600)
        secret = (home / "secret").read_text()
        secure = {"tls": {"certificate": str(tls.certificate), "key": str(tls.key)}} if tls else None
        write_whole(config, registry_settings(address, home / "data", secret=secret, http=secure), 0o600)
    except PermissionError:
        raise MissingEnvironmentError(
            "the embedded registry cannot be set up",
            where=str(home),
            fix="run as root, or set PINWHEEL_STATE to a directory of yours",
        ) from None
    pid = _start([program, "serve", str(config)], log)
    _await("the embedded registry", lambda: registry_answers(address, tls.authority if tls else None), log, seconds=20)
    return pid


def _running_engine() -> bool:
    import docker
    import docker.errors

    try:
        client = docker.from_env(timeout=20)
        client.ping()
        client.close()
    except (docker.errors.DockerException, requests.RequestException, OSError):
        return False
    return True


def _start_engine() -> None:
    if os.geteuid() != 0:
        raise MissingEnvironmentError(
            "starting the Docker Engine needs root", fix="start it yourself, or run `sudo ./invokew engine --install`"
        )
    if not _DAEMON_JSON.exists():
        # MTU: some virtual networks carry less than Ethernet's 1500 and drop what is larger.
        write_whole(_DAEMON_JSON, json.dumps({"features": {"containerd-snapshotter": True}, "mtu": 1400}, indent=2) + "\n")
    if Path("/run/systemd/system").is_dir():
        run(["systemctl", "enable", "--now", "docker"], error=MissingEnvironmentError, what="systemctl enable --now docker")
        log = Path("/dev/null")
    else:
        # A daemon that was killed leaves its number behind; where another process has it now, a new daemon refuses to start.
        for file, program in (("/var/run/docker.pid", "dockerd"), ("/var/run/docker/containerd/containerd.pid", "containerd")):
            _drop_stale(Path(file), program)
        log = paths.state() / "dockerd.log"
        _start([which("dockerd", fix=INSTALL)], log)
    _await("the Docker Engine", _running_engine, log, seconds=60)


def _drop_stale(pid_file: Path, program: str) -> None:
    """Remove a pid file that names no running process of that program."""
    try:
        running = Path("/proc", pid_file.read_text().strip() or "none", "comm").read_text().strip()
    except OSError:
        running = ""
    if running != program:
        pid_file.unlink(missing_ok=True)


def _start(argv: list[str], log: Path) -> int:
    """Start a daemon that outlives this process; its output goes to `log`. Returns the number of its process."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as out:
        own = child_environment.chosen(Path(argv[0]).name)
        process = subprocess.Popen(argv, env=own, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True)
    # Nobody waits for its end here, and Python is not to complain about that.
    process.returncode = 0
    return process.pid


def _await(name: str, answers: Callable[[], bool], log: Path, *, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if answers():
            return
        time.sleep(0.2)
    tail = " | ".join(log.read_text(errors="replace").splitlines()[-3:]) if log.is_file() else ""
    raise MissingEnvironmentError(
        f"{name} did not come up within {seconds:.0f} s", where=f"{log}: {tail}", fix="the log says why"
    )
