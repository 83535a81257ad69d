"""What a smoke run hands to the stages after it: `dist/smoke/receipt.json`.

JSON form: one object with `format` (3) and the fields of `SmokeReceipt`, the dataclasses below field by field; tuples are
arrays, an absent `training` is null. Times are seconds, sizes bytes. Only `ladder.run_smoke` writes one, at the end of a
run, passed or not; the one of an earlier run is removed when a run starts.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from common import paths
from common.errors import SmokeError
from common.files import write_whole
from common.reader import record

FORMAT = 3
Outcome = Literal["passed", "failed", "not run"]


@dataclass(frozen=True, slots=True)
class ProvenImage:
    """An image that this run was about.

    Attributes:
        name: repository name.
        role: the short name of the command line.
        version: its tag.
        digest: of its manifest, in the engine as in the build receipt.
        config_digest: of the configuration that this manifest names.
    """

    name: str
    role: str
    version: str
    digest: str
    config_digest: str = ""


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU of the host, as its driver names it."""

    name: str
    driver: str
    memory: int


@dataclass(frozen=True, slots=True)
class Host:
    """The class of machine that figures can be compared within."""

    cpu: str
    cores: int
    memory: int
    gpus: tuple[Gpu, ...]


@dataclass(frozen=True, slots=True)
class Rung:
    """One test of the ladder.

    Attributes:
        name: `train`, `vllm serve: answers`.
        code: its own exit code, of the table in `smoke/rungs/table.py`; 0 when it passed.
        outcome: `not run` when a rung it stands on did not pass, or the run was interrupted before it.
        seconds: how long its work took, whether anybody waited for it or not.
        limit: how long it may take.
        message: what was measured when it passed, why not otherwise; one line.
        fix: what to do when it failed; else empty.
        logs: of its containers, below the receipt's directory.
    """

    name: str
    code: int
    outcome: Outcome
    seconds: float
    limit: float
    message: str
    fix: str
    logs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Figure:
    """One thing that was measured.

    Attributes:
        name: `vllm serve: first token`.
        value: in `unit`.
        unit: `s`, `bytes`, `tokens/s`.
        last: the value of the last passed run on a host of the same class; None where there is none.
    """

    name: str
    value: float
    unit: str
    last: float | None = None


@dataclass(frozen=True, slots=True)
class Version:
    """A package in an image, `vllm` `0.28.0`."""

    image: str
    package: str
    version: str


@dataclass(frozen=True, slots=True)
class Training:
    """Figures of the training.

    Attributes:
        losses: of every step.
        seconds: from the container's start to its end.
        memory: the highest that was seen of the container.
    """

    losses: tuple[float, ...]
    seconds: float
    memory: int


@dataclass(frozen=True, slots=True)
class Serving:
    """Figures of one server.

    Attributes:
        server: its name in the rungs.
        ready: seconds from the container's start to the first good answer of its health endpoint.
        stop: seconds from SIGTERM to the container's end.
        exit_code: of the container.
        memory: the highest that was seen of the container.
    """

    server: str
    ready: float
    stop: float
    exit_code: int
    memory: int


@dataclass(frozen=True, slots=True)
class Answer:
    """One question put to one model of one server.

    Attributes:
        server: its name in the rungs.
        model: the name that was asked: the tuned model, or the base as negative control.
        question: as trained.
        expected: the trained answer.
        got: the whole reply.
        streamed: the reply of the same request as a stream.
    """

    server: str
    model: str
    question: str
    expected: str
    got: str
    streamed: str


@dataclass(frozen=True, slots=True)
class SmokeReceipt:
    """Everything one run proved, or failed to prove.

    Attributes:
        passed: every rung passed.
        gpu: the run was with `--gpu`.
        container: the images ran. Without (`--no-container`) their programs ran as plain processes of the host: the run then
            proves nothing of a digest, and `images` is empty.
        started: UTC, ISO 8601.
        seconds: of the whole run.
        source: git revision of the build receipt; where the images were pulled, of the checkout that ran them.
        engine: version of the engine; empty without containers.
        host: the machine.
        images: that were run.
        rungs: in the order they stand on each other.
        training: None when the training did not end.
        servings: of every server that was stopped.
        answers: every one that was given.
        versions: of the packages that matter, by image.
        figures: everything else that was measured, sorted by name.
    """

    passed: bool
    gpu: bool
    container: bool
    started: str
    seconds: float
    source: str
    engine: str
    host: Host
    images: tuple[ProvenImage, ...]
    rungs: tuple[Rung, ...]
    training: Training | None
    servings: tuple[Serving, ...]
    answers: tuple[Answer, ...]
    versions: tuple[Version, ...]
    figures: tuple[Figure, ...]

    def outcome(self) -> str:
        """The result in a few words."""
        text = f"{sum(rung.outcome == 'passed' for rung in self.rungs)} of {len(self.rungs)} rungs passed"
        if self.training and self.training.losses:
            text += f"; loss {self.training.losses[0]:.2f} → {self.training.losses[-1]:.4f}"
        return text


def directory() -> Path:
    """Where a run writes."""
    return paths.dist() / "smoke"


def path() -> Path:
    """Where the receipt lies."""
    return directory() / "receipt.json"


def dump(receipt: SmokeReceipt) -> str:
    """Its JSON form; the same receipt gives the same text."""
    return json.dumps({"format": FORMAT, **dataclasses.asdict(receipt)}, indent=2, sort_keys=True, allow_nan=False) + "\n"


def load(text: str) -> SmokeReceipt:
    """The receipt of which `text` is the JSON form.

    Raises:
        ValueError: it is not a receipt, or has another format.
    """
    try:
        body = json.loads(text)
        if body.pop("format") != FORMAT:
            raise ValueError("another format")
        receipt = record(SmokeReceipt, body)
    except (KeyError, TypeError, AttributeError, OverflowError, RecursionError) as problem:
        raise ValueError(f"{type(problem).__name__}: {problem}") from problem
    # `record` fills in defaults; here every field is written, and deploy trusts what it reads.
    if json.loads(dump(receipt)) != {"format": FORMAT, **body}:
        raise ValueError("a field is missing")
    return receipt


def write(receipt: SmokeReceipt) -> Path:
    """Write the receipt, whole or not at all."""
    write_whole(path(), dump(receipt))
    return path()


def read() -> SmokeReceipt:
    """The receipt of the last run, passed or not.

    Raises:
        SmokeError: there is no receipt, or the file is not a receipt.
    """
    try:
        return load(path().read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SmokeError("nothing was proven yet", where=paths.shown(path()), fix="run `invoke smoke` first") from None
    except ValueError as problem:
        raise SmokeError(f"not a smoke receipt: {problem}", where=paths.shown(path()), fix="run `invoke smoke` again") from None


def proven_digests() -> frozenset[str]:
    """Digests of the images that the last run proved; none when it failed, ran no images, or when there was no run."""
    try:
        last = read()
    except SmokeError:
        return frozenset()
    return frozenset(image.digest for image in last.images) if last.passed and last.container else frozenset()
