"""What a program takes of the machine while it runs: time, processor, memory, disk, with all the processes it starts.

Processor time is the kernel's own account: of the program and its descendants as they are waited for, and, where a daemon works
for it, what the daemon and everything below it used meanwhile. Memory is the sum of the proportional set sizes (PSS: shared
pages are divided among those that share them) of all those processes, sampled; the page cache is nobody's. Disk is sampled too.
"""

from __future__ import annotations

import os
import resource
import shutil
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from bench import shared
from common.errors import BuildError
from common.run import which

_EVERY_S = 0.2


@dataclass(frozen=True, slots=True)
class Usage:
    """What a run took.

    Attributes:
        wall: seconds.
        cpu: seconds of processor, user and system, of all processes.
        memory: bytes, the highest sum seen.
        disk: bytes, the most that was taken beyond what was at the start.
    """

    wall: float
    cpu: float
    memory: int
    disk: int

    def utilisation(self) -> float:
        """How much of all cores was used, on average: 1 is all of them all the time."""
        return self.cpu / self.wall / len(os.sched_getaffinity(0))


def median(found: Iterable[Usage]) -> Usage:
    """The median of each figure; of memory and disk the highest, since both are peaks."""
    runs = list(found)
    return Usage(
        statistics.median(one.wall for one in runs),
        statistics.median(one.cpu for one in runs),
        max(one.memory for one in runs),
        max(one.disk for one in runs),
    )


def run(
    argv: Sequence[str | Path],
    *,
    log: Path,
    disk: Callable[[], int],
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    daemon: int = 0,
) -> Usage:
    """Run a program to its end and measure it.

    Args:
        argv: the program.
        log: what it says goes there, appended.
        disk: bytes taken now; see `folders` and `filesystem`.
        cwd: where it runs.
        env: added to the environment.
        daemon: process id of a daemon that works for it; 0 for none.

    Raises:
        BuildError: it fails; with its last line.
    """
    args = [str(a) for a in argv]
    args[0] = which(args[0], fix="run `invoke engine --install`")
    served, children = _tree_cpu(daemon), resource.getrusage(resource.RUSAGE_CHILDREN)
    with log.open("ab") as out:
        started = time.monotonic()
        process = subprocess.Popen(
            args, cwd=cwd, env={**os.environ, **(env or {})}, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT
        )
        with _Sampler([pid for pid in (process.pid, daemon) if pid], disk) as sampler:
            code = shared.wait(process)
            wall = time.monotonic() - started
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    if code:
        said = " | ".join(line.strip() for line in log.read_text(errors="replace").strip().splitlines()[-6:])[-800:]
        raise BuildError(f"{Path(args[0]).name} failed with code {code} while it was measured", where=f"{said}; log: {log}")
    cpu = used.ru_utime + used.ru_stime - children.ru_utime - children.ru_stime + _tree_cpu(daemon) - served
    return Usage(wall, cpu, sampler.memory, sampler.disk)


def folders(*roots: Path) -> Callable[[], int]:
    """A measure of disk: what the files of these folders take, small trees only."""
    return lambda: sum(_taken(root) for root in roots)


def filesystem(root: Path) -> Callable[[], int]:
    """A measure of disk: what the whole file system holds; for large trees on a machine that is otherwise quiet."""

    def taken() -> int:
        usage = shutil.disk_usage(root)
        return usage.total - usage.free

    return taken


class _Sampler(threading.Thread):
    """Watches process trees and the disk while the block runs."""

    def __init__(self, roots: list[int], disk: Callable[[], int]) -> None:
        super().__init__(daemon=True)
        self._roots, self._disk, self._before = roots, disk, disk()
        self._end = threading.Event()
        self.memory = self.disk = 0

    def __enter__(self) -> _Sampler:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self.join()
        # What a run leaves behind counts, however short it was.
        self.disk = max(self.disk, self._disk() - self._before)

    def run(self) -> None:
        """See Thread."""
        while True:
            self.memory = max(self.memory, sum(map(_memory, self._roots)))
            self.disk = max(self.disk, self._disk() - self._before)
            if self._end.wait(_EVERY_S):
                return


def _tree(pid: int) -> list[psutil.Process]:
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.Error:
        return []


def _memory(pid: int) -> int:
    total = 0
    for process in _tree(pid):
        # It ended while we looked.
        with suppress(psutil.Error):
            total += process.memory_full_info().pss
    return total


def _tree_cpu(pid: int) -> float:
    """Processor time of a tree: of what lives, and of what its members waited for."""
    total = 0.0
    for process in _tree(pid) if pid else []:
        with suppress(psutil.Error):
            times = process.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total


def _taken(root: Path) -> int:
    total = 0
    for folder, _, names in os.walk(root):
        for name in names:
            with suppress(OSError):
                total += os.lstat(os.path.join(folder, name)).st_blocks * 512  # noqa: PTH118 - thousands of times a second
    return total
