"""What wheels say of themselves: requirements and licences, from METADATA and the licence files beside it.

Read from the store where the wheel is there, else by range requests from the user's index, so that locking a set downloads
megabytes and not gigabytes. Kept by the wheel's sha256 in `<cache>/metadata/`.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from email.parser import HeaderParser
from functools import lru_cache
from pathlib import Path

import requests
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from common import console, paths
from common.errors import LockError
from common.files import write_whole
from lockfiles import store
from lockfiles.model import Artifact
from lockfiles.python import startup
from lockfiles.python.remote import BROKEN_ZIP, NoRangesError, RemoteFile

_PARALLEL = 8
_LICENCE_FILE = re.compile(r"^[^/]+\.dist-info/(licenses/.*|(LICEN[CS]E|COPYING|NOTICE|EULA|COPYRIGHT)[^/]*)$", re.IGNORECASE)
# A licence's text; some wheels bundle hundreds of kilobytes of others' notices.
_TEXT_LIMIT = 200_000
_EXTRA = re.compile(r"""extra\s*==\s*['"]([^'"]+)""")
_Locate = Callable[[Artifact], str]


@dataclass(frozen=True, slots=True)
class Metadata:
    """What a wheel says of itself.

    Attributes:
        text: METADATA (core metadata specification).
        licences: the licence files of its dist-info by name.
        startup: the files that run at each start of Python; see startup.py.
    """

    text: str
    licences: Mapping[str, str]
    startup: Mapping[str, str] = field(default_factory=dict)

    def requires(self) -> tuple[Requirement, ...]:
        """Its Requires-Dist.

        Raises:
            LockError: one is no requirement (PEP 508).
        """
        return requires(self.text)


@lru_cache(maxsize=4096)
def requires(text: str) -> tuple[Requirement, ...]:
    """The Requires-Dist of a METADATA file; kept, because the sets share most of their wheels.

    Raises:
        LockError: one is no requirement (PEP 508).
    """
    headers = HeaderParser().parsestr(text)
    try:
        return tuple(Requirement(line) for line in headers.get_all("Requires-Dist") or [])
    except InvalidRequirement as problem:
        what = f"{headers['Name']} {headers['Version']} states no valid requirement: {str(problem).splitlines()[0]}"
        raise LockError(what, fix="pin another version: pip refuses this one as well") from None


def read_all(wanted: Iterable[Artifact], locate: _Locate, http: requests.Session) -> dict[str, Metadata]:
    """The metadata of many wheels, by the wheels' sha256.

    Raises:
        LockError: a file is no wheel, or is gone from the index.
        MissingEnvironmentError: the index does not answer.
    """
    artifacts = sorted(set(wanted), key=lambda a: a.file)
    found = {a.sha256: kept for a in artifacts if (kept := _kept(a)) is not None}
    missing = [a for a in artifacts if a.sha256 not in found]
    if missing:
        with console.step(f"reading the metadata of {len(missing)} wheels"), ThreadPoolExecutor(_PARALLEL) as pool:
            for artifact, read in zip(missing, pool.map(lambda a: _read(a, locate, http), missing), strict=True):
                found[artifact.sha256] = read
    return found


@contextmanager
def opened(artifact: Artifact, locate: _Locate, http: requests.Session) -> Iterator[zipfile.ZipFile]:
    """The wheel as a zip file: the store's, else a part-wise read one of the index, else downloaded.

    Raises:
        LockError: it is no zip file, or is gone from the index.
        MissingEnvironmentError: the index does not answer.
    """
    try:
        if store.has(artifact):
            with zipfile.ZipFile(store.path(artifact)) as archive:
                yield archive
            return
        try:
            remote = RemoteFile(http, locate(artifact))
        except NoRangesError:
            store.download([artifact], locate, http)
            with zipfile.ZipFile(store.path(artifact)) as archive:
                yield archive
            return
        with remote, zipfile.ZipFile(remote) as archive:
            yield archive
    except BROKEN_ZIP as problem:
        raise LockError(f"{artifact.file} is no sound wheel: {problem}", fix="pin another version") from None


class Overrides:
    """An input's overrides, as uv applies them: whoever asks for a package, these are what is asked for.

    Args:
        texts: requirements; one whose marker does not hold in the image takes the package away.
        python: the base's version.
    """

    def __init__(self, texts: Iterable[str], python: str) -> None:
        self._by_name: dict[str, list[Requirement]] = {}
        for one in map(Requirement, texts):
            held = self._by_name.setdefault(canonicalize_name(one.name), [])
            if one.marker is None or one.marker.evaluate(target(python)):
                held.append(one)

    def of(self, asked: Requirement) -> list[Requirement]:
        """What takes the place of a requirement: itself, or the overrides of its package."""
        return self._by_name.get(canonicalize_name(asked.name), [asked])


def needs(
    roots: Iterable[Requirement], known: Mapping[str, Metadata], python: str, overrides: Overrides | None = None
) -> dict[str, tuple[str, ...]]:
    """What each package of a set asks for on the image's platform.

    Args:
        roots: what the set's input asks for.
        known: the set's metadata by package name.
        python: the base's version.
        overrides: of the input. They decide which extras are in play; what a package says itself stays what it says.

    Returns:
        by package name, requirements without markers, sorted; those of an extra only if the set asks for the extra.
    """
    environment = target(python)
    extras: dict[str, set[str]] = {name: set() for name in known}
    requires = {name: one.requires() for name, one in known.items()}

    def holds(requirement: Requirement, name: str) -> bool:
        marker = requirement.marker
        return marker is None or any(marker.evaluate({**environment, "extra": extra}) for extra in {"", *extras[name]})

    # Extras bring requirements that bring extras: until nothing is added.
    replaced = overrides.of if overrides else lambda one: [one]
    asked_first = [root for root in roots if root.marker is None or root.marker.evaluate(environment)]
    pending = [one for root in asked_first for one in replaced(root)]
    seen: set[tuple[str, str]] = set()
    while pending:
        requirement = pending.pop()
        name = canonicalize_name(requirement.name)
        fresh = {(name, extra) for extra in {"", *map(canonicalize_name, requirement.extras)}} - seen
        if name not in known or not fresh:
            continue
        seen |= fresh
        extras[name] |= {extra for _, extra in fresh if extra}
        pending += [put for one in requires[name] if holds(one, name) for put in replaced(one)]
    return {
        name: tuple(sorted({_plain(one) for one in asked if holds(one, name) and canonicalize_name(one.name) != name}))
        for name, asked in requires.items()
    }


def target(python: str) -> dict[str, str]:
    """The environment that markers are evaluated in: the image's (PEP 508, "Environment Markers")."""
    return {
        "implementation_name": "cpython",
        "implementation_version": python,
        "os_name": "posix",
        "platform_machine": "x86_64",
        "platform_python_implementation": "CPython",
        "platform_release": "",
        "platform_system": "Linux",
        "platform_version": "",
        "python_full_version": python,
        "python_version": ".".join(python.split(".")[:2]),
        "sys_platform": "linux",
    }


def extras(requires: Iterable[str]) -> list[str]:
    """The extras that the markers of requirements name, sorted."""
    return sorted({canonicalize_name(extra) for text in requires for extra in _EXTRA.findall(text)})


def _plain(requirement: Requirement) -> str:
    extras = f"[{','.join(sorted(map(canonicalize_name, requirement.extras)))}]" if requirement.extras else ""
    return f"{canonicalize_name(requirement.name)}{extras}{requirement.specifier}"


def _kept(artifact: Artifact) -> Metadata | None:
    try:
        body = json.loads(_file(artifact).read_text())
        return Metadata(str(body["text"]), dict(body["licences"]), dict(body["startup"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _file(artifact: Artifact) -> Path:
    return paths.cache("metadata", artifact.sha256[:2], f"{artifact.sha256}.json")


def _read(artifact: Artifact, locate: _Locate, http: requests.Session) -> Metadata:
    with opened(artifact, locate, http) as archive:
        names = [name for name in archive.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", name)]
        if len(names) != 1:
            raise LockError(f"{artifact.file} holds METADATA {len(names)} times", fix="pin another version")
        text = archive.read(names[0]).decode("utf-8", "replace")
        licences = {
            entry.filename.partition("/")[2]: archive.read(entry).decode("utf-8", "replace")
            for entry in archive.infolist()
            if _LICENCE_FILE.match(entry.filename) and entry.file_size <= _TEXT_LIMIT
        }
        found = Metadata(text, licences, startup.find(archive))
    write_whole(_file(artifact), json.dumps(asdict(found)))
    return found
