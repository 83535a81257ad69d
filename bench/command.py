"""`invoke bench NAME`: the benchmarks there are."""

from __future__ import annotations

from collections.abc import Callable

from bench import deploy, locks, smoke, startup
from bench.images import build
from common.errors import UsageError

# By the name that is typed. Each measures, prints, writes its table into docs/performance.md, and returns its outcome.
BENCHMARKS: dict[str, Callable[[], str]] = {
    "locks": locks.run_bench,
    "build": build.run_bench,
    "bump": build.run_bump,
    "startup": startup.run_bench,
    "smoke": smoke.run_bench,
    "deploy": deploy.run_bench,
}


def run_benchmark(name: str, *, quick: bool) -> str:
    """Run one benchmark; returns the outcome in a few words.

    Args:
        name: one of `BENCHMARKS`.
        quick: for `build` alone: the small set only, once, and nothing written.

    Raises:
        UsageError: there is no such benchmark, or `quick` was asked of another than `build`.
        PinwheelError: what is measured fails, or this machine lacks something for it.
    """
    if name not in BENCHMARKS:
        raise UsageError(f"no such benchmark: {name}", fix=f"choose one of {', '.join(BENCHMARKS)}")
    if not quick:
        return BENCHMARKS[name]()
    if name != "build":
        raise UsageError("--quick goes with `bench build`", fix="leave it out")
    return build.run_quick()
