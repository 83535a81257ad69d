"""What a relock keeps: the versions and files that nobody edited or asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from packaging.utils import canonicalize_name

from lockfiles.changes import Locked
from lockfiles.fixes import Fixes, Target
from lockfiles.inputs import SetInput
from lockfiles.model import BaseLock, SetLock, Wheel
from lockfiles.python import cooldown


@dataclass(frozen=True, slots=True)
class Keeping:
    """What a relock keeps.

    Attributes:
        upgrade: the package that may move, `all`, `debian`, or nothing.
        days: tells the days of the cooldown, 0 for none; may ask the network.
        before: what was locked.
        asked: packages that some input pins, or that were named: those may be brand-new.
        fixes: the packages that move because of a known defect.
    """

    upgrade: str
    days: Callable[[], int]
    before: Locked
    asked: frozenset[str] = frozenset()
    fixes: Fixes = field(default_factory=Fixes)

    def unmoved(self, wanted: SetInput, base: BaseLock, leader: SetLock | None) -> SetLock | None:
        """The lock of a set for which nothing was edited or asked: neither in its input nor in what that builds upon."""
        lock = self.before.sets.get(wanted.name)
        if lock is None or lock.inputs != wanted.digest or self.upgrade == "all" or self.fixes.targets.get(wanted.name):
            return None
        if canonicalize_name(self.upgrade) in {wheel.name for wheel in lock.wheels}:
            return None
        if (lock.python, lock.glibc) != (base.version("python3.11"), base.version("libc6")):
            return None
        if any(wheel.sdist and wheel.build is None for wheel in lock.wheels):
            # An older lock: it does not name what builds its sources.
            return None
        # A source is built in the base.
        same_base = not wanted.sdists or (self.before.base and base.debs == self.before.base.debs)
        return lock if same_base and leader == self.before.sets.get(wanted.agrees) else None

    def versions(self, name: str) -> dict[str, str]:
        """The versions that one set keeps where its input allows it: its own; of what it does not hold, the other sets'."""
        if self.upgrade == "all":
            return {}
        held = self.held(name)
        held.pop(canonicalize_name(self.upgrade), None)
        return held | {package: target.version for package, target in self.targets(name).items()}

    def targets(self, name: str) -> Mapping[str, Target]:
        """What moves in one set because of a known defect, by package."""
        return self.fixes.targets.get(name, {})

    def wheels(self, name: str) -> dict[str, Wheel]:
        """The wheels that one set keeps where their version stays, though the index may have more by now; by package."""
        lock = self.before.sets.get(name)
        if lock is None or self.upgrade == "all":
            return {}
        return {wheel.name: wheel for wheel in lock.wheels if wheel.name != canonicalize_name(self.upgrade)}

    def known(self) -> dict[str, set[str]]:
        """Every sha256 that any lock holds under the name of a published file."""
        found: dict[str, set[str]] = {}
        for _, wheel in self._held(""):
            if not wheel.shim:
                published = wheel.sdist or wheel.artifact
                found.setdefault(published.file, set()).add(published.sha256)
        return found

    def held(self, name: str) -> dict[str, str]:
        """The versions that are locked for one set, or for another where it has none."""
        return {wheel.name: wheel.version for _, wheel in self._held(name)}

    def window(self, wanted: SetInput) -> cooldown.Window | None:
        """What the resolver may see for one set."""
        locked = {wheel.name: lock.date for lock, wheel in self._held(wanted.name)}
        fixes = {package: target.until for package, target in self.targets(wanted.name).items()}
        return cooldown.window(self.days(), self.asked, locked, cooldown.untimed(wanted, self.days()), fixes)

    def _held(self, name: str) -> Iterator[tuple[SetLock, Wheel]]:
        """Every locked wheel, this set's own last."""
        for _, lock in sorted(self.before.sets.items(), key=lambda item: (item[0] == name, item[0])):
            yield from ((lock, wheel) for wheel in lock.wheels)
