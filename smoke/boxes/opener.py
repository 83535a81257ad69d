"""Makes the containers of a run, out of the images under test."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from docker.types import DeviceRequest

from images.receipt import BuiltImage
from smoke.boxes.container import Sandbox
from smoke.boxes.held import Spec
from smoke.boxes.session import Session

# The programs of these rungs look at every GPU there is.
_OF_EVERY_GPU = "device of "


@dataclass(frozen=True, slots=True)
class Opener:
    """Makes the containers of a run; it is what `Run.open` is.

    Attributes:
        session: the run's belongings in the engine.
        images: by task: `train` and `api`, whatever family they are of.
        gpu: what a container asks for to get a GPU; None on the CPU.
        logs: directory of the containers' logs.
        every: what a container asks for to get all GPUs; None where the engine hands out no more than one.
    """

    session: Session
    images: Mapping[str, BuiltImage]
    gpu: DeviceRequest | None
    logs: Path
    every: DeviceRequest | None = None

    def __call__(self, name: str, task: str, command: list[str], environment: Mapping[str, str], shm: int) -> Sandbox:
        """A container, not started yet; see `Run.open`.

        Raises:
            SmokeError: the run is over.
        """
        spec = Spec(
            name=name,
            image=self.images[task].digest,
            command=tuple(command),
            labels=self.session.labels,
            volume=self.session.volume,
            environment=environment,
            # CUDA maps much more than it uses; on the CPU the measured need is below half of this.
            memory=(32 if self.gpu else 8) << 30,
            shm=shm,
            gpu=(self.every or self.gpu) if name.startswith(_OF_EVERY_GPU) else self.gpu,
        )
        box = Sandbox(spec, self.logs)
        self.session.admit(box)
        return box
