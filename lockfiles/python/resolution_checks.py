"""What a resolver passes over in silence, and a lock must not: unknown extras, other bytes under a known name, namesakes."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from email.parser import HeaderParser
from typing import Any

import requests
from packaging.requirements import Requirement
from packaging.tags import Tag
from packaging.utils import canonicalize_name, parse_wheel_filename
from packaging.version import InvalidVersion, Version

from common import console, offline
from common.errors import LockError
from lockfiles import inputs
from lockfiles.inputs import SetInput
from lockfiles.model import Wheel
from lockfiles.python import index, settings, wheels
from lockfiles.python.metadata import Metadata, extras, target
from lockfiles.python.settings import Index
from lockfiles.python.solver import UnresolvedError

_PARALLEL = 8
# How uv says that an index shows no release of a package, or not the project.
_LACKING = re.compile(r"no versions? of ([\w.-]+)|([\w.-]+) was not found in the package registry")


def check_extras(wanted: SetInput, versions: Mapping[str, str], known: Mapping[str, Metadata], python: str) -> None:
    """Refuse an extra that the input asks for and the package does not have: it would bring nothing.

    Args:
        wanted: the input.
        versions: that were chosen, by name.
        known: their metadata.
        python: the base's version.

    Raises:
        LockError: there is such an extra; names those that there are.
    """
    for text in (*wanted.requires, *wanted.overrides):
        one = Requirement(text)
        name = canonicalize_name(one.name)
        if name not in known or (one.marker and not one.marker.evaluate(target(python))):
            continue
        head = HeaderParser().parsestr(known[name].text)
        told = map(canonicalize_name, head.get_all("Provides-Extra") or [])
        has = sorted({*told, *extras(head.get_all("Requires-Dist") or [])})
        for extra in sorted(map(canonicalize_name, one.extras)):
            if extra not in has:
                fix = f"it has {', '.join(has)}" if has else "it has none: name what it should bring yourself"
                raise LockError(f"{name} {versions[name]} has no extra {extra!r}", where=inputs.place(wanted, text), fix=fix)


def check_identity(chosen: Iterable[Wheel], known: Mapping[str, Metadata]) -> None:
    """Refuse a wheel whose METADATA names another package or version than its file's name: pip refuses to install it.

    Args:
        chosen: the wheels.
        known: their metadata, by name.

    Raises:
        LockError: there is such a wheel.
    """
    for wheel in chosen:
        head = HeaderParser().parsestr(known[wheel.name].text)
        name, version = head["Name"] or "", head["Version"] or ""
        try:
            same = canonicalize_name(name) == wheel.name and Version(version) == Version(wheel.version)
        except InvalidVersion:
            same = False
        if not same:
            what = f"{wheel.artifact.file} says of itself that it is {name} {version}".rstrip()
            raise LockError(what, fix="pin another version, or ask who publishes it: pip refuses such a wheel as well")


def tell_unmet(wanted: SetInput, python: str) -> None:
    """Say which requirements of an input bring nothing, since their marker does not hold in the image.

    Args:
        wanted: the input.
        python: the base's version.
    """
    for text in wanted.requires:
        marker = Requirement(text).marker
        if marker and not marker.evaluate(target(python) | {"extra": ""}):
            console.info(f"{wanted.name}.in: {text!r} brings nothing: its marker does not hold in the image")


def choose(
    packages: Mapping[str, dict[str, Any]],
    tags: tuple[Tag, ...],
    wanted: SetInput,
    leading: Iterable[Wheel],
    locked: Mapping[str, Wheel],
    known: Mapping[str, Collection[str]],
    free: Collection[str],
) -> list[Wheel]:
    """The wheel of each resolved package; one that is locked stays, and what else the index has of it is said.

    Args:
        packages: as resolved (PEP 751), by name.
        tags: that the base runs, best first.
        wanted: the input.
        leading: wheels of the set that this one agrees with: the same files are taken.
        locked: wheels of this set that stay where their version does, by name.
        known: every sha256 that any lock holds under a file's name.
        free: packages that were asked for by name, or by their content.

    Raises:
        LockError: a package has no wheel that the base can run, or the index has other bytes under a locked name.
    """
    led, chosen, newer = frozenset(wheel.artifact.sha256 for wheel in leading), [], []
    # Where such a package is taken from may have been edited: then its former file is not meant any more.
    where, moved = f"lockfiles/{wanted.name}.in", {origin.name for origin in wanted.origins}
    for name, package in packages.items():
        old, version = locked.get(name), str(package["version"])
        best = wheels.choose(package, tags, where)
        for entry in package.get("wheels", []):
            _check_bytes(wheels.file_name(entry), entry.get("hashes", {}).get("sha256", ""), known, name, free)
        now = wheels.choose(package, tags, where, (led, {old.artifact.sha256} if old else ()))
        gone = old and old.version == version and name not in moved and now.sha256 not in {*led, old.artifact.sha256}
        if old and gone and parse_wheel_filename(old.artifact.file)[3] & set(tags):
            console.warn(f"{old.artifact.file} is not on your index any more; it stays locked")
            now = old.artifact
        if old and now == old.artifact != best:
            newer.append(name)
        chosen.append(Wheel(name, version, now))
    if newer:
        fix = "`invoke lock --upgrade NAME` takes it"
        console.info(f"your index has a newer file of the same version of {', '.join(newer)}; the locked one stays: {fix}")
    return chosen


def check_sources(packages: Mapping[str, dict[str, Any]], known: Mapping[str, Collection[str]], free: Collection[str]) -> None:
    """Refuse other bytes under the name of a locked source archive.

    Raises:
        LockError: the index has them.
    """
    for name, package in packages.items():
        if entry := package.get("sdist"):
            _check_bytes(wheels.file_name(entry), entry.get("hashes", {}).get("sha256", ""), known, name, free)


def _check_bytes(file: str, sha256: str, known: Mapping[str, Collection[str]], name: str, free: Collection[str]) -> None:
    if file not in known or not sha256 or sha256 in known[file]:
        return
    what = f"{file}: your index has other bytes under this name than the lock"
    told = f"sha256 {sha256}, locked {', '.join(sorted(known[file]))}"
    if name not in free:
        fix = f"ask who runs the index: a release never changes; `invoke lock --upgrade {name}` takes them all the same"
        raise LockError(what, where=told, fix=fix)
    console.warn(f"{what} ({told}); taken, as you asked for {name}")


def tell_unasked(sets: Iterable[SetInput]) -> None:
    """Say which indexes and folders of the user's settings are not asked for packages.

    Raises:
        MissingEnvironmentError: the settings cannot be read.
    """
    used = {origin.index for wanted in sets for origin in wanted.origins}
    unasked = [one for one in settings.further() if one.name not in used or not one.name]
    if unasked:
        told = ", ".join(f"{one.name or 'one without a name'} ({one.said})" for one in unasked)
        fix = 'what comes from one, an input says by its name: [sources] PACKAGE = { index = "NAME" }'
        console.warn(f"of your further indexes no package is taken: {told}; {fix}")
    if said := settings.find_links():
        console.warn(f'find-links is not looked at ({said}): name a wheel by [sources] PACKAGE = {{ path = "…" }}')


def check_namesakes(wanted: SetInput, packages: Iterable[str], http: requests.Session) -> None:
    """Refuse a package that the default index and another one of the user's both have, as two different projects.

    Two projects of one name share no file; an index that mirrors another shares some. Who is meant, the input says.

    Args:
        wanted: the input.
        packages: that were resolved from indexes.
        http: a session of `index.session()`.

    Raises:
        LockError: there is such a package.
        MissingEnvironmentError: an index does not answer.
    """
    stated = {origin.name for origin in wanted.origins}
    pairs = [(name, other) for name in sorted(set(packages) - stated) for other in settings.further()]

    def clashes(pair: tuple[str, Index]) -> bool:
        name, other = pair
        try:
            theirs = index.page(http, name, other)
        except index.ForbiddenError:
            # What storage without a listing answers for what is not there, as PyTorch's index does.
            return False
        ours = index.page(http, name) if theirs else None
        if theirs is None or ours is None:
            return False
        here, there = ({(one.filename, one.digests.get("sha256")) for one in page.packages} for page in (ours, theirs))
        return not here & there

    with ThreadPoolExecutor(_PARALLEL) as pool:
        found = [pair for pair, two in zip(pairs, pool.map(clashes, pairs), strict=True) if two]
    if found:
        name, other = found[0]
        more = f"; so for {', '.join(sorted({n for n, _ in found[1:]} - {name}))}" if {n for n, _ in found} != {name} else ""
        choice = f'{{ index = "{other.name or "NAME"}" }} or {{ index = "{inputs.DEFAULT}" }}'
        raise LockError(
            f"{name} is on two of your indexes, as two projects without a file in common: the default one and "
            f"{other.name or 'one without a name'} ({other.said}){more}",
            where=f"lockfiles/{wanted.name}.in",
            fix=f'say which is meant: "{name}" in requires, and [sources] {name} = {choice}',
        )


def check_status(wanted: SetInput, packages: Iterable[str], http: requests.Session) -> None:
    """Refuse projects that their index has put into quarantine, and say which are archived or deprecated (PEP 792).

    Args:
        wanted: the input.
        packages: that an index has.
        http: a session of `index.session()`.

    Raises:
        LockError: a project is in quarantine, whoever asks for it.
        MissingEnvironmentError: an index does not answer.
    """
    homes = {origin.name: settings.named(origin.index) for origin in wanted.origins if origin.index}

    def status(name: str) -> tuple[str, str, str]:
        page = index.page(http, name, homes.get(name))
        return name, str(page.status or "") if page else "", (page.status_reason or "") if page else ""

    with ThreadPoolExecutor(_PARALLEL) as pool:
        found = list(pool.map(status, sorted(packages)))
    for name, said, reason in found:
        # Whoever manages a project writes the reason: it may hold anything.
        why = f": {' '.join(reason.split())[:200]!r}" if reason else ""
        if said == "quarantined":
            what = f"{name} is in quarantine on your index, which takes it for unsafe{why}"
            fix = "do without it, or wait until the index lets it out; nothing was written"
            raise LockError(what, where=f"lockfiles/{wanted.name}.in", fix=fix)
        if said in ("archived", "deprecated"):
            console.warn(f"{name} is {said} by those who made it{why}: nobody will mend it")


def check_lacking(wanted: SetInput, problem: UnresolvedError) -> None:
    """Refuse what a resolver found no release of because it is in quarantine: then an index shows none.

    Args:
        wanted: the input.
        problem: what the resolver said.

    Raises:
        LockError: there is such a project.
        MissingEnvironmentError: an index does not answer.
    """
    direct = {origin.name for origin in wanted.origins if not origin.index}
    names = {canonicalize_name(one or other) for one, other in _LACKING.findall(problem.what)} - direct
    if names and not offline.offline():
        with index.session() as http:
            check_status(wanted, names, http)
