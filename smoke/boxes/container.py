"""One container of an image under test, held as tightly as a cluster would hold it."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import docker.errors
import requests
from testcontainers.core.config import testcontainers_config
from testcontainers.core.container import DockerContainer

from common import console, paths
from common.errors import SmokeError
from smoke.boxes.box import Ended, Said, answered, complaint
from smoke.boxes.held import Spec, options
from smoke.boxes.session import WORKSPACE

# The reaper's image would have to be pulled; `session` cleans up by label instead.
testcontainers_config.ryuk_disabled = True

_PAUSE_S = 0.5
_SAY_S = 30.0
# One program inside asks again and again: to start one each time costs more than asking. The key comes by the environment and
# goes to curl by a pipe (printf is the shell's own), so that no list of processes shows it.
_KEY = "SMOKE_KEY"
_ASK = 'until curl -fs -o /dev/null --max-time 5 "$1"; do sleep 0.2; done'
_ASK_WITH_KEY = (
    f"""until printf 'Authorization: Bearer %s' "${_KEY}" | curl -fs -o /dev/null --max-time 5 -H @- "$1"; do sleep 0.2; done"""
)


class Sandbox(DockerContainer):
    """A container of one `Spec`, as a `Box`: keeps the log and leaves nothing behind.

    Args:
        spec: what to run.
        logs: where the log goes.
    """

    def __init__(self, spec: Spec, logs: Path) -> None:
        super().__init__(spec.image, docker_client_kw={"timeout": 600})
        self.spec = spec
        self.log = logs / f"{spec.name.replace(' ', '-')}.log"
        self._peak = 0
        self._started = 0.0
        self._stopped = self._removed = False
        self._stopping = threading.RLock()
        self.with_command(list(spec.command))
        self.with_envs(**spec.environment)
        self.with_volume_mapping(spec.volume, WORKSPACE, "rw")
        # Every cache of the image lies under /tmp; compiled kernels are loaded from there, hence exec.
        self.with_tmpfs_mount("/tmp", "rw,exec,nosuid,nodev,size=2g,mode=1777")  # noqa: S108 - inside the container
        self.with_kwargs(**options(spec))

    def start(self) -> Sandbox:
        """Create and start it.

        Raises:
            SmokeError: the engine cannot, or the run is over.
        """
        self._started = time.monotonic()
        with self._refused("does not start"):
            super().start()
            # It was told to stop while it was made: by a run that ends, in another thread.
            if self._stopped:
                self.stop()
                raise SmokeError(f"{self.spec.name} was ended")
            samples = self.get_wrapped_container().stats(stream=True, decode=True)
        threading.Thread(target=self._measure, args=(samples,), name=f"memory of {self.spec.name}", daemon=True).start()
        return self

    def stop(self, force: bool = True, delete_volume: bool = True) -> None:  # noqa: FBT001 - as in the base class
        """Keep the log, then remove the container; see Box."""
        self._stopped = True
        with self._stopping:
            if self._container is None or self._removed:
                return
            self._removed = True
            # It may have been removed by somebody else.
            with contextlib.suppress(docker.errors.APIError):
                said = self._container.logs()
                self.log.parent.mkdir(parents=True, exist_ok=True)
                self.log.write_bytes(said)
            with contextlib.suppress(docker.errors.APIError):
                super().stop(force, delete_volume)

    def finish(self, limit: float, *, code: int | None = 0) -> Ended:
        """See Box."""
        while (seconds := self._ran()) <= limit:
            ended = self._wait(min(_SAY_S, limit - seconds + 0.01))
            if ended is not None:
                result = Ended(ended, self._ran(), self._peak)
                if code is not None and ended != code:
                    wanted = f", not with {code}" if code else ""
                    raise SmokeError(f"{self.spec.name} ended with code {ended}{wanted}{self._killed()}", where=self.tail())
                return result
            if self._ran() <= limit:
                console.info(f"  {self.spec.name}: {self._ran():.0f} s of at most {limit:.0f} s")
        raise SmokeError(f"{self.spec.name} did not end within {limit:.0f} s", where=self.tail())

    def await_http(self, url: str, limit: float, *, key: str = "") -> float:
        """See Box."""
        environment = {_KEY: key} if key else {}
        said = 0.0
        while True:
            some = max(0.1, min(_SAY_S, limit - self._ran()))
            # A container that ends right now refuses; the next lines say how it ended.
            with contextlib.suppress(SmokeError):
                command = ["sh", "-c", _ASK_WITH_KEY if key else _ASK, "sh", url]
                if self.run(command, some, environment=environment).code == 0:
                    return self._ran()
            if not self._running():
                code = self._wait(_SAY_S)
                raise SmokeError(
                    f"{self.spec.name} ended with code {code} before it was ready{self._killed()}", where=self.tail()
                )
            seconds = self._ran()
            if seconds > limit:
                raise SmokeError(f"{self.spec.name} was not ready within {limit:.0f} s", where=self.tail())
            if seconds - said >= _SAY_S:
                console.info(f"  {self.spec.name}: {seconds:.0f} s of at most {limit:.0f} s")
                said = seconds
            time.sleep(_PAUSE_S)

    def run(self, command: Sequence[str], limit: float, *, environment: dict[str, str] | None = None) -> Said:
        """See Box.

        Raises:
            SmokeError: the container has ended.
        """
        bounded = ["timeout", "-k", "5", f"{limit:g}", *command]
        with self._refused(f"cannot run {command[0]}"):
            result = self.get_wrapped_container().exec_run(bounded, demux=True, environment=environment or {})
        # A pair, because of `demux`; the published types know only the undivided form.
        stdout, stderr = (stream or b"" for stream in cast("tuple[bytes | None, bytes | None]", result.output))
        # None: the container ended under it.
        return Said(137 if result.exit_code is None else result.exit_code, stdout, stderr)

    def ask(self, command: Sequence[str], limit: float, *, environment: dict[str, str] | None = None) -> Any:
        """See Box."""
        said = self.run(command, limit, environment=environment)
        return answered(f"{Path(command[min(1, len(command) - 1)]).name} in {self.spec.name}", said, limit)

    def signal(self, number: int) -> None:
        """See Box.

        Raises:
            SmokeError: it has ended.
        """
        with self._refused("takes no signal"):
            self.get_wrapped_container().kill(signal=int(number))

    def terminate(self, grace: int) -> Ended:
        """See Box."""
        before = time.monotonic()
        with self._refused("cannot be told to stop"):
            self.get_wrapped_container().stop(timeout=grace)
        code = self._wait(_SAY_S)
        return Ended(-1 if code is None else code, time.monotonic() - before, self._peak)

    def processes(self) -> list[int]:
        """See Box: those of its control group."""
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
        """See Box."""
        return self._said().decode(errors="replace")

    def stdout(self) -> str:
        """See Box."""
        with self._refused("does not show what it printed"):
            return self.get_logs()[0].decode(errors="replace")

    def tail(self) -> str:
        """See Box."""
        try:
            said = complaint(self._said())
        except SmokeError as problem:
            said = problem.line()
        return f"{said}; log: {paths.shown(self.log)}"

    def _said(self) -> bytes:
        """Both of its streams; from the log that was kept, once it is removed."""
        try:
            return self.get_wrapped_container().logs()
        except docker.errors.APIError as problem:
            if self.log.exists():
                return self.log.read_bytes()
            raise SmokeError("its output is lost", where=str(problem.explanation or problem)) from None

    def _wait(self, seconds: float) -> int | None:
        """The exit code; None where it runs on after these seconds."""
        try:
            return int(self.get_wrapped_container().wait(timeout=seconds)["StatusCode"])
        except docker.errors.APIError:
            raise self._lost() from None
        except (requests.ReadTimeout, requests.ConnectionError):
            # The answer took too long; or the engine is gone, which the question shows.
            self._running()
            return None

    def _running(self) -> bool:
        container = self.get_wrapped_container()
        try:
            container.reload()
        except docker.errors.NotFound:
            raise self._lost() from None
        return container.status in {"created", "running", "restarting"}

    @contextlib.contextmanager
    def _refused(self, what: str) -> Iterator[None]:
        """What the engine refuses is said of the box, in the engine's words; unless the box is gone, which says it all."""
        try:
            yield
        except docker.errors.APIError as problem:
            if self._removed or (self._container is not None and isinstance(problem, docker.errors.NotFound)):
                raise self._lost() from None
            raise SmokeError(f"{self.spec.name} {what}", where=str(problem.explanation or problem)) from None

    def _lost(self) -> SmokeError:
        return SmokeError(f"{self.spec.name} was ended", where=self.tail())

    def _measure(self, samples: Any) -> None:
        """Keep the highest memory that the engine tells of, once a second, until the container is removed."""
        # What goes wrong here is no more than a figure; the engine's end is noticed by those who wait.
        with contextlib.suppress(docker.errors.DockerException, requests.RequestException, OSError, ValueError):
            for sample in samples:
                usage = sample.get("memory_stats", {})
                stats = usage.get("stats", {})
                # As `docker stats` counts: files that the kernel would drop on demand are nobody's need.
                droppable = stats.get("total_inactive_file", stats.get("inactive_file", 0))
                self._peak = max(self._peak, usage.get("usage", 0) - droppable)

    def _ran(self) -> float:
        return time.monotonic() - self._started

    def _killed(self) -> str:
        container = self.get_wrapped_container()
        with contextlib.suppress(docker.errors.APIError):
            container.reload()
        over = container.attrs["State"].get("OOMKilled")
        return f", killed: it needs more than {console.size(self.spec.memory)} of memory" if over else ""
