"""The one place that starts other programs."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from common import console
from common.errors import MissingEnvironmentError, PinwheelError


@dataclass(frozen=True, slots=True)
class Result:
    """What a finished program left: exit code and both streams, decoded."""

    code: int
    stdout: str
    stderr: str


def which(program: str, *, fix: str) -> str:
    """The full path of `program`.

    Raises:
        MissingEnvironmentError: it is not installed; `fix` tells how to get it.
    """
    # Debian keeps mkfs, dockerd and friends where a plain user's PATH does not look.
    path = os.environ.get("PATH", "") + os.pathsep + "/usr/sbin" + os.pathsep + "/sbin"
    found = shutil.which(program, path=path)
    if found is None:
        raise MissingEnvironmentError(f"{program} is not installed", fix=fix)
    return found


def run(
    argv: Sequence[str | Path],
    *,
    error: type[PinwheelError] | None = None,
    what: str = "",
    fix: str = "",
    cwd: Path | None = None,
    env: Mapping[str, str | None] | None = None,
    inherit: bool = True,
    stdin: str | None = None,
    timeout: float | None = None,
    missing: str = "run `invoke engine --install`",
) -> Result:
    """Run a program to its end and return what it said.

    Args:
        argv: the program and its arguments; never a secret, which others could read in the process list.
        error: raised when the program fails or outlasts `timeout`; without it the caller looks at the code.
        what: says in the error what failed; default: the program's name.
        fix: says in the error what to do.
        cwd: where it runs.
        env: added to the environment; None takes a variable out of it.
        inherit: whether the environment of this process is the start; otherwise `env` is all there is.
        stdin: its standard input; default none.
        timeout: seconds.
        missing: what to do if the program is not installed.

    Raises:
        MissingEnvironmentError: the program is not installed.
        PinwheelError: of class `error`, when it fails.
    """
    args = [str(a) for a in argv]
    args[0] = which(args[0], fix=missing)
    console.debug(f"+ {shlex.join(args)}")
    try:
        done = subprocess.run(
            args,
            cwd=cwd,
            env={k: v for k, v in {**(os.environ if inherit else {}), **(env or {})}.items() if v is not None},
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=timeout,
            check=False,
        )
        result = Result(done.returncode, done.stdout, done.stderr)
    except subprocess.TimeoutExpired:
        result = Result(124, "", f"no answer within {timeout} s")
    if result.code and error is not None:
        # The last line is the verdict of every tool we call; all of it is shown with PINWHEEL_VERBOSE=1.
        console.debug(result.stdout + result.stderr)
        said = ((result.stderr.strip() or result.stdout.strip()).splitlines() or [""])[-1][:400]
        name = Path(args[0]).name
        raise error(f"{what or name} failed with code {result.code}", where=said or name, fix=fix)
    return result
