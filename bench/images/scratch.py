"""Where a benchmark works: a copy of this checkout and a cache of its own, in a folder that vanishes with all it holds.

The cache's store is hard links into the user's, so the wheels are the same and nothing the benchmark adds is left behind. What
a killed run left, its engine too, is removed by the next.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from common import console, paths
from common.errors import MissingEnvironmentError
from common.run import run
from lockfiles import store
from lockfiles.model import Artifact

_PREFIX = ".bench-"
# Names the folder of the engine's sockets, in a run's own.
RUN = "run"
_LEFT_OUT = shutil.ignore_patterns("dist", ".venv", ".venv.lock", ".*_cache", ".hypothesis")


@dataclass(frozen=True, slots=True)
class Scratch:
    """The folders of one run, all below one.

    Attributes:
        folder: holds the others.
        checkout: a copy of this one, whose locks may be changed.
        cache: stands in for the user's.
        dist: what the copy builds into.
        temp: for temporary files, so that they are seen.
    """

    folder: Path
    checkout: Path
    cache: Path
    dist: Path
    temp: Path

    def environment(self) -> dict[str, str]:
        """What makes a program work here."""
        return {
            "PINWHEEL_CACHE": str(self.cache),
            "PINWHEEL_DIST": str(self.dist),
            "PINWHEEL_STATE": str(self.folder / "state"),
            "TMPDIR": str(self.temp),
            "CI": "true",
        }


@contextmanager
def made(needed: list[Artifact], *, need: int) -> Iterator[Scratch]:
    """Make the folders, and remove them at the end.

    Args:
        needed: what of the store is used.
        need: bytes that will be written at most.

    Raises:
        MissingEnvironmentError: the disk has no room for them.
    """
    home = paths.cache()
    home.mkdir(parents=True, exist_ok=True)
    for left in home.glob(f"{_PREFIX}*"):
        _sweep(left)
    if (free := shutil.disk_usage(home).free) < need:
        what = f"the benchmark needs up to {console.size(need)} of disk, {console.size(free)} are free"
        raise MissingEnvironmentError(what, where=str(home), fix="free some, or run it with --quick")
    folder = Path(tempfile.mkdtemp(dir=home, prefix=_PREFIX))
    with (folder / "used").open("w") as guard:
        fcntl.flock(guard, fcntl.LOCK_SH)
        try:
            scratch = Scratch(folder, folder / "checkout", folder / "cache", folder / "dist", folder / "tmp")
            for one in (scratch.cache / "store", scratch.temp):
                one.mkdir(parents=True)
            shutil.copytree(paths.ROOT, scratch.checkout, symlinks=True, ignore=_LEFT_OUT)
            # `invokew` finds its environment here, made already.
            (scratch.checkout / ".venv").symlink_to(sys.prefix)
            # No link: a cache believes none. Where no base was unpacked yet, there is nothing to share.
            for one in (home / "rootfs", scratch.cache / "rootfs"):
                one.mkdir(exist_ok=True)
            run(
                ["mount", "--bind", home / "rootfs", scratch.cache / "rootfs"],
                error=MissingEnvironmentError,
                what="the bench's base",
            )
            for wheel in {one.sha256: one for one in needed}.values():
                link = scratch.cache / "store" / wheel.sha256[:2] / wheel.sha256
                link.parent.mkdir(exist_ok=True)
                os.link(store.path(wheel), link)
            yield scratch
        finally:
            remove(folder)


def remove(folder: Path) -> None:
    """Remove a folder in which an engine may have worked: nothing may be mounted there any more."""
    mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    for mount in sorted((m for m in mounts if Path(m).is_relative_to(folder)), reverse=True):
        run(["umount", "--lazy", mount])
    shutil.rmtree(folder, ignore_errors=True)


def _sweep(folder: Path) -> None:
    """Remove what a killed run left; a living one holds its folder."""
    with (folder / "used").open("a") as guard:
        try:
            fcntl.flock(guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        places = [folder, *(Path(file.read_text()) for file in [folder / RUN] if file.exists())]
        # Its engine and registry name the folders on their command lines, and nobody else's do.
        left = [one for one in psutil.process_iter(["cmdline"]) if _names(one.info["cmdline"] or (), places)]
        with suppress(psutil.Error):
            for process in left:
                process.terminate()
        for process in psutil.wait_procs(left, timeout=20)[1]:
            with suppress(psutil.Error):
                process.kill()
        for place in places:
            remove(place)


def _names(arguments: Iterable[str], places: Iterable[Path]) -> bool:
    return any(str(place) in argument for argument in arguments for place in places)
