"""What a relock changed: versions, megabytes, licences."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from common import console
from common.errors import LockError
from lockfiles import inputs, lockfile, models, toolkit
from lockfiles.model import BaseLock, Deb, SetLock, Wheel

# Of a licence in a table.
_LONGEST = 40
_Lock = TypeVar("_Lock", BaseLock, SetLock)


@dataclass(frozen=True, slots=True)
class Locked:
    """All that is locked. What has no good lock is absent.

    Attributes:
        base: the Debian packages.
        sets: by name.
        toolkit: versions of Pinwheel's own dependencies, by name.
        models: commit, or digest of the content, by name.
    """

    base: BaseLock | None
    sets: Mapping[str, SetLock]
    toolkit: Mapping[str, str] = field(default_factory=dict)
    models: Mapping[str, str] = field(default_factory=dict)

    def packages(self) -> dict[str, dict[str, Deb | Wheel]]:
        """Every package, by lock and name."""
        found: dict[str, dict[str, Deb | Wheel]] = {}
        if self.base:
            found["base"] = {deb.name: deb for deb in self.base.debs}
        for name, lock in self.sets.items():
            found[name] = {wheel.name: wheel for wheel in lock.wheels}
        return found


@dataclass(frozen=True, slots=True)
class Move:
    """One package that came, went or changed, in every lock in which it did so alike.

    Attributes:
        name: of the package.
        old, new: what was locked, and is.
        locks: where, sorted.
    """

    name: str
    old: Deb | Wheel | None
    new: Deb | Wheel | None
    locks: tuple[str, ...]

    @property
    def grows(self) -> int:
        """Bytes that the artifact grew by."""
        return (self.new.artifact.size if self.new else 0) - (self.old.artifact.size if self.old else 0)


def read(*, strict: bool = False) -> Locked:
    """What the locks hold now.

    Args:
        strict: whether a lock that is damaged is an error. One of an older format is not: it is to be written anew.

    Raises:
        LockError: a lock is damaged, and `strict`.
    """
    base = _read("base", lockfile.read_base, strict=strict)
    sets = {name: _read(name, partial(lockfile.read_set, name), strict=strict) for name in inputs.set_names()}
    return Locked(base, {name: lock for name, lock in sets.items() if lock}, toolkit.versions(), models.commits())


def _read(name: str, read_lock: Callable[[], _Lock], *, strict: bool) -> _Lock | None:
    try:
        return read_lock()
    except LockError:
        if strict and lockfile.is_current(name):
            raise
        return None


def between(before: Locked, after: Locked) -> tuple[Move, ...]:
    """The packages that moved, sorted by name, in locks that were there before.

    One whose line changed but not its artifact did not move.
    """
    old, new = before.packages(), after.packages()
    moves: dict[tuple[str, str, str], tuple[Deb | Wheel | None, Deb | Wheel | None, list[str]]] = {}
    for lock in sorted({*new} & {*old}):
        was, now = old[lock], new[lock]
        for name in sorted({*was, *now}):
            left, right = was.get(name), now.get(name)
            key = (name, left.artifact.sha256 if left else "", right.artifact.sha256 if right else "")
            if key[1] != key[2]:
                moves.setdefault(key, (left, right, []))[2].append(lock)
    return tuple(Move(name, left, right, tuple(locks)) for (name, _, _), (left, right, locks) in sorted(moves.items()))


def show(before: Locked, after: Locked) -> str:
    """Print what moved, and what that costs; returns it in a few words."""
    moves = between(before, after)
    rows = [
        (
            move.name,
            move.old.version if move.old else "absent",
            move.new.version if move.new else "gone",
            f"{'+' if move.grows >= 0 else '-'}{console.size(abs(move.grows))}",
            _licences(move),
            ", ".join(move.locks),
        )
        for move in moves
    ]
    if rows:
        console.table(("package", "was", "is", "size", "licence", "in"), rows, right=(3,))
    for name, lock in sorted(after.sets.items()):
        old = before.sets.get(name)
        if old is None:
            console.info(f"{name}: new, {len(lock.wheels)} packages, {console.size(_size(lock))}")
            continue
        if _size(old) != _size(lock):
            console.info(f"{name}: {console.size(_size(old))} → {console.size(_size(lock))}")
        gained, lost = _kinds(lock) - _kinds(old), _kinds(old) - _kinds(lock)
        if gained or lost:
            signs = [f"+ {licence}" for licence in sorted(gained)] + [f"- {licence}" for licence in sorted(lost)]
            console.info(f"{name}: licences {', '.join(signs)}")
    for name in sorted({*before.toolkit, *after.toolkit}):
        left, right = before.toolkit.get(name), after.toolkit.get(name)
        if left != right:
            console.info(f"toolkit: {name} {left or 'absent'} → {right or 'gone'}")
    counts = {
        "package": len(moves),
        "tool": _differing(before.toolkit, after.toolkit),
        "model": _differing(before.models, after.models),
    }
    told = [f"{count} {what}{'' if count == 1 else 's'}" for what, count in counts.items() if count]
    new, gone = sorted({*after.packages()} - {*before.packages()}), sorted({*before.packages()} - {*after.packages()})
    said = [f"{', '.join(told)} moved"] if told else []
    said += [f"{', '.join(names)} {word}" for names, word in ((new, "new"), (gone, "gone")) if names]
    return "; ".join(said) or "nothing moved"


def _differing(one: Mapping[str, str], other: Mapping[str, str]) -> int:
    return len({name for name, _ in one.items() ^ other.items()})


def _licences(move: Move) -> str:
    old, new = (_short(package.licence) if package else "" for package in (move.old, move.new))
    if old == new:
        return new
    return f"{old} → {new}" if old and new else old or new


def _short(licence: str) -> str:
    """A licence in a table: a Debian package has dozens, each for a file or two; `invoke licences` shows them all."""
    first, *others = dict.fromkeys(re.findall(r"[^\s()]+(?: WITH [^\s()]+)?", re.sub(r"\b(?:AND|OR)\b", " ", licence))) or [""]
    return licence if len(licence) <= _LONGEST else f"{first} and {len(others)} more"


def _size(lock: SetLock) -> int:
    return sum(wheel.artifact.size for wheel in lock.wheels)


def _kinds(lock: SetLock) -> set[str]:
    return {wheel.licence for wheel in lock.wheels}
