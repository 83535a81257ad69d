"""How a container of an image under test is held: as tightly as a cluster would hold it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from docker.types import DeviceRequest

from smoke.boxes.session import RUN


@dataclass(frozen=True, slots=True)
class Spec:
    """What to run.

    Attributes:
        name: for people, and of the log file.
        image: digest of the image manifest, which the engine holds.
        command: argument vector; replaces the image's entrypoint, as `command` of a pod does.
        labels: of the run.
        volume: mounted as the workspace.
        environment: added to the image's.
        memory: limit in bytes, the tmpfs included.
        shm: bytes of /dev/shm.
        gpu: what to ask of the engine; None on the CPU.
    """

    name: str
    image: str
    command: tuple[str, ...]
    labels: Mapping[str, str]
    volume: str
    environment: Mapping[str, str] = field(default_factory=dict)
    memory: int = 8 << 30
    shm: int = 64 << 20
    gpu: DeviceRequest | None = None


def options(spec: Spec) -> dict[str, Any]:
    """What the container is created with, beside image, command, environment and mounts.

    The user is the image's own, and there is no `init`: the program is process 1, as it is in a cluster.
    """
    return {
        "labels": dict(spec.labels),
        "working_dir": RUN,
        # Not None, which would keep the image's own.
        "entrypoint": [],
        "read_only": True,
        "network": "none",
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"],
        "mem_limit": spec.memory,
        "memswap_limit": spec.memory,
        # Threads count too: torch starts some for each core of a large host.
        "pids_limit": 4096,
        "shm_size": spec.shm,
        **({"device_requests": [spec.gpu]} if spec.gpu else {}),
    }
