"""The machine a run happens on, as far as its figures depend on it."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from common.run import run
from smoke.receipt import Gpu, Host

_MIB = 1 << 20


def describe() -> Host:
    """This machine; GPUs only where NVIDIA's driver is installed."""
    return Host(
        cpu=cpu_model(Path("/proc/cpuinfo").read_text(errors="replace")) or platform.machine(),
        cores=len(os.sched_getaffinity(0)),
        memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        gpus=_gpus(),
    )


def cpu_model(cpuinfo: str) -> str:
    """The model name out of `/proc/cpuinfo`; empty where the kernel gives none."""
    for line in cpuinfo.splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return " ".join(value.split())
    return ""


def parse_gpus(csv: str) -> tuple[Gpu, ...]:
    """What `nvidia-smi` printed, a line for each GPU: name, driver version, MiB of memory."""
    found = []
    for line in csv.splitlines():
        cells = [cell.strip() for cell in line.split(",")]
        if len(cells) == 3 and cells[2].isdigit():
            found.append(Gpu(cells[0], cells[1], int(cells[2]) * _MIB))
    return tuple(found)


def _gpus() -> tuple[Gpu, ...]:
    program = Path("/usr/bin/nvidia-smi")
    if not program.exists():
        return ()
    # Part of the driver; a broken driver shows itself in the rungs, with the device's own words.
    said = run([program, "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader,nounits"], timeout=30)
    return parse_gpus(said.stdout) if said.code == 0 else ()
