"""`models.lock`, written by `invoke lock` from models.in: each model's commit, and each of its files by content.

A model that is on no hub has no commit: `content`, a digest over its files, stands for it.

TOML. First the head: `format`, `inputs` (digest of models.in's meaning), `date` (UTC day on which the content last changed),
`checksum` (over the head and the models' names); then one line per model; then one line per file with its size and sha256.
Each line ends in `check`, over that line alone, and a model's over its files' paths too: so a bump changes that model's lines,
and an edit by hand is refused with its line. Nothing in it says where the hub is.
"""

from __future__ import annotations

import itertools
import json
import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import paths
from common.errors import LockError
from common.files import write_whole
from lockfiles.model import Artifact
from lockfiles.models.hub import COMMIT, unsafe
from lockfiles.models.inputs import FORMAT, NAME, REPO, at_problem, digest, inputs_digest, lines

_RELOCK = "run `invoke lock`"
_RESTORE = "restore it from git or " + _RELOCK


@dataclass(frozen=True, slots=True)
class PinnedFile:
    """A file of a model."""

    path: str
    size: int
    sha256: str

    @property
    def artifact(self) -> Artifact:
        """The file as store and mirror know it. Its name comes from its content, for they keep what two models share once."""
        return Artifact(f"model-{self.sha256[:16]}", self.size, self.sha256)


@dataclass(frozen=True, slots=True)
class PinnedModel:
    """A model as the lock holds it.

    Attributes:
        name: ours.
        repo: on the hub; empty for a model that is on none.
        revision: what was asked for; empty without a repository.
        commit: what that was when it was locked, 40 hex digits; without a repository the digest of its content, 64.
        inputs: the digest of the model's input.
        files: sorted by path.
    """

    name: str
    repo: str
    revision: str
    commit: str
    inputs: str
    files: tuple[PinnedFile, ...]

    @property
    def called(self) -> str:
        """As messages name it: by its repository, or, where it is on no hub, by our name."""
        return self.repo or self.name

    @property
    def at(self) -> str:
        """Its commit or its content, in short."""
        return f"{'commit' if self.repo else 'content'} {self.commit[:12]}"

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(file.size for file in self.files)


@dataclass(frozen=True, slots=True)
class ModelsLock:
    """`models.lock`: the models, sorted by name, and the UTC day on which that last changed."""

    date: str
    models: tuple[PinnedModel, ...]


def lock_path() -> Path:
    """Where `models.lock` lies."""
    return paths.LOCKFILES / "models.lock"


def content(files: Iterable[PinnedFile]) -> str:
    """The digest that stands for the commit of a model that is on no hub: 64 hex digits over its files."""
    return digest([(file.path, file.size, file.sha256) for file in files]).removeprefix("sha256:")


def write_lock(lock: ModelsLock) -> None:
    """Write `models.lock`, whole or not at all; without a model there is none."""
    if not lock.models:
        lock_path().unlink(missing_ok=True)
        return
    head = {"format": FORMAT, "inputs": inputs_digest((m.name, m.inputs) for m in lock.models), "date": lock.date}
    text = ["# Written by `invoke lock` from models.in. Edit that, not this: `invoke lock --check` refuses a hand edit."]
    text += [f"{key} = {_toml(value)}" for key, value in head.items()]
    text += [f"checksum = {_toml(digest([head, [m.name for m in lock.models]]))}", "", "[models]"]
    for model in lock.models:
        if model.repo:
            entry = {"repo": model.repo, "revision": model.revision, "commit": model.commit, "inputs": model.inputs}
        else:
            entry = {"content": model.commit, "inputs": model.inputs}
        text.append(_line(model.name, entry, [file.path for file in model.files]))
    for model in lock.models:
        text += ["", f"[files.{_toml(model.name)}]"]
        text += [_line(f.path, {"size": f.size, "sha256": f.sha256}, model.name) for f in model.files]
    write_whole(lock_path(), "\n".join(text) + "\n")


def read_lock() -> ModelsLock:
    """Read `models.lock`.

    Raises:
        LockError: it is missing, edited, or not a lock of this format; with the line.
    """
    where = paths.shown(lock_path())
    try:
        text = lock_path().read_text(encoding="utf-8")
        body = tomllib.loads(text)
    except FileNotFoundError:
        raise LockError("the models are not locked", where=where, fix=_RELOCK) from None
    except tomllib.TOMLDecodeError as problem:
        raise LockError(f"not a lock: {problem}", where=at_problem(lock_path(), problem), fix=_RESTORE) from None
    except UnicodeDecodeError:
        raise LockError("not a lock: not UTF-8", where=where, fix=_RESTORE) from None
    if body.get("format") != FORMAT:
        fix = f"relock once: {_RELOCK}"
        raise LockError(f"lock format {body.get('format')!r}, this Pinwheel reads {FORMAT}", where=where, fix=fix)
    return _Reader(text, body).lock()


class _Reader:
    """A lock that is TOML: its values, and on which line each stands."""

    def __init__(self, text: str, body: dict[str, Any]) -> None:
        self._lines, self._body = lines(text), body

    def lock(self) -> ModelsLock:
        head = {key: value for key, value in self._body.items() if key not in {"models", "files", "checksum"}}
        odd = sorted(set(head) ^ {"format", "inputs", "date"}) or [
            key for key in ("inputs", "date") if type(head[key]) is not str
        ]
        if odd:
            raise self._refused("", odd[0], "the head holds something else than format, inputs, date and checksum")
        tables, files = self._body.get("models"), self._body.get("files")
        if not isinstance(tables, dict) or not isinstance(files, dict) or not tables or list(tables) != list(files):
            raise self._refused("", "", "[models] and the tables [files.NAME] do not name the same models")
        models = tuple(self._model(name, tables[name], files[name]) for name in tables)
        self._sorted("models", list(tables))
        wrong = head["inputs"] != inputs_digest((model.name, model.inputs) for model in models)
        if wrong or self._body.get("checksum") != digest([head, list(tables)]):
            what = "edited by hand: the head, or which models there are, does not fit the checksum"
            raise self._refused("", "checksum", what)
        return ModelsLock(head["date"], models)

    def _model(self, name: str, entry: Any, files: Any) -> PinnedModel:
        if not isinstance(files, dict) or not files:
            raise self._refused("models", name, f"{name} has no files")
        pinned = tuple(self._file(name, path, line) for path, line in files.items())
        self._sorted(name, list(files))
        on_hub = not isinstance(entry, dict) or "content" not in entry
        self._entry(
            "models", name, entry, {"repo", "revision", "commit", "inputs"} if on_hub else {"content", "inputs"}, list(files)
        )
        if not on_hub and entry["content"] != content(pinned):
            raise self._refused("models", name, f"{name}: edited by hand: its content is not that of its files")
        if not all(isinstance(value, str) for value in entry.values()) or (on_hub and not COMMIT.fullmatch(entry["commit"])):
            raise self._refused("models", name, f"{name}: commit is no commit hash")
        if not NAME.fullmatch(name) or (on_hub and not REPO.fullmatch(entry["repo"])):
            where = f", or not a repository: {entry['repo']!r}" if on_hub else ""
            raise self._refused("models", name, f"{name}: not a model's name{where}")
        if not on_hub:
            return PinnedModel(name, "", "", entry["content"], entry["inputs"], pinned)
        return PinnedModel(name, entry["repo"], entry["revision"], entry["commit"], entry["inputs"], pinned)

    def _file(self, model: str, path: str, entry: Any) -> PinnedFile:
        self._entry(model, path, entry, {"size", "sha256"}, model)
        size, sha256 = entry["size"], entry["sha256"]
        if not isinstance(sha256, str) or not re.fullmatch("[0-9a-f]{64}", sha256):
            raise self._refused(model, path, f"{path!r}: not a sha256: {sha256!r}")
        if type(size) is not int or size < 0:
            raise self._refused(model, path, f"{path!r}: not a size: {size!r}")
        if problem := unsafe(path):
            raise self._refused(model, path, f"{path!r}: {problem}")
        return PinnedFile(path, size, sha256)

    def _entry(self, table: str, key: str, entry: Any, needed: set[str], bound: object) -> None:
        if not isinstance(entry, dict) or set(entry) != needed | {"check"}:
            raise self._refused(table, key, f"{key!r} needs exactly {', '.join(sorted(needed))} and check")
        rest = {name: value for name, value in entry.items() if name != "check"}
        if entry["check"] != _check(key, rest, bound):
            what = f"{key!r}: edited by hand: its check does not fit"
            raise self._refused(table, key, what if table != "models" else f"{what}, or files of it came or went")

    def _sorted(self, table: str, keys: list[str]) -> None:
        for before, after in itertools.pairwise(keys):
            if before > after:
                raise self._refused(table, after, f"{after!r} stands after {before!r}: not sorted")

    def _refused(self, table: str, key: str, what: str) -> LockError:
        line = self._lines.get((table, key)) or self._lines.get((table, ""))
        where = paths.shown(lock_path()) + (f":{line}" if line else "")
        return LockError(what, where=where, fix=_RESTORE)


def _line(key: str, entry: dict[str, Any], bound: object) -> str:
    fields = {**entry, "check": _check(key, entry, bound)}
    return f"{_toml(key)} = {{ {', '.join(f'{name} = {_toml(value)}' for name, value in fields.items())} }}"


def _check(key: str, entry: dict[str, Any], bound: object) -> str:
    # Against slips and merges, not against an enemy, who could write this as well: the files' own hashes are what binds.
    return digest([key, entry, bound]).removeprefix("sha256:")[:8]


def _toml(value: object) -> str:
    # JSON's strings and integers are TOML's, but for escaped pairs of surrogates: so nothing is escaped that need not be.
    return json.dumps(value, ensure_ascii=False)
