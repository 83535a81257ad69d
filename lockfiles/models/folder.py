"""A model as a folder that a loader's `from_pretrained()` takes: laid out from the store, whole or not at all.

The folder may lie anywhere and hold other files too, which stay, but no other weights and no code. `.pinwheel-model` in it,
in the form that `sha256sum --check` reads, says which files are ours: only these, and only unchanged, are ever replaced or
removed.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common.errors import LockError, MissingEnvironmentError, UsageError
from common.files import CHUNK, sha256_file, write_whole
from lockfiles import store
from lockfiles.models.hub import unsafe
from lockfiles.models.lockfile import PinnedFile, PinnedModel

RECORD = ".pinwheel-model"
PART = ".pinwheel-part"
# What a loader may take instead of the model's own files, or run.
_TAKEN = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".gguf", ".py")
# Without it no loader takes the folder: it goes first and comes last.
_ENTRY = "config.json"
# A link is one file with the store's: what people edit, which is small, becomes a copy of its own.
_LINKED = 16 << 20


def lay_out(model: PinnedModel, target: Path) -> bool:
    """Make the folder hold the model; False where it does already.

    Raises:
        LockError: a file is not in the store, or is altered there.
        UsageError: the folder holds something that is not ours where the model's file goes, or other weights or code.
        MissingEnvironmentError: no permission or no space, or another process has the same folder in hand.
    """
    target = target.absolute()
    if target.is_symlink() or target.exists():
        # A link to a folder is followed: volumes are often mounted elsewhere and linked.
        target = target.resolve()
        if not target.is_dir():
            raise UsageError("not a folder", where=str(target), fix="name another")
    for file in model.files:
        if not store.has(file.artifact):
            raise LockError(f"{file.path} of {model.name} is not in the store", where=str(target), fix="run `invoke fetch`")
    try:
        with _staging(target) as stage:
            return _replace(model, target, stage) if target.exists() else _create(model, target, stage)
    except OSError as problem:
        full = problem.errno in {errno.ENOSPC, errno.EDQUOT}
        what = "no space left for the model" if full else f"the model cannot be laid out: {problem.strerror}"
        raise MissingEnvironmentError(what, where=str(target), fix="name a folder elsewhere") from None


def _create(model: PinnedModel, target: Path, stage: Path) -> bool:
    for file in model.files:
        _place(file, stage)
    _record(stage, _sets(_pairs(model)))
    stage.rename(target)
    return True


def _replace(model: PinnedModel, target: Path, stage: Path) -> bool:
    wanted, before = _pairs(model), _recorded(target)
    present = {path: _sha256(target, path) for path in wanted}
    stale = [path for path in before if path not in wanted and _is_one_of(target, path, before[path])]
    for path, sha256 in wanted.items():
        if present[path] not in {"", sha256, *before.get(path, ())}:
            fix = "move it away, or name another folder"
            raise UsageError(f"a file that is not ours stands where the model's {path} goes", where=str(target), fix=fix)
    for other in sorted(str(file.relative_to(target)) for file in target.rglob("*") if file.suffix in _TAKEN):
        if other not in wanted and other not in stale and not other.startswith(PART):
            fix = "move it away, or name another folder"
            raise UsageError(f"a loader may take {other}, which is not the model's", where=str(target), fix=fix)
    changed = [path for path, sha256 in wanted.items() if present[path] != sha256]
    if not changed and not stale:
        if before != {path: {sha256} for path, sha256 in wanted.items()}:
            _record(target, _sets(wanted))
        return False
    coming = sorted(file.path for file in model.files if file.path in changed or file.path == _ENTRY)
    for file in model.files:
        if file.path in coming:
            _place(file, stage)
    # From here on nothing can fail for lack of space. Whoever is killed leaves a folder that does not load, and whose files
    # are known as ours: the next run goes on.
    _record(target, {path: {*before.get(path, ()), *_sets(wanted).get(path, ())} for path in {*before, *wanted}})
    for path in sorted({*stale, *coming} & {_ENTRY}) + stale:
        (target / path).unlink(missing_ok=True)
    for path in sorted(coming, key=lambda path: path == _ENTRY):
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        (stage / path).replace(target / path)
    emptied = {parent for path in stale for parent in (target / path).parents if target in parent.parents}
    for folder in sorted(emptied, reverse=True):
        with contextlib.suppress(OSError):  # Not empty: it is not ours alone.
            folder.rmdir()
    _record(target, _sets(wanted))
    return True


def _pairs(model: PinnedModel) -> dict[str, str]:
    return {file.path: file.sha256 for file in model.files}


def _sets(pairs: dict[str, str]) -> dict[str, set[str]]:
    return {path: {sha256} for path, sha256 in pairs.items()}


def _record(folder: Path, known: dict[str, set[str]]) -> None:
    text = "".join(f"{sha256}  {path}\n" for path, hashes in sorted(known.items()) for sha256 in sorted(hashes))
    write_whole(folder / RECORD, text)


def _recorded(folder: Path) -> dict[str, set[str]]:
    """What earlier runs laid out; a line that none of ours could be counts for nothing."""
    try:
        text = (folder / RECORD).read_text(encoding="utf-8")
    except (FileNotFoundError, UnicodeDecodeError):
        return {}
    found: dict[str, set[str]] = {}
    for sha256, path in re.findall(r"^([0-9a-f]{64})  (.+)$", text, re.MULTILINE):
        if not unsafe(path):
            found.setdefault(path, set()).add(sha256)
    return found


def _sha256(folder: Path, path: str) -> str:
    """The hash of a file that is there; empty where none is.

    Raises:
        UsageError: something else than a file of the folder's own is there: a link, or a folder.
    """
    *above, _ = path.split("/")
    at = folder
    for part in above:
        at /= part
        if at.is_symlink() or (at.exists() and not at.is_dir()):
            raise UsageError(f"{path} cannot go below what is no folder", where=str(at), fix="move it away")
    file = folder / path
    if file.is_symlink() or (file.exists() and not file.is_file()):
        raise UsageError(f"something that is no file stands where the model's {path} goes", where=str(file), fix="move it away")
    return sha256_file(file).removeprefix("sha256:") if file.exists() else ""


def _is_one_of(folder: Path, path: str, known: set[str]) -> bool:
    try:
        return _sha256(folder, path) in known
    except UsageError:
        return False


def _place(file: PinnedFile, stage: Path) -> None:
    """Put a file of the store into the folder in the making, by its verified bytes."""
    target, artifact = stage / file.path, file.artifact
    target.parent.mkdir(parents=True, exist_ok=True)
    if file.size >= _LINKED:
        source = store.verified(artifact)
        # Another file system, or a kernel that lets nobody link what is not theirs.
        with contextlib.suppress(OSError):
            os.link(source, target)
            return
    digest = hashlib.sha256()
    with store.path(artifact).open("rb") as source_file, target.open("wb") as out:
        while chunk := source_file.read(CHUNK):
            digest.update(chunk)
            out.write(chunk)
        out.flush()
        os.fsync(out.fileno())
    if digest.hexdigest() != file.sha256:
        # Says so, and removes it from the store.
        store.verified(artifact)
        raise LockError(f"{file.path} changed in the store while it was copied", where=str(target), fix="run it again")


@contextmanager
def _staging(target: Path) -> Iterator[Path]:
    """A folder beside the target's files, on their file system; what a killed run left in it is removed."""
    inside = target.exists()
    stage = (target if inside else target.parent) / (PART if inside else f".{target.name}{PART}")
    stage.mkdir(parents=True, exist_ok=True)
    fd = os.open(stage, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held = os.path.samestat(os.fstat(fd), stage.stat())
        except (BlockingIOError, FileNotFoundError):
            held = False
        if not held or inside != target.exists():
            raise MissingEnvironmentError("another process lays out a model here", where=str(target), fix="wait for it")
        _empty(stage)
        try:
            yield stage
        finally:
            # Gone where it became the target.
            if stage.exists():
                shutil.rmtree(stage)
    finally:
        os.close(fd)


def _empty(folder: Path) -> None:
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
