"""What torch sees in each image, and that it computes right there; and, at the very end, that no GPU memory is held."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

import pytest

from common import console
from smoke.boxes.box import told
from smoke.machine import gpus
from smoke.rungs import devices
from smoke.rungs.devices import GpuMemory, Result
from smoke.rungs.jobs import Job
from smoke.rungs.run import Run
from smoke.rungs.table import KNOWN

_IMAGES = ("train", "api")
# NCCL passes what one GPU has for another through it, where they have no faster way.
_SHM = 1 << 30
_GIVEN_BACK_S = 30.0


@pytest.fixture(scope="session")
def gpu_memory(run: Run) -> Iterator[GpuMemory | None]:
    """Of this run, from before its first program; None on the CPU."""
    if not run.gpu:
        yield None
        return
    with GpuMemory() as memory:
        yield memory


@pytest.fixture(scope="session")
def checks(run: Run, gpu_memory: GpuMemory | None) -> dict[str, Job[Result]]:
    """Both images look at the same time."""
    del gpu_memory
    return {image: run.jobs.start(f"device of {image}", functools.partial(_look, run, image)) for image in _IMAGES}


def _look(run: Run, image: str) -> Result:
    name = f"device of {image}"
    # A program of the ladder gets one GPU; what is looked at here is all of them.
    every = {} if run.contained or not run.gpu else devices.every_gpu()
    with run.box(name, image, ["python", run.payload("device.py")], environment=every, shm=_SHM) as box:
        box.finish(KNOWN[name].limit)
        return told(name, box.stdout())


@pytest.mark.parametrize("image", _IMAGES)
@pytest.mark.rung("device of {image}", needs=("contract of {image}",))
def test_device(
    run: Run,
    say: Callable[[str], None],
    took: Callable[[float], None],
    checks: dict[str, Job[Result]],
    image: str,
) -> None:
    """Torch sees GPUs with --gpu and none without; it and its whole company can be imported; products and sums are right."""
    try:
        result = checks[image].result()
    finally:
        took(checks[image].seconds)
    # What the contract found of an image stays; without containers nothing else tells.
    run.figures.versions[image] = {**result["versions"], **run.figures.versions.get(image, {})}
    run.figures.measure(f"import in {image}", sum(result["seconds"].values()), "s")
    say(devices.judge(result, gpu=run.gpu, needed=(*devices.NEEDED, *(("vllm",) if image == "api" else ()))))


@pytest.mark.rung("GPU memory given back", needs=("device of train", "device of api"), gpu=True, last=True)
def test_gpu_memory_given_back(run: Run, say: Callable[[str], None], gpu_memory: GpuMemory) -> None:
    """When everything has ended, as much GPU memory is free as before anything began."""
    assert gpu_memory is not None
    held = gpu_memory.held(_GIVEN_BACK_S)
    taken = max((gpu_memory.peak.get(gpu, 0) - size for gpu, size in gpu_memory.before.items()), default=0)
    what = ", ".join(f"{console.size(size)} of {gpu}" for gpu, size in held.items())
    assert not held, (
        f"{what} more than before are used {_GIVEN_BACK_S:.0f} s after everything ended, by this run or by others; "
        f"the driver names {gpus.users() or 'no process'}"
    )
    if not gpu_memory.before:
        say("the driver does not say what is used of a MIG instance, or of memory that CPU and GPU share: not measured")
        return
    run.figures.measure("GPU memory", taken, "bytes")
    say(f"{console.size(taken)} at the most, all given back")
