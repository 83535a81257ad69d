"""Figures beside those of the last run: one passed receipt is kept for each class of host.

A class is what decides how fast the same work goes: the processor, and with `--gpu` the GPUs and the branch of their driver;
and what the run was about: which images, in containers or not. Versions are no part of it: how a new version compares with
the one before is what the comparison is for.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, replace
from pathlib import Path

from common import console, paths
from common.files import write_whole
from smoke import receipt as receipts
from smoke.receipt import Figure, SmokeReceipt

# A machine that is shared makes figures move by some percent from run to run; what moves more is worth a look.
WORTH_A_LOOK = 0.25
# Whether more is better, by unit.
_MORE_IS_BETTER = {"s": False, "bytes": False, "tokens/s": True}


@dataclass(frozen=True, slots=True)
class Change:
    """How a figure moved since the last run.

    Attributes:
        share: of the last value: 0.1 is ten percent more.
        better: whether that is good; None where its unit does not say.
    """

    share: float
    better: bool | None


def change(figure: Figure) -> Change | None:
    """How a figure moved; None where there is nothing to compare it with, or nothing to take a share of."""
    if figure.last is None or figure.last <= 0:
        return None
    share = figure.value / figure.last - 1
    # The quotient of two figures that are numbers need not be one.
    if not math.isfinite(share):
        return None
    more = _MORE_IS_BETTER.get(figure.unit)
    return Change(share, None if more is None else more == (share > 0))


def compare(receipt: SmokeReceipt) -> SmokeReceipt:
    """Put beside each figure what it was in the last passed run on a host of the same class.

    Those of a passed run that are much worse are told; a run that failed has more to say than its figures.
    """
    last = _last(receipt)
    if last is None:
        return receipt
    known = {(figure.name, figure.unit): figure.value for figure in last.figures}
    compared = tuple(replace(figure, last=known.get((figure.name, figure.unit))) for figure in receipt.figures)
    if receipt.passed:
        _tell([figure for figure in compared if _worse(figure)], last.started)
    return replace(receipt, figures=compared)


def keep(receipt: SmokeReceipt) -> None:
    """Keep a receipt for the runs to come, in place of the one before of its class; one that did not pass is not kept.

    Those of classes that never come again stay: some kilobytes each, below the cache that is safe to delete.
    """
    if not receipt.passed:
        return
    path = _path(receipt)
    try:
        write_whole(path, receipts.dump(receipt))
    except OSError as problem:
        console.warn(f"the next run has nothing to compare its figures with: {problem.strerror} ({paths.shown(path)})")


def _path(receipt: SmokeReceipt) -> Path:
    """Where the last passed receipt of this one's class lies, if there is one."""
    gpus = sorted([gpu.name, gpu.driver.partition(".")[0]] for gpu in receipt.host.gpus) if receipt.gpu else []
    images = sorted([image.role, image.name] for image in receipt.images)
    kind = [receipt.gpu, receipt.container, receipt.host.cpu, receipt.host.cores, gpus, images]
    return paths.cache("receipts", f"{hashlib.sha256(json.dumps(kind).encode()).hexdigest()[:32]}.json")


def _last(receipt: SmokeReceipt) -> SmokeReceipt | None:
    path = _path(receipt)
    try:
        last = receipts.load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as problem:
        console.debug(f"{path} is ignored: {problem}")
        return None
    # Only passed ones are kept; what else lies there is not from here.
    return last if last.passed and _path(last) == path else None


def _worse(figure: Figure) -> bool:
    moved = change(figure)
    return moved is not None and moved.better is False and abs(moved.share) > WORTH_A_LOOK


def _tell(worse: list[Figure], started: str) -> None:
    if not worse:
        return
    console.info(
        f"worse by more than {WORTH_A_LOOK:.0%} than in the last passed run here, of {started} (a note, not a failure):"
    )
    rows = [
        (figure.name, shown(figure.last or 0.0, figure.unit), shown(figure.value, figure.unit), _signed(figure))
        for figure in worse
    ]
    console.table(("  figure", "last", "now", "change"), [(f"  {name}", *cells) for name, *cells in rows], right=(1, 2, 3))


def _signed(figure: Figure) -> str:
    moved = change(figure)
    return f"{moved.share:+.0%}" if moved else ""


def shown(value: float, unit: str) -> str:
    """A figure for people."""
    if unit == "bytes":
        return console.size(value)
    if unit == "s":
        return f"{1000 * value:.0f} ms" if abs(value) < 1 else console.seconds(value)
    return f"{value:,.1f} {unit}"
