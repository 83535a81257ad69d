"""A run of the ladder, as its rungs share it: how to start the images, and a book of everything they find out."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from images.receipt import BuiltImage
from smoke.boxes.box import Box, Place
from smoke.receipt import Answer, Figure, Serving, Training
from smoke.rungs.jobs import Jobs

# One thread: the tiny model gains nothing from more, and sums in one order give the same figures every time. The hub cannot
# be reached, and says so at once instead of after retries.
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


@dataclass(slots=True)
class Figures:
    """What the rungs found out so far; the receipt takes it over. Several threads may book.

    Attributes:
        versions: of the packages in an image, by its task.
        measured: by name.
    """

    versions: dict[str, dict[str, str]] = field(default_factory=dict)
    training: Training | None = None
    servings: list[Serving] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    measured: dict[str, Figure] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def measure(self, name: str, value: float, unit: str) -> None:
        """Book a figure; of two under one name the last stays."""
        with self._lock:
            self.measured[name] = Figure(name, round(value, 4), unit)


@dataclass(frozen=True, slots=True)
class Run:
    """A run of the ladder: everything a rung needs.

    Attributes:
        place: where the programs work.
        gpu: whether on the GPU.
        jobs: what goes on meanwhile.
        contained: whether the images run; without, plain processes do.
        open: makes a box: its name, the task whose image it is of (`train` or `api`), its command, its environment beside
            `ENVIRONMENT`, bytes of /dev/shm.
        images: by task; none where none run.
        figures: the book.
    """

    place: Place
    gpu: bool
    jobs: Jobs
    contained: bool
    open: Callable[[str, str, list[str], Mapping[str, str], int], Box]
    images: Mapping[str, BuiltImage] = field(default_factory=dict)
    figures: Figures = field(default_factory=Figures)

    def box(
        self, name: str, task: str, command: list[str], *, environment: Mapping[str, str] | None = None, shm: int = 64 << 20
    ) -> Box:
        """A program in the image for `task`, not started yet."""
        return self.open(name, task, command, {**ENVIRONMENT, **(environment or {})}, shm)

    def payload(self, program: str) -> str:
        """The path of a payload program, as programs in a box see it."""
        return f"{self.place.payload}/{program}"
