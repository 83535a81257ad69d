"""The cooldown: releases younger than some days stay out of the locks, unless someone asked for them by name.

Most broken and most malicious releases are found and withdrawn within days. When a file was uploaded is what the index says.
"""

from __future__ import annotations

import datetime
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from common import console
from lockfiles.inputs import SetInput
from lockfiles.python import index, settings

# What uv takes for "whenever": it leaves files without a time out of any other window.
_ANY = "false"


@dataclass(frozen=True, slots=True)
class Window:
    """What the resolver may see.

    Attributes:
        until: only files uploaded before this time (ISO 8601, UTC, to the second).
        but: other times for some packages, by name.
    """

    until: str
    but: Mapping[str, str]

    def options(self) -> list[str]:
        """The arguments for uv."""
        single = [f"--exclude-newer-package={name}={day}" for name, day in sorted(self.but.items())]
        return [f"--exclude-newer={self.until}", *single]

    def narrowed(self, packages: Mapping[str, Mapping[str, Any]], held: Mapping[str, str], asked: Collection[str]) -> Window:
        """The window that leaves out what came in only because an older version of it was locked.

        Args:
            packages: what was resolved (PEP 751 tables, whose files tell when they were uploaded).
            held: the locked versions by name.
            asked: names that may be brand-new.

        Returns:
            the same window when nothing is to be left out.
        """
        found = dict(self.but)
        for name, package in packages.items():
            if name in asked or self.but.get(name, _ANY) == _ANY or str(package["version"]) == held.get(name):
                continue
            files = [*package.get("wheels", []), *filter(None, [package.get("sdist")])]
            times = [stamp(file["upload-time"]) for file in files if isinstance(file.get("upload-time"), datetime.datetime)]
            if times and min(times) >= self.until:
                found[name] = min(times)
        return Window(self.until, found)


def asked_for(requirements: Iterable[str]) -> frozenset[str]:
    """The packages that requirements pin to one version: someone asked for exactly that."""
    return frozenset(
        canonicalize_name(requirement.name)
        for requirement in map(Requirement, requirements)
        if any(s.operator == "===" or (s.operator == "==" and not s.version.endswith(".*")) for s in requirement.specifier)
    )


def window(
    days: int,
    asked: Iterable[str],
    locked: Mapping[str, str],
    untimed: Iterable[str] = (),
    fixes: Mapping[str, str] | None = None,
) -> Window | None:
    """What a resolution of today may see; None for everything.

    Args:
        days: of the cooldown.
        asked: names that may be brand-new.
        locked: for each package that is locked already, the day it was: it never goes back for its youth.
        untimed: names whose files have no known age.
        fixes: for each package that moves because of a known defect, the time before which its fix was uploaded; empty where
            it needs no exception.
    """
    if days <= 0:
        return None
    now, one_day, until = datetime.datetime.now(datetime.UTC), datetime.timedelta(days=1), since(days)
    fixes = fixes or {}
    after = {name: stamp(datetime.datetime.fromisoformat(f"{day}T00:00:00Z") + one_day) for name, day in locked.items()}
    # What is left because of a defect opens no door for anything but its fix.
    young = {name: time for name, time in after.items() if time > until and name not in fixes}
    young |= {name: time for name, time in fixes.items() if time}
    asked_until, ageless = dict.fromkeys(asked, stamp(now + one_day)), dict.fromkeys(untimed, _ANY)
    return Window(until, {**young, **asked_until, **ageless})


def since(days: int) -> str:
    """The time from which on an upload is too young."""
    return stamp(datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=days))


def stamp(time: datetime.datetime) -> str:
    """A time as it is compared here: ISO 8601, UTC, to the second."""
    return time.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def untimed(wanted: SetInput, days: int) -> frozenset[str]:
    """The packages of a set whose own index tells no upload times; says so, for the cooldown cannot be kept for them.

    Raises:
        MissingEnvironmentError: an index is not in the user's settings, or does not answer.
    """
    found = set()
    with index.session() as http:
        for origin in wanted.origins if days > 0 else ():
            if origin.index:
                page = index.page(http, origin.name, settings.named(origin.index))
                if page and not any(package.upload_time for package in page.packages):
                    found.add(origin.name)
    if found:
        console.warn(
            f"no upload times on their index: the cooldown of {days} days cannot be kept for {', '.join(sorted(found))}"
        )
    return frozenset(found)


def probe(sets: Iterable[SetInput]) -> str:
    """A package of the default index, by which one sees whether that tells upload times."""
    names = [
        canonicalize_name(Requirement(text).name)
        for wanted in sets
        for text in wanted.requires
        if canonicalize_name(Requirement(text).name) not in {origin.name for origin in wanted.origins}
    ]
    return next(iter(names), "pip")


def possible(project: str, days: int) -> bool:
    """Whether the user's index tells upload times; says so once if the cooldown cannot be kept.

    Raises:
        MissingEnvironmentError: the index does not answer, or not as one.
    """
    if days <= 0:
        return False
    with index.session() as http:
        page = index.page(http, project)
    if page is None or any(package.upload_time for package in page.packages):
        return True  # That there is no such project, the resolver says better.
    console.warn(f"your index tells no upload times: the cooldown of {days} days cannot be kept")
    return False
