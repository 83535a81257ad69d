"""Why a package is in the locks: who needs it, what holds it at its version, what it costs.

From the locks alone, but for one question: whether the index has a newer version.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from packaging.requirements import Requirement
from packaging.specifiers import Specifier, SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from common import console
from common.errors import MissingEnvironmentError, UsageError
from lockfiles import inputs, lockfile
from lockfiles.explain.catalogue import Catalogue
from lockfiles.explain.conflicts import bound, shown
from lockfiles.model import BaseLock, SetLock, Wheel
from lockfiles.python import index, metadata

_MOST_CHAINS = 12
_MOST_NAMES = 12


@dataclass(frozen=True, slots=True)
class Edge:
    """Someone asks for a package: the asker's name (of a file, for what stands in an input), and its words."""

    asker: str
    package: str
    words: str


class Graph:
    """Who asks for whom in one lock.

    Args:
        roots: what the input asks for.
        edges: what the packages ask for.
        sizes: of the packages' files, in bytes.
    """

    def __init__(self, roots: Iterable[Edge], edges: Iterable[Edge], sizes: Mapping[str, int]) -> None:
        self._roots, self._sizes = sorted(roots, key=_order), sizes
        self._from: dict[str, list[Edge]] = {}
        for edge in sorted(edges, key=_order):
            self._from.setdefault(edge.asker, []).append(edge)

    def asking(self, package: str) -> tuple[Edge, ...]:
        """Whoever asks for a package, the input first."""
        everyone = [*self._roots, *(edge for edges in self._from.values() for edge in edges)]
        return tuple(edge for edge in everyone if edge.package == package)

    def chains(self, package: str) -> tuple[tuple[Edge, ...], ...]:
        """For each asker of a package the shortest chain from the input through it, the shortest first."""
        reached = self._reach(without=package)
        found = []
        for last in self.asking(package):
            chain = [last]
            while chain[0].asker in reached:
                chain.insert(0, reached[chain[0].asker])
            if chain[0] in self._roots:
                found.append(tuple(chain))
        return tuple(sorted(found, key=lambda chain: (len(chain), [_order(edge) for edge in chain])))

    def freed(self, package: str) -> tuple[str, ...]:
        """The packages that would go with a package: those that nothing else asks for, itself included; sorted."""
        return tuple(sorted(set(self._sizes) - set(self._reach(without=package))))

    def size(self, packages: Iterable[str]) -> int:
        """Bytes of their files together."""
        return sum(self._sizes[name] for name in packages)

    def _reach(self, without: str) -> dict[str, Edge]:
        """Every package that is reached from the input without passing one, and how it was first reached."""
        reached: dict[str, Edge] = {}
        pending = list(self._roots)
        while pending:
            following: list[Edge] = []
            for edge in pending:
                if edge.package not in reached and edge.package != without:
                    reached[edge.package] = edge
                    following += self._from.get(edge.package, [])
            pending = following
        return reached


def explain_package(name: str) -> str:
    """Print why a package is in the locks; returns the outcome in a few words.

    Raises:
        UsageError: no lock holds it.
        LockError: a lock is missing or was edited.
    """
    package = canonicalize_name(name)
    base = lockfile.read_base()
    sets = [lockfile.read_set(one) for one in inputs.set_names()]
    held = [(lock, wheel) for lock in sets for wheel in lock.wheels if wheel.name == package]
    # Debian's names are not Python's: libstdc++6 stays as it is written.
    deb = next((deb for deb in base.debs if deb.name == name), None)
    if not held and deb is None:
        known = {wheel.name for lock in sets for wheel in lock.wheels} | {deb.name for deb in base.debs}
        near = difflib.get_close_matches(package, sorted(known), 5) or sorted(one for one in known if package in one)[:5]
        raise UsageError(
            f"no lock holds {name}", where="lockfiles/", fix=f"near: {', '.join(near)}" if near else "check its name"
        )
    for wheel in dict.fromkeys(wheel for _, wheel in held):
        _tell_wheel(wheel, [lock for lock, other in held if other == wheel])
    if deb:
        console.info(f"{deb.name} {deb.version} in base: a deb of {console.size(deb.artifact.size)}")
        graph = _base_graph(base)
        _tell_chains({"base": graph}, deb.name)
        _tell_cost({"base": graph}, deb.name)
        upgrade = f"`invoke lock --upgrade {deb.name}` takes the newest"
        console.info(f"its version is the one that Debian's mirror had when it was locked; {upgrade}")
    where = sorted({lock.name for lock, _ in held} | ({"base"} if deb else set()))
    return f"{name} is in {', '.join(where)}"


def _tell_wheel(wheel: Wheel, locks: list[SetLock]) -> None:
    kind = "a shim, metadata only," if wheel.shim else "a wheel that we build," if wheel.sdist else "a wheel"
    sets = ", ".join(lock.name for lock in locks)
    console.info(f"{wheel.name} {wheel.version} in {sets}: {kind} of {console.size(wheel.artifact.size)}")
    graphs = {lock.name: _set_graph(lock) for lock in locks}
    _tell_chains(graphs, wheel.name)
    _tell_cost(graphs, wheel.name)
    if not wheel.shim:
        _tell_version(wheel, locks, graphs)


def _tell_chains(graphs: Mapping[str, Graph], package: str) -> None:
    lines: dict[str, list[str]] = {}
    for name, graph in graphs.items():
        for chain in graph.chains(package):
            lines.setdefault(" → ".join(edge.words for edge in chain), []).append(f"{name}.in")
    console.info("who needs it:")
    for line, files in list(lines.items())[:_MOST_CHAINS]:
        console.info(f"    {', '.join(files)}: {line}")
    if len(lines) > _MOST_CHAINS:
        console.info(f"    and {len(lines) - _MOST_CHAINS} more")


def _tell_cost(graphs: Mapping[str, Graph], package: str) -> None:
    lines: dict[str, list[str]] = {}
    for name, graph in graphs.items():
        freed = graph.freed(package)
        others = [one for one in freed if one != package]
        listed = ", ".join(others[:_MOST_NAMES]) + (
            f" and {len(others) - _MOST_NAMES} more" if len(others) > _MOST_NAMES else ""
        )
        what = f"it and {len(others)} that only it needs: {listed}" if others else "it alone; all it needs others need too"
        lines.setdefault(f"without it {console.size(graph.size(freed))} less, {what}", []).append(name)
    for line, names in lines.items():
        console.info(f"{', '.join(names)}: {line}")


def _tell_version(wheel: Wheel, locks: list[SetLock], graphs: Mapping[str, Graph]) -> None:
    """What holds the version: the demands, which of them is the bound, and what the index has beyond it."""
    asked: dict[tuple[str, str], list[str]] = {}
    for lock in locks:
        versions = {one.name: one.version for one in lock.wheels}
        for asker, allowed in _demands(lock, graphs[lock.name], wheel.name):
            named = f"{asker} {versions[asker]}" if asker in versions else asker
            asked.setdefault((named, shown(allowed)), []).append(lock.name)
    bounding = {key: sets for key, sets in asked.items() if key[1] != "any version"}
    console.info("why that version:" if bounding else "why that version: nobody asks for one")
    width = max((len(asker) for asker, _ in bounding), default=0)
    for (asker, specifier), sets in sorted(bounding.items()):
        where = "" if len(sets) == len(locks) else f"  ({', '.join(sets)})"
        console.info(f"    {asker:{width}}  needs {specifier}{where}")
    ceilings = {key: ceiling for key in bounding if (ceiling := _ceiling(SpecifierSet(key[1])))}
    tightest = sorted(" needs ".join(key) for key, ceiling in ceilings.items() if ceiling == min(ceilings.values()))
    if tightest:
        console.info(f"the tightest bound from above: {', '.join(tightest)}")
    _tell_newest(wheel, locks[0], [(asker, SpecifierSet(text)) for asker, text in bounding])


def _tell_newest(wheel: Wheel, lock: SetLock, demands: list[tuple[str, SpecifierSet]]) -> None:
    origins = inputs.read_set(lock.name).origins
    own = next((origin for origin in origins if origin.name == wheel.name and not origin.index), None)
    if own:
        console.info(f"it comes from no index: {own.shown}")
        return
    try:
        with index.session() as http:
            releases = Catalogue(http, lock.python, lock.glibc, origins=origins).releases(wheel.name)
    except MissingEnvironmentError as problem:
        console.info(f"whether there is a newer one was not asked: {problem.what}")
        return
    final = [r for r in releases if not r.yanked and (not r.trouble or wheel.sdist) and not r.version.is_prerelease]
    if any(r.yanked for r in releases if r.version == Version(wheel.version)):
        console.warn(
            f"{wheel.name} {wheel.version} was withdrawn by its authors (yanked): `invoke lock --upgrade {wheel.name}`"
        )
    newer = [release.version for release in final if release.version > Version(wheel.version)]
    if not newer:
        console.info(f"{wheel.version} is the newest on your index" if releases else "your index has no such project")
        return
    excluding = sorted(asker for asker, one in demands if not one.contains(newer[-1]))
    if excluding:
        console.info(f"{newer[-1]} is on your index; excluded by {', '.join(excluding)}")
    allowed = [version for version in newer if all(one.contains(version) for _, one in demands)]
    if allowed:
        console.info(f"no requirement here excludes {allowed[-1]}: `invoke lock --upgrade {wheel.name}` would try it")


def _demands(lock: SetLock, graph: Graph, package: str) -> list[tuple[str, SpecifierSet]]:
    """Who asks for which versions; an override stands for everyone."""
    for text in inputs.read_set(lock.name).overrides:
        one = Requirement(text)
        if canonicalize_name(one.name) == package:
            return [(f"{lock.name}.in, overrides", one.specifier)]
    asked: dict[str, SpecifierSet] = {}
    for edge in graph.asking(package):
        # Some ask twice, once for an extra.
        asked[edge.asker] = asked.get(edge.asker, SpecifierSet()) & Requirement(edge.words).specifier
    return list(asked.items())


def _ceiling(specifier: SpecifierSet) -> tuple[Version, bool] | None:
    """The highest version that a specifier names as a bound, and whether it is allowed itself; None without such a bound."""
    found = [_top(one) for one in specifier if one.operator in ("<", "<=", "==", "===", "~=")]
    return min(found, default=None)


def _top(one: Specifier) -> tuple[Version, bool]:
    version = bound(one)
    if one.operator == "~=" or one.version.endswith(".*"):
        # ~=1.4.2 and ==1.4.* end where 1.5 begins.
        kept = version.release[:-1] if one.operator == "~=" else version.release
        return Version(".".join(map(str, (*kept[:-1], kept[-1] + 1)))), False
    return version, one.operator != "<"


def _set_graph(lock: SetLock) -> Graph:
    wanted, environment = inputs.read_set(lock.name), metadata.target(lock.python)
    if wanted.digest != lock.inputs:
        console.warn(f"{wanted.name}.in changed since it was locked: this is about the lock, and who asks is read from both")
    asked = [one for one in map(Requirement, wanted.requires) if one.marker is None or one.marker.evaluate(environment)]
    file = f"{wanted.name}.in"
    roots = [Edge(file, canonicalize_name(one.name), _plain(one)) for one in asked]
    roots += [Edge(file, canonicalize_name(name), f"{name}=={version}") for name, version in wanted.shims]
    edges = [Edge(wheel.name, canonicalize_name(Requirement(need).name), need) for wheel in lock.wheels for need in wheel.needs]
    return Graph(roots, edges, {wheel.name: wheel.artifact.size for wheel in lock.wheels})


def _base_graph(base: BaseLock) -> Graph:
    roots = [Edge("base.in", name, name) for name in inputs.read_base().packages]
    roots += [Edge("base.in", deb.name, f"{deb.name}, essential in Debian") for deb in base.debs if deb.essential]
    edges = [Edge(deb.name, need, need) for deb in base.debs for need in deb.needs]
    return Graph(roots, edges, {deb.name: deb.artifact.size for deb in base.debs})


def _plain(one: Requirement) -> str:
    extras = f"[{','.join(sorted(one.extras))}]" if one.extras else ""
    return f"{one.name}{extras}{one.specifier}"


def _order(edge: Edge) -> tuple[str, str, str]:
    return edge.asker, edge.package, edge.words
