"""What a person sees: rich on a terminal, plain lines elsewhere or with CI=true.

Results and progress go to standard output, errors to standard error. Nothing here is parsed by a program: receipts are, and
what a command writes by `machine`, while all else goes to standard error.
"""

from __future__ import annotations

import io
import os
import re
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from rich import markup
from rich.cells import cell_len
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn, TransferSpeedColumn
from rich.table import Table

# A locale that has no ✓ must not stop a build.
for _stream in (sys.stdout, sys.stderr):
    if isinstance(_stream, io.TextIOWrapper):
        _stream.reconfigure(errors="replace")
_CI = os.environ.get("CI", "").lower() in {"1", "true", "yes"}
# Off a terminal rich assumes 80 columns and would wrap digests in the middle.
_WIDTH = None if Console().is_terminal and not _CI else 160
_WIDE = 10_000
# Of a table: cells between two columns, and of a column that is folded.
_GAP, _NARROWEST = 4, 12
out = Console(highlight=False, width=_WIDTH, force_terminal=False if _CI else None)
err = Console(highlight=False, width=_WIDTH, stderr=True, force_terminal=False if _CI else None)
# What makes a terminal do something else than show a character, or show lines in another order.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_VERBOSE = os.environ.get("PINWHEEL_VERBOSE", "") not in {"", "0"}


def aside() -> None:
    """From now on people read standard error: standard output is for a program."""
    out.file = sys.stderr


def machine(text: str) -> None:
    """What a program reads: as it is, to standard output."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def size(count: float) -> str:
    """A number of bytes for people, in decimal units as registries and disks count."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.{2 if unit == 'GB' else 1}f} {unit}"
        count /= 1000
    raise AssertionError


def seconds(count: float) -> str:
    """A duration for people."""
    return f"{count:.1f} s" if count < 60 else f"{int(count // 60)} min {int(count % 60):02d} s"


def escape(text: str) -> str:
    """A text as it is, for `print` of rich: no markup of it counts, and no control character, whoever wrote it."""
    return markup.escape(_CONTROL.sub("\N{REPLACEMENT CHARACTER}", text))


def title(text: str) -> None:
    """The headline of a stage."""
    out.print(f"\n[bold cyan]{escape(text)}[/]")


def info(text: str) -> None:
    """One line of result."""
    out.print(f"  {escape(text)}", soft_wrap=True)


def done(text: str) -> None:
    """One line about a success."""
    out.print(f"  [green]✓[/] {escape(text)}", soft_wrap=True)


def warn(text: str) -> None:
    """One line that needs attention but stops nothing."""
    err.print(f"  [yellow]![/] {escape(text)}", soft_wrap=True)


def error(text: str) -> None:
    """The one line of a refusal."""
    err.print(f"[bold red]error:[/] {escape(text)}", soft_wrap=True)


def debug(text: str) -> None:
    """Shown with PINWHEEL_VERBOSE=1 only."""
    if _VERBOSE:
        err.print(f"[dim]{escape(text)}[/]", soft_wrap=True)


@contextmanager
def step(text: str) -> Iterator[list[str]]:
    """Print what starts and, at its end, how long it took. Notes that the block appends to the list are added to that line."""
    started = time.monotonic()
    notes: list[str] = []
    if out.is_terminal:
        with out.status(f"{escape(text)} …"):
            yield notes
    else:
        out.print(f"  … {escape(text)}")
        yield notes
    tail = "".join(f", {note}" for note in notes)
    done(f"{text}{tail}  ({seconds(time.monotonic() - started)})")


class Bar:
    """Progress over a known number of bytes; off a terminal a line every ten percent or half minute."""

    def __init__(self, text: str, total: int) -> None:
        self._text, self._total, self._at = text, max(total, 1), 0
        self._printed, self._printed_at = 0, time.monotonic()
        self._rich: Progress | None = None
        if out.is_terminal:
            self._rich = Progress(
                TextColumn("  {task.description}"),
                BarColumn(),
                DownloadColumn(),
                TransferSpeedColumn(),
                TimeElapsedColumn(),
                console=out,
                transient=True,
            )
            self._task = self._rich.add_task(text, total=total)

    def __enter__(self) -> Bar:
        if self._rich:
            self._rich.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._rich:
            self._rich.stop()

    def advance(self, count: int) -> None:
        """`count` more bytes are done."""
        self._at += count
        if self._rich:
            self._rich.advance(self._task, count)
            return
        tenth, now = 10 * self._at // self._total, time.monotonic()
        if (tenth > self._printed and now - self._printed_at > 2) or now - self._printed_at > 30:
            self._printed, self._printed_at = tenth, now
            out.print(f"    {escape(self._text)}: {100 * self._at // self._total} % of {size(self._total)}")


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[int] = ()) -> None:
    """A table; columns whose index stands in `right` are aligned right.

    Nothing is cut: where a terminal is too narrow, the widest column is folded.
    """
    lines = [list(head), *([escape(cell) for cell in row] for row in rows)]
    widths = [max(cell_len(line[number]) for line in lines) for number in range(len(head))]
    excess = sum(widths) + _GAP * (len(widths) - 1) - out.width if out.is_terminal else 0
    if excess > 0:
        widest = widths.index(max(widths))
        widths[widest] = max(widths[widest] - excess, _NARROWEST)
    grid = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), show_edge=False)
    for number, name in enumerate(head):
        grid.add_column(name, justify="right" if number in right else "left", width=widths[number], overflow="fold")
    for line in lines[1:]:
        grid.add_row(*line)
    # As wide as it is: what still does not fit, a terminal breaks by itself.
    Console(file=out.file, highlight=False, width=_WIDE, force_terminal=out.is_terminal).print(grid)
