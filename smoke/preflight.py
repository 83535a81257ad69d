"""What `invoke smoke --gpu` makes sure of before it touches an image: a GPU that can run both, and room to load them.

Otherwise a ladder ends after minutes, in the words of CUDA, over something that is known beforehand.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from common import console
from common.errors import LockError, MissingEnvironmentError
from images import spec
from images.receipt import BuiltImage
from images.spec import GpuNeeds
from smoke import engine, gpus
from smoke.engine import Engine
from smoke.gpus import WITHOUT, Device
from smoke.payload.tiny import GPU_SHARE

# For CUDA's contexts and the tiny model, where vLLM's share of a small GPU is less. An estimate from above, never measured.
_LEAST = 2 << 30
# vLLM refuses to compute in it on anything older.
_BFLOAT16 = (8, 0)


@dataclass(frozen=True, slots=True)
class _Unfit:
    """Why a GPU cannot run the images, and what to do about it."""

    what: str
    fix: str


def choose(fit: Engine, images: Sequence[BuiltImage]) -> Engine:
    """The engine, asked for the first GPU that can run all of these images.

    One is enough for the ladder and leaves the others alone; LLaMA-Factory would otherwise spread the tiny model over all.

    Raises:
        MissingEnvironmentError: no GPU can, or the engine has no room for the images.
    """
    needs = [one for image in images if (one := GpuNeeds.of(image.name, image.driver, image.compute))]
    found = gpus.devices()
    reasons: list[_Unfit] = []
    for device in found:
        reason = _mismatch(device, needs) or _lack(device)
        if reason is None:
            console.info(f"GPU {device.id}: {device.name}, driver {device.driver}")
            _check_disk(fit, images)
            return replace(fit, gpu=engine.gpu_request(fit.client.info(), device, only=len(found) == 1))
        reasons.append(reason)
    what = "; ".join(dict.fromkeys(reason.what for reason in reasons))
    others = _others(found, needs)
    fix = reasons[0].fix + (f", or build {' and '.join(others)}" if others else f", or {WITHOUT}")
    raise MissingEnvironmentError(what, where=", ".join(device.name for device in found), fix=fix)


def _mismatch(device: Device, needs: Sequence[GpuNeeds]) -> _Unfit | None:
    """Why smoke cannot run images with these needs on this GPU; what the driver does not tell is left to the ladder."""
    capability = f"{device.name} has compute capability {'.'.join(map(str, device.compute or ()))}"
    # First: no other driver and no other images would help.
    if device.compute and device.compute < _BFLOAT16:
        begins = ".".join(map(str, _BFLOAT16))
        what = f"{capability}, smoke computes in bfloat16, which begins with compute capability {begins}"
        return _Unfit(what, "use another GPU")
    for one in needs:
        if device.branch and device.branch < one.driver:
            return _Unfit(f"driver {device.driver} is older than {one.driver}, which {one.image} asks for", "update the driver")
    for one in needs:
        if device.compute and not one.runs_on(device.compute):
            return _Unfit(f"{capability}, {one.image} holds code for {one.capabilities()} alone", "use another GPU")
    return None


def _lack(device: Device) -> _Unfit | None:
    """Why the GPU has no room for the ladder now."""
    if not device.id:
        return _Unfit(f"{device.name} is in MIG mode and has no instance", "make one with `nvidia-smi mig`")
    least = max(_LEAST, int(GPU_SHARE * device.memory))
    if device.memory and device.memory < least:
        what = f"{device.name} has {console.size(device.memory)} of memory, smoke needs {console.size(least)}"
        return _Unfit(what, "use another GPU")
    free = device.memory if device.free is None else device.free
    if device.memory and free < least:
        what = (
            f"{device.name} has {console.size(free)} of {console.size(device.memory)} free, smoke needs {console.size(least)}"
        )
        return _Unfit(what, "end what uses it, which `nvidia-smi` names")
    return None


def _others(found: Sequence[Device], needs: Sequence[GpuNeeds]) -> tuple[str, ...]:
    """The images of another family that could run here; none when these could, were there room."""
    if any(_mismatch(device, needs) is None for device in found):
        return ()
    for family in spec.families():
        pair = spec.pair(family)
        with contextlib.suppress(LockError):  # One that is not locked is not offered.
            wanted = [one for role in pair if (one := spec.gpu_needs(role))]
            if len(wanted) == len(pair) and any(_mismatch(device, wanted) is None for device in found):
                return pair
    return ()


def _check_disk(fit: Engine, images: Sequence[BuiltImage]) -> None:
    held = [image for image in images if engine.holds(fit.client, image)]
    known = frozenset(layer.digest for image in held for layer in image.layers)
    engine.check_disk(fit.client, [image for image in images if image not in held], known)
