"""What `invoke smoke` makes sure of before it touches an image or an earlier receipt: that this host can run the ladder.

Otherwise it ends after minutes, in the words of CUDA or of the kernel, over something that is known beforehand.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from common import console, paths
from common.errors import LockError, MissingEnvironmentError
from images import spec
from images.receipt import BuiltImage
from images.spec import GpuNeeds
from smoke.machine import engine, gpus, host
from smoke.machine.engine import Engine
from smoke.machine.gpus import WITHOUT, Device
from smoke.payload.tiny import GPU_SHARE

# How many pieces of work run together at the most; each may be a server, for whose memory there has to be room.
AT_ONCE = 2
# What a server took on the CPU, with some room; the rest of the ladder takes less.
_MEMORY = 3_800_000_000
# For logs, reports and what the containers write, beside the images.
_DISK = 500_000_000
# vLLM refuses to start on less than 160 MiB of shared memory, and each server then maps 420 MB of it.
_SHARED = AT_ONCE * 420_000_000
# For CUDA's contexts and the tiny model, where vLLM's share of a small GPU is less. An estimate from above, never measured.
_LEAST = 2 << 30
# vLLM refuses to compute in it on anything older.
_BFLOAT16 = (8, 0)
_SHM, _MEMINFO = Path("/dev/shm"), Path("/proc/meminfo")  # noqa: S108 - looked at, not written to


@dataclass(frozen=True, slots=True)
class Fit:
    """A host that was found fit.

    Attributes:
        device: the GPU for plain processes, by UUID or number; empty on the CPU.
        at_once: how many pieces of work may run together.
        message: what was found.
        seconds: how long it took to find.
    """

    device: str
    at_once: int
    message: str
    seconds: float


@dataclass(frozen=True, slots=True)
class _Unfit:
    """Why a GPU cannot run the images, and what to do about it."""

    what: str
    fix: str


def contained(fit: Engine, images: Sequence[BuiltImage], *, gpu: bool) -> tuple[Engine, Fit]:
    """A host on which these images can run, and its engine, asked for the GPU if one is wanted.

    Args:
        fit: its engine.
        images: of the ladder.
        gpu: whether on a GPU.

    Raises:
        MissingEnvironmentError: they cannot; nothing was touched.
    """
    began = time.monotonic()
    found = [f"engine {fit.version}", *_host()]
    if gpu:
        device, only = _choose(images)
        info = fit.client.info()
        fit = replace(fit, gpu=engine.gpu_request(info, device, only=only), every=engine.every_gpu(info))
        found.append(_told(device))
    _check_disk(fit, images)
    return fit, Fit("", _at_once(), ", ".join(found), time.monotonic() - began)


def plain(*, gpu: bool) -> Fit:
    """A host on which the programs can run as plain processes.

    Raises:
        MissingEnvironmentError: they cannot; nothing was touched.
    """
    began = time.monotonic()
    found = ["no containers", *_host()]
    device = ""
    if gpu:
        # What torch on PATH holds code for is not known here; the device rungs ask it.
        chosen, _ = _choose(())
        device = chosen.uuid or chosen.id
        found.append(_told(chosen))
    with contextlib.suppress(OSError):
        if (free := shutil.disk_usage(_SHM).free) < _SHARED:
            raise MissingEnvironmentError(
                f"{console.size(free)} of shared memory are free, the servers need {console.size(_SHARED)}",
                where=str(_SHM),
                fix="mount it larger: `mount -o remount,size=2G /dev/shm`, or `--shm-size` where this is a container",
            )
        found.append(f"{console.size(free)} of shared memory free")
    return Fit(device, _at_once(), ", ".join(found), time.monotonic() - began)


def _host() -> list[str]:
    """What the processor, the memory and the disk are; refuses too little of either."""
    machine = host.describe()
    free = _available()
    if free < _MEMORY:
        raise MissingEnvironmentError(
            f"{console.size(free)} of memory are available, a server needs {console.size(_MEMORY)}",
            where=str(_MEMINFO),
            fix="end what uses it, or take a larger machine",
        )
    dist = paths.dist()
    there = next(folder for folder in (dist, *dist.parents) if folder.exists())
    if (room := shutil.disk_usage(there).free) < _DISK:
        raise MissingEnvironmentError(
            f"{console.size(room)} of disk are free, a run writes up to {console.size(_DISK)}",
            where=paths.shown(dist),
            fix="free some space, or set PINWHEEL_DIST",
        )
    return [
        f"{machine.cores} cores",
        f"{console.size(free)} of {console.size(machine.memory)} of memory available",
        f"{console.size(room)} of disk free",
    ]


def _available() -> int:
    """Bytes of memory that programs can still get, as the kernel estimates (proc(5), "MemAvailable")."""
    found = re.search(r"^MemAvailable:\s+(\d+) kB$", _MEMINFO.read_text(), re.MULTILINE)
    return int(found[1]) << 10 if found else os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")


def _at_once() -> int:
    return min(AT_ONCE, max(1, _available() // _MEMORY))


def _told(device: Device) -> str:
    free = f", {console.size(device.free)} of its memory free" if device.free is not None else ""
    return f"GPU {device.id}: {device.name}, driver {device.driver}{free}"


def _choose(images: Sequence[BuiltImage]) -> tuple[Device, bool]:
    """The first GPU that can run all of these images, and whether it is the only one of this host.

    One is enough for the ladder and leaves the others alone; LLaMA-Factory would otherwise spread the tiny model over all.

    Raises:
        MissingEnvironmentError: no GPU can.
    """
    needs = [one for image in images if (one := GpuNeeds.of(image.name, image.driver, image.compute))]
    found = gpus.devices()
    reasons: list[_Unfit] = []
    for device in found:
        reason = _mismatch(device, needs) or _lack(device)
        if reason is None:
            return device, len(found) == 1
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
    for need in needs:
        if device.branch and device.branch < need.driver:
            return _Unfit(
                f"driver {device.driver} is older than {need.driver}, which {need.image} asks for", "update the driver"
            )
    for need in needs:
        if device.compute and not need.runs_on(device.compute):
            return _Unfit(f"{capability}, {need.image} holds code for {need.capabilities()} alone", "use another GPU")
    return None


def _lack(device: Device) -> _Unfit | None:
    """Why the GPU has no room for the ladder now."""
    if not device.id:
        return _Unfit(f"{device.name} is in MIG mode and has no instance", "make one with `nvidia-smi mig`")
    least = AT_ONCE * max(_LEAST, int(GPU_SHARE * device.memory))
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


def _others(devices: Sequence[Device], needs: Sequence[GpuNeeds]) -> tuple[str, ...]:
    """The images of another family that could run here; none when these could, were there room, or none are meant."""
    if not needs or any(_mismatch(device, needs) is None for device in devices):
        return ()
    for family in spec.families():
        pair = spec.pair(family)
        with contextlib.suppress(LockError):  # One that is not locked is not offered.
            pair_needs = [need for role in pair if (need := spec.gpu_needs(role))]
            if len(pair_needs) == len(pair) and any(_mismatch(device, pair_needs) is None for device in devices):
                return pair
    return ()


def _check_disk(fit: Engine, images: Sequence[BuiltImage]) -> None:
    held = [image for image in images if engine.holds(fit.client, image)]
    known = frozenset(layer.digest for image in held for layer in image.layers)
    engine.check_disk(fit.client, [image for image in images if image not in held], known)
