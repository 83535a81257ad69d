"""What is found about torch and its devices, and what is made of it; torch itself is in the images alone."""

from __future__ import annotations

import copy
import ctypes
import json
import math
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from common.errors import SmokeError
from smoke.boxes.box import told
from smoke.machine import gpus
from smoke.payload import device
from smoke.rungs import devices
from smoke.rungs.run import Run
from smoke.suite import test_device as rungs
from tests.smoke import nvidia
from tests.waiting import eventually

TERMS, SIZE = 256, 16
Matrix = list[list[float]]
# What torch 2.13 is built for.
ARCHITECTURES = ("sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120")


def keep(value: float, bits: int) -> float:
    """Rounded to so many significant bits, to the nearest and to even: 8 are bfloat16's, 11 are TF32's, 24 are float32's."""
    part, exponent = math.frexp(value)
    return math.ldexp(round(math.ldexp(part, bits)), exponent - bits)


def rounded(matrix: Matrix, bits: int) -> Matrix:
    return [[keep(value, bits) for value in row] for row in matrix]


def factors(bits: int = 24) -> tuple[Matrix, Matrix]:
    """Both as rows of `TERMS` numbers: the second one turned over."""
    draw = random.Random(20)
    left, right = ([[draw.gauss(0, 1) for _ in range(TERMS)] for _ in range(SIZE)] for _ in range(2))
    return rounded(left, bits), rounded(right, bits)


def times(left: Matrix, right: Matrix) -> Matrix:
    """The product, summed up in float32 one by one: the order in which most is lost."""
    got: Matrix = []
    for row in left:
        got.append([])
        for column in right:
            total = ctypes.c_float(0.0)
            for one, other in zip(row, column, strict=True):
                total.value += one * other
            got[-1].append(total.value)
    return got


def share(got: Matrix, left: Matrix, right: Matrix, *, bfloat16: bool) -> float:
    """The largest error as a share of the bound, as the payload has it."""
    largest = 0.0
    for number, row in enumerate(left):
        for place, column in enumerate(right):
            products = [one * other for one, other in zip(row, column, strict=True)]
            exact = math.fsum(products)
            allowed = device.bound(exact, math.fsum(map(abs, products)), terms=TERMS, bfloat16=bfloat16)
            largest = max(largest, abs(got[number][place] - exact) / allowed)
    return largest


def test_a_float32_product_is_within_its_bound() -> None:
    left, right = factors()
    assert 0 < share(times(left, right), left, right, bfloat16=False) < 1


def test_tf32_does_not_pass_for_float32() -> None:
    left, right = factors()
    assert share(times(rounded(left, 11), rounded(right, 11)), left, right, bfloat16=False) > 1


def test_a_bfloat16_product_is_within_its_bound() -> None:
    left, right = factors(8)
    assert 0.5 < share(rounded(times(left, right), 8), left, right, bfloat16=True) < 1


def test_sums_kept_in_bfloat16_are_not() -> None:
    left, right = factors(8)
    parts = (slice(0, TERMS // 2), slice(TERMS // 2, TERMS))
    one, other = (rounded(times([row[part] for row in left], [row[part] for row in right]), 8) for part in parts)
    got = [[keep(a + b, 8) for a, b in zip(*rows, strict=True)] for rows in zip(one, other, strict=True)]
    assert share(got, left, right, bfloat16=True) > 1


@pytest.mark.parametrize("wrong", ["a term is missing", "one element is off", "transposed"])
def test_a_wrong_bfloat16_product_is_not(wrong: str) -> None:
    left, right = factors(8)
    got = times(left, right)
    if wrong == "a term is missing":
        got = times([row[1:] for row in left], [row[1:] for row in right])
    elif wrong == "one element is off":
        got[5][7] *= 1.02
    else:
        got = [list(row) for row in zip(*got, strict=True)]
    assert share(rounded(got, 8), left, right, bfloat16=True) > 1


@pytest.mark.parametrize(
    ("capability", "fits"),
    [
        ((9, 0), True),
        ((8, 0), True),
        # Code for 8.6 runs on 8.9.
        ((8, 9), True),
        ((12, 1), True),
        # There is code for it; but it does not know bfloat16.
        ((7, 5), False),
        ((7, 0), False),
        ((11, 0), False),
        ((13, 0), False),
    ],
)
def test_which_gpus_torch_can_use(capability: tuple[int, int], fits: bool) -> None:
    assert device.fit(capability, ARCHITECTURES) is fits
    assert not device.fit(capability, ())


def test_code_for_one_gpu_alone_and_ptx_do_not_count_for_others() -> None:
    assert device.fit((9, 0), ["sm_90a"])
    assert not device.fit((9, 1), ["sm_90a"])
    assert device.fit((10, 3), ["sm_100f"])
    assert not device.fit((9, 0), ["compute_90"])


def test_what_is_imported_is_timed_and_what_fails_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "left_over.py").touch()
    (tmp_path / "breaks.py").write_text("raise OSError('libcudart.so.13: cannot open shared object file')")
    monkeypatch.syspath_prepend(tmp_path)
    found = device.load(["packaging", "breaks", "left_over", "not_there"])
    assert found["versions"].keys() == found["seconds"].keys() == {"packaging"}
    assert found["refused"].pop("left_over").startswith("PackageNotFoundError: ")
    assert found["refused"] == {"breaks": "OSError: libcudart.so.13: cannot open shared object file"}


def test_without_torch_it_says_so() -> None:
    done = subprocess.run([sys.executable, "-I", device.__file__], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert json.loads(done.stdout)["versions"] == {}
    assert "torch cannot be imported: it is not installed" in done.stderr


CPU: dict[str, Any] = {
    "seconds": {"torch": 2.0, "vllm": 3.5},
    "versions": dict.fromkeys([*devices.NEEDED, "vllm"], "1.0"),
    "refused": {},
    "available": False,
    "architectures": [],
    "gpus": [],
    "products": [
        {"device": "cpu", "type": "bfloat16", "share": 0.98},
        {"device": "cpu", "type": "float32", "share": 0.05},
    ],
    "reduced": {"backend": "gloo", "processes": 2, "wrong": 0},
}
H100 = {"number": 0, "name": "NVIDIA H100", "capability": [9, 0], "memory": 80 << 30, "fit": True}
T4 = {"number": 1, "name": "Tesla T4", "capability": [7, 5], "memory": 15 << 30, "fit": False}
GPU: dict[str, Any] = {
    **CPU,
    "available": True,
    "architectures": ["sm_80", "sm_90"],
    "gpus": [H100],
    "products": [*CPU["products"], *({**one, "device": "cuda:0"} for one in CPU["products"])],
    "reduced": None,
}
TWO: dict[str, Any] = {
    **GPU,
    "gpus": [H100, {**H100, "number": 1}],
    "products": [*GPU["products"], *({**one, "device": "cuda:1"} for one in CPU["products"])],
    "reduced": {"backend": "nccl", "processes": 2, "wrong": 0},
}
NEEDED = (*devices.NEEDED, "vllm")


def test_what_was_found_is_read_among_what_packages_say() -> None:
    assert told("device of api", 'INFO starting\n{"available": false}\n{broken\nINFO bye\n') == {"available": False}
    with pytest.raises(SmokeError, match=r"device of api told nothing \(INFO starting\)"):
        told("device of api", "INFO starting\n")
    with pytest.raises(SmokeError, match=r"device of api told nothing \(it said nothing\)"):
        told("device of api", "")


def test_what_is_as_it_should_be_is_told_in_a_line() -> None:
    assert devices.judge(CPU, gpu=False, needed=NEEDED) == (
        "torch 1.0, no GPU, as asked; bfloat16 and float32 products within 98% of the error bound, "
        "gloo over 2 processes; 2 packages imported in 5.5 s"
    )
    assert "NVIDIA H100; " in devices.judge(GPU, gpu=True, needed=NEEDED)
    assert "NVIDIA H100, NVIDIA H100; " in devices.judge(TWO, gpu=True, needed=NEEDED)
    assert "nccl over 2 processes" in devices.judge(TWO, gpu=True, needed=NEEDED)
    # An old card for the screen beside the one that computes.
    beside = {**GPU, "gpus": [H100, T4]}
    assert "NVIDIA H100 (1 more that it cannot use); " in devices.judge(beside, gpu=True, needed=NEEDED)


def changed(found: dict[str, Any], change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    other = copy.deepcopy(found)
    change(other)
    return other


@pytest.mark.parametrize(
    ("found", "gpu", "told"),
    [
        (GPU, False, "torch has a GPU in a run without --gpu"),
        (CPU, True, "torch has no GPU, though --gpu was asked for"),
        (
            {**GPU, "gpus": [T4], "products": CPU["products"]},
            True,
            r"no GPU here, Tesla T4 \(7.5\): it holds code for sm_80 sm_90",
        ),
        ({**CPU, "refused": {"trl": "ImportError: no"}}, False, "trl cannot be imported: ImportError: no"),
        (changed(CPU, lambda f: f["versions"].pop("peft")), False, "not installed: peft"),
        (
            changed(CPU, lambda f: f["products"][0].update(share=1.5)),
            False,
            "bfloat16 matrix product on cpu is off by 1.5 times",
        ),
        (
            changed(GPU, lambda f: f["products"][3].update(share=9.0)),
            True,
            "float32 matrix product on cuda:0 is off by 9 times",
        ),
        (changed(GPU, lambda f: f["products"][2].update(share=None)), True, "on cuda:0 has elements that are no numbers"),
        # It was told to compute on the GPU, and did so on the CPU.
        (changed(GPU, lambda f: f["products"][2].update(device="cpu")), True, "matrix products were computed as"),
        (changed(TWO, lambda f: f["products"].pop()), True, "matrix products were computed as"),
        (changed(TWO, lambda f: f.update(reduced=None)), True, "all-reduce ran over nothing, not over nccl"),
        (changed(TWO, lambda f: f["reduced"].update(backend="gloo")), True, "not over nccl"),
        (changed(TWO, lambda f: f["reduced"].update(wrong=7)), True, "nccl added up wrongly, 7 elements"),
        (changed(CPU, lambda f: f.update(reduced=None)), False, "not over gloo"),
    ],
)
def test_what_is_not_is_refused(found: dict[str, Any], gpu: bool, told: str) -> None:
    with pytest.raises(SmokeError, match=told):
        devices.judge(found, gpu=gpu, needed=NEEDED)


def test_vllm_has_to_be_where_it_is_needed_alone() -> None:
    without = changed(CPU, lambda found: found["versions"].pop("vllm"))
    devices.judge(without, gpu=False, needed=devices.NEEDED)
    with pytest.raises(SmokeError, match="not installed: vllm"):
        devices.judge(without, gpu=False, needed=NEEDED)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> nvidia.Machine:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(devices, "_LOOK_S", 0.01)
    made = nvidia.Machine(tmp_path)
    made.answers(nvidia.H100, nvidia.L4)
    return made


def with_free(line: str, mebibytes: int) -> str:
    cells = line.split(", ")
    cells[5] = str(mebibytes)
    return ", ".join(cells)


def await_peak(memory: devices.GpuMemory) -> None:
    eventually(lambda: memory.peak != memory.before, "a peak that the watch sees")


def test_gpu_memory_that_is_given_back(machine: nvidia.Machine) -> None:
    with devices.GpuMemory() as memory:
        machine.answers(with_free(nvidia.H100, 60_000), nvidia.L4)
        await_peak(memory)
        # Not a byte too exact: the driver's own accounting moves.
        machine.answers(with_free(nvidia.H100, 81_079 - 60), nvidia.L4)
        assert memory.held(0) == {}
    taken = {gpu: memory.peak[gpu] - size for gpu, size in memory.before.items()}
    assert taken == {"GPU 0 (NVIDIA H100 80GB HBM3)": (81_079 - 60_000) << 20, "GPU 1 (NVIDIA L4)": 0}


def test_gpu_memory_that_is_held(machine: nvidia.Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    with devices.GpuMemory() as memory:
        # Somebody else's ends meanwhile: that gives nothing back of ours.
        machine.answers(with_free(nvidia.H100, 81_079 - 530), nvidia.L4)
        assert memory.held(0) == {"GPU 0 (NVIDIA H100 80GB HBM3)": 530 << 20}
        monkeypatch.setattr(rungs, "_GIVEN_BACK_S", 0.0)
        monkeypatch.setattr(gpus, "users", lambda: "4711, python, 530 MiB")
        # The GPU may be shared: who it was is not known for sure, so it is said who is there.
        with pytest.raises(AssertionError, match="by this run or by others; the driver names 4711, python, 530 MiB"):
            rungs.test_gpu_memory_given_back(cast("Run", None), lambda _: None, memory)


def test_who_computes_on_the_gpus(machine: nvidia.Machine) -> None:
    machine.answers("4711, python, 530 MiB", "4712, vllm, 2 MiB")
    assert gpus.users() == "4711, python, 530 MiB; 4712, vllm, 2 MiB"
    machine.answers(nvidia.MISMATCH, code=18)
    assert gpus.users() == ""
    (machine.folder / "nvidia-smi").unlink()
    assert gpus.users() == ""


def test_a_gpu_that_vanishes_meanwhile_is_no_end_of_the_watch(machine: nvidia.Machine) -> None:
    with devices.GpuMemory() as memory:
        machine.answers(nvidia.NO_DEVICES, code=6)
        assert memory._thread.is_alive()
        machine.answers(with_free(nvidia.H100, 70_000), nvidia.L4)
        await_peak(memory)
        assert memory._thread.is_alive()


def test_memory_the_driver_says_nothing_of_is_left_out(machine: nvidia.Machine) -> None:
    machine.answers(nvidia.SHARED_MEMORY)
    assert devices.used() == {}


def test_all_gpus_are_looked_at_unless_the_user_hid_some(machine: nvidia.Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    both = "GPU-4c1bd3b2-6d0e-7a63-0a5c-6a1f6a7f2d10,GPU-8d2ff8d4-6a3b-2f4e-9a55-0d6a3b2c1e90"
    assert devices.every_gpu() == {"CUDA_VISIBLE_DEVICES": both}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert devices.every_gpu() == {"CUDA_VISIBLE_DEVICES": "1"}
