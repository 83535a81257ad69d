"""What stands on the training and goes on meanwhile: it once more, killed and resumed, broken, exported. The rungs judge it."""

from __future__ import annotations

import functools
import json
import signal
import time
from dataclasses import dataclass
from typing import Any

from common.errors import SmokeError
from smoke.boxes.box import Box, Ended, told
from smoke.payload import tiny
from smoke.rungs.artifacts import steps_of
from smoke.rungs.jobs import Job
from smoke.rungs.run import Run
from smoke.rungs.table import KNOWN

_LOOK_S = 0.1
# Each way to break a configuration, and the words in which LLaMA-Factory has to say it.
BROKEN = {
    "misspelt.yaml": f"not used by the HfArgumentParser: ['{tiny.MISSPELT}']",
    "no-dataset.yaml": f"Undefined dataset {tiny.NO_DATASET}",
}


@dataclass(frozen=True, slots=True)
class Trained:
    """A training that ended well: its losses by step, in the order they were logged, and what it took."""

    steps: tuple[tuple[int, float], ...]
    ended: Ended


@dataclass(frozen=True, slots=True)
class Resumed:
    """A training that was killed, and the one that went on from its checkpoint.

    Attributes:
        code: with which the killed one ended.
        reached: the last step that it logged.
        steps: those of the resumed one.
    """

    code: int
    reached: int
    steps: tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True)
class Broken:
    """A training that should not have worked: its configuration, exit code, everything it printed, and its log's tail."""

    config: str
    code: int
    output: str
    tail: str


def begin_again(run: Run) -> Job[Trained]:
    """The same training into another directory."""
    return run.jobs.start("train again", functools.partial(_again, run))


def begin_resume(run: Run) -> Job[Resumed]:
    """A training that is killed after its first checkpoint, and resumed."""
    return run.jobs.start("resume", functools.partial(_resume, run))


def begin_broken(run: Run) -> Job[list[Broken]]:
    """Trainings that have to fail."""
    return run.jobs.start("broken config", functools.partial(_broken, run))


def begin_export(run: Run) -> Job[Ended]:
    """The adapter merged into its base.

    Jobs that wait for it have to be begun after it: one that waits for another behind it holds up the line for ever.
    """
    return run.jobs.start("export", functools.partial(_export, run))


def begin_agree(run: Run) -> Job[dict[str, Any]]:
    """The adapter on its base beside the merged model; it waits for the export."""
    begin_export(run)
    return run.jobs.start("adapter and merge agree", functools.partial(_agree, run))


def _train(run: Run, name: str, config: str) -> Box:
    return run.box(name, "train", ["llamafactory-cli", "train", config])


def _log(run: Run, directory: str) -> str:
    return run.place.fetch(f"{directory}/trainer_log.jsonl").decode()


def _again(run: Run) -> Trained:
    name = "train again"
    with _train(run, name, "again.yaml") as box:
        ended = box.finish(KNOWN[name].limit)
    return Trained(steps_of(_log(run, "again")), ended)


def _resume(run: Run) -> Resumed:
    limit = KNOWN["resume"].limit / 2
    with _train(run, "resume killed", "killed.yaml") as box:
        _await_checkpoint(run, box, limit)
        box.signal(signal.SIGKILL)
        killed = box.finish(limit, code=None)
    before = _log(run, "resumed")
    with _train(run, "resume", "resume.yaml") as box:
        box.finish(limit)
    after = _log(run, "resumed")
    if not after.startswith(before):
        raise SmokeError("the resumed training wrote over the log of the first", where="resumed/trainer_log.jsonl")
    # It may have been killed in the middle of a line.
    whole = before[: before.rfind("\n") + 1]
    return Resumed(killed.code, steps_of(whole)[-1][0], steps_of(after[len(before) :]))


def _await_checkpoint(run: Run, box: Box, limit: float) -> None:
    # The trainer writes this file of a checkpoint last.
    name = f"resumed/checkpoint-{tiny.CHECKPOINT}/trainer_state.json"
    until = time.monotonic() + limit
    while True:
        try:
            json.loads(run.place.fetch(name))
        except (SmokeError, json.JSONDecodeError):
            pass
        else:
            return
        if not box.processes():
            ended = box.finish(limit, code=None)
            raise SmokeError(f"the training ended with code {ended.code} before its first checkpoint", where=box.tail())
        if time.monotonic() > until:
            raise SmokeError(f"no checkpoint after {limit:.0f} s", where=box.tail())
        time.sleep(_LOOK_S)


def _broken(run: Run) -> list[Broken]:
    failures = []
    for config in BROKEN:
        with _train(run, f"broken config {config.removesuffix('.yaml')}", config) as box:
            ended = box.finish(KNOWN["broken config"].limit / len(BROKEN), code=None)
            failures.append(Broken(config, ended.code, box.output(), box.tail()))
    return failures


def _export(run: Run) -> Ended:
    with run.box("export", "train", ["llamafactory-cli", "export", "export.yaml"]) as box:
        return box.finish(KNOWN["export"].limit)


def _agree(run: Run) -> dict[str, Any]:
    begin_export(run).result()
    name = "adapter and merge agree"
    with run.box(name, "train", ["python", run.payload("agree.py")]) as box:
        box.finish(KNOWN[name].limit)
        return told(name, box.stdout())
