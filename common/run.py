"""The one place that starts other programs."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from common import child_environment, console
from common.errors import MissingEnvironmentError, PinwheelError


@dataclass(frozen=True, slots=True)
class Result:
    """The result of a finished program: exit code and both streams, decoded."""

    code: int
    stdout: str
    stderr: str


def which(program: str, *, fix: str) -> str:
    """The full path of `program`.

    Raises:
        MissingEnvironmentError: it is not installed; `fix` tells how to get it.
    """
    # Debian keeps programs such as mkfs and dockerd outside the PATH of a plain user.
    path = os.environ.get("PATH", "") + os.pathsep + "/usr/sbin" + os.pathsep + "/sbin"
    program_path = shutil.which(program, path=path)
    if program_path is None:
        raise MissingEnvironmentError(f"{program} is not installed", fix=fix)
    return program_path


def run(
    argv: Sequence[str | Path],
    *,
    error: type[PinwheelError] | None = None,
    what: str = "",
    fix: str = "",
    cwd: Path | None = None,
    env: Mapping[str, str | None] | None = None,
    inherit: bool = True,
    passes: Iterable[str] = (),
    stdin: str | None = None,
    timeout: float | None = None,
    missing: str = "run `invoke engine --install`",
    exact: bool = False,
) -> Result:
    """Run a program to its end and return its result.

    Args:
        argv: the program and its arguments; never a secret, which others could read in the process list.
        error: raised when the program fails or outlasts `timeout`; without it the caller looks at the code.
        what: the action, for the error message; default: the program's name.
        fix: what the user can do, for the error message.
        cwd: where it runs.
        env: added to the environment; None takes a variable out of it.
        inherit: whether it gets what `child_environment.py` names of this process's variables; otherwise `env` is all there is.
        passes: further ones that it gets, by name.
        stdin: its standard input; default none.
        timeout: seconds.
        missing: what to do if the program is not installed.
        exact: whether bytes of its output that are no UTF-8 stay (as lone surrogates) instead of being replaced.

    Raises:
        MissingEnvironmentError: the program is not installed.
        PinwheelError: of class `error`, when it fails.
    """
    args = [str(part) for part in argv]
    args[0] = which(args[0], fix=missing)
    console.debug(f"+ {shlex.join(args)}")
    own = child_environment.chosen(Path(args[0]).name, passes) if inherit else {}
    try:
        finished = subprocess.run(
            args,
            cwd=cwd,
            env={name: value for name, value in {**own, **(env or {})}.items() if value is not None},
            input=None if stdin is None else stdin.encode("utf-8", "surrogateescape"),
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            timeout=timeout,
            check=False,
        )
        output = finished.stdout.decode("utf-8", "surrogateescape" if exact else "replace")
        result = Result(finished.returncode, output, finished.stderr.decode("utf-8", "replace"))
    except subprocess.TimeoutExpired:
        result = Result(124, "", f"no answer within {timeout} s")
    if result.code and error is not None:
        # The last line is the verdict of every tool we call; PINWHEEL_VERBOSE=1 shows all lines.
        console.debug(result.stdout + result.stderr)
        last_line = ((result.stderr.strip() or result.stdout.strip()).splitlines() or [""])[-1][:400]
        name = Path(args[0]).name
        raise error(f"{what or name} failed with code {result.code}", where=last_line or name, fix=fix)
    return result
