"""Why an input cannot resolve, as far as metadata alone proves it: who asks for what, and which of it excludes which.

Starting from the input, every package of which a demand leaves one version is followed into what that version asks for. A
package on which two demands share no version that exists is a conflict. What is found is a proof, for no override, marker or
version is left out; what is not found may still be one: deeper conflicts are the resolver's to tell.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations

from packaging.requirements import Requirement
from packaging.specifiers import Specifier, SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from lockfiles.explain.catalogue import Catalogue
from lockfiles.inputs import SetInput
from lockfiles.python import metadata


@dataclass(frozen=True, slots=True)
class Demand:
    """One package asked for.

    Attributes:
        asker: `llamafactory 0.9.3`; for the input itself `train.in`.
        package: normalised.
        specifier: which versions would do.
        extras: asked for with it.
        roots: the packages whose lines in the input the demand follows from.
    """

    asker: str
    package: str
    specifier: SpecifierSet
    extras: frozenset[str]
    roots: frozenset[str]


@dataclass(frozen=True, slots=True)
class Conflict:
    """Demands on one package that exclude each other, or that nothing on the index satisfies.

    Attributes:
        package: normalised.
        demands: those that take part, the input's own first.
        cores: each a set of packages whose lines in the input cannot stand together.
        trouble: why a single demand has no version; empty where demands exclude each other.
        source: the newest version to build from source, where the package has no wheel in any version; else empty.
    """

    package: str
    demands: tuple[Demand, ...]
    cores: tuple[frozenset[str], ...]
    trouble: str = ""
    source: str = ""


class Demands:
    """Everything that an input is seen to ask for.

    Raises:
        MissingEnvironmentError: the index does not answer.
    """

    def __init__(self, wanted: SetInput, catalogue: Catalogue, python: str) -> None:
        self._catalogue, self._file = catalogue, f"{wanted.name}.in"
        self._overrides = {canonicalize_name(one.name): one for one in map(Requirement, wanted.overrides)}
        self._by_package: dict[str, list[Demand]] = {}
        environment = metadata.target(python)
        pending = []
        for one in map(Requirement, wanted.requires):
            if one.marker is None or one.marker.evaluate(environment):
                pending += self._add(self._file, one, frozenset({canonicalize_name(one.name)}))
        while pending:
            catalogue.prepare(demand.package for demand in pending)
            pending = [new for demand in pending for new in self._follow(demand)]

    def conflicts(self) -> tuple[Conflict, ...]:
        """The conflicts among them, by package."""
        found = (self._conflict(package, demands) for package, demands in sorted(self._by_package.items()))
        return tuple(conflict for conflict in found if conflict)

    def missing_extras(self) -> tuple[str, ...]:
        """Extras asked for that the package does not have, where one version is asked for: `llamafactory 0.9.5: torch`."""
        found = set()
        for demands in self._by_package.values():
            for demand in demands:
                if demand.extras and (version := self._only(demand)):
                    known = self._catalogue.asks(demand.package, version).extras
                    found |= {f"{demand.package} {version}: {extra}" for extra in demand.extras - set(known)}
        return tuple(sorted(found))

    def allows(self, package: str, version: Version) -> bool:
        """Whether no demand on a package rules a version out."""
        return all(one.specifier.contains(version, prereleases=True) for one in self._by_package.get(package, ()))

    def _disputed(self, demand: Demand) -> bool:
        """Whether another version of the asker is asked for as well."""
        versions = {self._only(one) for one in self._by_package.get(_name(demand), ())} - {None}
        return len(versions) > 1

    def _add(self, asker: str, asked: Requirement, roots: frozenset[str]) -> list[Demand]:
        package = canonicalize_name(asked.name)
        if override := self._overrides.get(package):
            # It replaces every demand on the package, the input's too, so nobody's line is at fault for it.
            asker, asked, roots = f"{self._file}, overrides", override, frozenset()
        extras = frozenset(canonicalize_name(extra) for extra in asked.extras)
        demand = Demand(asker, package, asked.specifier, extras, roots)
        known = self._by_package.setdefault(package, [])
        if any(demand.asker == one.asker and demand == one for one in known):
            return []
        known.append(demand)
        return [demand]

    def _follow(self, demand: Demand) -> list[Demand]:
        """What the demand's package asks for in turn, if one version of it is meant."""
        new: list[Demand] = []
        for pin in list(self._by_package[demand.package]):
            version = self._only(pin)
            if version is None or (pin is not demand and not demand.extras):
                continue
            asker, asks = f"{pin.package} {version}", self._catalogue.asks(pin.package, version)
            if pin is demand:
                for one in asks.requires:
                    new += self._add(asker, one, pin.roots)
                others = self._by_package[demand.package]
            else:
                others = [demand]
            for other in others:
                for extra in sorted(other.extras):
                    for one in asks.extras.get(extra, ()):
                        new += self._add(asker, one, pin.roots | other.roots)
        return new

    def _only(self, demand: Demand) -> Version | None:
        """The one version a demand allows, if it is an exact pin, or the input gives the package: others are not followed."""
        pinned = any(one.operator in ("==", "===") for one in demand.specifier)
        if not pinned and not self._catalogue.is_stated(demand.package):
            return None
        allowed = self._catalogue.matching(demand.package, demand.specifier)
        return allowed[0].version if len(allowed) == 1 else None

    def _versions(self, demand: Demand) -> frozenset[Version]:
        return frozenset(release.version for release in self._catalogue.matching(demand.package, demand.specifier))

    def _conflict(self, package: str, demands: list[Demand]) -> Conflict | None:
        ordered = sorted(demands, key=lambda one: (not one.asker.startswith(self._file), one.asker, str(one.specifier)))
        hopeless = [one for one in ordered if not self._versions(one)]
        if hopeless:
            cores = _smallest(one.roots for one in hopeless)
            specifier = hopeless[0].specifier
            trouble, source = self._catalogue.trouble(package, specifier), self._catalogue.source(package, specifier)
            return Conflict(package, tuple(hopeless), cores, trouble, source)
        pairs = [(a, b) for a, b in combinations(ordered, 2) if not self._versions(a) & self._versions(b)]
        # What two versions of one package ask for follows from the conflict on that package, and would bury it.
        pairs = [(a, b) for a, b in pairs if a.asker == b.asker or _name(a) != _name(b)]
        if pairs:
            taking_part = tuple(one for one in ordered if any(one in pair for pair in pairs))
            return Conflict(package, taking_part, _smallest(a.roots | b.roots for a, b in pairs))
        core = [one for one in ordered if not self._disputed(one)]
        if not core or frozenset.intersection(*map(self._versions, core)):
            return None
        # Only three or more together exclude each other: drop what is not needed for that.
        for one in reversed(tuple(core)):
            rest = [other for other in core if other is not one]
            if not frozenset.intersection(*map(self._versions, rest)):
                core = rest
        return Conflict(package, tuple(core), (frozenset().union(*(one.roots for one in core)),))


def shown(specifier: SpecifierSet) -> str:
    """A specifier as people write it: in order of versions."""
    parts = sorted(specifier, key=lambda one: (bound(one), one.operator))
    return ",".join(str(one) for one in parts) or "any version"


def _name(demand: Demand) -> str:
    """The asker without its version."""
    return demand.asker.partition(" ")[0]


def bound(one: Specifier) -> Version:
    """The version that a part of a specifier names."""
    try:
        return Version(one.version.removesuffix(".*"))
    except ValueError:  # After === anything may stand.
        return Version("0")


def _smallest(cores: Iterable[frozenset[str]]) -> tuple[frozenset[str], ...]:
    """Without those that contain another: who breaks the smaller has broken the larger."""
    distinct = sorted(set(cores), key=lambda core: (len(core), sorted(core)))
    return tuple(core for core in distinct if not any(other < core for other in distinct))
