"""How the programs of pods print and end: lines of progress, one line for a failure, and the toolkit's own exit codes."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import NoReturn

from common.errors import ExitCode, PinwheelError
from common.files import FULL
from oci.client.patience import Patience


def say(text: str) -> None:
    """One line of progress."""
    print(text, flush=True)


# Long enough for a busy registry or hub; each failure that is tried again is printed.
PATIENCE = Patience(pause=1.0, longest=120.0, tell=say)


def start(name: str, main: Callable[[list[str]], int]) -> NoReturn:
    """Run a program and end with its exit code; a failure is printed as one line.

    Args:
        name: of the program.
        main: takes the arguments, returns the exit code.
    """
    # As a container's first process, Python would not end on SIGTERM by itself. There is nothing to clean up: a file that was
    # fetched in part is continued later.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(ExitCode.TERMINATED))
    try:
        code = main(sys.argv[1:])
    except PinwheelError as problem:
        print(f"{name}: {problem.line()}", file=sys.stderr, flush=True)
        code = problem.exit_code
    except OSError as problem:
        reason = (
            "no space left: make the volume larger" if problem.errno in FULL else problem.strerror or type(problem).__name__
        )
        print(f"{name}: {problem.filename or 'the disk'}: {reason}", file=sys.stderr, flush=True)
        code = ExitCode.ENVIRONMENT
    sys.stdout.flush()
    # Not sys.exit, which waits for threads that still fetch.
    os._exit(code)
