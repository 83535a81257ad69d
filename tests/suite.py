"""`invoke test`: linters, types, then the tests from the quickest tier to the whole line."""

from __future__ import annotations

import os
import subprocess
import sys

from invoke.exceptions import Exit

from common import console, host, paths

_HERE = "not host and not engine and not line"


def run(*, fast: bool) -> str:
    """Run the suite and stop at the first part that fails; returns the outcome in a few words.

    Args:
        fast: leave out what takes long, or needs the machine's tools, an engine, or the whole line.

    Raises:
        Exit: a part failed, with its exit code.
        MissingEnvironmentError: a tool is missing and cannot be installed.
    """
    _part("ruff", "check", ".")
    _part("ruff", "format", "--check", ".")
    _part("mypy")
    _part("pytest", "-q", "-n", "auto", "-m", f"{_HERE} and not slow")
    if fast:
        return "the fast tier passed"
    _part("pytest", "-q", "-m", f"{_HERE} and slow")
    # The rest runs on real parts; on a new machine they are installed first.
    host.install()
    _part("pytest", "-q", "-m", "host")
    # The line first: what it builds, the engine tests use.
    _part("pytest", "-q", "-s", "-m", "line")
    _part("pytest", "-q", "-m", "engine")
    return "everything passed"


def _part(module: str, *arguments: str) -> None:
    console.title(" ".join([module, *arguments]))
    console.out.file.flush()
    # The user's own settings for other projects' tools do not count here.
    env = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST_", "MYPY", "RUFF_"))}
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments], cwd=paths.ROOT, env=env, stdin=subprocess.DEVNULL, check=False
    )
    if done.returncode:
        console.error(f"{module} {' '.join(arguments)} failed")
        raise Exit(code=1)
