"""Locks of Python sets that say what they ask of a GPU and nothing else."""

from __future__ import annotations

from lockfiles import lockfile
from lockfiles.model import Artifact, Gpu, SetLock, Wheel

CU130 = Gpu("13.0", 580, ("7.5", "8.0", "8.6", "9.0", "10.0", "12.0"))
CU128 = Gpu("12.8", 525, ("7.0", "7.5", "8.0", "8.6", "9.0", "10.0", "12.0"))
# What the images of each role ask for.
ASKED = {"train": CU130, "api": CU130, "train-cu128": CU128, "api-cu128": CU128}


def write(**gpus: Gpu | None) -> None:
    """Write a lock for each set, `_` for `-` in its name, below `paths.LOCKFILES`."""
    wheel = Wheel("one", "1.0", Artifact("one-1.0-py3-none-any.whl", 1, "0" * 64))
    for name, gpu in gpus.items():
        lockfile.write_set(SetLock(name.replace("_", "-"), "", "2026-01-02", "3.11.2", "2.36", (wheel,), gpu))


def write_all() -> None:
    """The locks of every family; api-cpu's torch is the ordinary one, which could use a GPU."""
    write(train=CU130, api=CU130, api_cpu=CU130, train_cu128=CU128, api_cu128=CU128)
