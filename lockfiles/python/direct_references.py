"""Packages that come from no index: a file at an address, a commit of a git repository, or what lies on this machine.

Each becomes one file of the store: a wheel, or a source archive that is built like any other (sdist.py). What is locked stays
until it is asked for by name; where a file came from, the lock does not say.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from email.parser import HeaderParser
from pathlib import Path
from typing import Any

import requests
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.tags import Tag
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from common import console, offline, paths
from common.errors import LockError, MissingEnvironmentError
from common.files import sha256_bytes, sha256_file, write_whole
from lockfiles import store
from lockfiles.inputs import SdistInput, SetInput
from lockfiles.model import Artifact, SetLock, Wheel
from lockfiles.origins import ARCHIVES, Origin
from lockfiles.python import checkout, metadata, source_archive
from lockfiles.store import mirror
from lockfiles.store.transfer import Place

_TIMEOUT = (20, 60)


@dataclass(frozen=True, slots=True)
class Direct:
    """A package that comes from no index.

    Attributes:
        name: normalised.
        version: of the wheel, or as the input states it of a source.
        artifact: the wheel or source archive, in the store.
        metadata: its METADATA; of a source what the input states.
        commit, tree: of the git repository it is from; empty for others.
    """

    name: str
    version: str
    artifact: Artifact
    metadata: str
    commit: str = ""
    tree: str = ""

    def table(self) -> dict[str, Any]:
        """As uv describes a resolved package (PEP 751)."""
        file = {"name": self.artifact.file, "size": self.artifact.size, "hashes": {"sha256": self.artifact.sha256}}
        kind = {"wheels": [file]} if self.artifact.file.endswith(".whl") else {"sdist": file}
        return {"name": self.name, "version": self.version, **kind}

    def stated(self) -> SdistInput:
        """As an input describes a package that has this one version."""
        asked = HeaderParser().parsestr(self.metadata).get_all("Requires-Dist") or []
        return SdistInput(self.name, self.version, tuple(asked))

    def stand_in(self, folder: Path) -> Path:
        """Write a wheel of nothing but metadata, for the resolver: it must neither unpack nor build anything."""
        dist = f"{self.name.replace('-', '_')}-{self.version}"
        wheel = self.artifact.file.endswith(".whl")
        file = folder / (self.artifact.file if wheel else f"{dist}-py3-none-any.whl")
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr(f"{dist}.dist-info/METADATA", self.metadata)
            archive.writestr(f"{dist}.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            archive.writestr(f"{dist}.dist-info/RECORD", "")
        return file


def bring(wanted: SetInput, tags: Collection[Tag], held: Mapping[str, Wheel], http: requests.Session) -> dict[str, Direct]:
    """Bring what a set takes from no index into the store, by name.

    Args:
        wanted: the set.
        tags: that the base runs.
        held: wheels that are locked for the set and stay; what they were made from is not looked at again.
        http: carries the user's logins and certificates.

    Raises:
        LockError: something has no such content, does not run on the base, or is not described under [sdists].
        MissingEnvironmentError: something does not answer, or is not there.
    """
    asked: dict[str, SpecifierSet] = {canonicalize_name(one.name): one.specifier for one in map(Requirement, wanted.requires)}
    stated = {one.name: one for one in wanted.sdists}
    found = {}
    for origin in wanted.origins:
        if origin.index:
            continue
        one = _bring(wanted, origin, stated.get(origin.name), held.get(origin.name), http)
        if one.artifact.file.endswith(".whl") and not parse_wheel_filename(one.artifact.file)[3] & set(tags):
            raise LockError(
                f"{one.artifact.file} does not run on the base", where=_where(wanted), fix="name another wheel of it"
            )
        if not asked[origin.name].contains(one.version, prereleases=True):
            what = f"{origin.name} {one.version} is at {origin.shown}, the input asks for {asked[origin.name]}"
            raise LockError(what, where=_where(wanted), fix="correct one of the two")
        found[origin.name] = one
    return found


def fetch(wanted: SetInput, lock: SetLock, needed: Iterable[Artifact], http: requests.Session) -> None:
    """Bring those files of a lock into the store that come from no index, as far as they are needed and missing.

    Args:
        wanted: the set's input.
        lock: the set's lock.
        needed: files that somebody is about to use.
        http: carries the user's logins and certificates.

    Raises:
        LockError: a place has other bytes than the lock.
        MissingEnvironmentError: a place does not answer, or is not there.
    """
    by_name, wheels = {origin.name: origin for origin in wanted.origins if not origin.index}, {w.name: w for w in lock.wheels}
    files = {name: wheels[name].sdist or wheels[name].artifact for name in by_name if name in wheels}
    absent = set(store.take(set(files.values()) & set(needed), mirror.places(), http))
    for name, artifact in files.items():
        if artifact in absent:
            _provide(by_name[name], wheels[name], artifact, http)


def _provide(origin: Origin, wheel: Wheel, artifact: Artifact, http: requests.Session) -> None:
    if origin.address:
        _take(origin, artifact, http)
        return
    changed = f"put back what was locked, or lock what is there now: `invoke lock --upgrade {origin.name}`"
    place = paths.ROOT / origin.path
    if origin.repository:
        data = source_archive.pack(wheel.name, wheel.version, checkout.entries(origin)[1])[1]
    elif not place.exists():
        raise _gone(origin)
    elif place.is_file():
        store.add_file(artifact, place, fix=changed)
        return
    else:
        data = source_archive.pack(wheel.name, wheel.version, source_archive.of_folder(place))[1]
    with store.adding(artifact, fix=changed) as out:
        out.write(data)


def _bring(wanted: SetInput, origin: Origin, stated: SdistInput | None, held: Wheel | None, http: requests.Session) -> Direct:
    place = paths.ROOT / origin.path
    if origin.path and not held and not place.exists():
        raise _gone(origin)
    if origin.file.endswith(".whl") and not (origin.path and place.is_dir()):
        return _bring_wheel(wanted, origin, held, http)
    if stated is None:
        raise _undescribed(wanted, origin, place)
    kept = held if held and held.version == stated.version and held.sdist else None
    commit, tree = origin.commit, ""
    if origin.repository:
        artifact, tree = _exported(origin, stated)
    elif origin.address:
        artifact = _sized(origin, f"{stated.name}-{stated.version}{_ending(origin.file)}", http)
        _take(origin, artifact, http)
    elif place.is_dir():
        file, data = source_archive.pack(stated.name, stated.version, source_archive.of_folder(place))
        artifact = _kept_or_new(origin, kept, _describe(file, data))
        with store.adding(_describe(file, data)) as out:
            out.write(data)
    elif place.is_file() and origin.file.endswith(ARCHIVES):
        found = _described_file(place, f"{stated.name}-{stated.version}{_ending(origin.file)}")
        store.add_file(found, place)
        artifact = _kept_or_new(origin, kept, found)
    elif kept and kept.sdist:
        artifact = kept.sdist
    else:
        what = f"{origin.name}: {origin.path} is no wheel, source archive or folder"
        raise LockError(what, where=_where(wanted), fix=f"name a .whl, {' or '.join(ARCHIVES)}, or a folder")
    return Direct(origin.name, stated.version, artifact, _stated_metadata(stated), commit, tree)


def _bring_wheel(wanted: SetInput, origin: Origin, held: Wheel | None, http: requests.Session) -> Direct:
    try:
        name, version, *_ = parse_wheel_filename(origin.file)
    except InvalidWheelFilename:
        raise LockError(f"not the name of a wheel: {origin.file}", where=_where(wanted), fix="do not rename wheels") from None
    if name != origin.name:
        raise LockError(f"{origin.file} is a wheel of {name}, not of {origin.name}", where=_where(wanted), fix="mend the input")
    if origin.address:
        artifact = _sized(origin, origin.file, http)
        _take(origin, artifact, http)
    else:
        place = paths.ROOT / origin.path
        kept = held if held and held.version == str(version) and not held.sdist else None
        if place.exists():
            found = _described_file(place, origin.file)
            store.add_file(found, place)
            artifact = _kept_or_new(origin, kept, found)
        elif kept:
            artifact = kept.artifact
            store.take([artifact], mirror.places(), http)
        else:
            raise _gone(origin)
    known = metadata.read_all([artifact], lambda _: "", http)[artifact.sha256]
    return Direct(origin.name, str(version), artifact, known.text)


def _kept_or_new(origin: Origin, kept: Wheel | None, found: Artifact) -> Artifact:
    """What is locked, where it can be had; what lies there now is taken only when it is asked for."""
    locked = (kept.sdist or kept.artifact) if kept else None
    if locked is None or locked.sha256 == found.sha256:
        return found
    if not store.has(locked) and not any(place.locate(locked) for place in mirror.places()):
        what = f"{origin.name}: {origin.path} is not what was locked, and that is not in the store"
        fix = f"put it back, or take what is there now: `invoke lock --upgrade {origin.name}`"
        raise LockError(what, where=f"sha256 {found.sha256}, locked {locked.sha256}", fix=fix)
    console.warn(f"{origin.path} changed since it was locked; it stays: `invoke lock --upgrade {origin.name}` takes it")
    return locked


def _exported(origin: Origin, stated: SdistInput) -> tuple[Artifact, str]:
    """The source archive of a commit, and the hash of its tree; noted, so that a commit is fetched once."""
    key = sha256_bytes(repr((origin.name, stated.version, origin.commit, origin.folder)).encode()).removeprefix("sha256:")
    note = paths.cache("exported", f"{key}.json")
    try:
        known = json.loads(note.read_text())
        artifact = Artifact(**known["artifact"])
        if store.has(artifact):
            return artifact, str(known["tree"])
    except (OSError, ValueError, TypeError, KeyError):
        pass
    tree, entries = checkout.entries(origin)
    file, data = source_archive.pack(stated.name, stated.version, entries)
    artifact = _describe(file, data)
    with store.adding(artifact) as out:
        out.write(data)
    write_whole(note, json.dumps({"artifact": asdict(artifact), "tree": tree}))
    return artifact, tree


def _take(origin: Origin, artifact: Artifact, http: requests.Session) -> None:
    offline_fix = f"{origin.name} is not in the store, and fetching it"
    if not store.has(artifact):
        offline.demand_network(offline_fix, fix=offline.FIX)
    altered = "the address serves another file than the input names; ask who runs it"
    place = Place(lambda _: origin.address, lambda _: origin.address, "check the network, and your login in netrc", altered)
    if store.take([artifact], (*mirror.places(), place), http):
        raise MissingEnvironmentError(f"{origin.name}: the server answers 404", where=origin.address, fix="correct the address")


def _sized(origin: Origin, file: str, http: requests.Session) -> Artifact:
    """The file at an address, with its size: the store's, or as the server tells it."""
    known = Artifact(file, 0, origin.sha256)
    if store.path(known).is_file():
        return replace(known, size=store.path(known).stat().st_size)
    offline.demand_network(f"fetching {origin.name}", fix=offline.FIX)
    try:
        with http.get(origin.address, headers={"Accept-Encoding": "identity"}, stream=True, timeout=_TIMEOUT) as answer:
            answer.raise_for_status()
            return replace(known, size=int(answer.headers["Content-Length"]))
    except (requests.RequestException, KeyError, ValueError) as problem:
        status = getattr(getattr(problem, "response", None), "status_code", 0)
        told = f"the server answers {status}" if status else type(problem).__name__
        told = "the server tells no size" if isinstance(problem, (KeyError, ValueError)) else told
        fix = "put your login for its host into netrc" if status in {401, 403} else "check the address and the network"
        raise MissingEnvironmentError(f"{origin.name} cannot be fetched: {told}", where=origin.address, fix=fix) from None


def _undescribed(wanted: SetInput, origin: Origin, place: Path) -> LockError:
    """A source says of itself only when code of it runs; so the input states what it is."""
    fix = f'state its version and Requires-Dist: [sdists.{origin.name}] version = "…", requires = ["…"]'
    what = f"{origin.name} comes as source ({origin.shown}), and {wanted.name}.in does not describe it"
    if place.is_dir() and not origin.repository and not origin.address:
        what += ", see its pyproject.toml"
    return LockError(what, where=_where(wanted), fix=fix)


def _gone(origin: Origin) -> MissingEnvironmentError:
    return MissingEnvironmentError(
        f"{origin.name}: {origin.path} is not there",
        where=str(paths.ROOT / origin.path),
        fix="put it there, or name another path",
    )


def _stated_metadata(stated: SdistInput) -> str:
    extras = metadata.extras(stated.requires)
    head = ["Metadata-Version: 2.1", f"Name: {stated.name}", f"Version: {stated.version}"]
    head += [f"Provides-Extra: {extra}" for extra in extras] + [f"Requires-Dist: {text}" for text in stated.requires]
    return "\n".join(head) + "\n"


def _ending(file: str) -> str:
    return next(ending for ending in ARCHIVES if file.endswith(ending))


def _described_file(place: Path, file: str) -> Artifact:
    return Artifact(file, place.stat().st_size, sha256_file(place).removeprefix("sha256:"))


def _describe(file: str, data: bytes) -> Artifact:
    return Artifact(file, len(data), hashlib.sha256(data).hexdigest())


def _where(wanted: SetInput) -> str:
    return f"lockfiles/{wanted.name}.in"
