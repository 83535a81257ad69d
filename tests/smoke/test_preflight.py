"""What `invoke smoke` refuses before it touches an image, on machines that an `nvidia-smi` of ours describes, and others."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import cast

import docker
import pytest
from docker.types import DeviceRequest

from common import host as engine_host
from common import paths
from common.errors import BuildError, ExitCode, MissingEnvironmentError, UsageError
from images import receipt as built
from images import spec
from images.receipt import BuildReceipt, BuiltImage
from smoke import ladder, preflight, receipt
from smoke.machine import gpus, host
from smoke.machine.engine import Engine, every_gpu
from smoke.machine.gpus import Device
from smoke.receipt import Gpu
from tests import set_locks
from tests.smoke import layouts, nvidia
from tests.smoke.nvidia import Machine, machine
from tests.smoke.simulator import SimulatedEngine

__all__ = ["machine"]
PLAIN, CU128 = ("train", "api"), ("train-cu128", "api-cu128")


@pytest.fixture
def locks(own_folders: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Locks of every family; api-cpu's is there as well."""
    monkeypatch.setattr(paths, "LOCKFILES", own_folders / "lockfiles")
    set_locks.write_all()
    return own_folders / "lockfiles"


@pytest.fixture
def engine(locks: Path, monkeypatch: pytest.MonkeyPatch) -> SimulatedEngine:
    """An engine with NVIDIA's runtime."""
    simulated = SimulatedEngine(Runtimes={"nvidia": {}, "runc": {}})
    monkeypatch.setattr(engine_host, "engine", lambda: simulated)
    return simulated


def build(*roles: str) -> BuildReceipt:
    layout = built.layout()
    images = []
    for role in roles:
        image = layouts.add(layout, role, [layouts.layer({role: b"x"})])
        gpu = set_locks.ASKED.get(role)
        images.append(replace(image, driver=gpu.driver, compute=gpu.compute) if gpu else image)
    return kept(*images)


def kept(*images: BuiltImage) -> BuildReceipt:
    made = BuildReceipt("abc", images)
    built.write(made)
    return made


def refused(*, gpu: bool = True, container: bool = True) -> str:
    """The one line with which the run ends; nothing was touched by it."""
    receipt.path().parent.mkdir(parents=True, exist_ok=True)
    receipt.path().write_text("an earlier run's")
    with pytest.raises(MissingEnvironmentError) as caught:
        ladder.run_smoke(gpu=gpu, container=container)
    assert caught.value.exit_code == ExitCode.ENVIRONMENT
    assert receipt.path().read_text() == "an earlier run's"
    return caught.value.line()


def chosen(monkeypatch: pytest.MonkeyPatch) -> DeviceRequest | None:
    """What the run asks the engine for; it ends there."""
    requests = []

    def climb(fit: Engine, *_: object, **__: object) -> None:
        requests.append(fit.gpu)
        assert fit.every == every_gpu(fit.client.info())
        raise KeyboardInterrupt

    monkeypatch.setattr(ladder, "_containers", climb)
    with pytest.raises(KeyboardInterrupt):
        ladder.run_smoke(gpu=True)
    (request,) = requests
    return request


def by_number(number: str) -> dict[str, object]:
    return {"Driver": "", "Count": 0, "DeviceIDs": [number], "Capabilities": [["gpu"]], "Options": {}}


def test_without_a_driver_it_says_so_at_once_and_what_each_pair_needs(engine: SimulatedEngine, machine: Machine) -> None:
    build(*PLAIN)
    assert refused() == (
        "no NVIDIA driver is installed (no nvidia-smi on PATH): install NVIDIA's driver (580 or newer for train and api, "
        "525 or newer for train-cu128 and api-cu128) and nvidia-container-toolkit, or run `invoke smoke` without --gpu"
    )
    assert not engine.images.received


def test_without_a_gpu_runtime_it_says_what_each_pair_needs_before_anything_was_built(
    locks: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_host, "engine", lambda: SimulatedEngine(Runtimes={"runc": {}}))
    line = refused()
    assert "--gpu was asked for, but the engine has no GPU runtime" in line
    assert "580 or newer for train and api, 525 or newer for train-cu128 and api-cu128" in line
    assert line.endswith("or run `invoke smoke` without --gpu")


def test_a_family_that_is_not_locked_is_not_offered(engine: SimulatedEngine, machine: Machine, locks: Path) -> None:
    build(*PLAIN)
    (locks / "api-cu128.lock").unlink()
    assert "(580 or newer for train and api)" in refused()
    machine.answers(nvidia.OLDER_DRIVER)
    assert refused().endswith("update the driver, or run `invoke smoke` without --gpu")


@pytest.mark.parametrize(
    ("words", "code", "shown"),
    [
        (nvidia.NO_COMMUNICATION, 9, "couldn't communicate with the NVIDIA driver"),
        (nvidia.MISMATCH, 18, "Driver/library version mismatch NVML library version: 580.65"),
        (nvidia.NO_DEVICES, 6, "No devices were found"),
        (nvidia.NO_DEVICES, 0, "No devices were found"),
        ("", 1, "nvidia-smi, code 1"),
    ],
)
def test_a_driver_that_does_not_answer(engine: SimulatedEngine, machine: Machine, words: str, code: int, shown: str) -> None:
    build(*PLAIN)
    machine.answers(words, code=code)
    line = refused()
    assert line.startswith("NVIDIA's driver shows no GPU (")
    assert shown in line
    assert line.endswith("or run `invoke smoke` without --gpu")


@pytest.mark.parametrize(
    ("roles", "answer", "line"),
    [
        (
            PLAIN,
            nvidia.OLDER_DRIVER,
            "driver 550.54.15 is older than 580, which test-train asks for (NVIDIA H100 80GB HBM3): "
            "update the driver, or build train-cu128 and api-cu128",
        ),
        (
            PLAIN,
            nvidia.V100,
            "Tesla V100-SXM2-32GB has compute capability 7.0, smoke computes in bfloat16, which begins with compute capability "
            "8.0 (Tesla V100-SXM2-32GB): use another GPU, or run `invoke smoke` without --gpu",
        ),
        (
            PLAIN,
            nvidia.T4,
            "Tesla T4 has compute capability 7.5, smoke computes in bfloat16, which begins with compute capability 8.0 "
            "(Tesla T4): use another GPU, or run `invoke smoke` without --gpu",
        ),
        # A newer driver would not help it.
        (
            PLAIN,
            nvidia.T4.replace("580.65.06", "550.54.15"),
            "Tesla T4 has compute capability 7.5, smoke computes in bfloat16, which begins with compute capability 8.0 "
            "(Tesla T4): use another GPU, or run `invoke smoke` without --gpu",
        ),
        (
            CU128,
            nvidia.A100.replace("580.65.06", "515.105.01"),
            "driver 515.105.01 is older than 525, which test-train-cu128 asks for (NVIDIA A100-SXM4-80GB): "
            "update the driver, or run `invoke smoke` without --gpu",
        ),
        # No promise is made for a GPU that is younger than the images.
        (
            PLAIN,
            nvidia.H100.replace("9.0", "13.0"),
            "NVIDIA H100 80GB HBM3 has compute capability 13.0, test-train holds code for 7.5+, 8.x, 9.x, 10.x, 12.x alone "
            "(NVIDIA H100 80GB HBM3): use another GPU, or run `invoke smoke` without --gpu",
        ),
        (
            PLAIN,
            nvidia.BUSY,
            "NVIDIA L4 has 1.27 GB of 24.15 GB free, smoke needs 9.66 GB (NVIDIA L4): "
            "end what uses it, which `nvidia-smi` names, or run `invoke smoke` without --gpu",
        ),
        # A fifth of it is little, but not what CUDA itself takes.
        (
            PLAIN,
            nvidia.L4.replace("23034, 22560", "2000, 1990"),
            "NVIDIA L4 has 2.10 GB of memory, smoke needs 4.29 GB (NVIDIA L4): "
            "use another GPU, or run `invoke smoke` without --gpu",
        ),
    ],
    ids=["driver", "Volta", "Turing", "Turing, older driver", "driver too old for any", "younger GPU", "busy", "small"],
)
def test_a_gpu_that_cannot_run_them(
    engine: SimulatedEngine, machine: Machine, roles: tuple[str, str], answer: str, line: str
) -> None:
    build(*roles)
    machine.answers(answer)
    assert refused() == line
    assert not engine.images.received


def test_a_driver_so_old_that_it_does_not_know_the_question(engine: SimulatedEngine, machine: Machine) -> None:
    build(*CU128)
    machine.answers(nvidia.OLD_DRIVER, old=True)
    assert refused().startswith("driver 470.57.02 is older than 525, which test-train-cu128 asks for")


def test_of_several_gpus_each_is_told(engine: SimulatedEngine, machine: Machine) -> None:
    build(*PLAIN)
    machine.answers(nvidia.V100, nvidia.BUSY)
    line = refused()
    assert "compute capability 7.0" in line
    assert "NVIDIA L4 has 1.27 GB of 24.15 GB free" in line
    # The L4 would do, were it free: other images would not help it.
    assert "train-cu128 and" not in line


def test_a_divided_gpu_without_an_instance(engine: SimulatedEngine, machine: Machine) -> None:
    build(*PLAIN)
    machine.answers(nvidia.MIG, listed=nvidia.MIG_LIST.splitlines()[0] + "\n")
    assert refused() == (
        "NVIDIA A100-SXM4-40GB is in MIG mode and has no instance (NVIDIA A100-SXM4-40GB): "
        "make one with `nvidia-smi mig`, or run `invoke smoke` without --gpu"
    )


def test_an_engine_without_room_for_both(engine: SimulatedEngine, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    made = build(*PLAIN)
    machine.answers(nvidia.H100)
    engine._info["DockerRootDir"] = str(built.layout())
    monkeypatch.setattr(preflight, "_DISK", 0)
    # Enough for either of them, not for both.
    free = sum(2 * image.size for image in made.images) - 1
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": free})())
    assert refused().startswith("test-train and test-api need 41.0 kB of disk in the engine, 41.0 kB are free")
    assert not engine.images.received


def test_what_is_asked_is_the_digests_whatever_the_lock_of_the_set_has_come_to(
    engine: SimulatedEngine, machine: Machine, locks: Path
) -> None:
    build(*PLAIN)
    machine.answers(nvidia.OLDER_DRIVER)
    set_locks.write(train=set_locks.CU128, api=set_locks.CU128)
    # What would be built now runs here, what was built does not.
    assert refused() == (
        "driver 550.54.15 is older than 580, which test-train asks for (NVIDIA H100 80GB HBM3): "
        "update the driver, or build train and api"
    )
    for file in locks.iterdir():
        file.unlink()
    assert refused().startswith("driver 550.54.15 is older than 580, which test-train asks for")


def test_images_that_do_not_say_what_they_ask_for_are_left_to_the_ladder(
    engine: SimulatedEngine, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept(*(replace(image, driver=0, compute=()) for image in build(*PLAIN).images))
    machine.answers(nvidia.OLDER_DRIVER)
    assert chosen(monkeypatch) == by_number("0")


@pytest.mark.parametrize(
    ("answers", "listed", "asked"),
    [
        ([nvidia.H100], "", "0"),
        ([nvidia.V100, nvidia.L4], "", "1"),
        ([nvidia.SHARED_MEMORY], "", "0"),
        # The first instance has 20 of 40 GB.
        ([nvidia.MIG], nvidia.MIG_LIST, "0:0"),
        ([nvidia.H100.replace("9.0", "[N/A]")], "", "0"),
        ([nvidia.H100.replace("580.65.06", "[N/A]")], "", "0"),
    ],
    ids=["one", "the second of two", "shared memory", "MIG", "capability not told", "driver not told"],
)
def test_the_first_gpu_that_fits_is_asked_for(
    engine: SimulatedEngine,
    machine: Machine,
    monkeypatch: pytest.MonkeyPatch,
    answers: list[str],
    listed: str,
    asked: str,
) -> None:
    build(*PLAIN)
    machine.answers(*answers, listed=listed)
    assert chosen(monkeypatch) == by_number(asked)


@pytest.mark.parametrize("code", [0, 15])
@pytest.mark.parametrize("lost", [nvidia.LOST, nvidia.LOST_LATER], ids=["without a line", "with a line"])
def test_a_lost_gpu_leaves_the_sound_ones(
    engine: SimulatedEngine, machine: Machine, monkeypatch: pytest.MonkeyPatch, lost: str, code: int
) -> None:
    build(*PLAIN)
    machine.answers(lost, nvidia.L4, code=code)
    assert [device.id for device in gpus.devices()] == ["1"]
    assert chosen(monkeypatch) == by_number("1")


@pytest.mark.parametrize("lost", [nvidia.LOST, nvidia.LOST_LATER], ids=["without a line", "with a line"])
def test_where_every_gpu_is_lost_the_driver_is_quoted(engine: SimulatedEngine, machine: Machine, lost: str) -> None:
    build(*PLAIN)
    machine.answers(lost, code=15)
    line = refused()
    assert line.startswith("NVIDIA's driver shows no GPU (")
    assert "GPU is lost" in line


def test_an_instance_is_asked_for_by_its_own_uuid_where_the_engine_knows_it_so(
    machine: Machine, locks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = "MIG-0c757cd7-e942-5726-a0b8-0e8fb7067135"
    first = "MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f"
    known = [{"Source": "cdi", "ID": f"nvidia.com/gpu={one}"} for one in (second, first, "all")]
    monkeypatch.setattr(engine_host, "engine", lambda: SimulatedEngine(DiscoveredDevices=known))
    build(*PLAIN)
    machine.answers(nvidia.MIG, listed=nvidia.MIG_LIST)
    assert chosen(monkeypatch) == {
        "Driver": "cdi",
        "Count": 0,
        "DeviceIDs": [f"nvidia.com/gpu={first}"],
        "Capabilities": [],
        "Options": {},
    }


def test_an_instance_that_the_engine_does_not_know_is_refused(
    machine: Machine, locks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = [{"Source": "cdi", "ID": f"nvidia.com/gpu={one}"} for one in ("MIG-of-yesterday", "all")]
    monkeypatch.setattr(engine_host, "engine", lambda: SimulatedEngine(DiscoveredDevices=known))
    build(*PLAIN)
    machine.answers(nvidia.MIG, listed=nvidia.MIG_LIST)
    assert refused().startswith("none of the engine's CDI devices is GPU 0:0, NVIDIA A100-SXM4-40GB MIG 3g.20gb, MIG-c6d4f1ef")


def test_the_pair_that_was_built_is_the_one_that_runs(engine: SimulatedEngine, machine: Machine) -> None:
    both = build(*CU128, "api-cpu")
    assert [image.role for image in ladder.choose(both, gpu=True)] == list(CU128)
    with pytest.raises(BuildError, match="the image 'train' was not built .*run `invoke build --cpu` first"):
        ladder.choose(both, gpu=False)
    with pytest.raises(BuildError, match="the image 'api-cu128' was not built .*run `invoke build --family cu128`"):
        ladder.choose(build("train-cu128"), gpu=True)
    with pytest.raises(BuildError, match="several pairs were built: train and api; train-cu128 and api-cu128"):
        ladder.choose(build(*PLAIN, *CU128), gpu=True)


def test_instances_are_told_apart_by_their_gpu() -> None:
    assert gpus.instances(nvidia.MIG_LIST, "0") == (
        ("0", "3g.20gb", 20 << 30, "MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f"),
        ("1", "1g.5gb+me", 5 << 30, "MIG-0c757cd7-e942-5726-a0b8-0e8fb7067135"),
    )
    assert gpus.instances(nvidia.MIG_LIST, "1") == (("0", "7g.40gb", 40 << 30, "MIG-1d5c3bb0-7f2e-5d1a-8b7c-9e0f1a2b3c4d"),)
    assert gpus.instances("GPU 0: x\n  MIG 7g.40gb     Device  0:\n", "0") == (("0", "7g.40gb", 40 << 30, ""),)
    assert gpus.instances(nvidia.MIG_LIST, "2") == ()


def test_devices_as_the_driver_tells_of_them(machine: Machine) -> None:
    machine.answers(nvidia.H100, nvidia.SHARED_MEMORY)
    first, second = gpus.devices()
    uuid = "GPU-4c1bd3b2-6d0e-7a63-0a5c-6a1f6a7f2d10"
    assert first == Device("0", uuid, "NVIDIA H100 80GB HBM3", "580.65.06", (9, 0), 81559 << 20, 81079 << 20)
    assert (second.compute, second.memory, second.free) == ((12, 1), 0, None)


def test_the_receipt_describes_the_gpus_where_there_are_any(machine: Machine) -> None:
    assert host.describe().gpus == ()
    machine.answers(nvidia.NO_COMMUNICATION, code=9)
    assert host.describe().gpus == ()
    machine.answers(nvidia.H100, nvidia.L4)
    assert host.describe().gpus == (
        Gpu("NVIDIA H100 80GB HBM3", "580.65.06", 81559 << 20),
        Gpu("NVIDIA L4", "580.65.06", 23034 << 20),
    )


def test_families_are_read_from_the_folders() -> None:
    assert spec.families() == ("", "cpu", "cu128")
    assert [spec.pair(family) for family in spec.families()] == [PLAIN, ("train", "api-cpu"), CU128]
    with pytest.raises(UsageError, match="no such family of images: cu999 .*there are: cpu, cu128"):
        spec.pair("cu999")


def test_needs_of_what_is_not_built_are_the_locks_and_none_where_no_gpu_is_asked_for(locks: Path) -> None:
    needs = spec.gpu_needs("api")
    assert needs is not None
    assert (needs.image, needs.driver, needs.compute) == ("llama-factory-api", 580, ((7, 5), (8, 0), (9, 0), (10, 0), (12, 0)))
    runs = {(major, minor) for major in range(14) for minor in range(10) if needs.runs_on((major, minor))}
    assert runs & {(7, 0), (7, 5), (8, 9), (9, 0), (10, 3), (11, 0), (12, 1), (13, 0)} == {
        (7, 5),
        (8, 9),
        (9, 0),
        (10, 3),
        (12, 1),
    }
    assert spec.gpu_needs("api-cpu") is None
    set_locks.write(api=None)
    assert spec.gpu_needs("api") is None


def test_the_host_of_a_run_on_the_cpu_is_told(engine: SimulatedEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    made = build("train", "api-cpu")
    fit, found = preflight.contained(connected(engine), made.images, gpu=False)
    assert re.fullmatch(
        r"engine 26\.1\.5, \d+ cores, [\d.]+ GB of [\d.]+ GB of memory available, [\d.]+ [GT]B of disk free", found.message
    )
    assert fit.gpu is None


def connected(simulated: SimulatedEngine) -> Engine:
    return Engine(cast("docker.DockerClient", simulated), "26.1.5", None)


def available(monkeypatch: pytest.MonkeyPatch, folder: Path, size: int) -> None:
    (folder / "meminfo").write_text(f"MemTotal:       24684084 kB\nMemAvailable:   {size >> 10} kB\n")
    monkeypatch.setattr(preflight, "_MEMINFO", folder / "meminfo")


@pytest.mark.parametrize(("memory", "at_once"), [(3_900_000_000, 1), (7_500_000_000, 1), (7_700_000_000, 2), (10**12, 2)])
def test_as_much_runs_together_as_there_is_memory_for(
    locks: Path, monkeypatch: pytest.MonkeyPatch, memory: int, at_once: int
) -> None:
    available(monkeypatch, locks, memory)
    assert preflight.plain(gpu=False).at_once == at_once


@pytest.mark.parametrize("container", [True, False])
def test_too_little_memory_is_said_before_anything_is_touched(
    engine: SimulatedEngine, locks: Path, monkeypatch: pytest.MonkeyPatch, container: bool
) -> None:
    build("train", "api-cpu")
    available(monkeypatch, locks, 2_000_000_000)
    line = refused(gpu=False, container=container)
    assert line.startswith("2.00 GB of memory are available, a server needs 3.80 GB (")
    assert not engine.images.received


@pytest.mark.parametrize("container", [True, False])
def test_too_little_disk_for_results_is_said_before_anything_is_touched(
    engine: SimulatedEngine, monkeypatch: pytest.MonkeyPatch, container: bool
) -> None:
    build("train", "api-cpu")
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 10**8})())
    assert refused(gpu=False, container=container).startswith("100.0 MB of disk are free, a run writes up to 500.0 MB (")


def test_an_engine_without_room_for_both_on_the_cpu(engine: SimulatedEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    build("train", "api-cpu")
    engine._info["DockerRootDir"] = str(built.layout())
    monkeypatch.setattr(preflight, "_DISK", 0)
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000})())
    assert refused(gpu=False).startswith("test-train and test-api-cpu need 41.0 kB of disk in the engine, 1.0 kB are free")


def test_too_little_shared_memory_is_said_where_no_engine_brings_its_own(locks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = shutil.disk_usage(locks)
    monkeypatch.setattr("shutil.disk_usage", lambda place: whole._replace(free=64 << 20) if str(place) == "/dev/shm" else whole)
    assert refused(gpu=False, container=False).startswith(
        "67.1 MB of shared memory are free, the servers need 840.0 MB (/dev/shm)"
    )


def test_without_containers_a_missing_gpu_is_said_at_once_and_no_engine_is_asked(
    locks: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none() -> None:
        raise AssertionError("the engine was asked for")

    monkeypatch.setattr(engine_host, "engine", none)
    assert refused(container=False).startswith("no NVIDIA driver is installed")


def test_without_containers_the_gpu_is_named_by_its_uuid(locks: Path, machine: Machine) -> None:
    machine.answers(nvidia.V100, nvidia.L4)
    fit = preflight.plain(gpu=True)
    assert fit.device == nvidia.L4.split(", ")[1]
    assert "GPU 1: NVIDIA L4, driver" in fit.message
    machine.answers(nvidia.V100)
    assert refused(container=False).endswith("use another GPU, or run `invoke smoke` without --gpu")
