"""The nearest change of an input that resolves, found by really resolving.

Fewest moved requirements first; among equals the one that passes the fewest releases. A candidate is refuted by metadata
(conflicts.py: a proof) or by the resolver, never by a guess, and what is proposed was resolved with exactly the proposed lines.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import combinations, islice
from typing import Any

from packaging.specifiers import SpecifierSet
from packaging.version import Version

from common import console
from common.errors import LockError
from lockfiles.explain.catalogue import Catalogue
from lockfiles.explain.conflicts import Demands
from lockfiles.explain.moving import Move, Requirements
from lockfiles.inputs import SetInput

Packages = dict[str, dict[str, Any]]
Resolve = Callable[[SetInput], Packages]
# The resolver is busy with the network and one core at a time; more at once make each slower.
_PARALLEL = 2
_MOST_MOVES = 4
_MOST_PROPOSALS = 4
# Candidates of one choice of requirements that metadata lets through and the resolver still refuses.
_MOST_TRIES = 24
_MOST_STEPS = 20_000


@dataclass(frozen=True, slots=True)
class Proposal:
    """Moves with which the input resolves.

    Attributes:
        moves: in the order of the input.
        changed: the input with them.
        packages: what it resolved to, as `wheels.resolve` gives it.
    """

    moves: tuple[Move, ...]
    changed: SetInput
    packages: Packages

    @property
    def passed(self) -> int:
        """Releases passed in all."""
        return sum(move.passed for move in self.moves)


@dataclass(frozen=True, slots=True)
class Found:
    """What a search came to.

    Attributes:
        proposals: the best first; all with the same number of moves.
        resolutions: how many times the resolver ran.
        verdict: why there is no proposal, or why there may be a nearer one; empty when there is nothing to add.
    """

    proposals: tuple[Proposal, ...]
    resolutions: int
    verdict: str = ""


class _TimeIsUpError(Exception):
    """The search has had its time."""


@dataclass(frozen=True, slots=True)
class _Choice:
    """Requirements that move, each within a range, and what the resolver made of that."""

    ranges: Mapping[str, str]
    packages: Packages

    def versions(self) -> dict[str, Version]:
        return {name: Version(self.packages[name]["version"]) for name in self.ranges}


def search(
    wanted: SetInput, catalogue: Catalogue, python: str, resolve: Resolve, cores: Iterable[frozenset[str]], seconds: float
) -> Found:
    """Look for the nearest change.

    Args:
        wanted: an input that does not resolve.
        catalogue: the index, with the input's sdists.
        python: the base's version.
        resolve: the resolver; raises LockError for what does not resolve.
        cores: sets of packages of which at least one must move, as conflicts.py proves it.
        seconds: when to stop.

    Raises:
        MissingEnvironmentError: the index does not answer.
    """
    return _Search(wanted, catalogue, python, resolve, seconds).run(tuple(cores))


class _Search:
    def __init__(self, wanted: SetInput, catalogue: Catalogue, python: str, resolve: Resolve, seconds: float) -> None:
        self._catalogue, self._python, self._resolver = catalogue, python, resolve
        self._until, self._resolutions = time.monotonic() + seconds, 0
        self._requirements = Requirements(wanted, catalogue, python)
        self._demands: dict[tuple[tuple[str, str], ...], Demands] = {}

    def run(self, cores: Sequence[frozenset[str]]) -> Found:
        movable = self._requirements.movable
        if any(not core & set(movable) for core in cores):
            return Found((), 0, "no other version of what `requires` names would help")
        proposals: list[Proposal] = []
        free: list[_Choice] = []
        most = min(_MOST_MOVES, len(movable))
        try:
            for count in range(1, most + 1):
                if count == 2:
                    # Whether anything is to be found at all.
                    with console.step("resolving with all versions free"):
                        free = self._feasible([dict.fromkeys(movable, "")])
                    if not free:
                        return Found((), self._resolutions, "no versions of these packages go together on your index")
                sets = [names for names in combinations(movable, count) if all(core & set(names) for core in cores)]
                if sets:
                    with console.step(f"resolving with {count} of {len(movable)} requirements moved") as notes:
                        before = self._resolutions
                        choices = self._feasible([one for names in sets for one in self._requirements.ranges(names)])
                        for choice in sorted(choices, key=self._bound)[:_MOST_PROPOSALS]:
                            proposals += self._nearest(choice)
                        notes.append(f"{self._resolutions - before} resolutions")
                if proposals:
                    return self._found(proposals, "")
        except _TimeIsUpError:
            if proposals:
                return self._found(proposals, "stopped for time: there may be a nearer change")
            self._until = float("inf")
            return self._found(self._own(free), "stopped for time before the nearest was found")
        return self._found(self._own(free), f"no change of up to {most} requirements resolves")

    def _found(self, proposals: Iterable[Proposal], verdict: str) -> Found:
        ranked = sorted(proposals, key=lambda one: (one.passed, [(not move.up, move.new) for move in one.moves]))
        return Found(tuple(ranked), self._resolutions, verdict)

    def _feasible(self, ranges: Sequence[Mapping[str, str]]) -> list[_Choice]:
        found = self._resolve_all([self._requirements.rewritten(one) for one in ranges])
        return [_Choice(one, packages) for one, packages in zip(ranges, found, strict=True) if packages is not None]

    def _nearest(self, choice: _Choice) -> Iterator[Proposal]:
        """The nearest versions of a choice that resolve; the resolver's own answer bounds the search."""
        limit, tries = self._bound(choice), 0
        nearer = (versions for passed, versions in self._candidates(choice) if passed < limit)
        while tries < _MOST_TRIES and (batch := list(islice(nearer, _PARALLEL))):
            tries += len(batch)
            found = self._resolve_all([self._requirements.with_versions(one) for one in batch])
            for versions, packages in zip(batch, found, strict=True):
                if packages is not None:
                    yield self._proposal(versions, packages)
                    return
        yield from self._own([choice])

    def _own(self, choices: Iterable[_Choice]) -> Iterator[Proposal]:
        """What the resolver itself took, resolved again with exactly that."""
        for choice in choices:
            versions = choice.versions()
            packages = self._resolve_all([self._requirements.with_versions(versions)])[0]
            if packages is not None:
                yield self._proposal(versions, packages)

    def _candidates(self, choice: _Choice) -> Iterator[tuple[int, dict[str, Version]]]:
        """Versions for the moved requirements that metadata does not refute, the nearest first."""
        names = tuple(choice.ranges)
        free = self._seen(dict.fromkeys(names, ""))
        columns: list[list[tuple[int, Version]]] = []
        for name in names:
            within = SpecifierSet(choice.ranges[name])
            steps = self._requirements.steps(name)
            columns.append([(n, v) for n, v in steps if within.contains(v, prereleases=True) and free.allows(name, v)])
        if not all(columns):
            return
        start = (0,) * len(names)
        heap, known = [(sum(column[0][0] for column in columns), start)], {start}
        for _ in range(_MOST_STEPS):
            if not heap:
                return
            passed, at = heapq.heappop(heap)
            versions = {name: column[i][1] for name, column, i in zip(names, columns, at, strict=True)}
            if self._consistent(versions, names):
                yield passed, versions
            for axis, column in enumerate(columns):
                further = (*at[:axis], at[axis] + 1, *at[axis + 1 :])
                if further[axis] < len(column) and further not in known:
                    known.add(further)
                    heapq.heappush(heap, (sum(c[i][0] for c, i in zip(columns, further, strict=True)), further))

    def _consistent(self, versions: Mapping[str, Version], names: tuple[str, ...]) -> bool:
        """Whether metadata lets versions stand together: each alone first, for that refutes many combinations at once."""
        for count in range(1, len(names) + 1):
            for some in combinations(names, count):
                pins = {name: f"=={versions[name]}" if name in some else "" for name in names}
                if self._seen(pins).conflicts():
                    return False
        return True

    def _seen(self, pins: Mapping[str, str]) -> Demands:
        key = tuple(sorted(pins.items()))
        if key not in self._demands:
            if time.monotonic() > self._until:
                raise _TimeIsUpError
            self._demands[key] = Demands(self._requirements.rewritten(pins), self._catalogue, self._python)
        return self._demands[key]

    def _bound(self, choice: _Choice) -> float:
        """How many releases the resolver's own answer passes; it need not be near, nor among our steps."""
        own = choice.versions()
        return sum(
            next((n for n, version in self._requirements.steps(name) if version == own[name]), float("inf")) for name in own
        )

    def _proposal(self, versions: Mapping[str, Version], packages: Packages) -> Proposal:
        return Proposal(self._requirements.moves(versions), self._requirements.with_versions(versions), packages)

    def _resolve_all(self, candidates: Sequence[SetInput]) -> list[Packages | None]:
        """What each candidate resolves to, None for one that does not."""
        with ThreadPoolExecutor(_PARALLEL) as pool:
            try:
                return list(pool.map(self._resolve, candidates))
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    def _resolve(self, candidate: SetInput) -> Packages | None:
        if time.monotonic() > self._until:
            raise _TimeIsUpError
        self._resolutions += 1
        try:
            return self._resolver(candidate)
        except LockError:
            return None
