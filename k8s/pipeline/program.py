"""How the programs of pods speak and end: lines of progress, one line for a failure, and the toolkit's own exit codes."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable
from typing import NoReturn

from common.errors import ExitCode, PinwheelError
from oci.client.patience import Patience

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def say(text: str) -> None:
    """One line of progress."""
    print(text, flush=True)


# As long as a busy registry or hub may take; every failure that another try follows is said.
PATIENCE = Patience(pause=1.0, longest=120.0, tell=say)


def start(name: str, main: Callable[[list[str]], int]) -> NoReturn:
    """Run a program to its exit code: one line for each way to fail that somebody can act on.

    Args:
        name: of the program.
        main: takes the arguments, returns the exit code.
    """
    # As a container's first process, Python would not end on SIGTERM by itself. Nothing is left to clean up: what was fetched
    # in part is gone on from.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(ExitCode.TERMINATED))
    try:
        code = main(sys.argv[1:])
    except PinwheelError as problem:
        print(f"{name}: {problem.line()}", file=sys.stderr, flush=True)
        code = problem.exit_code
    except OSError as problem:
        full = "no space left: make the volume larger" if problem.errno in _FULL else problem.strerror or type(problem).__name__
        print(f"{name}: {problem.filename or 'the disk'}: {full}", file=sys.stderr, flush=True)
        code = ExitCode.ENVIRONMENT
    sys.stdout.flush()
    # Not sys.exit, which waits for threads that still fetch what nobody wants any more.
    os._exit(code)
