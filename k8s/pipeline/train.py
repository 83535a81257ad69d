"""Start a training so that a second try makes sense: from a whole checkpoint, and with a configuration that is not refused.

    python -m pinwheel_pipeline.train [--config /config] [--workdir FOLDER] -- COMMAND…

Checkpoints that were being written when the training was killed are set aside. Then `check` runs once more, now on the hardware
that the training has, so that a refusal has an exit code of its own, which the workflow does not try again. Then this process
becomes the command, in `--workdir`.

Exit codes: 2 LLaMA-Factory refuses the configuration; else the command's own.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from common.errors import ExitCode

from . import checkpoints, experiment
from .program import say, start


def main(argv: list[str]) -> int:
    """Run the program; returns the exit code."""
    parser = argparse.ArgumentParser(prog="train", usage="%(prog)s [--config DIR] [--workdir DIR] -- COMMAND...")
    parser.add_argument("--config", type=Path, default=Path("/config"))
    parser.add_argument("--workdir", type=Path, default=Path())
    own, command = (argv[: argv.index("--")], argv[argv.index("--") + 1 :]) if "--" in argv else (argv, [])
    options = parser.parse_args(own)
    if not command:
        parser.error("after -- the command")
    for line in checkpoints.set_aside(experiment.read_run(options.config).output):
        say(line)
    # A process of its own: what it loads, on the GPU too, is free again when the training begins.
    name = f"{__package__}.check"
    checked = subprocess.run([sys.executable, "-m", name, "--config", str(options.config)], check=False)
    # A check that broke down itself judges nothing.
    if checked.returncode == ExitCode.USAGE:
        return ExitCode.USAGE
    os.chdir(options.workdir)
    sys.stdout.flush()
    return os.execvp(command[0], command)  # noqa: S606 - the command as it is given, and no shell


if __name__ == "__main__":
    start("train", main)
