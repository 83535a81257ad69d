"""Until when the ground below the packages is supported: `lockfiles/support.toml`, with the source of each date."""

from __future__ import annotations

import datetime
from dataclasses import dataclass

from common import paths, reader
from lockfiles import inputs, lockfile

# Days before an end from which it is said.
_SOON = 180


@dataclass(frozen=True, slots=True)
class Period:
    """One kind of support.

    Attributes:
        what: that is supported: `Debian 12`.
        kind: of support: `security updates`.
        until: the last day.
    """

    what: str
    kind: str
    until: datetime.date

    def text(self, today: datetime.date) -> str:
        """For people; empty where nothing is to be said yet."""
        if self.until < today:
            return f"{self.what}: {self.kind} ended on {self.until}"
        left = (self.until - today).days
        return f"{self.what}: {self.kind} end on {self.until}, in {left} days" if left <= _SOON else ""


def periods() -> tuple[Period, ...]:
    """Those of what the locks hold, in the order of the file.

    Raises:
        UsageError: the file holds something else.
        LockError: a lock is missing or broken.
    """
    used = {"Debian 12"}
    for name in inputs.set_names():
        lock = lockfile.read_set(name)
        used.add("Python " + ".".join(lock.python.split(".")[:2]))
        if lock.gpu:
            used.add(f"NVIDIA driver {lock.gpu.driver}")
    top = reader.toml(paths.LOCKFILES / "support.toml")
    found = []
    for keys in top.each("period"):
        what, kind, until = keys.text("what"), keys.text("kind"), keys.take("until", datetime.date, "a day, as 2027-10-31")
        keys.text("source")
        keys.end()
        if what in used:
            found.append(Period(what, kind, until))
    top.end()
    return tuple(found)
