"""`invoke bench locks`: our figures and those of the plain tools on the same work, taken in turn in one run.

Times on shared machines are noisy: each pair alternates over some rounds, and what counts is the ratio of the medians.
"""

from __future__ import annotations

import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from bench import shared
from common import console, paths
from common.errors import MissingEnvironmentError
from common.run import run
from lockfiles import changes, fetching, inputs, lock, lockfile, store
from lockfiles.keeping import Keeping
from lockfiles.model import Artifact
from lockfiles.python import index, metadata, wheels

# Enough for a link to show its speed, little enough to be downloaded ten times.
_FETCH_BYTES = 700_000_000


@dataclass(frozen=True, slots=True)
class Comparison:
    """One piece of work, done by us and by a plain tool.

    Attributes:
        work: what was done.
        ours: our median, in seconds.
        peer: the name of the other tool; empty where there is only a limit.
        theirs: its median, in seconds.
        goal: what was to be reached, in words.
    """

    work: str
    ours: float
    peer: str
    theirs: float
    goal: str

    def row(self) -> tuple[str, ...]:
        """For a table."""
        theirs, ratio = (f"{self.theirs:.2f} s", f"{self.ours / self.theirs:.2f}") if self.peer else ("", "")
        return self.work, f"{self.ours:.2f} s", self.peer, theirs, ratio, self.goal


def run_bench() -> str:
    """Measure, print, and write the table into docs/performance.md; returns the outcome in a few words.

    Raises:
        LockError: the locks do not hold.
        MissingEnvironmentError: no network, or curl or sha256sum is not installed.
    """
    rows = [_check(), _relock(), *_fetch(), _verify()]
    head = ("work", "Pinwheel", "beside", "it", "ratio", "goal")
    cells, right = [row.row() for row in rows], (1, 3, 4)
    console.table(head, cells, right=right)
    table = shared.markdown(head, cells, right=right)
    shared.publish("invoke bench locks", "Medians of 3 rounds in turn.", table)
    return f"{len(rows)} comparisons, written to docs/performance.md"


def _check() -> Comparison:
    # Beside the empty run of the same program: what the checks themselves cost, and what a user waits for.
    program = [sys.executable, "-m", "invoke", "--search-root", str(paths.ROOT)]
    mine, other = shared.in_turn(lambda: _call([*program, "lock", "--check"]), lambda: _call([*program, "--list"]))
    return Comparison(f"lock --check ({mine - other:.2f} s without the start)", mine, "invoke --list", other, "checks < 1 s")


def _relock() -> Comparison:
    base = lockfile.read_base()
    wanted = [inputs.read_set(name) for name in inputs.set_names()]
    locks = {one.name: lockfile.read_set(one.name) for one in wanted}
    keeping = Keeping("", lambda: 0, changes.read())

    def ours() -> None:
        # As a program that was just started.
        metadata.requires.cache_clear()
        lock.licence.cache_clear()
        for one in wanted:
            lock.resolve_set(one, base, keeping, locks.get(one.agrees))

    def theirs() -> None:
        for one in wanted:
            held = {wheel.name: wheel.version for wheel in locks[one.name].wheels}
            wheels.resolve(one, base.version("python3.11"), base.version("libc6"), held)

    ours()
    mine, other = shared.in_turn(ours, theirs)
    return Comparison(f"relock {len(wanted)} sets, metadata warm", mine, "uv pip compile alone", other, "ratio ≤ 1.5")


def _fetch() -> list[Comparison]:
    artifacts: list[Artifact] = []
    for wheel in sorted(lockfile.read_set("train").wheels, key=lambda w: (-w.artifact.size, w.name)):
        if not wheel.sdist and not wheel.shim and sum(a.size for a in artifacts) + wheel.artifact.size <= _FETCH_BYTES:
            artifacts.append(wheel.artifact)
    total = sum(a.size for a in artifacts)
    with index.session() as http:
        locate = index.Locator(http)
        addresses = {artifact: locate(artifact) for artifact in artifacts}

        def ours() -> None:
            with tempfile.TemporaryDirectory(prefix="pinwheel-bench-") as scratch, _cache(scratch):
                store.download(artifacts, addresses.__getitem__, http)

        def curl() -> None:
            with tempfile.TemporaryDirectory(prefix="pinwheel-bench-") as scratch:
                # Addresses may carry credentials: by standard input, never as arguments.
                config = "".join(f'url = "{address}"\noutput = "{scratch}/{a.sha256}"\n' for a, address in addresses.items())
                argv = ["curl", "--silent", "--fail", "--location", "--parallel", "--parallel-max", "6", "--config", "-"]
                run(argv, stdin=config, error=MissingEnvironmentError, what="curl")

        mine, other = shared.in_turn(ours, curl)

        def pip() -> None:
            with tempfile.TemporaryDirectory(prefix="pinwheel-bench-") as scratch:
                hashed = Path(scratch) / "hashed.txt"
                named = {wheel.artifact: wheel for wheel in lockfile.read_set("train").wheels}
                lines = [f"{named[a].name}=={named[a].version} --hash=sha256:{a.sha256}" for a in artifacts]
                hashed.write_text("\n".join(lines) + "\n")
                argv: list[str | Path] = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-cache-dir"]
                # The very files, whatever Python this runs on.
                argv += ["--python-version", "3.11", "--only-binary", ":all:"]
                argv += [f"--platform=manylinux_2_{minor}_x86_64" for minor in range(36, 4, -1)]
                argv += ["--platform=manylinux2014_x86_64", "--dest", scratch, "--requirement", hashed]
                environment = {"PIP_FIND_LINKS": None, "PIP_INDEX_URL": index.url()}
                run(argv, env=environment, error=MissingEnvironmentError, what="pip download")

        pips = shared.timed(pip)
    work = f"fetch {len(artifacts)} wheels, {console.size(total)}, verified"
    rate = f"{total / mine / 1e6:.0f} MB/s, curl {total / other / 1e6:.0f} MB/s"
    return [
        Comparison(f"{work} ({rate})", mine, "curl --parallel, unverified", other, "ratio ≈ 1"),
        Comparison(work, mine, "pip download", pips, ""),
    ]


def _verify() -> Comparison:
    held = [one for one in fetching.artifacts(["train"]) if store.has(one)]
    files = "".join(f"{store.path(one)}\0" for one in held)
    argv = ["xargs", "-0", "-n", "4", "-P", str(os.cpu_count()), "sha256sum"]
    total = sum(one.size for one in held)
    mine, other = shared.in_turn(
        lambda: store.verify(held),
        lambda: run(argv, stdin=files, error=MissingEnvironmentError, what="sha256sum"),
    )
    work = f"verify {len(held)} files, {console.size(total)} ({total / mine / 1e6:.0f} MB/s)"
    return Comparison(work, mine, f"sha256sum, {os.cpu_count()} at once", other, "ratio ≤ 1.25")


def _call(argv: list[str]) -> None:
    run(argv, cwd=paths.ROOT, error=MissingEnvironmentError, what="lock --check")


class _cache:  # noqa: N801 - read as `with _cache(folder)`
    """Point the cache elsewhere while the block runs."""

    def __init__(self, folder: str) -> None:
        self._folder, self._before = folder, os.environ.get("PINWHEEL_CACHE")

    def __enter__(self) -> None:
        os.environ["PINWHEEL_CACHE"] = self._folder

    def __exit__(self, *_: object) -> None:
        if self._before is None:
            del os.environ["PINWHEEL_CACHE"]
        else:
            os.environ["PINWHEEL_CACHE"] = self._before
