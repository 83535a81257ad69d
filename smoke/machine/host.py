"""The machine a run happens on, as far as its figures depend on it."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from bench.shared import cpu_model
from common.errors import MissingEnvironmentError
from smoke.machine import gpus
from smoke.receipt import Gpu, Host


def describe() -> Host:
    """This machine; GPUs only where NVIDIA's driver is installed."""
    return Host(
        cpu=cpu_model(Path("/proc/cpuinfo").read_text(errors="replace")) or platform.machine(),
        cores=len(os.sched_getaffinity(0)),
        memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        gpus=_gpus(),
    )


def _gpus() -> tuple[Gpu, ...]:
    if not gpus.installed():
        return ()
    try:
        found = gpus.devices()
    except MissingEnvironmentError:
        # A broken driver has nothing to describe; where a GPU was asked for, that was refused before.
        return ()
    return tuple(Gpu(device.name, device.driver, device.memory) for device in found)
