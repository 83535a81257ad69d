"""What the rungs of one run share: the images and how to start them, and a book of everything they find out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from docker.types import DeviceRequest

from images.receipt import BuiltImage
from smoke.container import Sandbox, Spec
from smoke.receipt import Answer, Serving, Training
from smoke.session import Session

# One thread: the tiny model gains nothing from more, and sums in one order give the same figures every time. The hub cannot
# be reached, and says so at once instead of after retries.
_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


@dataclass(slots=True)
class Figures:
    """What the rungs found out so far; the receipt takes it over, but for the versions.

    Attributes:
        versions: of the packages in an image, by its task.
    """

    versions: dict[str, dict[str, str]] = field(default_factory=dict)
    training: Training | None = None
    servings: list[Serving] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Bench:
    """Everything a rung needs.

    Attributes:
        session: the run's belongings in the engine.
        images: by task: `train` and `api`, whatever family they are of.
        gpu: what a container asks for to get a GPU; None on the CPU.
        logs: directory of the containers' logs.
        figures: the book.
    """

    session: Session
    images: Mapping[str, BuiltImage]
    gpu: DeviceRequest | None
    logs: Path
    figures: Figures = field(default_factory=Figures)

    def container(
        self, name: str, task: str, command: Sequence[str], *, environment: Mapping[str, str] | None = None, shm: int = 64 << 20
    ) -> Sandbox:
        """A container of the image for `task`, not started yet."""
        spec = Spec(
            name=name,
            image=self.images[task].digest,
            command=tuple(command),
            labels=self.session.labels,
            volume=self.session.volume,
            environment={**_ENVIRONMENT, **(environment or {})},
            # CUDA maps much more than it uses; on the CPU the measured need is below half of this.
            memory=(32 if self.gpu else 8) << 30,
            shm=shm,
            gpu=self.gpu,
        )
        return Sandbox(spec, self.logs)
