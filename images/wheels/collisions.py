"""Paths that two wheels of an image bring with different bytes: all of them, found before any layer is made.

PyPA's `installer` decides what goes where, as when the wheels are installed; RECORD tells what is there, so no file is read.
Bytecode is not looked at: it differs where the module does that it is compiled from.
"""

from __future__ import annotations

import hashlib
import warnings
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from installer import install
from installer.records import Hash, RecordEntry
from installer.utils import Scheme
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from common import console
from common.errors import BuildError
from images.spec import ImageSpec, Rules
from images.wheels.install import Destination, Files
from images.wheels.source import Entry, Source, encoded
from images.wheels.zip_archive import Archive
from lockfiles import inputs, store
from lockfiles.model import SetLock, Wheel

# Lines of image.toml that are printed; more of them are no reading matter.
_SHOWN = 40


@dataclass(frozen=True, slots=True, order=True)
class Collision:
    """A path in the image, the package that brings it first, and the one that brings it with other bytes."""

    path: str
    one: str
    other: str


class _Survey(Destination):
    """Notes what a wheel brings; writes nothing."""

    def __init__(self, wheel: Wheel, files: Files, rules: Rules) -> None:
        super().__init__(wheel, None, None, files, rules)  # type: ignore[arg-type]
        self.found: list[Collision] = []

    def _write(
        self,
        scheme: Scheme,
        path: str,
        size: int,
        chunks: Iterable[bytes],
        *,
        executable: bool = False,
        entry: Entry | None = None,
    ) -> RecordEntry:
        target = self._target(scheme, path)
        digest = entry.recorded() if entry else b""
        if not digest:
            hashed = hashlib.sha256()
            for chunk in chunks:
                hashed.update(chunk)
            digest = hashed.digest()
        if target not in self._dropped:
            state = digest.hex() + ("+x" if executable else "")
            other = self._files.setdefault(target, (state, self._wheel.name))
            if other[0] != state:
                self.found.append(Collision(target, other[1], self._wheel.name))
        return RecordEntry(path, Hash("sha256", encoded(digest)), size)

    def finalize_installation(self, scheme: Scheme, record_file_path: str, records: object) -> None:
        """Write no RECORD: each wheel has its own."""


def find(spec: ImageSpec, made: Iterable[Files], to_make: Iterable[Wheel]) -> list[Collision]:
    """The collisions that a spec does not settle, sorted.

    A wheel that is broken has none here: installing it tells what is wrong.

    Args:
        spec: of the image.
        made: what the layers hold that are there already.
        to_make: the wheels of those that are not.
    """
    files: Files = {}
    found: list[Collision] = []
    for held in made:
        for path, (state, package) in held.items():
            other = files.setdefault(path, (state, package))
            if other[0] != state and not path.endswith(".pyc"):
                found.append(Collision(path, other[1], package))
    for wheel in to_make:
        rules = spec.rules(wheel.name)
        survey = _Survey(wheel, files, rules)
        try:
            with Path(store.path(wheel.artifact)).open("rb") as file, warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)
                install(Source(Archive(file), wheel, rules), survey, {"INSTALLER": b"pinwheel\n"})
        except Exception as problem:  # noqa: BLE001 - a hostile archive makes zipfile, csv and installer raise anything
            console.debug(f"{wheel.artifact.file}: {problem}")
        # Two schemes of one wheel at one path are that wheel's own fault.
        found += [collision for collision in survey.found if collision.one != collision.other]
    return sorted(found)


def check(lock: SetLock, spec: ImageSpec, made: Iterable[Files], to_make: Iterable[Wheel]) -> None:
    """Refuse an image whose wheels collide; says each path, who needs the packages, and what to write.

    Args:
        lock: of the image's set.
        spec: of the image.
        made: what the layers hold that are there already.
        to_make: the wheels of those that are not.

    Raises:
        BuildError: they do.
    """
    collisions = find(spec, made, to_make)
    if not collisions:
        return
    pairs: dict[tuple[str, str], list[str]] = defaultdict(list)
    for collision in collisions:
        pairs[collision.one, collision.other].append(collision.path)
    for (one, other), places in pairs.items():
        console.info(f"{one} and {other} install different bytes at {len(places)} path{'s' * (len(places) > 1)}")
        for package in (one, other):
            console.info(f"  {package} is needed by {_needed_by(package, lock)}")
        without = f"overrides = [\"{other}; python_version < '0'\"]"
        console.info(f"  leave one out, such as in lockfiles/{lock.name}.in: {without}; or say in image.toml which stays:")
        for place in places[:_SHOWN]:
            console.info(f'    [[conflicts]]\n    path = "{place}"\n    keep = "{one}"\n    drop = "{other}"\n    reason = "…"')
        if len(places) > _SHOWN:
            console.info(f"    and {len(places) - _SHOWN} more")
    names = "; ".join(f"{one} and {other} at {len(places)}" for (one, other), places in pairs.items())
    raise BuildError(
        f"packages install different bytes at {len(collisions)} path{'s' * (len(collisions) > 1)}: {names}",
        where=collisions[0].path,
        fix=f"leave one out in lockfiles/{lock.name}.in, or state [[conflicts]] in images/{spec.role}/image.toml: see above",
    )


def _needed_by(package: str, lock: SetLock) -> str:
    asked = [f"{lock.name}.in"] if package in _named(inputs.read_set(lock.name).requires) else []
    asked += [wheel.name for wheel in lock.wheels if package in _named(wheel.needs)]
    return ", ".join(asked) or "nothing"


def _named(requirements: Iterable[str]) -> set[str]:
    return {str(canonicalize_name(Requirement(text).name)) for text in requirements}
