"""What `invoke train` wrote about a run: `run.json` and `base-model.json` of the run's ConfigMap."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import UsageError
from oci.reference import ImageRef

from .artifact import unsafe
from .files import PinnedFile

_FORMAT = 2
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,39}")


@dataclass(frozen=True, slots=True)
class Run:
    """One run.

    Attributes:
        version: names it; a DNS label.
        experiment: the configuration's path in git.
        source: git's revision.
        model: where the model goes.
        dataset: the data set's artifact, by digest.
        template: LLaMA-Factory's.
        train_image: by digest.
        base_repository: where the base model is in the registry, if it is there.
        base, data, output, export, logs: folders.
    """

    version: str
    experiment: str
    source: str
    model: ImageRef
    dataset: ImageRef
    template: str
    train_image: str
    base_repository: ImageRef
    base: Path
    data: Path
    output: Path
    export: Path
    logs: Path


@dataclass(frozen=True, slots=True)
class Base:
    """The base model, as the model lock pins it.

    Attributes:
        name: ours.
        repo: on the hub; empty for a model that is on none.
        revision: the hub's commit, 40 hex digits; without a hub the digest of its content, 64.
        files: sorted by path.
    """

    name: str
    repo: str
    revision: str
    files: tuple[PinnedFile, ...]

    @property
    def called(self) -> str:
        """As messages name it: by its repository, or, where it is on no hub, by our name."""
        return self.repo or self.name


def read_run(config: Path) -> Run:
    """Read `run.json`.

    Raises:
        UsageError: the file makes no sense.
    """
    body = _read(config / "run.json")
    try:
        if body["format"] != _FORMAT:
            raise ValueError(f"format {body['format']!r}, this is {_FORMAT}")
        if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,48}[a-z0-9])?", body["version"]):
            raise ValueError(f"version {body['version']!r} is no DNS label of 50 characters")
        if not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", body["template"]):
            raise ValueError(f"template {body['template']!r}")
        paths = {name: Path(body["paths"][name]) for name in ("base", "dataset", "output", "export", "logs")}
        if not all(path.is_absolute() and ".." not in path.parts for path in paths.values()):
            raise ValueError("a path that is not absolute")
        return Run(
            body["version"],
            str(body["experiment"]),
            str(body["source"]),
            ImageRef.in_registry(body["model"], pinned=False),
            ImageRef.in_registry(body["dataset"], pinned=True),
            body["template"],
            str(body["train-image"]),
            ImageRef.in_registry(body["base-repository"], pinned=False),
            paths["base"],
            paths["dataset"],
            paths["output"],
            paths["export"],
            paths["logs"],
        )
    except (ValueError, KeyError, TypeError, AttributeError) as problem:
        raise _unreadable(config / "run.json", problem) from None


def read_base(config: Path) -> Base:
    """Read `base-model.json`.

    Raises:
        UsageError: the file makes no sense, or names files that must not be written.
    """
    file = config / "base-model.json"
    body = _read(file)
    try:
        files = tuple(PinnedFile(entry["path"], entry["size"], entry["sha256"]) for entry in body["files"])
        for pinned in files:
            problem = unsafe_base(pinned.path)
            if problem or type(pinned.size) is not int or pinned.size < 0 or not re.fullmatch(r"[0-9a-f]{64}", pinned.sha256):
                raise ValueError(f"file {pinned.path!r}: {problem or 'size or digest'}")
        if not files or len({entry.path for entry in files}) != len(files):
            raise ValueError("no files, or a file twice")
        on_hub = body["repo"] != ""
        if on_hub and not re.fullmatch(r"[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)?", body["repo"]):
            raise ValueError("repo makes no sense")
        if not _NAME.fullmatch(body["name"]) or not re.fullmatch(f"[0-9a-f]{{{40 if on_hub else 64}}}", body["revision"]):
            raise ValueError("name or revision makes no sense")
        return Base(body["name"], body["repo"], body["revision"], tuple(sorted(files, key=lambda entry: entry.path)))
    except (ValueError, KeyError, TypeError, AttributeError) as problem:
        raise _unreadable(file, problem) from None


def unsafe_base(path: str) -> str:
    """As `artifact.unsafe`; but a hub's hidden files, such as .gitattributes, may be locked too."""
    return unsafe("/".join(part if part in {".", ".."} else part.lstrip(".") or part for part in path.split("/")))


def _read(file: Path) -> dict[str, Any]:
    try:
        body = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise _unreadable(file, problem) from None
    if not isinstance(body, dict):
        raise _unreadable(file, ValueError("no object"))
    return body


def _unreadable(file: Path, problem: Exception) -> UsageError:
    return UsageError(f"{file} is not what `invoke train` writes: {type(problem).__name__}: {problem}")
