"""The machine that a run happens on, as far as its figures depend on it."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Machine:
    """A class of machine: figures of two runs can be compared when these are equal.

    Attributes:
        cpu: its model, in words.
        cores: how many this process may use.
        memory: bytes.
    """

    cpu: str
    cores: int
    memory: int


def this_machine() -> Machine:
    """The machine that this process runs on."""
    return Machine(
        cpu=cpu_model(Path("/proc/cpuinfo").read_text(errors="replace")) or platform.machine(),
        cores=len(os.sched_getaffinity(0)),
        memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
    )


def cpu_model(cpuinfo: str) -> str:
    """The model name out of `/proc/cpuinfo`; empty where the kernel gives none."""
    for line in cpuinfo.splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return " ".join(value.split())
    return ""
