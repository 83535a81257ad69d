"""The cooldown: releases younger than some days stay out of the locks, unless someone asked for them by name.

Most broken and most malicious releases are found and withdrawn within days. When a file was uploaded is what the index says.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import pypi_simple
import requests
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from common import console
from lockfiles import index
from lockfiles.inputs import SetInput


@dataclass(frozen=True, slots=True)
class Window:
    """What the resolver may see.

    Attributes:
        until: only files uploaded before this day (ISO 8601, UTC).
        but: other days for some packages, by name.
    """

    until: str
    but: Mapping[str, str]

    def options(self) -> list[str]:
        """The arguments for uv."""
        single = [f"--exclude-newer-package={name}={day}" for name, day in sorted(self.but.items())]
        return [f"--exclude-newer={self.until}", *single]


def asked_for(wanted: SetInput) -> frozenset[str]:
    """The packages that an input pins to one version: someone asked for exactly that."""
    requirements = [Requirement(text) for text in (*wanted.requires, *wanted.overrides)]
    return frozenset(
        canonicalize_name(one.name) for one in requirements if any(s.operator in ("==", "===") for s in one.specifier)
    )


def window(days: int, asked: Iterable[str], locked: Mapping[str, str]) -> Window | None:
    """What a resolution of today may see; None for everything.

    Args:
        days: of the cooldown.
        asked: names that may be brand-new.
        locked: for each package that is locked already, the day it was: it never goes back for its youth.
    """
    if days <= 0:
        return None
    today = datetime.datetime.now(datetime.UTC).date()
    until = (today - datetime.timedelta(days=days)).isoformat()
    # uv excludes from the given day's start on.
    after = {name: (datetime.date.fromisoformat(day) + datetime.timedelta(days=1)).isoformat() for name, day in locked.items()}
    young = {name: day for name, day in after.items() if day > until}
    tomorrow = (today + datetime.timedelta(days=1)).isoformat()
    return Window(until, {**young, **dict.fromkeys(asked, tomorrow)})


def possible(project: str, days: int) -> bool:
    """Whether the user's index tells upload times; says so once if the cooldown cannot be kept.

    Raises:
        MissingEnvironmentError: no index is configured as pip reads it.
    """
    if days <= 0:
        return False
    with index.session() as http:
        try:
            page = pypi_simple.PyPISimple(index.url(), session=http).get_project_page(project)
        except (requests.RequestException, pypi_simple.NoSuchProjectError, pypi_simple.UnsupportedContentTypeError):
            return True  # The resolver meets the same, and says it better.
    if any(package.upload_time for package in page.packages):
        return True
    console.warn(f"your index tells no upload times: the cooldown of {days} days cannot be kept")
    return False
