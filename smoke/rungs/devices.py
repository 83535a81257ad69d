"""What the programs on the devices found, judged; and how much GPU memory is used, watched."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from typing import Any

from common import console
from common.errors import PinwheelError, SmokeError
from smoke.machine import gpus

Result = dict[str, Any]
# What every image has to have.
NEEDED = ("torch", "transformers", "peft", "trl", "datasets", "accelerate", "llamafactory")
_TYPES = ("bfloat16", "float32")
# Less than a bare CUDA context takes, more than the driver's own accounting moves by.
_NOISE = 64 << 20
_LOOK_S = 2.0


class GpuMemory:
    """What is used of each GPU's memory: when it was made, and the highest since. A context manager: inside, it is sampled."""

    def __init__(self) -> None:
        self.before = used()
        self.peak = dict(self.before)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, name="gpu-memory", daemon=True)

    def __enter__(self) -> GpuMemory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(_LOOK_S):
            try:
                now = used()
            except (PinwheelError, OSError):
                # No answer now: the peak is a figure, and at the end, where it counts, somebody listens.
                continue
            for gpu, size in now.items():
                self.peak[gpu] = max(self.peak.get(gpu, 0), size)

    def held(self, seconds: float) -> dict[str, int]:
        """What is used more of each GPU than before, once that is no more than noise, or after these seconds."""
        limit = time.monotonic() + seconds
        while True:
            now = used()
            more = {gpu: now.get(gpu, 0) - size for gpu, size in self.before.items()}
            held = {gpu: size for gpu, size in more.items() if size > _NOISE}
            if not held or time.monotonic() > limit:
                return held
            time.sleep(1)


def used() -> dict[str, int]:
    """Bytes that are used of each GPU, by what people call it; a GPU whose driver does not say is left out."""
    return {
        f"GPU {device.id} ({device.name})": device.memory - device.free
        for device in gpus.devices()
        if device.memory and device.free is not None
    }


def judge(result: Result, *, gpu: bool, needed: tuple[str, ...]) -> str:
    """What was found, in a line.

    Args:
        result: by payload/device.py.
        gpu: whether there have to be GPUs; otherwise there must be none.
        needed: modules that have to be there.

    Raises:
        SmokeError: it is not as it should be.
    """
    able = [device for device in result["gpus"] if device["fit"]]
    trouble = (
        _imports(result, needed) or _gpus(result, able, gpu=gpu) or _products(result, able) or _reduced(result, able, gpu=gpu)
    )
    if trouble:
        raise SmokeError(trouble)
    where = ", ".join(device["name"] for device in able) or "no GPU, as asked"
    unfit = len(result["gpus"]) - len(able)
    reduced = result["reduced"]
    return (
        f"torch {result['versions']['torch']}, {where}{f' ({unfit} more that it cannot use)' if unfit else ''}; "
        f"bfloat16 and float32 products within {max(product['share'] for product in result['products']):.0%} of the error bound"
        + (f", {reduced['backend']} over {reduced['processes']} processes" if reduced else "")
        + f"; {len(result['seconds'])} packages imported in {console.seconds(sum(result['seconds'].values()))}"
    )


def _imports(result: Result, needed: tuple[str, ...]) -> str:
    if result["refused"]:
        name, why = next(iter(result["refused"].items()))
        return f"{name} cannot be imported: {why}"
    missing = [name for name in needed if name not in result["versions"]]
    return f"not installed: {', '.join(missing)}" if missing else ""


def _gpus(result: Result, able: Sequence[Result], *, gpu: bool) -> str:
    if not gpu:
        return "torch has a GPU in a run without --gpu" if result["available"] else ""
    if not result["available"]:
        return "torch has no GPU, though --gpu was asked for"
    if able:
        return ""
    there = ", ".join(f"{device['name']} ({'.'.join(map(str, device['capability']))})" for device in result["gpus"]) or "none"
    return f"torch can use no GPU here, {there}: it holds code for {' '.join(result['architectures'])}"


def _products(result: Result, able: Sequence[Result]) -> str:
    """Every device has to compute in both types, itself."""
    expected = [(device, kind) for device in ("cpu", *(f"cuda:{product['number']}" for product in able)) for kind in _TYPES]
    done = [(product["device"], product["type"]) for product in result["products"]]
    if done != expected:
        return f"matrix products were computed as {done}, not as {expected}"
    for product in result["products"]:
        what = f"the {product['type']} matrix product on {product['device']}"
        if product["share"] is None:
            return f"{what} has elements that are no numbers"
        if product["share"] > 1:
            return f"{what} is off by {product['share']:.3g} times the error bound"
    return ""


def _reduced(result: Result, able: Sequence[Result], *, gpu: bool) -> str:
    """Two GPUs have to add up over NCCL, and two processes of the CPU over gloo; one GPU alone has nobody to add up with."""
    reduced = result["reduced"]
    expected = "nccl" if len(able) > 1 else "" if gpu else "gloo"
    if (reduced["backend"] if reduced else "") != expected:
        return f"all-reduce ran over {reduced['backend'] if reduced else 'nothing'}, not over {expected or 'nothing'}"
    if reduced and reduced["wrong"]:
        return f"{reduced['backend']} added up wrongly, {reduced['wrong']} elements"
    return ""


def every_gpu() -> dict[str, str]:
    """The environment in which CUDA shows all GPUs that the user has not hidden."""
    asked = os.environ.get("CUDA_VISIBLE_DEVICES")
    found = ",".join(device.uuid for device in gpus.devices() if device.uuid) if asked is None else asked
    return {"CUDA_VISIBLE_DEVICES": found} if found else {}
