"""What the user's index has of a package, as the image sees it: which versions can be used, why others cannot, what each needs.

Everything is asked once per run and kept in memory. Only METADATA is read of a wheel: the index's own copy of it where there
is one (PEP 658), else that member of the wheel by range requests.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pypi_simple
import requests
from packaging.metadata import parse_email
from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from packaging.version import InvalidVersion, Version

from common import console
from common.errors import LockError
from lockfiles.inputs import DEFAULT, SdistInput
from lockfiles.origins import Origin
from lockfiles.python import index, metadata, remote, settings, wheels
from lockfiles.python.remote import NoRangesError

_PARALLEL = 8
_SOURCE_ONLY = "is published as source only"
_TIMEOUT = (20.0, 60.0)


@dataclass(frozen=True, slots=True)
class Release:
    """One version of a package.

    Attributes:
        version: as PEP 440 orders it.
        trouble: why the image cannot use it; empty where it can.
        yanked: whether its author withdrew it.
        wheel: the file its metadata is read from; None where an input states them.
    """

    version: Version
    trouble: str
    yanked: bool
    wheel: pypi_simple.DistributionPackage | None


@dataclass(frozen=True, slots=True)
class Asks:
    """What one version asks for on the image's platform.

    Attributes:
        requires: without the extras' own.
        extras: by extra, what it adds; an extra that adds nothing is here as well.
    """

    requires: tuple[Requirement, ...] = ()
    extras: Mapping[str, tuple[Requirement, ...]] = field(default_factory=dict)


class Catalogue:
    """The index as one set of images sees it. Safe for several threads.

    Args:
        http: carries the user's authentication and certificates.
        python: the base's version.
        glibc: the base's version.
        sdists: packages that the input builds from source, with what it states of them.
        origins: the packages that the input takes from other indexes.
    """

    def __init__(
        self,
        http: requests.Session,
        python: str,
        glibc: str,
        sdists: Iterable[SdistInput] = (),
        origins: Iterable[Origin] = (),
    ) -> None:
        self._http, self._python = http, python
        self._tags = frozenset(wheels.platform_tags(python, glibc))
        self._system = f"Python {'.'.join(python.split('.')[:2])} on x86-64 Linux with glibc {glibc}"
        self._environment = metadata.target(python)
        self._stated: dict[str, SdistInput] = {}
        self._homes = {origin.name: origin.index for origin in origins if origin.index}
        self._releases: dict[str, tuple[Release, ...]] = {}
        self._matching: dict[tuple[str, str], tuple[Release, ...]] = {}
        self._asks: dict[tuple[str, Version], Asks] = {}
        self._warned = False
        self.state(sdists)

    def state(self, sdists: Iterable[SdistInput]) -> None:
        """From now on these packages are built from source and ask for what is stated of them."""
        for one in sdists:
            name = canonicalize_name(one.name)
            self._stated[name] = one
            self._releases[name] = (Release(Version(one.version), "", yanked=False, wheel=None),)
            self._matching = {key: found for key, found in self._matching.items() if key[0] != name}

    def releases(self, project: str) -> tuple[Release, ...]:
        """All versions, usable or not, ascending; none where the index has no such project.

        Raises:
            MissingEnvironmentError: the index does not answer.
        """
        if project not in self._releases:
            self._releases[project] = self._read_page(project)
        return self._releases[project]

    def prepare(self, projects: Iterable[str]) -> None:
        """Ask for the releases of several projects at once, so that later questions find them.

        Raises:
            MissingEnvironmentError: the index does not answer.
        """
        missing = sorted(set(projects) - set(self._releases))
        with ThreadPoolExecutor(_PARALLEL) as pool:
            list(pool.map(self.releases, missing))

    def matching(self, project: str, specifier: SpecifierSet) -> tuple[Release, ...]:
        """The usable versions that a specifier allows, pre-releases among them, ascending.

        It may be more than a resolver would take, never less: what is empty here has no solution.
        """
        key = (project, str(specifier))
        if key not in self._matching:
            usable = (release for release in self.releases(project) if not release.trouble)
            self._matching[key] = tuple(one for one in usable if specifier.contains(one.version, prereleases=True))
        return self._matching[key]

    def trouble(self, project: str, specifier: SpecifierSet) -> str:
        """Why no usable version of a project satisfies a specifier."""
        known = self.releases(project)
        if not known:
            return "your index has no such project"
        allowed = [release for release in known if specifier.contains(release.version, prereleases=True)]
        if allowed:
            return f"{allowed[-1].version} {allowed[-1].trouble}"
        usable = [release.version for release in known if not release.trouble]
        if project in self._stated:
            return f"[sdists.{project}] says {known[0].version}"
        if not usable:
            return f"no version of it has a wheel for {self._system}"
        return f"your index has {usable[0]} to {usable[-1]}" if len(usable) > 1 else f"your index has only {usable[0]}"

    def source(self, project: str, specifier: SpecifierSet) -> str:
        """The newest version that a specifier allows, if none that it allows has a usable wheel; else empty."""
        if self.matching(project, specifier):
            return ""
        allowed = [one for one in self.releases(project) if specifier.contains(one.version) and one.trouble == _SOURCE_ONLY]
        return str(allowed[-1].version) if allowed else ""

    def asks(self, project: str, version: Version) -> Asks:
        """What a usable version asks for. A version whose metadata cannot be read counts as asking for nothing.

        Raises:
            MissingEnvironmentError: the index does not answer.
        """
        key = (project, version)
        if key not in self._asks:
            self._asks[key] = self._read_asks(project, version)
        return self._asks[key]

    def _read_page(self, project: str) -> tuple[Release, ...]:
        home = self._homes.get(project, DEFAULT)
        page = index.page(self._http, project, settings.named(home))
        if page is None:
            return ()
        found: dict[Version, Release] = {}
        for file in page.packages:
            try:
                release = self._describe(file)
            except (InvalidVersion, InvalidWheelFilename, TypeError):
                continue
            other = found.get(release.version)
            # Of one version's files a usable one speaks for it; of the others a wheel tells more than a source.
            if other is None or (bool(release.trouble), release.wheel is None) < (bool(other.trouble), other.wheel is None):
                found[release.version] = release
        return tuple(release for _, release in sorted(found.items()))

    def _describe(self, file: pypi_simple.DistributionPackage) -> Release:
        if not file.filename.endswith(".whl"):
            version = Version(file.version or "")
            return Release(version, _SOURCE_ONLY, yanked=file.is_yanked, wheel=None)
        _, version, _, tags = parse_wheel_filename(file.filename)
        trouble = ""
        if not tags & self._tags:
            trouble = f"has no wheel for {self._system}"
        elif not _allows(file.requires_python, self._python):
            trouble = f"needs Python {file.requires_python}"
        return Release(version, trouble, yanked=file.is_yanked, wheel=file)

    def _read_asks(self, project: str, version: Version) -> Asks:
        if stated := self._stated.get(project):
            return self._evaluate(list(stated.requires), metadata.extras(stated.requires))
        release = next((one for one in self.releases(project) if one.version == version and not one.trouble), None)
        if release is None or release.wheel is None:
            return Asks()
        raw, _ = parse_email(self._metadata(release.wheel))
        return self._evaluate(raw.get("requires_dist", []), raw.get("provides_extra", []))

    def _metadata(self, wheel: pypi_simple.DistributionPackage) -> bytes:
        try:
            if wheel.has_metadata:
                known = bool(wheel.metadata_digests)
                client = pypi_simple.PyPISimple(session=self._http)
                return client.get_package_metadata_bytes(wheel, verify=known, timeout=_TIMEOUT)
        except (requests.RequestException, pypi_simple.NoMetadataError, pypi_simple.DigestMismatchError):
            pass  # The wheel itself holds them as well.
        try:
            return remote.read_member(self._http, wheel.url, ".dist-info/METADATA")
        except NoRangesError as problem:
            if not self._warned:
                console.warn(f"{problem.what}: what packages need is not shown in full")
                self._warned = True
        except LockError as problem:
            console.debug(problem.line())
        return b""

    def _evaluate(self, requires: list[str], extras: list[str]) -> Asks:
        plain: list[Requirement] = []
        added: dict[str, list[Requirement]] = {canonicalize_name(extra): [] for extra in extras}
        for text in requires:
            try:
                one = Requirement(text)
            except InvalidRequirement:
                continue  # Old packages state such; the resolver has its own leniency, and its own word in the end.
            if one.marker is None or one.marker.evaluate({**self._environment, "extra": ""}):
                plain.append(one)
                continue
            for extra, list_ in added.items():
                if one.marker.evaluate({**self._environment, "extra": extra}):
                    list_.append(one)
        return Asks(tuple(plain), {extra: tuple(list_) for extra, list_ in added.items()})


def _allows(requires_python: str | None, python: str) -> bool:
    try:
        return SpecifierSet(requires_python or "").contains(python)
    except InvalidSpecifier:
        return True
