"""From what models.in asks for to what models.lock holds: which files of which commit, and that they are fit to load."""

from __future__ import annotations

import functools
import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from typing import Protocol

from common import console
from common.errors import LockError
from lockfiles.models import inputs as models_in
from lockfiles.models import remote_code
from lockfiles.models.hub import Hub, HubFile, Snapshot
from lockfiles.models.inputs import ModelInput
from lockfiles.models.local import Folder
from lockfiles.models.lockfile import PinnedFile, PinnedModel, content
from lockfiles.models.registered import Registered
from oci import safetensors

_PARALLEL = 6
_INDEX = ".safetensors.index.json"
# An index is a table of names: of the largest models it has a few megabytes.
_MAX_INDEX = 64 << 20


class _Source(Protocol):
    """Where the bytes of a snapshot are: a hub, or a folder."""

    def start(self, snapshot: Snapshot, file: HubFile, count: int) -> bytes: ...

    def digest(self, snapshot: Snapshot, file: HubFile) -> str: ...


def from_hub(hub: Hub, wanted: ModelInput, commit: str) -> PinnedModel:
    """Pin a model of a hub.

    Args:
        hub: the user's.
        wanted: what models.in says.
        commit: to stay at; empty for whatever the revision is now.

    Raises:
        LockError: the hub has no such model, revision or file, or offers what is not safe to load.
        MissingEnvironmentError: the hub does not answer.
    """
    gone = f"name another in {models_in.place(wanted.name)}"
    if commit:
        gone = f"`invoke lock --upgrade {wanted.name}` takes the newest of {wanted.revision}"
    return _pinned(hub, hub.snapshot(wanted.repo, commit or wanted.revision, gone=gone), wanted)


def from_folder(folder: Folder | Registered, wanted: ModelInput) -> PinnedModel:
    """Pin a model of a folder, or of a registry, by the same rules.

    Raises:
        LockError: as `from_hub`.
        MissingEnvironmentError: there is no such folder.
        RegistryError: the registry does not answer, refuses, or has no such model.
    """
    return _pinned(folder, folder.snapshot(), wanted)


def _pinned(source: _Source, snapshot: Snapshot, wanted: ModelInput) -> PinnedModel:
    chosen = _select(wanted, snapshot)
    with ThreadPoolExecutor(_PARALLEL) as pool:
        files = tuple(pool.map(functools.partial(_pin, source, snapshot), chosen))
    commit = snapshot.commit or content(files)
    pinned = PinnedModel(wanted.name, wanted.repo, wanted.revision, commit, wanted.digest, files)
    for file, listed in zip(files, chosen, strict=True):
        if file.path.endswith(_INDEX):
            data = source.start(snapshot, listed, min(file.size, _MAX_INDEX))
            _check_index(pinned, file, data, models_in.place(wanted.name))
    there = {file.path for file in snapshot.files}
    configurations = {
        listed.path: source.start(snapshot, listed, min(listed.size, remote_code.MOST))
        for listed in chosen
        if remote_code.names_code(listed.path)
    }
    locked = [file.path for file in files]
    for line in remote_code.findings(wanted.called, configurations, locked, there.__contains__):
        console.warn(line)
    return pinned


def _select(wanted: ModelInput, snapshot: Snapshot) -> list[HubFile]:
    """The files that the input takes, after seeing that each of its patterns takes one, and that there are weights."""
    where, there = models_in.place(wanted.name), [file.path for file in snapshot.files]
    for pattern in wanted.files + wanted.allow:
        meant = [path for path in there if fnmatchcase(path, pattern)]
        if not meant:
            raise LockError(f"{wanted.called} has no file {pattern!r}", where=where, fix="correct the pattern, or drop it")
        if not any(wanted.is_data(path) for path in meant):
            raise LockError(
                f"{meant[0]!r} of {wanted.called} may run code when it is loaded",
                where=where,
                fix=f"take safetensors, or state allow = [{pattern!r}] with the reason",
            )
    chosen = [file for file in snapshot.files if wanted.wants(file.path)]
    if not wanted.files and not wanted.allow and not any(file.path.endswith(".safetensors") for file in chosen):
        others = [path for path in there if not wanted.is_data(path) and not path.startswith(".")]
        offers = f"it offers {', '.join(repr(path) for path in others[:3])}" if others else "and no other weights either"
        ours = "many repositories have a converted revision (refs/pr/NUMBER, see its discussions on the hub)"
        fix = f"{ours if wanted.repo else 'convert its weights'}; else state allow with the reason, or in files what you want"
        raise LockError(f"{wanted.called} has no safetensors: {offers}", where=where, fix=fix)
    return chosen


def _pin(source: _Source, snapshot: Snapshot, file: HubFile) -> PinnedFile:
    if file.path.endswith(".safetensors"):
        name = f"{file.path} of {snapshot.repo}"
        safetensors.check(name, file.size, lambda count: source.start(snapshot, file, count))
    return PinnedFile(file.path, file.size, file.sha256 or source.digest(snapshot, file))


def _check_index(model: PinnedModel, index: PinnedFile, data: bytes, where: str) -> None:
    """Refuse an index that names shards which are not locked: the model would not load."""
    fix = "pin another revision, or another model"
    if hashlib.sha256(data).hexdigest() != index.sha256:
        raise LockError(f"{index.path} of {model.called} changed while it was read", where=where, fix=fix)
    try:
        shards = json.loads(data)["weight_map"].values()
        folder = index.path.rpartition("/")[0]
        named = sorted({f"{folder}/{shard}" if folder else str(shard) for shard in shards})
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise LockError(f"{index.path} of {model.called} is no index of shards", where=where, fix=fix) from None
    missing = [shard for shard in named if shard not in {file.path for file in model.files}]
    if missing:
        what = f"{index.path} of {model.called} names {missing[0]!r}, which is not among the locked files"
        raise LockError(what, where=where, fix="let files take every shard, or leave the index out")
