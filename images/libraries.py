"""Which libraries an image need not find, and why: the list in `libraries.toml`, by which tests and the smoke ladder judge."""

from __future__ import annotations

import fnmatch
import tomllib
from dataclasses import dataclass

from common import paths
from images.wheels.install import SITE


@dataclass(frozen=True, slots=True)
class Excuse:
    """Why files need libraries that the dynamic loader does not find.

    Attributes:
        elsewhere: the libraries are in the image, and in the process before the file is loaded; otherwise they are not there.
        path: pattern of the files' paths in the image, without the first slash.
        needs: pattern of the libraries' names.
        reason: why that is right.
    """

    elsewhere: bool
    path: str
    needs: str
    reason: str

    def covers(self, path: str, library: str, *, elsewhere: bool) -> bool:
        """Whether it is about that file and that library."""
        alike = fnmatch.fnmatchcase(path.lstrip("/"), self.path) and fnmatch.fnmatchcase(library, self.needs)
        return alike and elsewhere == self.elsewhere


@dataclass(frozen=True, slots=True)
class Excuses:
    """All there are.

    Attributes:
        driver: libraries that the host brings.
        excuses: in the order of the list.
    """

    driver: frozenset[str]
    excuses: tuple[Excuse, ...]

    def of(self, path: str, library: str, *, elsewhere: bool) -> tuple[Excuse, ...]:
        """Those that are about a file and a library."""
        return tuple(one for one in self.excuses if one.covers(path, library, elsewhere=elsewhere))

    def unexplained(self, path: str, library: str, *, elsewhere: bool) -> bool:
        """Whether nothing explains that the loader does not find this library for this file."""
        return library not in self.driver and not self.of(path, library, elsewhere=elsewhere)


def read() -> Excuses:
    """The list."""
    body = tomllib.loads((paths.IMAGES / "libraries.toml").read_text())
    found = []
    for kind, elsewhere in (("loaded", True), ("absent", False)):
        for entry in body[kind]:
            path = entry["path"].lstrip("/") if entry["path"].startswith("/") else f"{SITE}/{entry['path']}"
            found.append(Excuse(elsewhere, path, entry["needs"], entry["reason"]))
    return Excuses(frozenset(body["driver"]["libraries"]), tuple(found))
