"""The data of an experiment: `dataset_info.json` beside it and the files it names, checked as LLaMA-Factory will read them.

Form of dataset_info.json and defaults of its columns and tags: llamafactory/data/parser.py, `DatasetAttr`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from common.files import sha256_bytes, sha256_file
from k8s.objects.findings import Finding
from k8s.training import rows

INFO = "dataset_info.json"
_KNOWN = frozenset({"file_name", "formatting", "ranking", "split", "num_samples", "columns", "tags", "file_sha1"})
_ELSEWHERE = {
    "hf_hub_url": "a dataset on a hub",
    "ms_hub_url": "a dataset on a hub",
    "om_hub_url": "a dataset on a hub",
    "cloud_file_name": "a file in a cloud's storage",
    "script_url": "a script",
    "subset": "a part of a dataset on a hub",
    "folder": "a part of a dataset on a hub",
}
# What the pods take of a dataset: rows, pictures, sounds; nothing that a loader might run.
_ENDINGS = (".json", ".jsonl", ".png", ".jpg", ".jpeg", ".webp", ".wav", ".mp3", ".mp4")
_MOST_FILES = 4000
_BESIDE = "LLaMA-Factory pins no revision of it: bring its rows into a JSON or JSONL file here and name that in file_name"


@dataclass(frozen=True, slots=True)
class DataFile:
    """A file of a dataset.

    Attributes:
        path: below the dataset's folder, with `/`.
        size: bytes.
        digest: `sha256:…`.
        source: where its bytes are; None for `data`.
        data: its bytes, where there is no file of them.
    """

    path: str
    size: int
    digest: str
    source: Path | None = None
    data: bytes = b""


@dataclass(frozen=True, slots=True)
class Dataset:
    """What an experiment trains on.

    Attributes:
        files: those it uses and no others, sorted by path.
        question: one that the trained model should be able to answer; empty: none was found.
    """

    files: tuple[DataFile, ...]
    question: str = ""


class _Reading:
    """One folder while it is looked at."""

    def __init__(self, folder: Path, shown: str) -> None:
        self.folder, self.file = folder, f"{shown}/{INFO}"
        self.found: list[Finding] = []
        self.files: dict[str, DataFile] = {}
        self.text = ""
        self.question = ""

    def refuse(self, path: str, what: str, fix: str, *, file: str = "", line: int = 0) -> None:
        self.found.append(Finding(file or self.file, line or self._line(path), "", path, what, fix))

    def _line(self, path: str) -> int:
        """Where the entry stands: the first line that holds its name as a key."""
        wanted = json.dumps(path.partition(".")[0])
        return next((number for number, line in enumerate(self.text.splitlines(), 1) if wanted in line), 1)

    def take(self, name: str, path: str, said: str) -> Path | None:
        """A file named by `said`, if it is one of this folder."""
        place = PurePosixPath(name)
        if not name or place.is_absolute() or ".." in place.parts or "\\" in name or "://" in name:
            self.refuse(path, f"{said} {name!r} is no path below the folder", "write the file's name relative to the folder")
            return None
        hidden = any(part.startswith(".") for part in place.parts) or name.endswith(".part")
        if hidden or not name.isprintable() or len(name.encode()) > 255 or place.suffix.lower() not in _ENDINGS:
            fix = f"give it a plain name that ends in one of {', '.join(_ENDINGS)}"
            self.refuse(path, f"{said} {name!r} has a name that no dataset in the registry may hold", fix)
            return None
        target = self.folder / place
        if not target.resolve().is_relative_to(self.folder.resolve()):
            self.refuse(path, f"{said} {name!r} leads out of the folder", "put the file itself here, no link")
            return None
        if not target.is_file():
            self.refuse(path, f"{said} {name!r} does not exist", f"put it beside {INFO}, or mend its name")
            return None
        key = str(place)
        if key not in self.files:
            self.files[key] = DataFile(key, target.stat().st_size, sha256_file(target), target)
        return target


def read(
    folder: Path, shown: str, names: Iterable[str], stage: str, takes: frozenset[str]
) -> tuple[Dataset, tuple[Finding, ...]]:
    """Read and check the datasets of an experiment.

    Args:
        folder: holds dataset_info.json.
        shown: the folder, for messages.
        names: of the datasets, as the experiment gives them.
        stage: of the training: it decides what rows must hold.
        takes: the columns of media that the template takes.

    Returns:
        The files in use, dataset_info.json reduced to the entries in use among them, and everything that is wrong.
    """
    reading = _Reading(folder, shown)
    info = _info(reading)
    used: dict[str, Any] = {}
    for name in names if info is not None else ():
        entry = (info or {}).get(name)
        if entry is None:
            there = ", ".join(sorted(info or {})) or "none"
            reading.refuse("", f"there is no dataset {name!r}", f"describe it here, or name one that there is: {there}")
        elif not isinstance(entry, dict):
            reading.refuse(name, "an entry is a mapping", 'write {"file_name": "…"}')
        else:
            used[name] = entry
            _entry(reading, name, entry, stage, takes)
    text = (json.dumps(used, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()
    described = DataFile(INFO, len(text), sha256_bytes(text), data=text)
    files = (described, *(one for path, one in reading.files.items() if path != INFO))
    return Dataset(tuple(sorted(files, key=lambda one: one.path)), reading.question), tuple(reading.found)


def _info(reading: _Reading) -> dict[str, Any] | None:
    try:
        reading.text = (reading.folder / INFO).read_text(encoding="utf-8")
        body = json.loads(reading.text, object_pairs_hook=_once)
    except FileNotFoundError:
        reading.refuse("", "missing", "describe the datasets there, as LLaMA-Factory has it: docs/training.md")
    except UnicodeDecodeError:
        reading.refuse("", "not UTF-8", "save it as UTF-8")
    except (ValueError, RecursionError) as problem:
        reading.refuse("", f"not JSON: {problem}", "mend it", line=getattr(problem, "lineno", 1))
    else:
        if isinstance(body, dict):
            return body
        reading.refuse("", "not a mapping of datasets", 'write {"name": {"file_name": "…"}}')
    return None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for number, (key, _) in enumerate(pairs) if key in dict(pairs[:number]))
        raise ValueError(f"the key {twice!r} stands twice")
    return found


def _entry(reading: _Reading, name: str, entry: Mapping[str, Any], stage: str, takes: frozenset[str]) -> None:
    elsewhere = [key for key in entry if key in _ELSEWHERE]
    for key in elsewhere:
        reading.refuse(f"{name}.{key}", f"{_ELSEWHERE[key]} is named", _BESIDE)
    for key in entry:
        if key not in _KNOWN and key not in _ELSEWHERE:
            reading.refuse(f"{name}.{key}", "unknown key", f"known are {', '.join(sorted(_KNOWN))}")
    shape, wrong = rows.shape(entry, stage, takes)
    for path, what, fix in wrong:
        reading.refuse(f"{name}.{path}" if path else name, what, fix)
    file_name = entry.get("file_name")
    if elsewhere:
        return
    if not isinstance(file_name, str):
        reading.refuse(f"{name}.file_name", "missing", "name a JSON or JSONL file of this folder")
        return
    if Path(file_name).suffix not in {".json", ".jsonl"}:
        reading.refuse(f"{name}.file_name", f"{file_name!r} is no JSON or JSONL", "write the rows as .json or .jsonl")
        return
    target = reading.take(file_name, f"{name}.file_name", "the file")
    if target is None or shape is None:
        return
    shown = f"{reading.file.rpartition('/')[0]}/{file_name}"
    media: dict[str, str] = {}
    reading.question = reading.question or rows.first_question(target, shape)
    for line, path, what, fix in rows.check(target, shape, media):
        reading.refuse(path, what, fix, file=shown, line=line)
    if len(media) > _MOST_FILES:
        reading.refuse(name, f"{len(media)} media files are more than {_MOST_FILES}", "take fewer", file=shown, line=1)
        return
    for one, path in sorted(media.items()):
        reading.take(one, path, "the media file")
