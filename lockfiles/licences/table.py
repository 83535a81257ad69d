"""`invoke licences`: who is under which licence, from the locks alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from common import console
from lockfiles import lockfile
from lockfiles.licences import spdx
from lockfiles.model import BaseLock, Deb, SetLock, Wheel

# Characters shown of licences and of package names: `invoke licences` is read, the SBOM is searched.
_LICENCE, _NAMES = 64, 56


@dataclass(frozen=True, slots=True)
class Row:
    """One licence, and who is under it.

    Attributes:
        licence: a leg of their expressions: an identifier, or alternatives.
        packages: names, sorted; a package under two licences stands in two rows.
        size: bytes of their artifacts.
        non_free: whether the licence is not a free one.
    """

    licence: str
    packages: tuple[str, ...]
    size: int
    non_free: bool


def table(base: BaseLock, locks: Iterable[SetLock]) -> tuple[Row, ...]:
    """A row for each licence of the base and these sets: the non-free ones first, then by the number of packages."""
    under: dict[str, dict[str, Deb | Wheel]] = {}
    for package in _distinct(base, locks):
        for leg in spdx.legs(package.licence or spdx.UNKNOWN):
            under.setdefault(leg, {})[package.artifact.sha256] = package
    rows = [
        Row(
            leg,
            tuple(sorted({package.name for package in packages.values()})),
            sum(package.artifact.size for package in packages.values()),
            spdx.non_free(leg),
        )
        for leg, packages in under.items()
    ]
    return tuple(sorted(rows, key=lambda row: (not row.non_free, -len(row.packages), row.licence)))


def show(names: Iterable[str]) -> str:
    """Print the licences of the base and these sets, and each one's size; returns the outcome in a few words.

    Raises:
        LockError: a lock is missing or was edited.
    """
    base = lockfile.read_base()
    locks = [lockfile.read_set(name) for name in names]
    rows = table(base, locks)
    console.title(f"licences of base, {', '.join(lock.name for lock in locks)}")
    cells = [
        (
            "NON-FREE" if row.non_free else "",
            _clipped(row.licence, _LICENCE),
            str(len(row.packages)),
            console.size(row.size),
            _clipped(", ".join(row.packages), _NAMES),
        )
        for row in rows
    ]
    console.table(("", "licence", "packages", "size", "which"), cells, right=(2, 3))
    console.title("sizes")
    sums = [_sum("base", base.debs), *(_sum(lock.name, lock.wheels) for lock in locks)]
    console.table(("lock", "packages", "size", "of it non-free", "without a licence"), sums, right=(1, 2, 3, 4))
    packages = _distinct(base, locks)
    bound = [package for package in packages if spdx.non_free(package.licence)]
    return (
        f"{len(packages)} packages under {len(rows)} licences; "
        f"{len(bound)} non-free, {console.size(sum(package.artifact.size for package in bound))}"
    )


def _clipped(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _distinct(base: BaseLock, locks: Iterable[SetLock]) -> list[Deb | Wheel]:
    packages: list[Deb | Wheel] = [*base.debs, *(wheel for lock in locks for wheel in lock.wheels)]
    return list({package.artifact.sha256: package for package in packages}.values())


def _sum(name: str, packages: Sequence[Deb | Wheel]) -> tuple[str, ...]:
    bound = sum(package.artifact.size for package in packages if spdx.non_free(package.licence))
    untold = sum(1 for package in packages if spdx.UNKNOWN in spdx.legs(package.licence or spdx.UNKNOWN))
    return (
        name,
        str(len(packages)),
        console.size(sum(package.artifact.size for package in packages)),
        console.size(bound),
        str(untold),
    )
