"""The locks' form: `base.lock` and `<set>.lock`.

TOML. Keys, in this order: `format` (1), `inputs` (digest of the `.in` file's meaning), `date` (UTC day on which the
content last changed), for a set `python` and `glibc` (what the wheels were chosen for, from the base lock), `checksum`
(digest of all the rest: a hand edit shows), then one table with one line per package, sorted by name. A bump changes that
package's line and the head.

A lock names content (sha256, size, file name), never a location.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from common import paths
from common.errors import LockError
from common.files import write_whole
from lockfiles.inputs import FORMAT

_RELOCK = "run `invoke lock`"


@dataclass(frozen=True, slots=True)
class Artifact:
    """A file as the store knows it: by content.

    Attributes:
        file: its name, for people and for tools that read names.
        size: bytes.
        sha256: 64 hex digits.
    """

    file: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Deb:
    """A Debian package, one binary."""

    name: str
    version: str
    arch: str
    artifact: Artifact


@dataclass(frozen=True, slots=True)
class Wheel:
    """A wheel.

    Attributes:
        name: normalised (PEP 503).
        version: as the index has it.
        artifact: the wheel file.
        sdist: where the wheel is built by us, the source it is built from.
        shim: whether it is a metadata-only wheel that we make.
    """

    name: str
    version: str
    artifact: Artifact
    sdist: Artifact | None = None
    shim: bool = False


@dataclass(frozen=True, slots=True)
class BaseLock:
    """`base.lock`: every deb of the base layer."""

    inputs: str
    date: str
    debs: tuple[Deb, ...]

    def version(self, package: str) -> str:
        """The upstream version of a locked package, without epoch and Debian revision.

        Raises:
            LockError: the package is not in the lock.
        """
        for deb in self.debs:
            if deb.name == package:
                return deb.version.rpartition(":")[2].partition("-")[0]
        raise LockError(f"{package} is not in the base", where="lockfiles/base.lock", fix="name it in base.in and " + _RELOCK)


@dataclass(frozen=True, slots=True)
class SetLock:
    """`<set>.lock`: every wheel of one Python set, and the target they were chosen for."""

    name: str
    inputs: str
    date: str
    python: str
    glibc: str
    wheels: tuple[Wheel, ...]


def lock_path(name: str) -> Path:
    """Where the lock `name` (`base` or a set) lies."""
    return paths.LOCKFILES / f"{name}.lock"


def write_base(lock: BaseLock) -> None:
    """Write `base.lock`, whole or not at all."""
    debs = {d.name: {"version": d.version, "arch": d.arch, **_artifact(d.artifact)} for d in lock.debs}
    _write("base", {"inputs": lock.inputs, "date": lock.date}, "debs", debs)


def write_set(lock: SetLock) -> None:
    """Write `<set>.lock`, whole or not at all."""
    wheels: dict[str, dict[str, Any]] = {}
    for w in lock.wheels:
        wheels[w.name] = {"version": w.version, **_artifact(w.artifact)}
        if w.sdist:
            wheels[w.name] |= {f"sdist-{key}": value for key, value in _artifact(w.sdist).items()}
        if w.shim:
            wheels[w.name]["shim"] = True
    head = {"inputs": lock.inputs, "date": lock.date, "python": lock.python, "glibc": lock.glibc}
    _write(lock.name, head, "wheels", wheels)


def read_base() -> BaseLock:
    """Read `base.lock`.

    Raises:
        LockError: it is missing, edited, or not a lock of this format.
    """
    body, where = _read("base"), paths.shown(lock_path("base"))
    debs = []
    for name, e in _entries(body, "debs", where):
        _keys(e, {"version", "arch", "file", "size", "sha256"}, set(), name, where)
        debs.append(Deb(name, e["version"], e["arch"], _parse_artifact(e, "", name, where)))
    return BaseLock(body["inputs"], body["date"], tuple(debs))


def read_set(set_name: str) -> SetLock:
    """Read `<set>.lock`.

    Raises:
        LockError: it is missing, edited, or not a lock of this format.
    """
    body, where = _read(set_name), paths.shown(lock_path(set_name))
    wheels = []
    for name, e in _entries(body, "wheels", where):
        _keys(e, {"version", "file", "size", "sha256"}, {"sdist-file", "sdist-size", "sdist-sha256", "shim"}, name, where)
        sdist = _parse_artifact(e, "sdist-", name, where) if "sdist-file" in e else None
        wheel = Wheel(name, e["version"], _parse_artifact(e, "", name, where), sdist, bool(e.get("shim", False)))
        try:
            parsed = parse_wheel_filename(wheel.artifact.file)
        except InvalidWheelFilename:
            raise LockError(f"{name}: not a wheel: {wheel.artifact.file}", where=where, fix=_RELOCK) from None
        if name != canonicalize_name(name) or parsed[0] != name or str(parsed[1]) != e["version"]:
            raise LockError(f"{name} {e['version']}: its file is {wheel.artifact.file}", where=where, fix=_RELOCK)
        wheels.append(wheel)
    return SetLock(set_name, body["inputs"], body["date"], body["python"], body["glibc"], tuple(wheels))


def _artifact(artifact: Artifact) -> dict[str, Any]:
    return {"file": artifact.file, "size": artifact.size, "sha256": artifact.sha256}


def _parse_artifact(entry: dict[str, Any], prefix: str, name: str, where: str) -> Artifact:
    try:
        file, size, sha256 = entry[prefix + "file"], entry[prefix + "size"], entry[prefix + "sha256"]
    except KeyError as key:
        raise LockError(f"{name} lacks {key}", where=where, fix=_RELOCK) from None
    if not (isinstance(sha256, str) and len(sha256) == 64 and set(sha256) <= set("0123456789abcdef")):
        raise LockError(f"{name}: not a sha256: {sha256!r}", where=where, fix=_RELOCK)
    # The name becomes part of paths in the store and in build trees.
    if not isinstance(file, str) or "/" in file or file.startswith(".") or not isinstance(size, int) or size < 0:
        raise LockError(f"{name}: not a file name and a size: {file!r}, {size!r}", where=where, fix=_RELOCK)
    return Artifact(file, size, sha256)


def _entries(body: dict[str, Any], table: str, where: str) -> list[tuple[str, dict[str, Any]]]:
    entries = body.get(table)
    if not isinstance(entries, dict) or not entries or not all(isinstance(e, dict) for e in entries.values()):
        raise LockError(f"no [{table}]", where=where, fix=_RELOCK)
    if list(entries) != sorted(entries):
        raise LockError(f"[{table}] is not sorted", where=where, fix=_RELOCK)
    return list(entries.items())


def _keys(entry: dict[str, Any], needed: set[str], known: set[str], name: str, where: str) -> None:
    wrong = (needed - set(entry)) | (set(entry) - needed - known)
    if wrong:
        raise LockError(f"{name}: missing or unknown {', '.join(sorted(wrong))}", where=where, fix=_RELOCK)
    if not isinstance(entry["version"], str):
        raise LockError(f"{name}: version is no string", where=where, fix=_RELOCK)


def _checksum(body: dict[str, Any]) -> str:
    rest = {key: value for key, value in body.items() if key != "checksum"}
    return (
        "sha256:" + hashlib.sha256(json.dumps(rest, sort_keys=True, separators=(",", ":"), default=repr).encode()).hexdigest()
    )


def _write(name: str, head: dict[str, Any], table: str, entries: dict[str, dict[str, Any]]) -> None:
    body = {"format": FORMAT, **head, table: dict(sorted(entries.items()))}
    lines = [f"# Written by `invoke lock` from {name}.in. Edit that, not this: `invoke lock --check` refuses a hand edit."]
    lines += [f"{key} = {_toml(value)}" for key, value in body.items() if key != table]
    lines += [f"checksum = {_toml(_checksum(body))}", "", f"[{table}]"]
    for package, entry in body[table].items():
        fields = ", ".join(f"{key} = {_toml(value)}" for key, value in entry.items())
        lines.append(f"{_toml(package)} = {{ {fields} }}")
    write_whole(lock_path(name), "\n".join(lines) + "\n")


def _toml(value: object) -> str:
    # JSON's strings, integers and booleans are TOML's (TOML 1.0, "String", "Integer", "Boolean").
    return json.dumps(value)


def _read(name: str) -> dict[str, Any]:
    file, where = lock_path(name), paths.shown(lock_path(name))
    try:
        body = tomllib.loads(file.read_text())
    except FileNotFoundError:
        raise LockError(f"{name} is not locked", where=where, fix=_RELOCK) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
        raise LockError(f"not a lock: {problem}", where=where, fix="restore it from git or " + _RELOCK) from None
    if body.get("format") != FORMAT:
        raise LockError(f"lock format {body.get('format')!r}, this Pinwheel reads {FORMAT}", where=where, fix=_RELOCK)
    if body.get("checksum") != _checksum(body):
        raise LockError("edited by hand: the checksum does not fit", where=where, fix="restore it from git or " + _RELOCK)
    return body
