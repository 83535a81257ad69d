"""`invoke lock --explain`: why an input does not resolve and what would; or why a package is in a lock (why.py)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import requests
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from common import console, paths
from common.errors import LockError, UsageError
from lockfiles import inputs, lockfile
from lockfiles.explain import nearest, why
from lockfiles.explain.catalogue import Catalogue
from lockfiles.explain.conflicts import Conflict, Demand, Demands, shown
from lockfiles.explain.moving import Move
from lockfiles.explain.nearest import Found
from lockfiles.inputs import SdistInput, SetInput
from lockfiles.model import BaseLock
from lockfiles.python import cooldown, direct_references, index, wheels
from lockfiles.python.solver import UnresolvedError

# A search that takes longer than this is told with what it found.
SECONDS = 300.0


def explain(subject: str = "", days: int = 0) -> str:
    """Explain a package of the locks, an input, or every input that does not resolve; returns the outcome in a few words.

    Args:
        subject: the name of a locked package, the path of a `.in` file or the name of a set, or nothing for all sets.
        days: of the cooldown; releases younger than that are not proposed.

    Raises:
        LockError: an input does not resolve; after the explanation was printed.
        UsageError: no lock holds such a package, there is no such file, or an input makes no sense.
        MissingEnvironmentError: the index does not answer.
    """
    if not subject:
        return _explain_inputs([paths.LOCKFILES / f"{name}.in" for name in inputs.set_names()], days)
    if subject.endswith(".in") or "/" in subject:
        file = next((one for one in (Path(subject), paths.LOCKFILES / subject) if one.is_file()), None)
        if file is None:
            raise UsageError(f"no such file: {subject}", fix="name a .in file, or a package of the locks")
        return _explain_inputs([file.absolute()], days)
    if subject in inputs.set_names():
        return _explain_inputs([paths.LOCKFILES / f"{subject}.in"], days)
    return why.explain_package(subject)


def _explain_inputs(files: list[Path], days: int) -> str:
    base = lockfile.read_base()
    wanted = [(file, inputs.read_set_file(file)) for file in files]
    refused = []
    for file, one in wanted:
        with index.session() as http:
            if not _Explanation(one, base, http, days).tell():
                refused.append(paths.shown(file))
    if refused:
        verb = "does" if len(refused) == 1 else "do"
        raise LockError(f"{', '.join(refused)} {verb} not resolve", fix="the lines above say why, and what would")
    return f"{', '.join(one.name for _, one in wanted)}: {'resolves' if len(wanted) == 1 else 'all resolve'}"


class _Explanation:
    """Of one input."""

    def __init__(self, wanted: SetInput, base: BaseLock, http: requests.Session, days: int) -> None:
        self._file = f"{wanted.name}.in"
        self._python, self._glibc = base.version("python3.11"), base.version("libc6")
        self._direct = direct_references.bring(wanted, wheels.platform_tags(self._python, self._glibc), {}, http)
        # What comes from no index has the one version that it has, and asks for what it says, like a source that is described.
        given = tuple(one.stated() for one in self._direct.values())
        self._wanted = replace(wanted, sdists=(*(s for s in wanted.sdists if s.name not in self._direct), *given))
        self._catalogue = Catalogue(http, self._python, self._glibc, self._wanted.sdists, wanted.origins)
        self._days = days if cooldown.possible(cooldown.probe([wanted]), days) else 0
        self._untimed = cooldown.untimed(wanted, self._days)

    def tell(self) -> bool:
        """Print it; returns whether the input resolves."""
        try:
            with console.step(f"resolving {self._file}") as notes:
                packages = self._resolve(self._wanted)
                notes.append(self._amount(packages))
        except LockError as problem:
            self._tell_refusal(problem)
            return False
        return self._tell_success(packages)

    def _tell_success(self, packages: dict[str, dict[str, Any]]) -> bool:
        clash = sorted(name for name, _ in self._wanted.shims if name in packages)
        if clash:
            console.warn(f"{clash[0]} is both resolved and a shim: drop one of the two from {self._file}")
        self._tell_extras(self._wanted, packages)
        return not clash

    def _resolve(self, candidate: SetInput) -> dict[str, dict[str, Any]]:
        # A brand-new release is taken where the user's own lines ask for it, never because we propose it.
        own = replace(candidate, requires=tuple(line for line in candidate.requires if line in self._wanted.requires))
        window = cooldown.window(self._days, cooldown.asked_for((*own.requires, *own.overrides)), {}, self._untimed)
        return wheels.resolve(candidate, self._python, self._glibc, {}, window, self._direct)

    def _tell_refusal(self, problem: LockError) -> None:
        with console.step("asking the index who needs what"):
            demands = Demands(self._wanted, self._catalogue, self._python)
            conflicts = demands.conflicts()
        console.info(f"{self._file} does not resolve:")
        for conflict in conflicts:
            _tell_conflict(conflict)
        if not conflicts:
            console.info("the resolver says:")
            for sentence in sentences(problem.what):
                console.info(f"    {sentence}")
        for remedy in problem.remedies if isinstance(problem, UnresolvedError) else ():
            console.info(remedy)
        for note in demands.missing_extras():
            _tell_extra(note)
        sources = {conflict.package: conflict.source for conflict in conflicts if conflict.source}
        if sources and self._tell_sources(sources):
            return
        cores = [core for conflict in conflicts if not conflict.source for core in conflict.cores]
        self._tell_found(nearest.search(self._wanted, self._catalogue, self._python, self._resolve, cores, SECONDS))

    def _tell_sources(self, sources: dict[str, str]) -> bool:
        """What is only published as source must be named as such; returns whether that is all that was missing."""
        console.info(f"build from source what has no wheel: in {self._file} write, and state what each of them requires")
        for package, version in sources.items():
            console.info(f"    [sdists.{package}]")
            console.info(f'    version = "{version}"')
            console.info("    requires = []")
        stated = tuple(SdistInput(package, version, ()) for package, version in sources.items())
        # From here on as if that were done: it tells whether anything else is in the way.
        self._wanted = replace(self._wanted, sdists=(*self._wanted.sdists, *stated))
        self._catalogue.state(stated)
        try:
            with console.step("resolving with that") as notes:
                notes.append(self._amount(self._resolve(self._wanted)))
        except LockError:
            return False
        return True

    def _tell_found(self, found: Found) -> None:
        if found.verdict:
            console.warn(found.verdict + (f" ({found.resolutions} resolutions)" if found.resolutions else ""))
        for number, proposal in enumerate(found.proposals):
            what = "or" if number else f"nearest change that resolves: in {self._file} write"
            console.info(what if not found.verdict or number else f"what does: in {self._file} write")
            for move in proposal.moves:
                console.info(f"    {json.dumps(move.new)},  # was {shown(Requirement(move.old).specifier)}, {_distance(move)}")
            console.done(f"resolved with exactly that: {self._amount(proposal.packages)}")
            self._tell_extras(proposal.changed, proposal.packages)

    def _tell_extras(self, resolved: SetInput, packages: dict[str, dict[str, Any]]) -> None:
        """Extras that the resolved version does not have: the resolver ignores them silently."""
        for one in map(Requirement, resolved.requires):
            name = canonicalize_name(one.name)
            if one.extras and name in packages:
                known = self._catalogue.asks(name, Version(packages[name]["version"])).extras
                for extra in sorted(canonicalize_name(extra) for extra in one.extras):
                    if extra not in known:
                        _tell_extra(f"{name} {packages[name]['version']}: {extra}")

    def _amount(self, packages: dict[str, dict[str, Any]]) -> str:
        tags = wheels.platform_tags(self._python, self._glibc)
        built = {canonicalize_name(one.name) for one in self._wanted.sdists}
        sizes = [wheels.choose(package, tags, self._file).size for name, package in packages.items() if name not in built]
        return f"{len(packages)} packages, {console.size(sum(sizes))}"


def sentences(said: str) -> Iterator[str]:
    """A resolver's derivation, a step a line and without addresses."""
    text = re.sub(r"\w+://\S+", "your index", said)
    _, because, rest = text.partition("Because ")
    for step in re.split(r"(?:(?<=\.) )?And because |,? (?=we can conclude that )| (?=hint: )", rest if because else text):
        yield step.strip().removesuffix(".").replace("we can conclude that", "so")


def _tell_conflict(conflict: Conflict) -> None:
    if conflict.trouble:
        console.info(f"{conflict.package}: no version can be used ({conflict.trouble})")
    else:
        console.info(f"{conflict.package}: no version satisfies {'both' if len(conflict.demands) == 2 else 'all of'}")
    askers = [_asker(demand) for demand in conflict.demands]
    for asker, demand in zip(askers, conflict.demands, strict=True):
        console.info(f"    {asker:{max(map(len, askers))}}  needs {shown(demand.specifier)}")


def _asker(demand: Demand) -> str:
    """Who asks; of a package that the input does not name, for whom."""
    known = not demand.roots or demand.asker.endswith(".in") or demand.asker.partition(" ")[0] in demand.roots
    return demand.asker if known else f"{demand.asker} (for {', '.join(sorted(demand.roots))})"


def _tell_extra(note: str) -> None:
    package, _, extra = note.partition(": ")
    console.warn(f"{package} has no extra {extra!r}: the resolver ignores it; name what it should bring yourself")


def _distance(move: Move) -> str:
    return f"{move.passed} release{'' if move.passed == 1 else 's'} {'up' if move.up else 'down'}"
