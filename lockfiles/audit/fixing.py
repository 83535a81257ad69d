"""`invoke lock --upgrade vulnerable`: which versions fix what is known of the locked ones, and what no version fixes.

A Python package moves to the lowest release above its locked one that has the fewest of its known defects and no other one.
That release may be younger than the cooldown allows, and no other that young; one that is malware or was withdrawn (yanked,
PEP 592) is never taken. Of a Debian package the mirror has one version. Go modules are raised by hand.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeVar

import requests
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import InvalidWheelFilename, parse_wheel_filename
from packaging.version import InvalidVersion, Version

from common import console
from common.errors import LockError
from lockfiles.audit import locked, run
from lockfiles.audit.data import Index
from lockfiles.audit.model import Finding
from lockfiles.changes import Locked
from lockfiles.fixes import DEBIAN, Fixes, Target
from lockfiles.inputs import SetInput
from lockfiles.model import SetLock
from lockfiles.python import cooldown, index, settings, wheels

if TYPE_CHECKING:
    from pypi_simple import DistributionPackage

WORD = "vulnerable"
_Resolved = TypeVar("_Resolved")
_TOOLKIT_PYTHON = "3.11"


def find(sets: Mapping[str, SetInput], before: Locked, days: int) -> Fixes:
    """What would fix the known defects of the base, the sets and the toolkit.

    Args:
        sets: the inputs.
        before: what is locked.
        days: of the cooldown.

    Raises:
        MissingEnvironmentError: there is no advisory data, or an index does not answer.
        UsageError: `vex.toml` is wrong.
    """
    known: dict[tuple[str, str], list[Finding]] = {}
    debs = set()
    for one in _counting(before):
        if one.package.ecosystem == "Debian" and one.fixed:
            debs.add(one.package.shown)
        for place in one.places if one.package.ecosystem == "PyPI" else ():
            known.setdefault((place, one.package.name), []).append(one)
    targets: dict[str, dict[str, Target]] = {}
    reasons = {}
    with Index() as advice, index.session() as http, console.step("looking for releases that fix what is known"):
        for (place, name), found in sorted(known.items()):
            wanted, lock = sets.get(place), before.sets.get(place)
            files = _files(wanted, lock, name, http)
            if isinstance(files, str):
                reasons[place, name] = files
            elif target := _target(advice, found, files, days):
                targets.setdefault(place, {})[name] = target
            else:
                reasons[place, name] = "your index has no release above it with fewer known defects"
    return Fixes(targets, frozenset(debs), reasons)


def _files(wanted: SetInput | None, lock: SetLock | None, name: str, http: requests.Session) -> list[DistributionPackage] | str:
    """The files of a package that a lock could hold; or why there is none."""
    origin = next((one for one in wanted.origins if one.name == name), None) if wanted else None
    if wanted and origin and not origin.index:
        return f"it comes from no index: name another source of it in {wanted.name}.in"
    page = index.page(http, name, settings.named(origin.index) if origin else None)
    tags = set(wheels.platform_tags(lock.python, lock.glibc)) if lock else set()
    python = lock.python if lock else _TOOLKIT_PYTHON
    source = wanted is None or name in {sdist.name for sdist in wanted.sdists}

    def fits(file: DistributionPackage) -> bool:
        if file.is_yanked:
            return False
        try:
            if file.requires_python and not SpecifierSet(file.requires_python).contains(python):
                return False
            if file.package_type != "wheel":
                return source
            return not tags or bool(parse_wheel_filename(file.filename)[3] & tags)
        except (InvalidSpecifier, InvalidWheelFilename):
            return False

    return [file for file in (page.packages if page else ()) if fits(file)]


def _target(advice: Index, found: list[Finding], files: list[DistributionPackage], days: int) -> Target | None:
    """The release to move to; None where none has fewer defects."""
    package = found[0].package
    held = Version(package.version)
    mine = {name: number for number, one in enumerate(found) for name in one.ids}
    uploaded: dict[Version, datetime.datetime | None] = {}
    for file in files:
        version = _version(file)
        if version and version > held and (held.is_prerelease or not version.is_prerelease):
            uploaded[version] = min(filter(None, (file.upload_time, uploaded.get(version))), default=None)
    left: dict[Version, int | None] = {}
    for version in sorted(uploaded):
        own = run.defects(advice, locked.python(package.name, str(version)))
        # A release with a defect that the locked one has not, or of malware, is no fix.
        fine = all(one.severity != "malware" and mine.keys() & set(one.ids) for one in own)
        left[version] = len({number for name, number in mine.items() for one in own if name in one.ids}) if fine else None
    best = min((count for count in left.values() if count is not None), default=len(found))
    if best >= len(found):
        return None
    version = next(one for one, count in left.items() if count == best)
    time = uploaded[version]
    since = cooldown.since(days) if days > 0 else ""
    if time and since and cooldown.stamp(time) >= since:
        after = cooldown.stamp(time + datetime.timedelta(seconds=1))
        return Target(str(version), f"{package.name}=={version}", after)
    others = "".join(f",!={one}" for one, count in left.items() if one > version and count != best)
    return Target(str(version), f"{package.name}>={version}{others}")


def _version(file: DistributionPackage) -> Version | None:
    try:
        return Version(file.version or "")
    except InvalidVersion:
        return None


def as_many(fixes: Fixes, attempt: Callable[[Fixes], _Resolved]) -> tuple[_Resolved, dict[str, str]]:
    """What results from as many fixes as can be together; and why the others cannot, by name.

    Args:
        fixes: all of them.
        attempt: resolves with some of them, or raises a LockError.

    Raises:
        LockError: nothing resolves, not even without a fix.
    """
    try:
        return attempt(fixes), {}
    except LockError:
        if not fixes.names():
            raise
    taken: list[str] = []
    refused, resolved = {}, None
    for name in fixes.names():
        try:
            resolved = attempt(fixes.only([*taken, name]))
            taken.append(name)
        except LockError as problem:
            refused[name] = problem.what
    return resolved or attempt(Fixes()), refused


def _counting(held: Locked) -> tuple[Finding, ...]:
    """The known defects that VEX does not silence."""
    return run.judge("", locked.of(held.base, held.sets.values(), held.toolkit)).counting


def tell_left(after: Locked, fixes: Fixes, refused: Mapping[str, str]) -> None:
    """Say which known defects are left, and why each is.

    Args:
        after: what is locked now.
        fixes: what was looked for.
        refused: why packages could not move, by name.
    """
    left = _counting(after)
    for one in left:
        package = one.package
        if package.ecosystem == "Debian":
            why = refused.get(DEBIAN) or ("Debian's mirror does not have that yet" if one.fixed else one.said)
        else:
            told = [fixes.reasons.get((place, package.name), "") for place in one.places]
            why = refused.get(package.name) or next(filter(None, told), "")
        fix = f"fixed in {' or '.join(one.fixed)}" if one.fixed else "no fix is published"
        console.info(f"left: {package}: {one.ids[0]} ({one.severity}), {fix}{f'; {why}' if why else ''}")
    console.info(f"known defects left: {len(left)}" if left else "no known defect is left")
