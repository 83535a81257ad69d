"""A server's whole life as one job: started, asked everything, told to stop. The rungs judge what came of it."""

from __future__ import annotations

import functools
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from common.errors import SmokeError
from smoke.boxes.box import Box, Ended
from smoke.receipt import Answer
from smoke.rungs import training
from smoke.rungs.jobs import Job
from smoke.rungs.run import Run
from smoke.rungs.servers import GRACE_S, PORTS, PROMISES, SHM, command, environment, models
from smoke.rungs.table import FACTORY, KNOWN, MERGED


@dataclass(frozen=True, slots=True)
class Served:
    """What one life of a server showed.

    Attributes:
        server: its name in the rungs.
        ready: seconds from its start until it answered.
        checks: what `payload/ask.py` found, by check.
        lost: why it found nothing; empty when it did.
        before: how many processes there were when it was told to stop.
        left: those that outlived it.
        ended: how it ended.
        leaked: whether the key stands in its log.
        tail: of its log.
    """

    server: str
    ready: float
    checks: Mapping[str, Mapping[str, Any]]
    lost: str
    before: int
    left: tuple[int, ...]
    ended: Ended
    leaked: bool
    tail: str

    def result(self, check: str) -> Mapping[str, Any]:
        """What a check found.

        Raises:
            SmokeError: it could not be made, and why.
        """
        check_result = self.checks.get(check, {"error": self.lost})
        if "error" in check_result:
            raise SmokeError(f"{self.server} could not be asked: {check_result['error']}", where=self.tail)
        result: Mapping[str, Any] = check_result["found"]
        return result

    def seconds(self, check: str) -> float:
        """How long a check took; 0 when it was not made."""
        return float(self.checks.get(check, {}).get("seconds", 0.0))

    def answers(self) -> list[Answer]:
        """Whole answers with their streams; an empty stream where there is none."""
        streams: dict[tuple[str, str], str] = {}
        if "found" in self.checks.get("streaming", {}):
            streams = {(reply["model"], reply["question"]): reply["streamed"] for reply in self.result("streaming")["streams"]}
        return [
            Answer(server=self.server, streamed=streams.get((reply["model"], reply["question"]), ""), **reply)
            for reply in self.result("answers")["answers"]
        ]


def begin(run: Run, server: str) -> Job[Served]:
    """Let the server live its life meanwhile; or the job of which this was said before."""
    if server == MERGED:
        # In line before who waits for it, whatever else was begun.
        training.begin_export(run)
    return run.jobs.start(server, functools.partial(live, run, server))


def live(run: Run, server: str) -> Served:
    """Start the server, ask it everything, stop it.

    Raises:
        SmokeError: it does not start, or is not ready in time.
    """
    if server == MERGED:
        training.begin_export(run).result()
    # Made for this one life; nobody else ever learns it.
    key = secrets.token_urlsafe(24)
    variables = environment(gpu=run.gpu, key=key)
    with run.box(server, "api", _start(run, server), environment=variables, shm=SHM) as box:
        url = f"http://127.0.0.1:{PORTS[server]}{PROMISES[server].health}"
        ready = box.await_http(url, KNOWN[f"{server}: ready"].limit)
        checks: Mapping[str, Mapping[str, Any]] = {}
        lost = ""
        try:
            checks = box.ask(_ask(run, server), _ask_limit(server), environment={"API_KEY": key})
        except SmokeError as problem:
            lost = problem.line()
        before = box.processes()
        ended = box.terminate(GRACE_S)
        left = _left(box, GRACE_S - ended.seconds)
        return Served(server, ready, checks, lost, len(before), left, ended, key in box.output(), box.tail())


def _left(box: Box, seconds: float) -> tuple[int, ...]:
    """Processes that are there after the server; what cleans up behind it has the rest of the grace period to end."""
    until = time.monotonic() + seconds
    while (processes := box.processes()) and time.monotonic() < until:
        time.sleep(0.2)
    return tuple(processes)


def _start(run: Run, server: str) -> list[str]:
    version = run.figures.versions["api"]["vllm"]
    if run.contained:
        # As the image's own command starts it: process 1.
        return command(server, gpu=run.gpu, vllm=version)
    return command(server, gpu=run.gpu, vllm=version, launcher=("python", run.payload("api.py")))


def _ask(run: Run, server: str) -> list[str]:
    options = [
        *(argument for model in models(server) for argument in ("--model", model)),
        *(argument for check in PROMISES[server].checks for argument in ("--check", check)),
        *(("--vllm",) if server != FACTORY else ()),
    ]
    return ["python", run.payload("ask.py"), "--port", str(PORTS[server]), *options]


def _ask_limit(server: str) -> float:
    """All checks together; a stream without its own rung counts as none."""
    return sum(KNOWN[name].limit for check in PROMISES[server].checks if (name := f"{server}: {check}") in KNOWN)
