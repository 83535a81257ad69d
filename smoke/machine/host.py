"""The machine a run happens on, with its GPUs, as the receipt names it."""

from __future__ import annotations

from common.errors import MissingEnvironmentError
from common.machine import this_machine
from smoke.machine import gpus
from smoke.receipt import Gpu, Host


def describe() -> Host:
    """This machine; GPUs only where NVIDIA's driver is installed."""
    machine = this_machine()
    return Host(cpu=machine.cpu, cores=machine.cores, memory=machine.memory, gpus=_gpus())


def _gpus() -> tuple[Gpu, ...]:
    if not gpus.installed():
        return ()
    try:
        devices = gpus.devices()
    except MissingEnvironmentError:
        # A broken driver has nothing to describe; where a GPU was asked for, that was refused before.
        return ()
    return tuple(Gpu(device.name, device.driver, device.memory) for device in devices)
