"""The locks' form on disk: `base.lock` and `<set>.lock`.

TOML. First the head: `format` (2), `inputs` (digest of the `.in` file's meaning), `date` (UTC day on which the content last
changed), for a set `python` and `glibc` (what the wheels were chosen for, from the base lock) and, where it holds torch,
`cuda`, `driver` and `compute` (what it asks of a GPU), and `checksum` (over the head and the packages' names).
Then one table with one line per package, sorted by name; each ends in `check`, over that line alone.

So a bump changes that package's line, two branches that bump two packages merge, and an edit by hand is refused with its line.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.utils import (
    InvalidSdistFilename,
    InvalidWheelFilename,
    canonicalize_name,
    parse_sdist_filename,
    parse_wheel_filename,
)

from common import paths
from common.errors import LockError
from common.files import write_whole
from lockfiles.inputs import FORMAT
from lockfiles.model import Artifact, BaseLock, Deb, Gpu, SetLock, Wheel

_RELOCK = "run `invoke lock`"
_RESTORE = "restore it from git, or remove it and " + _RELOCK
# The hash of a git object, of either kind.
_GIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_LINE = re.compile(r'^("(?:[^"\\]|\\.)*") = \{', re.MULTILINE)


def lock_path(name: str) -> Path:
    """Where the lock `name` (`base` or a set) lies."""
    return paths.LOCKFILES / f"{name}.lock"


def write_base(lock: BaseLock) -> None:
    """Write `base.lock`, whole or not at all."""
    debs: dict[str, dict[str, Any]] = {}
    for d in lock.debs:
        debs[d.name] = {"version": d.version, "arch": d.arch, **_artifact(d.artifact)}
        debs[d.name] |= {"essential": True} if d.essential else {}
        debs[d.name] |= {"licence": d.licence, "needs": list(d.needs)}
    _write("base", {"inputs": lock.inputs, "date": lock.date}, "debs", debs)


def write_set(lock: SetLock) -> None:
    """Write `<set>.lock`, whole or not at all."""
    wheels: dict[str, dict[str, Any]] = {}
    for w in lock.wheels:
        wheels[w.name] = {"version": w.version, **_artifact(w.artifact)}
        if w.sdist:
            wheels[w.name] |= {f"sdist-{key}": value for key, value in _artifact(w.sdist).items()}
        wheels[w.name] |= {"commit": w.commit, "tree": w.tree} if w.commit else {}
        if w.build is not None:
            wheels[w.name]["build"] = [[b.file, b.size, b.sha256] for b in w.build]
        wheels[w.name] |= {} if w.reproducible else {"reproducible": False}
        wheels[w.name] |= {"shim": True} if w.shim else {}
        wheels[w.name] |= {"licence": w.licence, "needs": list(w.needs)}
    head: dict[str, Any] = {"inputs": lock.inputs, "date": lock.date, "python": lock.python, "glibc": lock.glibc}
    if lock.gpu:
        head |= {"cuda": lock.gpu.cuda, "driver": lock.gpu.driver, "compute": list(lock.gpu.compute)}
    _write(lock.name, head, "wheels", wheels)


def read_base() -> BaseLock:
    """Read `base.lock`.

    Raises:
        LockError: it is missing, edited, or not a lock of this format; with the line.
    """
    doc = _read("base", "debs", {"inputs", "date"}, set())
    debs = []
    for name, e in doc.entries.items():
        doc.keys(name, {"version", "arch", "file", "size", "sha256", "licence", "needs"}, {"essential"})
        artifact = doc.artifact(name, "")
        debs.append(
            Deb(name, e["version"], e["arch"], artifact, tuple(e["needs"]), bool(e.get("essential", False)), e["licence"])
        )
    return BaseLock(doc.head["inputs"], doc.head["date"], tuple(debs))


def read_set(set_name: str) -> SetLock:
    """Read `<set>.lock`.

    Raises:
        LockError: it is missing, edited, or not a lock of this format; with the line.
    """
    doc = _read(set_name, "wheels", {"inputs", "date", "python", "glibc"}, {"cuda", "driver", "compute"})
    known = {"sdist-file", "sdist-size", "sdist-sha256", "build", "reproducible", "shim", "commit", "tree"}
    wheels = []
    for name, e in doc.entries.items():
        doc.keys(name, {"version", "file", "size", "sha256", "licence", "needs"}, known)
        artifact = doc.artifact(name, "")
        sdist = doc.artifact(name, "sdist-") if "sdist-file" in e else None
        try:
            named = [(artifact.file, parse_wheel_filename(artifact.file)[:2])]
        except InvalidWheelFilename:
            raise doc.refused(name, f"{name}: not a wheel: {artifact.file}") from None
        try:
            named += [(sdist.file, parse_sdist_filename(sdist.file))] if sdist else []
        except InvalidSdistFilename:
            raise doc.refused(name, f"{name}: not a source archive: {sdist.file if sdist else ''}") from None
        for file, (package, version) in named:
            if name != canonicalize_name(name) or package != name or str(version) != e["version"]:
                raise doc.refused(name, f"{name} {e['version']}: its file is {file}")
        shim = bool(e.get("shim", False))
        commit, tree = e.get("commit", ""), e.get("tree", "")
        if ("commit" in e or "tree" in e) and not (sdist and _GIT.fullmatch(str(commit)) and _GIT.fullmatch(str(tree))):
            raise doc.refused(name, f"{name}: a commit and its tree stand together, beside the source that holds them")
        build, same = doc.build(name), bool(e.get("reproducible", True))
        needs, licence = tuple(e["needs"]), e["licence"]
        wheels.append(Wheel(name, e["version"], artifact, sdist, shim, needs, licence, commit, tree, build, same))
    head = doc.head
    gpu = None
    if "cuda" in head:
        try:
            gpu = Gpu(str(head["cuda"]), int(head["driver"]), tuple(map(str, head["compute"])))
        except (KeyError, TypeError, ValueError):
            raise LockError("cuda, driver and compute go together", where=doc.where(), fix=_RESTORE) from None
    return SetLock(set_name, head["inputs"], head["date"], head["python"], head["glibc"], tuple(wheels), gpu)


def is_current(name: str) -> bool:
    """Whether a lock is there that says it has this format, sound or not."""
    try:
        return f"\nformat = {FORMAT}\n" in lock_path(name).read_text(errors="replace")
    except FileNotFoundError:
        return False


def place(lock: str, package: str) -> str:
    """Where a package stands in a lock, for messages: `lockfiles/train.lock:57`."""
    file = lock_path(lock)
    try:
        return f"{paths.shown(file)}:{_lines(file.read_text())[package][0]}"
    except (OSError, KeyError):
        return paths.shown(file)


@dataclass(frozen=True, slots=True)
class _Document:
    """A lock that was read: its head, its packages, and the line each stands on."""

    file: Path
    head: dict[str, Any]
    entries: dict[str, dict[str, Any]]
    lines: dict[str, list[int]]

    def where(self, package: str = "") -> str:
        line = f":{self.lines[package][0]}" if package in self.lines else ""
        return paths.shown(self.file) + line

    def refused(self, package: str, what: str, fix: str = _RESTORE) -> LockError:
        return LockError(what, where=self.where(package), fix=fix)

    def keys(self, name: str, needed: set[str], known: set[str]) -> None:
        entry = self.entries[name]
        present = set(entry) - {"check"}
        wrong = (needed - present) | (present - needed - known)
        if wrong:
            raise self.refused(name, f"{name}: missing or unknown {', '.join(sorted(wrong))}")
        if not all(isinstance(entry.get(key, ""), str) for key in ("version", "arch", "licence")):
            raise self.refused(name, f"{name}: version, arch and licence are strings")
        if not isinstance(entry["needs"], list) or not all(isinstance(need, str) for need in entry["needs"]):
            raise self.refused(name, f"{name}: needs is no list of strings")

    def artifact(self, name: str, prefix: str) -> Artifact:
        entry = self.entries[name]
        try:
            parts = entry[prefix + "file"], entry[prefix + "size"], entry[prefix + "sha256"]
        except KeyError as key:
            raise self.refused(name, f"{name} lacks {key}") from None
        return self._artifact(name, *parts)

    def build(self, name: str) -> tuple[Artifact, ...] | None:
        rows = self.entries[name].get("build")
        if rows is None:
            return None
        if not isinstance(rows, list) or not all(isinstance(row, list) and len(row) == 3 for row in rows):
            raise self.refused(name, f"{name}: build is no list of [file, size, sha256]")
        found = tuple(self._artifact(name, *row) for row in rows)
        if not all(one.file.endswith(".whl") for one in found) or "sdist-file" not in self.entries[name]:
            raise self.refused(name, f"{name}: build names wheels that build its sdist")
        return found

    def _artifact(self, name: str, file: Any, size: Any, sha256: Any) -> Artifact:
        if not (isinstance(sha256, str) and len(sha256) == 64 and set(sha256) <= set("0123456789abcdef")):
            raise self.refused(name, f"{name}: not a sha256: {sha256!r}")
        # The name becomes part of paths in the store and in build trees.
        if not isinstance(file, str) or "/" in file or file.startswith(".") or type(size) is not int or size < 0:
            raise self.refused(name, f"{name}: not a file name and a size: {file!r}, {size!r}")
        return Artifact(file, size, sha256)


def _artifact(artifact: Artifact) -> dict[str, Any]:
    return {"file": artifact.file, "size": artifact.size, "sha256": artifact.sha256}


def _digest(body: object) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":"), default=repr).encode()).hexdigest()


def _checksum(head: dict[str, Any], names: list[str]) -> str:
    return "sha256:" + _digest([{key: value for key, value in head.items() if key != "checksum"}, names])


def _check(name: str, entry: dict[str, Any]) -> str:
    # Against slips and merges, not against an enemy, who could write this as well: the wheel's own hash is what binds.
    return _digest([name, {key: value for key, value in entry.items() if key != "check"}])[:8]


def _write(name: str, own_head: dict[str, Any], table: str, entries: dict[str, dict[str, Any]]) -> None:
    head = {"format": FORMAT, **own_head}
    lines = [f"# Written by `invoke lock` from {name}.in. Edit that, not this: `invoke lock --check` refuses a hand edit."]
    lines += [f"{key} = {_toml(value)}" for key, value in head.items()]
    lines += [f"checksum = {_toml(_checksum(head, sorted(entries)))}", "", f"[{table}]"]
    for package, entry in sorted(entries.items()):
        fields = ", ".join(f"{key} = {_toml(value)}" for key, value in {**entry, "check": _check(package, entry)}.items())
        lines.append(f"{_toml(package)} = {{ {fields} }}")
    write_whole(lock_path(name), "\n".join(lines) + "\n")


def _toml(value: object) -> str:
    # JSON's strings, integers, booleans and lists of them are TOML's (TOML 1.0, "String", "Integer", "Boolean", "Array").
    return json.dumps(value)


def _lines(text: str) -> dict[str, list[int]]:
    """On which lines each package stands."""
    found: dict[str, list[int]] = {}
    line, position = 1, 0
    for match in _LINE.finditer(text):
        line += text.count("\n", position, match.start())
        position = match.start()
        try:
            found.setdefault(json.loads(match[1]), []).append(line)
        except ValueError:
            continue
    return found


def _read(name: str, table: str, needed: set[str], optional: set[str]) -> _Document:
    file, where = lock_path(name), paths.shown(lock_path(name))
    try:
        text = file.read_text()
    except FileNotFoundError:
        raise LockError(f"{name} is not locked", where=where, fix=_RELOCK) from None
    except UnicodeDecodeError:
        raise LockError("not a lock: not UTF-8", where=where, fix=_RESTORE) from None
    lines = _lines(text)
    for package, places in lines.items():
        if len(places) > 1:
            raise LockError(f"{package} stands twice, first in line {places[0]}", where=f"{where}:{places[1]}", fix=_RESTORE)
    try:
        head = tomllib.loads(text)
    except tomllib.TOMLDecodeError as problem:
        at = re.search(r"at line (\d+)", str(problem))
        raise LockError(f"not a lock: {problem}", where=f"{where}:{at[1]}" if at else where, fix=_RESTORE) from None
    if head.get("format") != FORMAT:
        found = head.get("format")
        fix = "take a newer Pinwheel" if isinstance(found, int) and found > FORMAT else f"relock once: {_RELOCK}"
        raise LockError(f"lock format {found!r}, this Pinwheel reads {FORMAT}", where=where, fix=fix)
    entries = head.pop(table, None)
    if not isinstance(entries, dict) or not entries or not all(isinstance(e, dict) for e in entries.values()):
        raise LockError(f"no [{table}]", where=where, fix=_RESTORE)
    doc = _Document(file, head, entries, lines)
    for package, entry in entries.items():
        if entry.get("check") != _check(package, entry):
            raise doc.refused(package, f"{package}: edited by hand: its check does not fit")
    wrong = ({"format", "checksum"} | needed) ^ (set(head) - optional)
    if wrong:
        raise LockError(f"missing or unknown {', '.join(sorted(wrong))} in the head", where=where, fix=_RESTORE)
    for before, after in zip(list(entries), list(entries)[1:], strict=False):
        if before > after:
            raise doc.refused(after, f"{after} stands after {before}: [{table}] is not sorted")
    try:
        datetime.date.fromisoformat(head["date"])
    except (ValueError, TypeError):
        raise LockError(f"not a day: {head['date']!r}", where=where, fix=_RESTORE) from None
    if head["checksum"] != _checksum(head, list(entries)):
        place = next((number for number, line in enumerate(text.splitlines(), 1) if line.startswith("checksum")), 0)
        what = "edited by hand: the head, or which packages there are, does not fit the checksum"
        raise LockError(what, where=f"{where}:{place}", fix=_RESTORE)
    return doc
