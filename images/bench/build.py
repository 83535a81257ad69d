"""`invoke bench build`: the run, in a scratch checkout, and its tables."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from common import benchmark, console
from common.errors import BuildError, MissingEnvironmentError
from images import reference, spec
from images.bench import scratch, table
from images.bench.race import Results
from lockfiles import fetching, lockfile, rootfs

_SETS = ("train", "api")
COMMAND = "invoke bench build"
# At its peak, with room to spare: the context, the unpacked files, the layer, and the registry's copy of it, twice.
_NEED = {True: 6_000_000_000, False: 32_000_000_000}


def run_bench(*, quick: bool) -> str:
    """Measure, print, and write the tables into docs/performance.md; returns the outcome in a few words.

    Args:
        quick: the small set only, once; prints the tables and writes nothing.

    Raises:
        LockError, BuildError, RegistryError: something that is measured fails; what was measured is written all the same.
        MissingEnvironmentError: root, disk, network or a tool is missing.
    """
    results = measured(quick=quick)
    blocks = table.blocks(results)
    for head, rows in blocks:
        console.title(head[0])
        console.table(head, rows, right=range(1, len(head) - 1))
    if not quick:
        tables = [benchmark.markdown(head, rows, right=range(1, len(head) - 1)) for head, rows in blocks]
        benchmark.publish(COMMAND, *(f"Not measured: {failure}" for failure in results.failures), *tables)
    if results.failures:
        raise BuildError("; ".join(results.failures), fix="the other figures stand")
    return f"{len(results.figures)} figures, {'not written down' if quick else 'written to docs/performance.md'}"


def measured(*, quick: bool) -> Results:
    """The run itself.

    Raises:
        LockError, BuildError, RegistryError, MissingEnvironmentError: as `run_bench`.
    """
    # What would be missed only after minutes.
    reference.buildx()
    if os.geteuid() != 0:
        raise MissingEnvironmentError(f"`{COMMAND}` starts an engine of its own, which needs root")
    sets = ("train",) if quick else _SETS
    fetching.fetch(sets)
    rootfs.made(lockfile.read_base())
    wheels = [wheel.artifact for role in sets for wheel in lockfile.read_set(spec.read(role).set).wheels]
    wheels += [deb.artifact for deb in lockfile.read_base().debs]
    with scratch.made(wheels, need=_NEED[quick]) as made:
        result = made.folder / "result.json"
        argv = [sys.executable, "-m", "images.bench.race", str(result), *(["--quick"] if quick else [])]
        environment = {**os.environ, **made.environment()}
        console.out.file.flush()
        # Not in the terminal's process group: Ctrl-C comes once, from here, and the run cleans up undisturbed.
        with subprocess.Popen(
            argv, cwd=made.checkout, env=environment, stdin=subprocess.DEVNULL, start_new_session=True
        ) as process:
            try:
                code = process.wait()
            except BaseException:
                process.terminate()
                process.wait()
                raise
        return _read(result, code)


def _read(result: Path, code: int) -> Results:
    try:
        body = json.loads(result.read_text())
    except FileNotFoundError:
        raise BuildError(f"the run ended with code {code} before it was done") from None
    if "error" in body:
        raise MissingEnvironmentError(body["error"])
    return Results.of(body)
