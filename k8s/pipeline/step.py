"""Run one step of the pipeline and keep its log.

    python -m pinwheel_pipeline.step [--config /config] [--workdir FOLDER] [--fresh PATH] NAME -- COMMAND…

The command's output is passed on as it is and also added to `<logs>/NAME.log`, where `<logs>` is `paths.logs` of
`run.json` in the configuration's folder. The command runs in `--workdir`, by default here, where `python -m` finds the programs
beside this one; other programs want a folder to write to. With `--fresh` one of the `paths` of `run.json` is emptied first, so
that a step hands on what is its own, and nothing that lay there before. SIGTERM, SIGINT and SIGHUP are passed on; the exit
code is the command's own, in the form of a shell (128 + n for signal n, 127 if there is no such program).
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import BinaryIO, cast

from common.errors import PinwheelError

from . import plain

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
# Seconds to wait for output of processes that outlive the command.
_OUTPUT_WAIT = 5.0


class Log:
    """The log's file; a disk that is full ends the log, never the training."""

    def __init__(self, file: Path) -> None:
        self._file = file
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        self._out: BinaryIO | None = os.fdopen(plain.opened(file, flags), "ab", buffering=0)

    def write(self, data: bytes) -> None:
        """Write to its end."""
        if self._out is None:
            return
        try:
            self._out.write(data)
        except OSError as problem:
            print(f"step: {self._file.name} is not written any further: {problem.strerror}", file=sys.stderr, flush=True)
            self._out.close()
            self._out = None


def tee(source: BinaryIO, log: Log) -> None:
    """Pass on all output until it ends."""
    fd = source.fileno()
    while data := os.read(fd, 1 << 16):
        log.write(data)
        try:
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
        except OSError:
            # Nobody reads our output any more: go on for the log, and so that the command does not block on a full pipe.
            continue


def run(command: list[str], log: Log, workdir: Path | None) -> int:
    """Run a command to its end, in a folder; returns its exit code, in the form of a shell."""
    # A session of its own: a signal then reaches all of its processes, and each of them once.
    early_signals: list[int] = []
    child: subprocess.Popen[bytes] | None = None

    def pass_on(number: int, _: object) -> None:
        if child is None:
            early_signals.append(number)
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, number)

    for number in _SIGNALS:
        signal.signal(number, pass_on)
    try:
        child = subprocess.Popen(
            command,
            cwd=workdir,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as problem:
        log.write(f"{command[0]}: {problem.strerror}\n".encode())
        print(f"step: {command[0]} cannot be run: {problem.strerror}", file=sys.stderr)
        return 127 if isinstance(problem, FileNotFoundError) else 126
    for signal_number in early_signals:
        pass_on(signal_number, None)
    reader = threading.Thread(target=tee, args=(cast(BinaryIO, child.stdout), log), daemon=True)
    reader.start()
    code = child.wait()
    reader.join(_OUTPUT_WAIT)
    return 128 - code if code < 0 else code


def main(argv: list[str]) -> int:
    """Run the step; returns the exit code."""
    usage = "%(prog)s [--config DIR] [--workdir DIR] [--fresh PATH] NAME -- COMMAND..."
    parser = argparse.ArgumentParser(prog="step", usage=usage)
    parser.add_argument("--config", type=Path, default=Path("/config"))
    parser.add_argument("--workdir", type=Path)
    parser.add_argument("--fresh", choices=("output", "export"))
    parser.add_argument("name")
    own, mark, command = (argv[: argv.index("--")], True, argv[argv.index("--") + 1 :]) if "--" in argv else (argv, False, [])
    options = parser.parse_args(own)
    if not mark or not command or not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,62}", options.name):
        parser.error("a name of small letters, digits and dashes, then --, then the command")
    file = options.config / "run.json"
    try:
        paths = json.loads(file.read_text(encoding="utf-8"))["paths"]
        folder = Path(paths["logs"])
        folder.mkdir(parents=True, exist_ok=True)
        log = Log(folder / f"{options.name}.log")
    except (PinwheelError, OSError, ValueError, KeyError, TypeError) as problem:
        print(f"step: no log can be kept ({file}): {type(problem).__name__}: {problem}", file=sys.stderr)
        return 2
    try:
        if options.fresh:
            plain.empty(Path(paths[options.fresh]))
    except (PinwheelError, OSError, KeyError, TypeError) as problem:
        print(f"step: {options.fresh} cannot be emptied: {type(problem).__name__}: {problem}", file=sys.stderr)
        return 2
    # All tries write into one file: the output of the first often explains why there was a second.
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    log.write(f"== {now} {options.name}: {shlex.join(command)}\n".encode())
    code = run(command, log, options.workdir)
    log.write(f"== {options.name} ended with exit code {code}\n".encode())
    return code


if __name__ == "__main__":
    # Not sys.exit: the thread that still waits for output must not delay the end.
    exit_code = main(sys.argv[1:])
    sys.stdout.flush()
    os._exit(exit_code)
