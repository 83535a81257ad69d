"""One container of an image under test, held as tightly as a cluster would hold it."""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import docker.errors
from docker.types import DeviceRequest
from testcontainers.core.config import testcontainers_config
from testcontainers.core.container import DockerContainer

from common import console, paths
from common.errors import SmokeError
from smoke.session import RUN, WORKSPACE

# The reaper's image would have to be pulled; `session` cleans up by label instead.
testcontainers_config.ryuk_disabled = True

_POLL_S = 1.0
_SAY_S = 30.0
_TAIL = 5
# As Python ends a traceback, whatever a logger puts before it; not one that is quoted in a warning.
_EXCEPTION = re.compile(r"(?:^|\s)([\w.]*(?:Error|Exception): .+)$")


@dataclass(frozen=True, slots=True)
class Spec:
    """What to run.

    Attributes:
        name: for people, and of the log file.
        image: digest of the image manifest, which the engine holds.
        command: argument vector; the image has no entrypoint.
        labels: of the run.
        volume: mounted as the workspace.
        environment: added to the image's.
        memory: limit in bytes, the tmpfs included.
        shm: bytes of /dev/shm.
        gpu: what to ask of the engine; None on the CPU.
    """

    name: str
    image: str
    command: tuple[str, ...]
    labels: Mapping[str, str]
    volume: str
    environment: Mapping[str, str] = field(default_factory=dict)
    memory: int = 8 << 30
    shm: int = 64 << 20
    gpu: DeviceRequest | None = None


@dataclass(frozen=True, slots=True)
class Ended:
    """How a container ended: its exit code, seconds since its start (or since SIGTERM), the highest memory seen."""

    code: int
    seconds: float
    memory: int


def options(spec: Spec) -> dict[str, Any]:
    """What the container is created with, beside image, command, environment and mounts.

    The user is the image's own, and there is no `init`: the program is process 1, as it is in a cluster.
    """
    return {
        "labels": dict(spec.labels),
        "working_dir": RUN,
        "read_only": True,
        "network": "none",
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"],
        "mem_limit": spec.memory,
        "memswap_limit": spec.memory,
        # Threads count too: torch starts some for each core of a large host.
        "pids_limit": 4096,
        "shm_size": spec.shm,
        **({"device_requests": [spec.gpu]} if spec.gpu else {}),
    }


class Sandbox(DockerContainer):
    """A container of one `Spec`: a context manager that keeps the log and leaves nothing behind."""

    def __init__(self, spec: Spec, logs: Path) -> None:
        super().__init__(spec.image, docker_client_kw={"timeout": 600})
        self.spec = spec
        self.log = logs / f"{spec.name.replace(' ', '-')}.log"
        self._peak = 0
        self._started = 0.0
        self.with_command(list(spec.command))
        self.with_envs(**spec.environment)
        self.with_volume_mapping(spec.volume, WORKSPACE, "rw")
        # Every cache of the image lies under /tmp; compiled kernels are loaded from there, hence exec.
        self.with_tmpfs_mount("/tmp", "rw,exec,nosuid,nodev,size=2g,mode=1777")  # noqa: S108 - inside the container
        self.with_kwargs(**options(spec))

    def start(self) -> Sandbox:
        """Create and start it.

        Raises:
            SmokeError: the engine cannot.
        """
        self._started = time.monotonic()
        try:
            super().start()
        except docker.errors.APIError as problem:
            raise SmokeError(f"{self.spec.name} does not start", where=str(problem.explanation or problem)) from None
        return self

    def stop(self, force: bool = True, delete_volume: bool = True) -> None:  # noqa: FBT001 - as in the base class
        """Keep the log, then remove the container."""
        if self._container is not None:
            self.log.parent.mkdir(parents=True, exist_ok=True)
            self.log.write_bytes(self._container.logs())
        super().stop(force, delete_volume)

    def finish(self, limit: float) -> Ended:
        """Wait for the program's own end.

        Raises:
            SmokeError: it did not end within `limit` seconds, or not with code 0.
        """
        said = 0.0
        while self._running():
            seconds = time.monotonic() - self._started
            if seconds > limit:
                raise SmokeError(f"{self.spec.name} did not end within {limit:.0f} s", where=self.tail())
            said = self._say(said, seconds, limit)
            time.sleep(_POLL_S)
        ended = Ended(self.wait(), self._ran(), self._peak)
        if ended.code != 0:
            raise SmokeError(f"{self.spec.name} ended with code {ended.code}{self._killed()}", where=self.tail())
        return ended

    def await_http(self, url: str, limit: float) -> float:
        """Wait until the server inside answers `url`, asked from inside as a probe of a cluster would.

        Returns:
            Seconds since the container's start.

        Raises:
            SmokeError: it ended, or does not answer within `limit` seconds.
        """
        said = 0.0
        while True:
            if not self._running():
                raise SmokeError(
                    f"{self.spec.name} ended with code {self.wait()} before it was ready{self._killed()}", where=self.tail()
                )
            seconds = time.monotonic() - self._started
            # A container that ends right now refuses the exec; the next round says how it ended.
            with contextlib.suppress(docker.errors.APIError):
                if self.exec(["curl", "-fs", "-o", "/dev/null", "--max-time", "5", url]).exit_code == 0:
                    return self._ran()
            if seconds > limit:
                raise SmokeError(f"{self.spec.name} was not ready within {limit:.0f} s", where=self.tail())
            said = self._say(said, seconds, limit)
            time.sleep(_POLL_S)

    def ask(self, command: Sequence[str], limit: float) -> Any:
        """Run a program beside the server and return the JSON object it prints.

        Raises:
            SmokeError: it fails, or takes longer than `limit` seconds.
        """
        bounded = ["timeout", "-k", "5", f"{limit:.0f}", *command]
        result = self.get_wrapped_container().exec_run(bounded, demux=True)
        self._running()
        # A pair, because of `demux`; the published types know only the undivided form.
        stdout, stderr = (stream or b"" for stream in cast("tuple[bytes | None, bytes | None]", result.output))
        if result.exit_code != 0:
            code = f"code {result.exit_code}" if result.exit_code != 124 else f"no end within {limit:.0f} s"
            raise SmokeError(f"{command[1]} in {self.spec.name}: {code}", where=complaint(stderr))
        return json.loads(stdout)

    def terminate(self, grace: int) -> Ended:
        """Send SIGTERM and wait; after `grace` seconds the engine kills it, which the code 137 shows."""
        before = time.monotonic()
        self._running()
        self.get_wrapped_container().stop(timeout=grace)
        return Ended(self.wait(), time.monotonic() - before, self._peak)

    def processes(self) -> list[int]:
        """Processes of this container that the host's kernel knows, by their control group: measured, not asked for."""
        mine = self.get_container_id()
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                if mine in (entry / "cgroup").read_text():
                    found.append(int(entry.name))
            except OSError:
                # It ended while we looked.
                continue
        return sorted(found)

    def output(self) -> str:
        """Everything it has printed so far."""
        return self.get_wrapped_container().logs().decode(errors="replace")

    def stdout(self) -> str:
        """What it printed to standard output alone."""
        return self.get_logs()[0].decode(errors="replace")

    def tail(self) -> str:
        """What the program complained about, on one line, and where the whole log will be."""
        return f"{complaint(self.get_wrapped_container().logs())}; log: {paths.shown(self.log)}"

    def _running(self) -> bool:
        container = self.get_wrapped_container()
        container.reload()
        if container.status not in {"created", "running", "restarting"}:
            return False
        usage = cast("dict[str, Any]", container.stats(stream=False, one_shot=True)).get("memory_stats", {})
        # As `docker stats` counts: files that the kernel would drop on demand are nobody's need.
        stats = usage.get("stats", {})
        self._peak = max(self._peak, usage.get("usage", 0) - stats.get("total_inactive_file", stats.get("inactive_file", 0)))
        return True

    def _ran(self) -> float:
        return time.monotonic() - self._started

    def _killed(self) -> str:
        container = self.get_wrapped_container()
        container.reload()
        over = container.attrs["State"].get("OOMKilled")
        return f", killed: it needs more than {console.size(self.spec.memory)} of memory" if over else ""

    def _say(self, said: float, seconds: float, limit: float) -> float:
        if seconds - said < _SAY_S:
            return said
        console.info(f"  {self.spec.name}: {seconds:.0f} s of at most {limit:.0f} s")
        return seconds


def complaint(log: bytes) -> str:
    """The first exception of the log, from which the others mostly follow; without one, the last lines."""
    lines = [" ".join(line.split()) for line in log.decode(errors="replace").splitlines()]
    for line in lines:
        if found := _EXCEPTION.search(line):
            return found[1][:400].rstrip(".")
    return " | ".join(line[:200] for line in [line for line in lines if line][-_TAIL:]) or "it said nothing"
