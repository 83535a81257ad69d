"""What this machine needs beside Python: tools, a Docker Engine, a registry. Reports them; installs and starts what is missing.

Nothing that already works is touched: an engine that answers is used as it is, a tool on PATH is never replaced.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import requests

from common import apt, console, paths
from common.errors import MissingEnvironmentError
from common.files import write_whole
from common.run import run, which

if TYPE_CHECKING:
    # Slow to load, and most commands need no engine.
    import docker

INSTALL = "run `invoke engine --install`"
REGISTRY = "127.0.0.1:5000"
# Where Debian and Docker put plugins of Docker's client, which run alone as well.
PLUGINS = "/usr/libexec/docker/cli-plugins:/usr/lib/docker/cli-plugins:/usr/local/lib/docker/cli-plugins"
# The first engine whose containerd image store loads and keeps OCI layouts by digest, as measured.
OLDEST_ENGINE = (26, 0)
_DAEMON_JSON = Path("/etc/docker/daemon.json")


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
    Tool("unshare", "util-linux", newer=False, need="build: sdists without network"),
    Tool("dockerd", "docker.io", newer=True, need="smoke: the engine"),
    Tool("containerd", "containerd", newer=True, need="smoke: the engine's image store"),
    Tool("docker-buildx", "docker-buildx", newer=True, need="test, bench: the reference images"),
    Tool("docker-registry", "docker-registry", newer=True, need="push: the embedded registry"),
    Tool("skopeo", "skopeo", newer=False, need="push"),
    Tool("cosign", "cosign", newer=True, need="push: proof"),
    Tool("kubectl", "kubectl", newer=True, need="deploy to a cluster"),
)
# Only the project's own tests need them.
TEST_TOOLS = (Tool("chromedriver", "chromium-driver", newer=False, need="test: the web UI in a browser"),)


def installed(tool: Tool) -> str:
    """The path of the tool, or nothing."""
    return shutil.which(tool.program, path=":".join([os.environ.get("PATH", ""), "/usr/sbin:/sbin", PLUGINS])) or ""


def engine() -> docker.DockerClient:
    """A client of the engine that DOCKER_HOST or the ordinary socket names.

    Raises:
        MissingEnvironmentError: none answers, it is too old, or it keeps images in the old store.
    """
    import docker
    import docker.errors

    try:
        client = docker.from_env(timeout=600)
        version = str(client.version()["Version"])
        info = client.info()
    except (docker.errors.DockerException, requests.RequestException, OSError) as problem:
        where = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
        raise MissingEnvironmentError("no Docker Engine answers", where=where, fix=INSTALL) from problem
    try:
        _check_engine(version, info)
    except MissingEnvironmentError:
        client.close()
        raise
    return client


def _check_engine(version: str, info: dict[str, Any]) -> None:
    numbers = re.match(r"(\d+)\.(\d+)", version)
    if numbers is None or (int(numbers[1]), int(numbers[2])) < OLDEST_ENGINE:
        oldest = ".".join(map(str, OLDEST_ENGINE))
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


def registry_answers(address: str = REGISTRY) -> bool:
    """Whether a registry speaks the distribution API at `address` (plain HTTP, loopback)."""
    with requests.Session() as session:
        # A proxy of the user's does not lead to this machine's loopback.
        session.trust_env = False
        try:
            answer = session.get(f"http://{address}/v2/", timeout=5)
        except requests.RequestException:
            return False
    return answer.status_code == 200 and "docker-distribution-api-version" in answer.headers


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
    running = _running_engine()
    absent = [tool for tool in (*_needed(engine_answers=running), *more) if not installed(tool)]
    if absent:
        with console.step(f"installing {', '.join(tool.package for tool in absent)}"):
            apt.install(
                [tool.package for tool in absent if not tool.newer], newer=[tool.package for tool in absent if tool.newer]
            )
    if not running:
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
    program = which("docker-registry", fix=INSTALL)
    home = paths.state() / "registry"
    config = home / "config.yml"
    try:
        # Fixed, so that an upload goes on where it was when the registry is started again.
        if not (home / "secret").exists():
            write_whole(home / "secret", secrets.token_hex(32), 0o600)
        secret = (home / "secret").read_text()
        write_whole(config, registry_settings(REGISTRY, home / "data", secret=secret), 0o600)
    except PermissionError:
        raise MissingEnvironmentError(
            "the embedded registry cannot be set up",
            where=str(home),
            fix="run as root, or set PINWHEEL_STATE to a directory of yours",
        ) from None
    with console.step(f"starting the embedded registry on {REGISTRY}"):
        log = _start([program, "serve", str(config)], home / "registry.log")
        _await("the embedded registry", registry_answers, log, seconds=20)


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
        log = _start([which("dockerd", fix=INSTALL)], paths.state() / "dockerd.log")
    _await("the Docker Engine", _running_engine, log, seconds=60)


def _drop_stale(pid_file: Path, program: str) -> None:
    """Remove a pid file that names no running process of that program."""
    try:
        running = Path("/proc", pid_file.read_text().strip() or "none", "comm").read_text().strip()
    except OSError:
        running = ""
    if running != program:
        pid_file.unlink(missing_ok=True)


def _start(argv: list[str], log: Path) -> Path:
    """Start a daemon that outlives this process; its output goes to `log`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as out:
        subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True)
    return log


def _await(name: str, answers: object, log: Path, *, seconds: float) -> None:
    assert callable(answers)  # noqa: S101
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if answers():
            return
        time.sleep(0.2)
    tail = " | ".join(log.read_text(errors="replace").splitlines()[-3:]) if log.is_file() else ""
    raise MissingEnvironmentError(
        f"{name} did not come up within {seconds:.0f} s", where=f"{log}: {tail}", fix="the log says why"
    )
