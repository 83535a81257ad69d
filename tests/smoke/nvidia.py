"""An `nvidia-smi` to put on PATH: a real program that prints what NVIDIA's prints on machines we do not have."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

import pytest

from common.files import write_whole

H100 = "0, GPU-4c1bd3b2-6d0e-7a63-0a5c-6a1f6a7f2d10, NVIDIA H100 80GB HBM3, 580.65.06, 81559, 81079, 9.0, Disabled"
L4 = "1, GPU-8d2ff8d4-6a3b-2f4e-9a55-0d6a3b2c1e90, NVIDIA L4, 580.65.06, 23034, 22560, 8.9, [N/A]"
# Volta: newer drivers still know it, CUDA 13 does not.
V100 = "0, GPU-0c5a9c1e-52a5-4a6b-8f5c-3b6f0d1f7a01, Tesla V100-SXM2-32GB, 580.65.06, 32768, 32488, 7.0, [N/A]"
# Turing: the last without bfloat16.
T4 = "0, GPU-b7a2d6c4-3e1f-4a0c-8d5b-9f6e7c8a1b20, Tesla T4, 580.65.06, 15360, 14913, 7.5, [N/A]"
# Ampere, as old as images for CUDA 12 can be run with.
A100 = "0, GPU-3d9e5f70-8b1c-4c2d-a6e7-1f0a9b8c7d60, NVIDIA A100-SXM4-80GB, 580.65.06, 81920, 81050, 8.0, Disabled"
OLDER_DRIVER = H100.replace("580.65.06", "550.54.15")
# Its driver knows neither compute_cap nor the other new fields.
OLD_DRIVER = "0, GPU-0c5a9c1e-52a5-4a6b-8f5c-3b6f0d1f7a01, Tesla V100-SXM2-32GB, 470.57.02, 32510, 32505"
BUSY = L4.replace("22560", "1210")
# Memory that CPU and GPU share belongs to neither.
SHARED_MEMORY = "0, GPU-2f0e4b7a-1d8c-4b59-8e02-5a7c9d3e6f41, NVIDIA GB10, 580.95.05, [N/A], [N/A], 12.1, [N/A]"
MIG = "0, GPU-5d5ba0d6-d33d-2b2c-524d-9e3d8d2b8a77, NVIDIA A100-SXM4-40GB, 580.65.06, 40960, 40320, 8.0, Enabled"
MIG_LIST = """GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-5d5ba0d6-d33d-2b2c-524d-9e3d8d2b8a77)
  MIG 3g.20gb     Device  0: (UUID: MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f)
  MIG 1g.5gb+me   Device  1: (UUID: MIG-0c757cd7-e942-5726-a0b8-0e8fb7067135)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-9a2b0d5e-0f4c-4e57-b1a9-7c3d2e1f0a98)
  MIG 7g.40gb     Device  0: (UUID: MIG-1d5c3bb0-7f2e-5d1a-8b7c-9e0f1a2b3c4d)
GPU 10: NVIDIA A100-SXM4-40GB (UUID: GPU-6b0f3c9e-2a7d-4f18-9d35-8e1c7b5a4f20)
  MIG 4g.20gb     Device  0: (UUID: MIG-2e6d4cc1-8a3f-5e2b-9c8d-0f1e2d3c4b5a)
"""
# A GPU that fell off the bus has no line of its own; one whose memory failed has one.
LOST = "Unable to determine the device handle for GPU0000:0B:00.0: GPU is lost.  Reboot the system to recover this GPU"
LOST_LATER = "0, GPU-7e4c2b1a-9d8f-4e3b-b2a1-0c9d8e7f6a50, NVIDIA L4, [GPU is lost], [GPU is lost], [GPU is lost], 8.9, [N/A]"
NO_COMMUNICATION = (
    "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. "
    "Make sure that the latest NVIDIA driver is installed and running.\n"
)
MISMATCH = "Failed to initialize NVML: Driver/library version mismatch\nNVML library version: 580.65\n"
NO_DEVICES = "No devices were found"
NO_SUCH_FIELD = 'Field "compute_cap" is not a valid field to query.\n'


@dataclass(frozen=True)
class Machine:
    """A machine whose PATH holds nothing but this `nvidia-smi`, if any."""

    folder: Path

    def answers(self, *lines: str, code: int = 0, listed: str = "", old: bool = False) -> None:
        """What it prints from now on; `old` knows only the fields that drivers of 2021 know."""
        new = f"printf %s {shlex.quote(NO_SUCH_FIELD)}; exit 2" if old else ":"
        text = (
            f'case "$1" in -L) printf %s {shlex.quote(listed)}; exit 0;; *compute_cap*) {new};; esac\n'
            f"printf '%s\\n' {shlex.join(lines)}\nexit {code}\n"
        )
        # The program itself is written once: a thread of the test may be running it, and the system starts no file that is
        # open for writing. What it reads changes as a whole.
        write_whole(self.folder / "nvidia-smi.answers", text)
        program = self.folder / "nvidia-smi"
        if not program.exists():
            program.write_text(f"#!/bin/sh\n. {shlex.quote(str(self.folder / 'nvidia-smi.answers'))}\n")
            program.chmod(0o755)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A machine without `nvidia-smi` until it is given one."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return Machine(folder)
