"""The same programs without containers: plain processes of this host, for `invoke smoke --no-container`.

So the ladder can be climbed on a GPU machine without Docker, in a virtual environment of the locked packages
(`python -m smoke.machine.environment`). What is proven then is that those packages work on that machine; of an image, nothing.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

from common import console, paths
from common.errors import MissingEnvironmentError, SmokeError
from images import spec
from smoke.boxes.box import TOO_LONG, Ended, Said, answered, complaint
from smoke.boxes.supervised import Program

_POLL_S = 0.1
_SAY_S = 30.0
_ANSWER_S = 5.0
_PAYLOAD = paths.ROOT / "smoke" / "payload"
# The program whose folder holds the environment of a task, and the package that brings it.
_NEEDED = {"train": ("llamafactory-cli", "llamafactory"), "api": ("vllm", "vllm")}
# What a program needs to know of this host; everything else stays out, so that two hosts run alike.
_PASSED_ON = ("LD_LIBRARY_PATH", "CUDA_HOME", "CUDA_DEVICE_ORDER")
_VISIBLE = "CUDA_VISIBLE_DEVICES"
# Of the images' own variables: those of their file system, and of the runtime that starts them. Bytecode is in the images; here
# Python shall keep what it compiles.
_OF_IMAGES = {"PATH", "VIRTUAL_ENV", "PYTHONDONTWRITEBYTECODE"}
_IMAGES_TMP = "/tmp"  # noqa: S108 - where the images have their caches


class Process:
    """A program, and those that are run beside it, as a `Box`. What it leaves behind is ended, whichever way it went."""

    def __init__(self, name: str, command: Sequence[str], directory: Path, environment: Mapping[str, str], logs: Path) -> None:
        self.name = name
        self.log = logs / f"{name.replace(' ', '-')}.log"
        self._command, self._directory, self._environment = tuple(command), directory, dict(environment)
        self._program: Program | None = None
        self._stopped = False

    def __enter__(self) -> Process:
        """Start it.

        Raises:
            SmokeError: it cannot be started, or the run was ended.
        """
        self.log.parent.mkdir(parents=True, exist_ok=True)
        # Written by the program's reader; closed when that is through.
        self._file = self.log.open("wb")
        self._program = Program(self._command, self._directory, self._environment, self._file)
        try:
            self._program.start()
            if self._stopped:
                raise SmokeError("it does not start", where="the run was ended")
        except BaseException as problem:
            self.stop()
            if isinstance(problem, SmokeError):
                raise SmokeError(f"{self.name} does not start", where=problem.where) from None
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def stop(self) -> None:
        """End it and everything it left; may be called twice, and from any thread: who waits for it is told."""
        self._stopped = True
        if self._program is not None:
            self._program.end()
            self._file.close()

    def finish(self, limit: float, *, code: int | None = 0) -> Ended:
        """See Box."""
        program = self._started()
        while not program.wait(min(_SAY_S, limit - self._ran())):
            if self._ran() >= limit:
                raise SmokeError(f"{self.name} did not end within {limit:.0f} s", where=self.tail())
            console.info(f"  {self.name}: {self._ran():.0f} s of at most {limit:.0f} s")
        if code is not None and program.code != code:
            wanted = f", not with {code}" if code else ""
            raise SmokeError(f"{self.name} ended with code {program.code}{wanted}", where=self.tail())
        return Ended(program.code, program.finished - program.started, program.peak)

    def await_http(self, url: str, limit: float, *, key: str = "") -> float:
        """See Box."""
        program = self._started()
        said = 0.0
        while not _answers(url, key):
            if program.wait(_POLL_S):
                raise SmokeError(f"{self.name} ended with code {program.code} before it was ready", where=self.tail())
            if self._ran() > limit:
                raise SmokeError(f"{self.name} was not ready within {limit:.0f} s", where=self.tail())
            if self._ran() - said >= _SAY_S:
                said = self._ran()
                console.info(f"  {self.name}: {said:.0f} s of at most {limit:.0f} s")
        return self._ran()

    def run(self, command: Sequence[str], limit: float, *, environment: dict[str, str] | None = None) -> Said:
        """See Box."""
        beside = Program(command, self._directory, {**self._environment, **(environment or {})})
        try:
            beside.start()
            in_time = beside.wait(limit)
        finally:
            beside.end()
        return Said(beside.code if in_time else TOO_LONG, beside.stdout(), beside.stderr())

    def ask(self, command: Sequence[str], limit: float, *, environment: dict[str, str] | None = None) -> Any:
        """See Box."""
        said = self.run(command, limit, environment=environment)
        return answered(f"{Path(command[min(1, len(command) - 1)]).name} beside {self.name}", said, limit)

    def signal(self, number: int) -> None:
        """See Box."""
        self._started().signal(number)

    def terminate(self, grace: int) -> Ended:
        """See Box."""
        program = self._started()
        before = time.monotonic()
        program.signal(signal.SIGTERM)
        if not program.wait(grace):
            # As an engine does: with process 1, all go.
            program.end()
        return Ended(program.code, max(0.0, program.finished - before), program.peak)

    def processes(self) -> list[int]:
        """See Box; those that it left behind are its own still, whatever group or session they went to."""
        return self._started().processes()

    def output(self) -> str:
        """See Box."""
        return self._started().output().decode(errors="replace")

    def stdout(self) -> str:
        """See Box."""
        return self._started().stdout().decode(errors="replace")

    def tail(self) -> str:
        """See Box."""
        return f"{complaint(self._started().output())}; log: {paths.shown(self.log)}"

    def _started(self) -> Program:
        if self._program is None:
            raise SmokeError(f"{self.name} was not started")
        return self._program

    def _ran(self) -> float:
        return time.monotonic() - self._started().started


class Workshop:
    """Where the programs of a run work, as a `Place`; a context manager: leaving it ends them and removes what they wrote.

    Args:
        directory: of the run's results; the logs go below it.
        gpu: the GPU that the programs may use, by UUID or number; empty for none; None for those that CUDA_VISIBLE_DEVICES
            leaves. One is enough: LLaMA-Factory would spread the tiny model over all it sees.

    Raises:
        MissingEnvironmentError: a program is not on PATH; nothing was touched.
    """

    def __init__(self, directory: Path, *, gpu: str | None = None) -> None:
        self._folders = {task: _folder(task) for task in _NEEDED}
        self._logs = directory / "logs"
        self._gpu = os.environ.get(_VISIBLE) if gpu is None else gpu
        self._root = Path()
        self._boxes: list[Process] = []
        self._lock = threading.Lock()
        self._open = False

    @property
    def payload(self) -> str:
        """See Place."""
        return str(_PAYLOAD)

    @property
    def run(self) -> str:
        """See Place."""
        return str(self._root / "run")

    def __enter__(self) -> Workshop:
        self._root = Path(tempfile.mkdtemp(prefix="pinwheel-smoke-"))
        for name in ("run", "tmp"):
            (self._root / name).mkdir()
        self._open = True
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()
        shutil.rmtree(self._root, ignore_errors=True)

    def stop(self) -> None:
        """End every program, and let no other start; may be called twice, and from any thread."""
        with self._lock:
            self._open = False
            boxes = tuple(self._boxes)
        for box in boxes:
            # One that cannot be ended must not keep the others.
            with contextlib.suppress(OSError):
                box.stop()

    def open(self, name: str, task: str, command: Sequence[str], environment: Mapping[str, str], shm: int) -> Process:
        """A program of a task, not started yet.

        Args:
            name: for people, and of the log file.
            task: `train` or `api`: which environment it is of.
            command: argument vector.
            environment: added to the run's own.
            shm: bytes of shared memory a container would have; here there is what the host has.

        Raises:
            SmokeError: the run is over.
        """
        del shm
        with self._lock:
            if not self._open:
                raise SmokeError(f"{name} is not started: the run was ended")
            box = Process(name, command, Path(self.run), {**self.environment(task), **environment}, self._logs)
            self._boxes.append(box)
        return box

    def fetch(self, name: str) -> bytes:
        """See Place."""
        try:
            return (self._root / "run" / name).read_bytes()
        except FileNotFoundError:
            raise SmokeError(f"the program wrote no {name}") from None
        except IsADirectoryError:
            raise SmokeError(f"{name} is no file") from None

    def environment(self, task: str) -> dict[str, str]:
        """The environment of a task's programs: what the image for it sets, with its /tmp turned into a folder of the run."""
        tmp = str(self._root / "tmp")
        of_image = {
            name: tmp + value.removeprefix(_IMAGES_TMP) if Path(value).is_relative_to(_IMAGES_TMP) else value
            for name, value in spec.read(dict(zip(_NEEDED, spec.pair(), strict=True))[task]).env
            if name not in _OF_IMAGES and not name.startswith("NVIDIA_")
        }
        passed = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        visible = {} if self._gpu is None else {_VISIBLE: self._gpu}
        # `python` has to be the one beside the program, whatever environment the toolkit itself was started in.
        path = f"{self._folders[task]}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
        return {**of_image, **passed, **visible, "PATH": path, "TMPDIR": tmp, "DO_NOT_TRACK": "1"}


def _folder(task: str) -> str:
    """The folder of the environment that a task's programs are in."""
    program, package = _NEEDED[task]
    lock = dict(zip(_NEEDED, spec.pair(), strict=True))[task]
    found = shutil.which(program)
    if found is None or shutil.which("python", path=str(Path(found).parent)) is None:
        raise MissingEnvironmentError(
            f"{program} is not on PATH" if found is None else f"there is no python beside {found}",
            where=f"it comes with {package} of lockfiles/{lock}.lock",
            fix=(
                f"make an environment with `.venv/bin/python -m smoke.machine.environment {spec.pair()[1]} DIRECTORY`, "
                "which serves both tasks, and put DIRECTORY/bin first on PATH"
            ),
        )
    return str(Path(found).parent)


def _answers(url: str, key: str) -> bool:
    """Whether the server answers, and well; asked directly, whatever proxies this host has."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=_ANSWER_S)
    try:
        connection.request("GET", parts.path or "/", headers={"Authorization": f"Bearer {key}"} if key else {})
        return connection.getresponse().status < 400
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
