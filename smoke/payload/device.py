"""What torch sees of this machine and how well it computes there, as one JSON object on a line of its own.

Runs inside any of the images, and as plain `python3` wherever torch is. It measures and judges nothing:

    {"seconds": {module: s}, "versions": {module: version}, "refused": {module: why it cannot be imported},
     "available": whether torch has a GPU, "architectures": ["sm_80"],
     "gpus": [{"number", "name", "capability": [9, 0], "memory": bytes, "fit": whether it can do what the ladder does}],
     "products": [{"device", "type", "share": the largest error as a share of the error bound}],
     "reduced": {"backend", "processes", "wrong": elements that are not the sum} or null}
"""

from __future__ import annotations

import importlib
import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import timedelta
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

# Which of these an image has to have is not decided here; what is not installed is left out.
MODULES = ("torch", "transformers", "peft", "trl", "datasets", "accelerate", "llamafactory", "vllm")
# Rows and columns of a product, and the terms of each of its sums. With many more terms the bound on float32 would be so wide
# that TF32, which keeps 10 bits of 23, would pass for it.
_SIZE, _TERMS = 512, 256
_SEED = 20
# The ladder computes in bfloat16, and so does vLLM, from this compute capability on.
_BFLOAT16 = (8, 0)
_PAIR = 2
# Sums of whole numbers below 2²⁴ are exact in float32.
_ELEMENTS = 1 << 20
_LIMIT = timedelta(seconds=60)


def bound(exact: Any, magnitude: Any, *, terms: int, bfloat16: bool) -> Any:
    """How far an element of a matrix product may be from the exact one, for factors that are exact in their type.

    A sum c of n products, in any order, computed with unit roundoff u (Higham, Accuracy and Stability of Numerical
    Algorithms, 3.1 and 3.5): |s - c| ≤ γ·m, with γ = n·u / (1 - n·u) and m the sum of the absolute values of the products.

    float32: u = 2⁻²⁴, and the sum is the result.
    bfloat16: products of two are exact in float32, and are summed there; tensor cores truncate where others round, and align
    several terms at once, for which u = 2⁻²² is enough. Then the sum is rounded to 8 bits, which adds 2⁻⁸·|s|, and
    |s| ≤ |c| + γ·m. Sums kept in bfloat16 on the way do not stay within it.

    Args:
        exact: c; numbers, or an array or tensor of them.
        magnitude: m.
        terms: n.
        bfloat16: the type of factors and result; otherwise float32.
    """
    unit, last = (2.0**-22, 2.0**-8) if bfloat16 else (2.0**-24, 0.0)
    gamma = terms * unit / (1 - terms * unit)
    return last * abs(exact) + (1 + last) * gamma * magnitude


def fit(capability: Sequence[int], architectures: Sequence[str]) -> bool:
    """Whether this torch holds code for a GPU, and the GPU knows bfloat16: code for 8.0 runs on 8.6, and not on 9.0.

    Args:
        capability: the GPU's, `(8, 6)`.
        architectures: torch's, `sm_80`, `sm_90a`, `compute_120`.
    """
    major, minor = capability
    held = [re.fullmatch(r"sm_(\d+)(\d)([af]?)", name) for name in architectures]
    return tuple(capability) >= _BFLOAT16 and any(
        # Code that ends in `a` runs on exactly its own.
        int(one[1]) == major and (int(one[2]) == minor if one[3] == "a" else int(one[2]) <= minor)
        for one in held
        if one
    )


def load(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Import what is installed of these; seconds of each on top of those before it, versions, and what went wrong."""
    seconds: dict[str, float] = {}
    versions: dict[str, str] = {}
    refused: dict[str, str] = {}
    for name in names:
        if find_spec(name) is None:
            continue
        started = time.monotonic()
        try:
            importlib.import_module(name)
            taken = round(time.monotonic() - started, 3)
            # What is left of a package, or another of its name, can be imported and is no distribution.
            version = metadata.version(name)
        except Exception as problem:  # noqa: BLE001 - whatever it is, it is what was to be found out
            refused[name] = f"{type(problem).__name__}: {problem}"
            continue
        seconds[name], versions[name] = taken, version
    return {"seconds": seconds, "versions": versions, "refused": refused}


def product(device: str, *, bfloat16: bool) -> dict[str, Any]:
    """Multiply two random matrices on the device, and compare with float64 on the CPU."""
    import torch

    generator = torch.Generator().manual_seed(_SEED)
    kind = torch.bfloat16 if bfloat16 else torch.float32
    left = torch.randn(_SIZE, _TERMS, generator=generator).to(kind)
    right = torch.randn(_TERMS, _SIZE, generator=generator).to(kind)
    got = left.to(device) @ right.to(device)
    where = str(got.device)
    a, b = left.double(), right.double()
    exact = a @ b
    error = (got.cpu().double() - exact).abs()
    share = (error / bound(exact, a.abs() @ b.abs(), terms=_TERMS, bfloat16=bfloat16)).max().item()
    # No number where something is no number: JSON has none, and it is no share.
    finite = bool(torch.isfinite(got).all().item())
    return {"device": where, "type": str(kind).removeprefix("torch."), "share": share if finite else None}


def reduce(rank: int, backend: str, numbers: Sequence[int], folder: str) -> None:
    """One of the processes that add up their tensors; leaves in the folder how many elements are wrong."""
    import torch
    import torch.distributed as dist

    device = torch.device("cuda", numbers[rank]) if backend == "nccl" else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group(backend, init_method=f"file://{folder}/meeting", rank=rank, world_size=_PAIR, timeout=_LIMIT)
    try:
        counted = torch.arange(_ELEMENTS, dtype=torch.float32, device=device)
        given = counted * (rank + 1)
        dist.all_reduce(given)
        wrong = int((given != counted * sum(range(1, _PAIR + 1))).sum().item())
        Path(folder, f"wrong-{rank}").write_text(str(wrong))
    finally:
        dist.destroy_process_group()


def reduced(backend: str, numbers: Sequence[int]) -> dict[str, Any]:
    """Add up two tensors between two processes: over NCCL between two GPUs, over gloo on the CPU."""
    import torch.multiprocessing as mp

    # There is no network but loopback, and no name of this machine to look up.
    for variable in ("NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME"):
        os.environ.setdefault(variable, "lo")
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(reduce, args=(backend, tuple(numbers), folder), nprocs=_PAIR)
        wrong = sum(int(Path(folder, f"wrong-{rank}").read_text()) for rank in range(_PAIR))
    return {"backend": backend, "processes": _PAIR, "wrong": wrong}


def look() -> dict[str, Any]:
    """Everything; needs torch."""
    import torch

    # As exact as the hardware can: neither TF32 for float32, nor sums kept in bfloat16.
    torch.set_float32_matmul_precision("highest")
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
    available = torch.cuda.is_available()
    architectures = torch.cuda.get_arch_list()
    gpus = []
    for number in range(torch.cuda.device_count() if available else 0):
        has = torch.cuda.get_device_properties(number)
        capability = [has.major, has.minor]
        gpus.append(
            {
                "number": number,
                "name": has.name,
                "capability": capability,
                "memory": has.total_memory,
                "fit": fit(capability, architectures),
            }
        )
    able = [gpu["number"] for gpu in gpus if gpu["fit"]]
    devices = ["cpu", *(f"cuda:{number}" for number in able)]
    pair = ("nccl", able[:_PAIR]) if len(able) >= _PAIR else ("gloo", []) if not available else None
    return {
        "available": available,
        "architectures": architectures,
        "gpus": gpus,
        "products": [product(device, bfloat16=bfloat16) for device in devices for bfloat16 in (True, False)],
        "reduced": reduced(*pair) if pair else None,
    }


def main() -> None:
    """Print what is found."""
    loaded = load(MODULES)
    if "torch" not in loaded["versions"]:
        print(json.dumps(loaded))
        sys.exit("torch cannot be imported: " + loaded["refused"].get("torch", "it is not installed"))
    print(json.dumps({**loaded, **look()}, allow_nan=False))


if __name__ == "__main__":
    main()
