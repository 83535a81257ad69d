"""What the advisories say of the versions that a relock left, and of those that it moved to."""

from __future__ import annotations

from collections.abc import Iterable

from common import console
from common.errors import MissingEnvironmentError
from lockfiles.audit import locked, run
from lockfiles.audit.data import Index
from lockfiles.audit.model import Finding, Package
from lockfiles.changes import Locked

_Named = tuple[str, str]


def show(before: Locked, after: Locked) -> None:
    """Print which defects a relock fixes and which it brings; where there is no advisory data, that nobody knows.

    Nothing is asked but the data of the last `invoke fetch --advisories`.

    Args:
        before: what was locked.
        after: what is.
    """
    was, now = (set(locked.of(held.base, held.sets.values(), held.toolkit)) for held in (before, after))
    moved = {(one.ecosystem, one.name) for one in was ^ now}
    if not moved:
        return
    try:
        with Index() as index:
            left, held = (_known(index, {one for one in some if (one.ecosystem, one.name) in moved}) for some in (was, now))
    except MissingEnvironmentError as problem:
        console.warn(f"which known defects the moves fix or bring is not known: {problem.line()}")
        return
    fixed, brought = left.keys() - held.keys(), held.keys() - left.keys()
    for word, names in (("fixed", fixed), ("brought", brought)):
        for name in sorted(names):
            one = (left | held)[name]
            console.info(f"{word} by {one.package.name}: {one.ids[0]} ({one.severity})")
    console.info(f"known defects of what moved: {len(fixed)} fixed, {len(brought)} brought, {len(held)} left")


def _known(index: Index, packages: Iterable[Package]) -> dict[_Named, Finding]:
    """The defects of packages, by package and advisory; a version that no rule orders has none that anybody knows."""
    found: dict[_Named, Finding] = {}
    for package in sorted(packages):
        try:
            found |= {one.known_by: one for one in run.defects(index, package)}
        except ValueError as problem:
            console.warn(f"not judged: {package}: {problem}")
    return found
