"""What all benchmarks share: timing in turn, waiting for programs, and their tables in docs/performance.md."""

from __future__ import annotations

import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from common import paths
from common.errors import UsageError
from common.files import write_whole
from common.machine import this_machine

_FILE = paths.ROOT / "docs" / "performance.md"


def in_turn(*works: Callable[[], object], rounds: int = 3) -> tuple[float, ...]:
    """Do several pieces of work one after the other, some rounds long; the median seconds of each.

    Times on shared machines are noisy: what is compared is taken in turn.
    """
    times = [[timed(work) for work in works] for _ in range(rounds)]
    return tuple(statistics.median(column) for column in zip(*times, strict=True))


def timed(work: Callable[[], object]) -> float:
    """Seconds of one piece of work."""
    started = time.monotonic()
    work()
    return time.monotonic() - started


def wait(process: subprocess.Popen[bytes]) -> int:
    """Wait for a program to end; its exit code. Where the waiting ends badly, by Ctrl-C too, the program is ended first."""
    try:
        return process.wait()
    except BaseException:
        process.terminate()
        process.wait()
        raise


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> str:
    """A table in Markdown; columns whose index stands in `right` are aligned right."""
    marks = ["--:" if number in right else "---" for number in range(len(head))]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, marks, *rows))


def publish(command: str, *blocks: str, file: Path = _FILE) -> None:
    """Put the outcome of a benchmark between its two marks, with the day.

    Args:
        command: as it is typed, `invoke bench locks`: the marks name it.
        blocks: paragraphs and tables.
        file: the document.

    Raises:
        UsageError: the document has no such marks.
    """
    begin, end = f"<!-- {command}: begin -->", f"<!-- {command}: end -->"
    before, found, rest = file.read_text().partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise UsageError(f"no place for the table of `{command}`", where=paths.shown(file), fix=f"write {begin} and {end}")
    day, host = time.strftime("%Y-%m-%d", time.gmtime()), this_machine()
    machine = f"{host.cores} cores, {host.cpu}, {host.memory / 1e9:.0f} GB of memory, Linux {platform.release()}"
    write_whole(file, before + "\n\n".join([begin, f"Taken on {day}: {machine}.", *blocks, end]) + after)
