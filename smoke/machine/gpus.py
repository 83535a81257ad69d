"""The GPUs of this machine, as NVIDIA's own `nvidia-smi` tells of them."""

from __future__ import annotations

import contextlib
import re
import shutil
from dataclasses import dataclass

from common.errors import LockError, MissingEnvironmentError, PinwheelError
from common.run import Result, run
from images import spec

WITHOUT = "run `invoke smoke` without --gpu"
_PROGRAM = "nvidia-smi"
_MIB = 1 << 20
_LIMIT_S = 30
_FIELDS = ("index", "uuid", "name", "driver_version", "memory.total", "memory.free")
# Drivers older than any that our images run on do not know these.
_NEWER_FIELDS = ("compute_cap", "mig.mode.current")
_INSTANCE = re.compile(
    r"MIG (?P<profile>\S*?(?P<size>\d+)gb\S*)\s+Device\s+(?P<number>\d+):(?:\s+\(UUID:\s*(?P<uuid>[^\s)]+)\))?"
)
# NVML's words for a GPU that fell off the bus, or has to be reset.
_BROKEN = re.compile(r"\[(GPU .*|Unknown Error)\]")
_FIX = f"`dmesg` has the driver's own words, and an update of it needs a reboot; or {WITHOUT}"


@dataclass(frozen=True, slots=True)
class Device:
    """A GPU, or an instance of one that MIG divides.

    Attributes:
        id: what a container runtime calls it: `0`, or `0:1` for the second instance; empty for a GPU in MIG mode that has none.
        uuid: its own: an instance has another than its GPU; empty where the driver does not say.
        name: as the driver has it.
        driver: its version, `580.65.06`.
        compute: compute capability; None where the driver does not say.
        memory: bytes; 0 where the driver does not say, as for memory that CPU and GPU share.
        free: bytes of it that nobody uses; None where the driver does not say.
    """

    id: str
    uuid: str
    name: str
    driver: str
    compute: tuple[int, int] | None
    memory: int
    free: int | None

    @property
    def branch(self) -> int:
        """The branch of the driver, `580`; 0 where it does not say."""
        branch = self.driver.partition(".")[0]
        return int(branch) if branch.isdigit() else 0


def installed() -> bool:
    """Whether the driver's program is on PATH."""
    return shutil.which(_PROGRAM) is not None


def how_to_get() -> str:
    """What to do on a machine whose GPU cannot be reached, or that has none."""
    asked = []
    for family in spec.families():
        # One whose lock cannot be read is not offered; that lock is not what is wrong here.
        with contextlib.suppress(LockError):
            if needs := spec.gpu_needs(spec.pair(family)[1]):
                asked.append(f"{needs.driver} or newer for {' and '.join(spec.pair(family))}")
    driver = f"NVIDIA's driver ({', '.join(asked)})" if asked else "NVIDIA's driver"
    return f"install {driver} and nvidia-container-toolkit, or {WITHOUT}"


def devices() -> tuple[Device, ...]:
    """The GPUs of this machine, in the driver's order.

    Raises:
        MissingEnvironmentError: there is no `nvidia-smi`, the driver does not answer it, or knows no GPU.
    """
    if not installed():
        raise MissingEnvironmentError("no NVIDIA driver is installed", where="no nvidia-smi on PATH", fix=how_to_get())
    answer = _query((*_FIELDS, *_NEWER_FIELDS))
    if answer.code and "not a valid field" in answer.stdout + answer.stderr:
        answer = _query(_FIELDS)
    # One GPU that fell off the bus makes it fail, after it told of the sound ones.
    gpus = [cells for line in answer.stdout.splitlines() if _sound(cells := _cells(line))]
    if not gpus:
        # It puts its errors on either stream.
        words = " ".join((answer.stdout.strip() or answer.stderr.strip()).split())[:400]
        raise MissingEnvironmentError(
            "NVIDIA's driver shows no GPU", where=words or f"nvidia-smi, code {answer.code}", fix=_FIX
        )
    divided = any(_enabled(cells) for cells in gpus)
    listed = run([_PROGRAM, "-L"], timeout=_LIMIT_S).stdout if divided else ""
    return tuple(device for cells in gpus for device in _devices(cells, listed))


def users() -> str:
    """The processes that compute on GPUs, as the driver tells of them; empty where it does not."""
    argv = [_PROGRAM, "--query-compute-apps=pid,process_name,used_memory", "--format=csv,noheader"]
    try:
        said = run(argv, timeout=_LIMIT_S)
    except (PinwheelError, OSError):
        return ""
    return "; ".join(said.stdout.split("\n")).strip("; ")[:400] if said.code == 0 else ""


def instances(listed: str, index: str) -> tuple[tuple[str, str, int, str], ...]:
    """The MIG instances of a GPU in what `nvidia-smi -L` printed: number, profile, bytes of memory, UUID."""
    found = []
    here = False
    for line in listed.splitlines():
        if line.startswith("GPU "):
            here = line.startswith(f"GPU {index}:")
        elif here and (match := _INSTANCE.search(line)):
            found.append((match["number"], match["profile"], int(match["size"]) << 30, match["uuid"] or ""))
    return tuple(found)


def _query(fields: tuple[str, ...]) -> Result:
    argv = [_PROGRAM, f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"]
    return run(argv, timeout=_LIMIT_S)


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.split(",")]


def _sound(cells: list[str]) -> bool:
    """Whether a line tells of a GPU that can be used; what else is printed is an error, or errors in a GPU's cells."""
    return len(cells) >= len(_FIELDS) and cells[0].isdigit() and not any(map(_BROKEN.fullmatch, cells))


def _enabled(cells: list[str]) -> bool:
    return len(cells) > len(_FIELDS) and cells[-1] == "Enabled"


def _devices(cells: list[str], listed: str) -> list[Device]:
    """One line of the answer; `[N/A]`, `[Not Supported]` and the like are no figures."""
    index, uuid, name, driver, total, free, *more = cells
    capability = re.fullmatch(r"(\d+)\.(\d+)", more[0]) if more else None
    compute = (int(capability[1]), int(capability[2])) if capability else None
    if not _enabled(cells):
        memory = int(total) * _MIB if total.isdigit() else 0
        return [Device(index, uuid, name, driver, compute, memory, int(free) * _MIB if free.isdigit() else None)]
    parts = [
        # What is free is told of the whole GPU only.
        Device(f"{index}:{number}", own, f"{name} MIG {profile}", driver, compute, size, None)
        for number, profile, size, own in instances(listed, index)
    ]
    return parts or [Device("", uuid, name, driver, compute, 0, None)]
