"""Whether a lock is whole: everything in it is asked for, everything asked for is in it, and sets agree. Asks no network."""

from __future__ import annotations

from functools import lru_cache

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from common.errors import LockError
from lockfiles import lockfile
from lockfiles.inputs import BaseInput, SetInput
from lockfiles.model import BaseLock, SetLock, Wheel
from lockfiles.python import metadata

_RELOCK = "run `invoke lock`"


def check_set(wanted: SetInput, lock: SetLock) -> None:
    """Follow what the input asks for, and what those ask for, through the lock.

    Raises:
        LockError: something asked for is missing or locked in another version, or something is locked that nobody asks for.
    """
    held = {wheel.name: wheel for wheel in lock.wheels}
    overrides = metadata.Overrides(wanted.overrides, lock.python)
    environment = metadata.target(lock.python)
    pending: list[tuple[str, Requirement]] = []
    for text in wanted.requires:
        requirement = _requirement(text)
        if requirement.marker is None or requirement.marker.evaluate(environment):
            pending.append((f"{wanted.name}.in", requirement))
    pending += [(f"{wanted.name}.in", Requirement(f"{name}=={version}")) for name, version in wanted.shims]
    reached: set[str] = set()
    while pending:
        asker, asked = pending.pop()
        for requirement in overrides.of(asked):
            name = canonicalize_name(requirement.name)
            wheel = held.get(name)
            if wheel is None:
                where = lockfile.place(lock.name, asker)
                raise LockError(f"{asker} needs {requirement}, which is not in {lock.name}.lock", where=where, fix=_RELOCK)
            # A locked pre-release was chosen by the resolver; whether it may be is not asked again.
            if not requirement.specifier.contains(wheel.version, prereleases=True):
                where = lockfile.place(lock.name, name)
                raise LockError(f"{asker} needs {requirement}, {name} is locked as {wheel.version}", where=where, fix=_RELOCK)
            if name not in reached:
                reached.add(name)
                pending += [(name, _need(lock, wheel, text)) for text in wheel.needs]
    for origin in wanted.origins:
        if wheel := held.get(origin.name):
            sha256 = (wheel.sdist or wheel.artifact).sha256
            if (origin.sha256 and origin.sha256 != sha256) or (origin.commit and origin.commit != wheel.commit):
                what = f"{origin.name} is locked by another content than {wanted.name}.in names"
                raise LockError(what, where=lockfile.place(lock.name, origin.name), fix=_RELOCK)
    for unasked in held:
        if unasked not in reached:
            where = lockfile.place(lock.name, unasked)
            raise LockError(f"nothing in {wanted.name}.in asks for {unasked}", where=where, fix=_RELOCK)


def check_base(wanted: BaseInput, lock: BaseLock) -> None:
    """The same for Debian's packages: essential ones, the named ones, and what those need.

    Raises:
        LockError: as `check_set`; or a package is locked that the input rules out.
    """
    held = {deb.name: deb for deb in lock.debs}
    pending = [("base.in", name) for name in wanted.packages]
    pending += [("Debian (essential)", deb.name) for deb in lock.debs if deb.essential]
    reached: set[str] = set()
    while pending:
        asker, name = pending.pop()
        if name not in held:
            place = lockfile.place("base", asker)
            raise LockError(f"{asker} needs {name}, which is not in base.lock", where=place, fix=_RELOCK)
        if name not in reached:
            reached.add(name)
            pending += [(name, need) for need in held[name].needs]
    for name, version in wanted.versions:
        if held[name].version != version:
            what = f"base.in pins {name}={version}, base.lock has {held[name].version}"
            raise LockError(what, where=lockfile.place("base", name), fix=_RELOCK)
    for name in held:
        if name not in reached or name in wanted.without:
            why = "base.in rules out" if name in wanted.without else "nothing in base.in asks for"
            raise LockError(f"{why} {name}", where=lockfile.place("base", name), fix=_RELOCK)


def check_agreement(wanted: SetInput, lock: SetLock, other: SetLock) -> None:
    """What two sets both hold must be the same file, but for what the input excepts.

    Raises:
        LockError: naming the first package on which they disagree, and its line.
    """
    excepted = {name for name, _ in wanted.differs}
    for name, ours, theirs in differences(lock, other):
        if name not in excepted:
            asked = [(wheel.name, _need(lock, wheel, text)) for wheel in lock.wheels for text in wheel.needs]
            asked = [(f"{lock.name}.in", _requirement(text)) for text in wanted.requires] + asked
            mine = [(who, one) for who, one in asked if canonicalize_name(one.name) == name]
            because = [
                f"{who} needs {one}" for who, one in mine if not one.specifier.contains(theirs.version, prereleases=True)
            ]
            raise LockError(
                f"{lock.name}.lock has {name} {ours.version}, {other.name}.lock has {theirs.version}"
                + ("" if ours.version != theirs.version else " in another file")
                + (f", and {' and '.join(because)}" if because else ""),
                where=lockfile.place(lock.name, name),
                fix=f"run `invoke lock --upgrade {name}`, which moves both where that is possible, or name it under "
                f"[agrees.except] in {lock.name}.in with the reason",
            )


def differences(lock: SetLock, other: SetLock) -> tuple[tuple[str, Wheel, Wheel], ...]:
    """The packages that both hold and not as the same file, sorted: name, the one's wheel, the other's."""
    theirs = {wheel.name: wheel for wheel in other.wheels}
    return tuple(
        (wheel.name, wheel, theirs[wheel.name])
        for wheel in lock.wheels
        if wheel.name in theirs and wheel.artifact.sha256 != theirs[wheel.name].artifact.sha256
    )


def _need(lock: SetLock, wheel: Wheel, text: str) -> Requirement:
    try:
        return _requirement(text)
    except InvalidRequirement:
        where = lockfile.place(lock.name, wheel.name)
        raise LockError(f"{wheel.name}: not a requirement: {text!r}", where=where, fix=_RELOCK) from None


@lru_cache(maxsize=4096)
def _requirement(text: str) -> Requirement:
    return Requirement(text)
