"""A virtual environment of exactly the packages that a set locks, for `invoke smoke --no-container`.

    .venv/bin/python -m smoke.machine.environment SET DIRECTORY

It takes the wheels from the store, and what is missing there from your package index or mirror, as `invoke fetch` does; uv
checks each against the lock's sha256 and installs it. No Docker, no root, no Debian: only the Python that the set is for. On a
GPU, Triton compiles at run time; that takes a C compiler and Python's headers (`gcc`, `python3-dev`), which the images hold.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from uv import find_uv_bin

from common import console
from common.errors import LockError, MissingEnvironmentError, PinwheelError, UsageError
from common.run import run
from images import reference
from lockfiles import fetching, inputs, lockfile, store
from lockfiles.python import index


def make(name: str, directory: Path) -> str:
    """Make the environment; returns the outcome in a few words.

    Args:
        name: of the set.
        directory: where; nothing may be there yet.

    Raises:
        UsageError: something is there.
        MissingEnvironmentError: this Python is of another version than the set was locked for, no network, no disk.
        LockError: a wheel is gone, or is one of those that we build and was not built here.
    """
    lock = lockfile.read_set(name)
    if directory.exists():
        raise UsageError("something is there already", where=str(directory), fix="name a directory that does not exist")
    wanted, here = lock.python.rpartition(".")[0], ".".join(map(str, sys.version_info[:2]))
    if wanted != here:
        raise MissingEnvironmentError(
            f"the set {name} is locked for Python {wanted}, this is {here}",
            where=sys.executable,
            fix=f"set PINWHEEL_PYTHON to a Python {wanted} and run ./invokew again, which makes .venv anew",
        )
    if ours := store.missing(wheel.artifact for wheel in lock.wheels if wheel.sdist or wheel.shim):
        what = ", ".join(artifact.file for artifact in ours)
        raise LockError(
            f"{what} is made by us, and is not in the store", fix=f"run `invoke fetch --set {name}` on Debian first"
        )
    with index.session() as http:
        fetching.download([lock], [wheel.artifact for wheel in lock.wheels], http)
    directory.parent.mkdir(parents=True, exist_ok=True)
    with (
        reference.context(lock) as folder,
        # Beside the environment, so that uv links what it unpacked instead of copying it.
        tempfile.TemporaryDirectory(dir=directory.parent, prefix=".uv-") as cache,
        console.step(f"installing {len(lock.wheels)} packages") as notes,
    ):
        uv: list[str | Path] = [find_uv_bin(), "--no-config", "--offline", "--cache-dir", cache]
        fix = f"remove {directory} and look at uv's words with PINWHEEL_VERBOSE=1"
        python = ["--python", sys.executable]
        run([*uv, "venv", *python, directory], error=MissingEnvironmentError, what="uv venv", fix=fix)
        groups = sorted(file.parent for file in folder.glob("*/requirements.txt"))
        given = [argument for group in groups for argument in ("--find-links", group, "-r", group / "requirements.txt")]
        install = [*uv, "pip", "install", "--python", directory / "bin" / "python", "--no-index", "--no-deps"]
        run([*install, "--require-hashes", *given], error=MissingEnvironmentError, what="uv pip install", fix=fix)
        notes.append(str(directory))
    return f"put {directory}/bin first on PATH"


def main() -> int:
    """Make one; an error is one line and its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m smoke.machine.environment", description="a virtual environment of a locked set"
    )
    parser.add_argument("set", choices=inputs.set_names())
    parser.add_argument("directory", type=Path)
    args = parser.parse_args()
    try:
        console.done(make(args.set, args.directory.absolute()))
    except PinwheelError as problem:
        console.error(problem.line())
        return problem.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
