"""What a set asks of the host's GPU, as its torch wheel says it.

torch/version.py names the CUDA version; libtorch_python.so holds the list that `torch.cuda.get_arch_list()` prints, as text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import requests

from common import console, paths
from common.errors import LockError
from common.files import write_whole
from lockfiles.model import Artifact, Gpu, Wheel
from lockfiles.python import metadata

# The oldest driver branch for each CUDA major version, by minor version compatibility ("CUDA Compatibility", NVIDIA, table
# "Minimum required driver versions"); no wheel says this.
_DRIVERS = {11: 450, 12: 525, 13: 580}
_CUDA = re.compile(r"^cuda[^=\n]*=\s*'(\d+)\.(\d+)'", re.MULTILINE)
# The linker packs literals: no zero byte needs to stand before it.
_ARCHITECTURES = re.compile(rb"((?:sm_\d+a?|compute_\d+)(?: (?:sm_\d+a?|compute_\d+))*)\0")


def needs(wheels: tuple[Wheel, ...], locate: Callable[[Artifact], str], http: requests.Session) -> Gpu | None:
    """What a set asks of a GPU; None where it holds no torch built for CUDA.

    Raises:
        LockError: torch's wheel does not say it, or it was built for a CUDA whose driver is not known here.
        MissingEnvironmentError: the index does not answer.
    """
    torch = next((wheel for wheel in wheels if wheel.name == "torch"), None)
    if torch is None:
        return None
    kept = paths.cache("metadata", torch.artifact.sha256[:2], f"{torch.artifact.sha256}.gpu.json")
    try:
        body = json.loads(kept.read_text())
        cuda, compute = body["cuda"], tuple(body["compute"])
    except (OSError, ValueError, KeyError, TypeError):
        with console.step(f"reading what torch {torch.version} was built for"):
            cuda, compute = _read(torch.artifact, locate, http)
        write_whole(kept, json.dumps({"cuda": cuda, "compute": compute}))
    if not cuda:
        return None
    driver = _DRIVERS.get(int(cuda.partition(".")[0]))
    if driver is None:
        raise LockError(f"{torch.artifact.file} was built for CUDA {cuda}", fix="name its driver in lockfiles/python/gpu.py")
    return Gpu(cuda, driver, compute)


def _read(torch: Artifact, locate: Callable[[Artifact], str], http: requests.Session) -> tuple[str, tuple[str, ...]]:
    with metadata.opened(torch, locate, http) as archive:
        try:
            version = _CUDA.search(archive.read("torch/version.py").decode())
            if version is None:
                return "", ()
            lists = _ARCHITECTURES.findall(archive.read("torch/lib/libtorch_python.so"))
        except KeyError as missing:
            raise LockError(f"{torch.file} has no {missing}", fix="another layout than known: look at it") from None
    names = max(lists, key=len, default=b"").decode().split()
    numbers = sorted({int(re.sub(r"\D", "", name)) for name in names if name.startswith("sm_")})
    if not numbers:
        raise LockError(f"{torch.file} does not say for which GPUs it was built", fix="look at it")
    return f"{version[1]}.{version[2]}", tuple(f"{number // 10}.{number % 10}" for number in numbers)
