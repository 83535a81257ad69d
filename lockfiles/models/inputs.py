"""`models.in`, kept by hand: which models are pinned, and which of their files.

TOML, one table per model; unknown keys are refused:

    [models.tiny]
    repo = "organisation/name"
    revision = "main"                       # a branch, a tag or a commit
    files = ["*.json", "*.safetensors"]     # optional; default: DATA below
    allow = ["*.bin"]                       # optional: files of other formats than DATA, and
    reason = "…"                            # why they may be loaded

    [models.ours]
    path = "models/ours"                    # a folder instead of a hub: from the checkout's root, or absolute

    [models.next]
    artifact = "registry.example.com/models/ours@sha256:…"   # what a training registered, by digest

    [models.demo]
    made = "demonstration"                  # Pinwheel makes it on the spot: demonstration.py

A pattern is a shell's, over the whole path, and its `*` takes `/` too, as in huggingface_hub's allow_patterns.
"""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from common import paths
from common.errors import UsageError
from oci.reference import ImageRef

# Part of every digest: a change of what models.in or models.lock means makes the lock stale.
FORMAT = 1
# What a loader needs and what is only ever data. Pickles and code are not among it: both run as soon as they are loaded.
DATA = (
    "*.safetensors",
    "*.json",
    "*.txt",
    "*.model",
    "*.tiktoken",
    "*.jinja",
    "*.md",
    "LICENSE",
    "NOTICE",
)
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,39}")
REPO = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")
# What Pinwheel makes by itself.
DEMONSTRATION = "demonstration"
_CHOICE = {"files", "allow", "reason"}
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/+-]*")
_HEADER = re.compile(r'\s*\[\s*(?:models\.|files\.)?"?([^"\]]*)"?\s*\]')
_KEY = re.compile(r'\s*("(?:[^"\\]|\\.)*"|[A-Za-z0-9_-]+)\s*=')


@dataclass(frozen=True, slots=True)
class ModelInput:
    """A model as `models.in` asks for it.

    Attributes:
        name: ours.
        repo: on the hub, `organisation/name`; empty for a model that is on none.
        revision: a branch, a tag or a commit; empty without a repository.
        files: patterns of the files to take; empty for all that is DATA.
        allow: patterns of files that may be taken although they are not DATA.
        digest: over all of that, and over what DATA means.
        path: the folder that it lies in, from the checkout's root or absolute; empty for others.
        made: what Pinwheel makes by itself; empty for others.
        artifact: its place in a registry, by digest; empty for others.
    """

    name: str
    repo: str
    revision: str
    files: tuple[str, ...]
    allow: tuple[str, ...]
    digest: str
    path: str = ""
    made: str = ""
    artifact: str = ""

    @property
    def called(self) -> str:
        """As messages name it: by its repository, or, where it is on no hub, by our name."""
        return self.repo or self.name

    def is_data(self, path: str) -> bool:
        """Whether the file may be taken: it is of a format that is only ever data, or was allowed."""
        return _any(path, DATA) or _any(path, self.allow)

    def wants(self, path: str) -> bool:
        """Whether the file is taken."""
        return self.is_data(path) and (not self.files or _any(path, self.files) or _any(path, self.allow))


def input_path() -> Path:
    """Where `models.in` lies."""
    return paths.LOCKFILES / "models.in"


def read_input() -> tuple[ModelInput, ...]:
    """The models of `models.in`, sorted by name; none where there is no such file.

    Raises:
        UsageError: it is no TOML, or says something unknown or unfit; with the line.
    """
    try:
        text = input_path().read_text(encoding="utf-8-sig")
        body = tomllib.loads(text)
    except FileNotFoundError:
        return ()
    except tomllib.TOMLDecodeError as problem:
        raise UsageError(f"not TOML: {problem}", where=at_problem(input_path(), problem), fix="mend it") from None
    except UnicodeDecodeError:
        raise UsageError("not UTF-8", where=paths.shown(input_path()), fix="save it in UTF-8") from None
    tables = body.pop("models", {})
    if body or not isinstance(tables, dict):
        key = next(iter(body), "models")
        raise UsageError(f"unknown key {key!r}", where=_place(text, "", key), fix="write one table [models.NAME] per model")
    return tuple(parse_input(name, entry, text) for name, entry in sorted(tables.items()))


def place(name: str) -> str:
    """Where a model stands in `models.in`, for messages."""
    try:
        return _place(input_path().read_text(encoding="utf-8"), name, "")
    except (OSError, UnicodeDecodeError):
        return paths.shown(input_path())


def parse_input(name: str, entry: Any, text: str) -> ModelInput:
    """A table of `models.in`.

    Args:
        name: the table's, which is the model's.
        entry: what it holds.
        text: of the whole file, for the line in messages.

    Raises:
        UsageError: it says something unknown or unfit; with the line.
    """

    def refused(key: str, what: str, fix: str) -> UsageError:
        return UsageError(f"models.{name}: {what}", where=_place(text, name, key), fix=fix)

    if not NAME.fullmatch(name):
        raise refused("", "not a name", "small letters, digits, `.`, `_` and `-`, 40 at most")
    source = next((key for key in ("made", "path", "artifact") if isinstance(entry, dict) and key in entry), "repo")
    known = {"made": {"made"}, "repo": {"repo", "revision", *_CHOICE}}.get(source, {source, *_CHOICE})
    if source == "repo" and (not isinstance(entry, dict) or not {"repo", "revision"} <= set(entry)):
        fix = "state both; a revision is a branch, a tag or a commit; or state path, a folder, or artifact"
        raise refused("", "repo and revision are missing", fix)
    if unknown := sorted(set(entry) - known):
        beside = "" if source == "repo" else f" beside {source}"
        raise refused(unknown[0], f"unknown key {unknown[0]!r}{beside}", f"known are {', '.join(sorted(known))}")
    value = entry[source]
    if source == "made" and value != DEMONSTRATION:
        raise refused("made", f"Pinwheel makes no {value!r}", f'write made = "{DEMONSTRATION}"')
    if source == "path" and (not isinstance(value, str) or not value.strip() or not value.isprintable() or value[0] == "~"):
        raise refused("path", f"not a folder: {value!r}", "write it from the checkout's root, or absolute")
    if source == "artifact" and not _by_digest(value):
        fix = "write it as registry/repository@sha256:…, as `register` printed it"
        raise refused("artifact", f"not a model of a registry, by digest: {value!r}", fix)
    if source == "repo":
        revision = entry["revision"]
        if not isinstance(value, str) or not REPO.fullmatch(value) or re.search(r"--|\.\.|[.-](/|$)", value) or len(value) > 96:
            raise refused("repo", f"not a repository: {value!r}", 'write it as on the hub: "organisation/name"')
        if not isinstance(revision, str) or not _REVISION.fullmatch(revision) or ".." in revision:
            raise refused("revision", f"not a revision: {revision!r}", "name a branch, a tag or a commit")
    for key in ("files", "allow"):
        patterns = entry.get(key, ["*"])
        if not isinstance(patterns, list) or not patterns or not all(isinstance(one, str) and one for one in patterns):
            raise refused(key, f"{key} is no list of patterns", 'write for example ["*.json"], or leave it out')
    reason = entry.get("reason", "")
    if ("allow" in entry) != ("reason" in entry) or not isinstance(reason, str) or ("reason" in entry and not reason.strip()):
        raise refused("allow", "allow and reason go together", "say in reason why these files may be loaded")
    files, allow = tuple(sorted(entry.get("files", []))), tuple(sorted(entry.get("allow", [])))
    if source == "repo":
        return ModelInput(name, value, revision, files, allow, digest([FORMAT, DATA, value, revision, files, allow]))
    asked = digest([FORMAT, DATA, {source: value}, files, allow])
    return ModelInput(name, "", "", files, allow, asked, **{source: value})


def _by_digest(value: Any) -> bool:
    try:
        return isinstance(value, str) and bool(ImageRef.parse(value).digest)
    except ValueError:
        return False


def lines(text: str) -> dict[tuple[str, str], int]:
    """On which line each table and key of models.in or models.lock stands: (table, key), (table, ""), ("", key)."""
    found: dict[tuple[str, str], int] = {}
    table = ""
    for number, line in enumerate(text.splitlines(), 1):
        if header := _HEADER.match(line):
            table = header[1]
            found.setdefault((table, ""), number)
        elif key := _KEY.match(line):
            name = key[1]
            if name.startswith('"'):
                try:
                    name = json.loads(name)
                except ValueError:
                    continue
            found.setdefault((table, name), number)
    return found


def at_problem(file: Path, problem: tomllib.TOMLDecodeError) -> str:
    """Where a file is no TOML, for messages."""
    at = re.search(r"at line (\d+)", str(problem))
    return paths.shown(file) + (f":{at[1]}" if at else "")


def inputs_digest(models: Iterable[tuple[str, str]]) -> str:
    """The digest of all inputs together, from (name, digest) of each, sorted by name."""
    return digest(list(models))


def digest(body: object) -> str:
    """`sha256:…` of a value's meaning."""
    text = json.dumps(body, sort_keys=True, separators=(",", ":"), default=repr)
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def _place(text: str, table: str, key: str) -> str:
    found = lines(text)
    line = found.get((table, key)) or found.get((table, ""))
    return paths.shown(input_path()) + (f":{line}" if line else "")


def _any(path: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(path, pattern) for pattern in patterns)
