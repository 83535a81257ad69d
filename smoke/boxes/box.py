"""What a rung runs programs in: a container of an image (`container.Sandbox`), or a plain process here (`local.Process`)."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from common.errors import SmokeError

# How `timeout` says that it killed.
TOO_LONG = 124
_TAIL = 5
# As Python ends a traceback, whatever a logger puts before it; not one that is quoted in a warning.
_EXCEPTION = re.compile(r"(?:^|\s)([\w.]*(?:Error|Exception): .+)$")


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program ended: its exit code, seconds since its start (or since SIGTERM), the highest memory seen, bytes."""

    code: int
    seconds: float
    memory: int


@dataclass(frozen=True, slots=True)
class Said:
    """What a program run beside another one did: its exit code, and both of its streams."""

    code: int
    stdout: bytes
    stderr: bytes


class Box(Protocol):
    """One program, and those that are run beside it. A context manager: entering starts it, leaving keeps its log and ends it.

    Attributes:
        log: where its log will be.
    """

    @property
    def log(self) -> Path:
        """See above."""

    def __enter__(self) -> Box:
        """Start it.

        Raises:
            SmokeError: it cannot be started.
        """

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        """Keep the log; end what still runs."""

    def stop(self) -> None:
        """What leaving does; from any thread, and more than once. Who waits for the program is told that it ended."""

    def finish(self, limit: float, *, code: int | None = 0) -> Ended:
        """Wait for the program's own end.

        Args:
            limit: seconds since its start.
            code: the exit code it has to end with; None: any.

        Raises:
            SmokeError: it did not end in time, or with another code.
        """

    def await_http(self, url: str, limit: float, *, key: str = "") -> float:
        """Wait until the server inside answers `url`, asked from inside as a probe of a cluster would.

        Args:
            url: on its loopback.
            limit: seconds since its start.
            key: sent as the bearer token; never on a command line.

        Returns:
            Seconds since its start.

        Raises:
            SmokeError: it ended, or does not answer in time.
        """

    def run(self, command: Sequence[str], limit: float, *, environment: dict[str, str] | None = None) -> Said:
        """Run a program beside it, in the same place; after `limit` seconds it is killed, which code 124 or 137 shows."""

    def ask(self, command: Sequence[str], limit: float, *, environment: dict[str, str] | None = None) -> Any:
        """Run a program beside it and return the JSON object that it prints.

        Raises:
            SmokeError: it fails, or takes longer than `limit` seconds.
        """

    def signal(self, number: int) -> None:
        """Send a signal to the program, process 1 of a container."""

    def terminate(self, grace: int) -> Ended:
        """Send SIGTERM and wait; after `grace` seconds it is killed, which code 137 (-9 of a process) shows."""

    def processes(self) -> list[int]:
        """Its processes, as the host's kernel knows them: measured, not asked for."""

    def output(self) -> str:
        """Everything it has printed so far."""

    def stdout(self) -> str:
        """What it printed to standard output alone."""

    def tail(self) -> str:
        """What it complained about, on one line, and where the whole log will be."""


class Place(Protocol):
    """Where the programs of a run work: a volume that its containers share, or a directory.

    Attributes:
        payload: the folder of the payload programs, as they see it.
        run: the folder they run in, as they see it.
    """

    @property
    def payload(self) -> str:
        """See above."""

    @property
    def run(self) -> str:
        """See above."""

    def fetch(self, name: str) -> bytes:
        """A file below the folder they run in.

        Raises:
            SmokeError: it is not there.
        """


def complaint(log: bytes) -> str:
    """The first exception of the log, from which the others mostly follow; without one, the last lines."""
    lines = [" ".join(line.split()) for line in log.decode(errors="replace").splitlines()]
    for line in lines:
        if found := _EXCEPTION.search(line):
            return found[1][:400].rstrip(".")
    return " | ".join(line[:200] for line in [line for line in lines if line][-_TAIL:]) or "it said nothing"


def answered(what: str, said: Said, limit: float) -> Any:
    """The JSON object that a program printed which was run beside another.

    Args:
        what: the program, for people.
        said: what it did.
        limit: seconds that it had.

    Raises:
        SmokeError: it failed, was killed after its time, or printed something else.
    """
    if said.code != 0:
        code = f"code {said.code}" if said.code != TOO_LONG else f"no end within {limit:.0f} s"
        raise SmokeError(f"{what}: {code}", where=complaint(said.stderr))
    try:
        return json.loads(said.stdout)
    except ValueError:
        raise SmokeError(f"{what}: it printed no JSON", where=complaint(said.stdout)) from None


def told(what: str, printed: str) -> dict[str, Any]:
    """The JSON object that a program printed on a line of its own, among what the packages it imports have to say.

    Args:
        what: the program, for people.
        printed: its standard output.

    Raises:
        SmokeError: there is none.
    """
    for line in reversed(printed.splitlines()):
        if line.startswith("{"):
            with contextlib.suppress(ValueError):
                found: dict[str, Any] = json.loads(line)
                return found
    raise SmokeError(f"{what} told nothing", where=complaint(printed.encode()))
