"""`invoke bench build` and `invoke bench bump`: the run, in a scratch checkout, and its tables."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from bench import shared
from bench.images import scratch, table
from bench.images.race import LARGEST, Results, Scope
from common import console
from common.errors import BuildError, MissingEnvironmentError
from images import reference, spec
from lockfiles import fetching, lockfile
from lockfiles.debian import rootfs

COMMAND = "invoke bench build"
# Where the tables of a scope are written.
_PUBLISHED: dict[Scope, str] = {"all": COMMAND, "bump": "invoke bench bump"}
# The small set is made of train's packages.
_SETS: dict[Scope, tuple[str, ...]] = {"all": ("train", LARGEST), "quick": ("train",), "bump": ("train", LARGEST)}
# At its peak, with room to spare: the context, the unpacked files, the layer, and the registry's copy of it, twice; for a
# bump, the layout and the registry's copy of that.
_NEED: dict[Scope, int] = {"all": 32_000_000_000, "quick": 6_000_000_000, "bump": 10_000_000_000}


def run_bench() -> str:
    """Measure, print, and write the tables into docs/performance.md; returns the outcome in a few words.

    Raises:
        LockError, BuildError, RegistryError: something that is measured fails; what was measured is written all the same.
        MissingEnvironmentError: root, disk, network or a tool is missing.
    """
    return _measure_and_show("all")


def run_quick() -> str:
    """Measure the small set only, once; prints the tables and writes nothing.

    Raises:
        LockError, BuildError, RegistryError, MissingEnvironmentError: as `run_bench`.
    """
    return _measure_and_show("quick")


def run_bump() -> str:
    """Measure what a bump of one small package costs in the largest image: a part of `run_bench`, in some minutes.

    Raises:
        LockError, BuildError, RegistryError, MissingEnvironmentError: as `run_bench`.
    """
    return _measure_and_show("bump")


def _measure_and_show(scope: Scope) -> str:
    results, place = measured(scope), _PUBLISHED.get(scope)
    # A part of the run has nothing to say in some of the tables.
    blocks = [(head, rows) for head, rows in table.blocks(results) if rows]
    for head, rows in blocks:
        console.title(head[0])
        console.table(head, rows, right=range(1, len(head) - 1))
    if place and blocks:
        tables = [shared.markdown(head, rows, right=range(1, len(head) - 1)) for head, rows in blocks]
        shared.publish(place, *(f"Not measured: {failure}" for failure in results.failures), *tables)
    if results.failures:
        raise BuildError("; ".join(results.failures), fix="the other figures stand")
    return f"{len(results.figures)} figures, {'written to docs/performance.md' if place else 'not written down'}"


def measured(scope: Scope) -> Results:
    """The run itself.

    Raises:
        LockError, BuildError, RegistryError, MissingEnvironmentError: as `run_bench`.
    """
    # What would be missed only after minutes.
    reference.buildx()
    if os.geteuid() != 0:
        raise MissingEnvironmentError(f"`{COMMAND}` starts an engine of its own, which needs root")
    sets = _SETS[scope]
    fetching.fetch(sets)
    rootfs.made(lockfile.read_base())
    wheels = [wheel.artifact for role in sets for wheel in lockfile.read_set(spec.read(role).set).wheels]
    wheels += [deb.artifact for deb in lockfile.read_base().debs]
    with scratch.made(wheels, need=_NEED[scope]) as made:
        result = made.folder / "result.json"
        argv = [sys.executable, "-m", "bench.images.race", str(result), scope]
        environment = {**os.environ, **made.environment()}
        console.out.file.flush()
        # Not in the terminal's process group: Ctrl-C comes once, from here, and the run cleans up undisturbed.
        with subprocess.Popen(
            argv, cwd=made.checkout, env=environment, stdin=subprocess.DEVNULL, start_new_session=True
        ) as process:
            code = shared.wait(process)
        return _read(result, code)


def _read(result: Path, code: int) -> Results:
    try:
        body = json.loads(result.read_text())
    except FileNotFoundError:
        raise BuildError(f"the run ended with code {code} before it was done") from None
    if "error" in body:
        raise MissingEnvironmentError(body["error"])
    return Results.of(body)
