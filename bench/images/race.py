"""One run of the benchmark, inside the scratch checkout: everybody builds the same, in turn, and is measured.

    python -m bench.images.race RESULT all|quick|bump

Writes what was found as JSON; `build.py` starts it and makes the tables.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from bench.images import bump, limit, measure, profile
from bench.images.contenders import Contender, Ordinary, Product, Reference, layout_bytes
from bench.images.engine import Engine, Registry
from bench.images.measure import Usage
from common import console, paths
from common.errors import ExitCode, PinwheelError
from common.files import write_whole
from common.signals import terminable
from images import receipt, spec
from lockfiles import lockfile, store
from oci.layout import Layout

COLD, SAME, BUMP = "cold", "nothing changed", "one package bumped"
# What is run: everything, the small set once, or a bump of a package in the largest image alone.
Scope = Literal["all", "quick", "bump"]
LARGEST = "api"
_ROUNDS = 3
# What the small set is for: some 40 wheels, and of the quick run some 8.
_SMALL, _TINY = "transformers", "httpx"


@dataclass(frozen=True, slots=True)
class Figure:
    """What one contender took for one case of one set.

    Attributes:
        usage: medians.
        rounds: how many runs they are of.
        upload: bytes a registry receives that has what was pushed before; 0 for the limits, which make no image.
        base: bytes to hold it against: of the whole layout where it is cold, of the changed layers where a package is bumped.
    """

    set: str
    who: str
    case: str
    usage: Usage
    rounds: int
    upload: int = 0
    base: int = 0


@dataclass(slots=True)
class Results:
    """Everything a run found.

    Attributes:
        figures: in the order they were taken.
        pulls: (set, what is pulled, bytes, seconds) of pulling and unpacking into an empty engine.
        shares: by set: share of each kind of work in the processor time of a cold build.
        kinds: by set: seconds of processor per kind at the limit.
        digests: by set: of the image after a cold build and after one with nothing changed.
        failures: who could not be measured, and why; the others' figures stand.
    """

    figures: list[Figure] = field(default_factory=list)
    pulls: list[tuple[str, str, int, float]] = field(default_factory=list)
    shares: dict[str, dict[str, float]] = field(default_factory=dict)
    kinds: dict[str, dict[str, float]] = field(default_factory=dict)
    digests: dict[str, tuple[str, ...]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, body: dict[str, Any]) -> Results:
        """Back from JSON."""
        figures = [Figure(**{**figure, "usage": Usage(**figure["usage"])}) for figure in body["figures"]]
        pulls = [(name, what, size, seconds) for name, what, size, seconds in body["pulls"]]
        digests = {name: tuple(pair) for name, pair in body["digests"].items()}
        return cls(figures, pulls, body["shares"], body["kinds"], digests, body["failures"])


class Race:
    """The runs over one set after the other; what it finds is in `results`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._bumps = bump.Bumps()
        self._base = Layout(folder / "base" / "oci")
        self.results = Results()

    def lay_out_base(self, role: str) -> None:
        """Make a layout with the base image, which the Dockerfiles start from; it also warms what a user has warm."""
        with console.step("laying out the base image"):
            Product(role, self._folder).build()
            paths.dist().rename(self._folder / "base")

    def all_of(self, role: str, *, rounds: int) -> None:
        """Everybody on one set, who takes longest last."""
        self.attempt(role, self.sprint, rounds=rounds)
        self.attempt(role, self.profile)
        self.attempt(role, self.reference, rounds=rounds)
        self.attempt(role, self.ordinary)

    def attempt(self, role: str, work: Callable[..., None], **options: int) -> None:
        """One part of the run; when it fails, the others' figures are not lost."""
        try:
            work(role, **options)
        except PinwheelError as problem:
            self.results.failures.append(f"{role}, {work.__name__}: {problem.line()}")
            console.warn(self.results.failures[-1])

    def sprint(self, role: str, *, rounds: int) -> None:
        """The limits and `invoke build`, in turn, cold each time."""
        # Read once, the wheels are in the page cache for everybody.
        store.verify(wheel.artifact for wheel in lockfile.read_set(spec.read(role).set).wheels)
        product, usages = Product(role, self._folder), {way: list[Usage]() for way in limit.WAYS}

        def prepare(case: str, number: int) -> None:
            if case != COLD:
                return
            product.reset()
            for way, runs in usages.items():
                # What nobody needs to do is there to compare with, not to be claimed: once is enough.
                if number == 0 or way != limit.ZLIB:
                    runs.append(self._timed(f"(d) {way}", role, COLD, functools.partial(self._limit, role, way)))

        with Registry(self._folder / "registry") as registry:
            self._cases(product, role, registry, rounds=rounds, cold=rounds, prepare=prepare)
            self._pull(role, "(c) as it is, many layers", registry, product.push(registry))
        for way, runs in usages.items():
            self.results.figures.append(Figure(role, f"(d) {way}", COLD, measure.median(runs), len(runs)))

    def bumps_alone(self, role: str, *, rounds: int) -> None:
        """`invoke build` of another image, cold once."""
        product = Product(role, self._folder)
        with Registry(self._folder / "registry") as registry:
            self._cases(
                product,
                role,
                registry,
                rounds=rounds,
                cold=1,
                prepare=lambda case, _: product.reset() if case == COLD else None,
            )

    def ordinary(self, role: str) -> None:
        """The ordinary Dockerfile, once. Its bump takes as long as its cold build: the small set shows it for both."""
        with Registry(self._folder / "registry") as registry, ExitStack() as stack:
            engine = stack.enter_context(Engine(self._folder))
            contender = Ordinary(role, engine, self._base, self._folder)
            contender.warm()
            # It builds all anew; the disk need not hold it twice.
            self._cases(
                contender,
                role,
                registry,
                rounds=1,
                cold=1,
                prepare=lambda case, _: contender.forget() if case == BUMP else None,
                cases=(COLD, SAME, BUMP) if role == bump.SMALL else (COLD, SAME),
            )
            plain, zstd = contender.push(registry), contender.push_zstd(registry)
            stack.close()
            self._pull(role, "(a) its one layer, gzip", registry, plain)
            self._pull(role, "(a) the same layer, zstd", registry, zstd)

    def reference(self, role: str, *, rounds: int) -> None:
        """The reference Dockerfile."""
        with Registry(self._folder / "registry") as registry, Engine(self._folder) as engine:
            contender = Reference(role, engine, self._base, self._folder)
            contender.warm()
            self._cases(contender, role, registry, rounds=rounds, cold=1)

    def profile(self, role: str) -> None:
        """Where the builder's time goes."""
        with console.step(f"{role}: (c) cold, watched"):
            self.results.shares[role] = profile.shares(Product(role, self._folder), self._folder / "profile")

    def _cases(
        self,
        who: Contender,
        role: str,
        registry: Registry,
        *,
        rounds: int,
        cold: int,
        prepare: Callable[[str, int], None] = lambda *_: None,
        cases: tuple[str, ...] = (COLD, SAME, BUMP),
    ) -> None:
        """All cases in turn, some rounds long."""
        usages: dict[str, list[Usage]] = {case: [] for case in cases}
        uploads, bases = dict.fromkeys(usages, 0), dict.fromkeys(usages, 0)
        held = 0
        for number in range(rounds):
            for case in cases:
                if case == COLD and number >= cold:
                    continue
                prepare(case, number)
                if case == BUMP:
                    self._bumps.next()
                usages[case].append(self._timed(who.name, role, case, who.build))
                if number == 0:
                    bases[case] = self._weigh(role, case) if isinstance(who, Product) else 0
                    who.push(registry)
                    uploads[case], held = registry.held() - held, registry.held()
        for case, runs in usages.items():
            self.results.figures.append(
                Figure(role, who.name, case, measure.median(runs), len(runs), uploads[case], bases[case])
            )

    def _weigh(self, role: str, case: str) -> int:
        (image,) = receipt.read().images
        if case != BUMP:
            self.results.digests[role] = (*self.results.digests.get(role, ()), image.digest)
            return layout_bytes(Layout(receipt.layout()))
        return sum(layer.size for layer in image.layers if not layer.reused)

    def _pull(self, role: str, what: str, registry: Registry, reference: str) -> None:
        with Engine(self._folder) as engine, console.step(f"{role}: pulling {what}"):
            self.results.pulls.append((role, what, registry.weight(reference), engine.pull(reference)))

    def _limit(self, role: str, way: str) -> Usage:
        log = self._folder / "limit.log"
        argv = [sys.executable, "-m", "bench.images.limit", role, str(len(os.sched_getaffinity(0))), way]
        usage = measure.run(argv, log=log, disk=measure.folders(Path(os.environ["TMPDIR"])), cwd=paths.ROOT)
        self.results.kinds[role] = json.loads(log.read_text().splitlines()[-1])
        return usage

    def _timed(self, who: str, role: str, case: str, work: Callable[[], Usage]) -> Usage:
        with console.step(f"{role}: {who}, {case}") as notes:
            usage = work()
            notes.append(
                f"{usage.cpu:.1f} s of processor, memory {console.size(usage.memory)}, disk {console.size(usage.disk)}"
            )
        return usage


def run_race(folder: Path, scope: Scope) -> Results:
    """The runs of a scope."""
    bump.add_small_set(_SMALL if scope == "all" else _TINY)
    race = Race(folder)
    race.lay_out_base(bump.SMALL)
    if scope != "bump":
        race.all_of(bump.SMALL, rounds=1 if scope == "quick" else _ROUNDS)
    if scope != "quick":
        race.attempt(LARGEST, race.bumps_alone, rounds=_ROUNDS if scope == "bump" else 1)
    if scope == "all":
        race.all_of("train", rounds=1)
    return race.results


def main(result: Path, scope: Scope) -> int:
    """Run, and write what was found, or what went wrong in one line."""
    try:
        with terminable():
            body = dataclasses.asdict(run_race(result.parent, scope))
    except PinwheelError as problem:
        body = {"error": problem.line()}
    except KeyboardInterrupt:
        # Everything is cleaned up; whoever started this says so.
        return int(ExitCode.INTERRUPTED)
    write_whole(result, json.dumps(body))
    return 0


if __name__ == "__main__":
    (chosen,) = [one for one in get_args(Scope) if one == sys.argv[2]]
    sys.exit(main(Path(sys.argv[1]), chosen))
