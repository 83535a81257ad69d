"""Base models as inputs: pinned by commit and content, fetched into the store, laid out for a loader.

`models.in` says which (inputs.py), `models.lock` by which bytes (lockfile.py); the user's hub has them (hub.py), or a folder
(local.py), such as that of the model that Pinwheel makes by itself (demonstration.py).
"""

from __future__ import annotations

import datetime
import functools
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

from common import console, paths
from common.errors import LockError, UsageError
from lockfiles import store
from lockfiles.model import Artifact
from lockfiles.models import account as hub_account
from lockfiles.models import folder as model_folder
from lockfiles.models import inputs as models_in
from lockfiles.models import local, places, registered
from lockfiles.models import lockfile as models_lock
from lockfiles.models import resolve as models_resolve
from lockfiles.models.hub import COMMIT, Hub
from lockfiles.models.inputs import ModelInput
from lockfiles.models.lockfile import ModelsLock, PinnedModel
from lockfiles.store import mirror
from oci import safetensors

_RELOCK = "run `invoke lock`"


def names() -> tuple[str, ...]:
    """The models that models.in asks for, sorted.

    Raises:
        UsageError: models.in makes no sense.
    """
    return tuple(model.name for model in models_in.read_input())


def commits() -> dict[str, str]:
    """What stands for each locked model, by name: its commit, or the digest of its content; none without a good lock."""
    return {model.name: model.commit for model in _locked().models}


def resolve_all(upgrade: str = "") -> ModelsLock:
    """What models.lock should hold; writes nothing.

    A model whose input did not change keeps its commit and asks no network; one whose revision is a branch, or that lies in a
    folder, moves only when it is named.

    Args:
        upgrade: a model whose branch may have moved, or `all`; another name is somebody else's.

    Raises:
        UsageError: models.in makes no sense.
        LockError: the hub has no such model, revision or file, or it or a folder offers what is not safe to load.
        MissingEnvironmentError: the hub does not answer, or there is no such folder.
        RegistryError: a registry does not answer, or has no such model.
    """
    wanted = models_in.read_input()
    locked = _locked()
    before = {model.name: model for model in locked.models}
    found: list[PinnedModel] = []
    for model in wanted:
        old, named = before.get(model.name), upgrade in {"all", model.name}
        if old and old.inputs == model.digest and not named:
            found.append(old)
            continue
        same = old and not named and (old.repo, old.revision) == (model.repo, model.revision)
        with console.step(f"resolving the model {model.name}") as notes:
            found.append(_resolve(model, old.commit if old and same else ""))
            notes.append(f"{len(found[-1].files)} files, {console.size(found[-1].size)}")
    # Where nothing moved, not a byte of the lock changes.
    date = locked.date if locked.models == tuple(found) else datetime.datetime.now(datetime.UTC).date().isoformat()
    return ModelsLock(date, tuple(found))


def write(lock: ModelsLock) -> None:
    """Write models.lock, whole or not at all, and say which models moved."""
    before = {model.name: model for model in _locked().models}
    models_lock.write_lock(lock)
    after = {model.name: model for model in lock.models}
    for name in sorted({*before, *after}):
        old, new = (side[name].commit[:12] if name in side else "" for side in (before, after))
        if old != new:
            console.info(f"model {name}  {old or 'absent'} → {new or 'gone'}")


def check() -> str:
    """Check models.lock against models.in and against itself; asks no network. Returns the outcome in a few words.

    Raises:
        UsageError: models.in makes no sense; with the line.
        LockError: models.lock is missing, stale or was edited; with the line.
    """
    wanted = models_in.read_input()
    if not wanted and not models_lock.lock_path().exists():
        return "no model is pinned"
    locked = {model.name: model for model in models_lock.read_lock().models}
    asked = {model.name: model for model in wanted}
    for name in sorted({*asked, *locked}):
        if name not in locked:
            raise LockError(f"the model {name} is not locked", where=models_in.place(name), fix=_RELOCK)
        if name not in asked:
            where = paths.shown(models_lock.lock_path())
            raise LockError(f"the model {name} is locked, and models.in does not ask for it", where=where, fix=_RELOCK)
        old, new = locked[name], asked[name]
        if old.inputs != new.digest:
            raise LockError(f"models.{name} changed since it was locked", where=models_in.place(name), fix=_RELOCK)
        odd = [f"the file {file.path!r}" for file in old.files if not new.wants(file.path)]
        if COMMIT.fullmatch(new.revision) and old.commit != new.revision:
            odd.append(f"the commit {old.commit}")
        if odd:
            what = f"the lock of the model {name} holds {odd[0]}, which models.in does not take"
            raise LockError(what, where=models_in.place(name), fix=_RELOCK)
    return f"models.lock fits models.in: {', '.join(locked)}"


def artifacts(chosen: Iterable[str] | None = None) -> tuple[Artifact, ...]:
    """Every locked file of these models, default all, as the store, the mirror and `store --prune` know it.

    Raises:
        UsageError: no such model.
        LockError: models.lock is missing or was edited.
    """
    return tuple(file.artifact for model in _chosen(chosen) for file in model.files)


def pinned(name: str) -> PinnedModel:
    """A locked model.

    Raises:
        UsageError: no such model.
        LockError: models.lock is missing or was edited.
    """
    (model,) = _chosen([name])
    return model


def fetch(chosen: Iterable[str] | None = None) -> None:
    """Bring the files of these models, default all, into the store.

    Raises:
        UsageError: no such model.
        LockError: a commit or a file is gone or altered, or is no safetensors file.
        MissingEnvironmentError: no network, no access, no disk, no such folder.
    """
    models = _chosen(chosen)
    if not models:
        return
    with ExitStack() as held:
        # A folder is looked at only when the store lacks something of its model.
        http = held.enter_context(hub_account.session())
        absent = {one.sha256 for one in store.take((f.artifact for m in models for f in m.files), mirror.places(), http)}
        lacking = [model for model in models if not model.repo and any(file.sha256 in absent for file in model.files)]
        folders = []
        for model in lacking:
            wanted = _input(model.name)
            if not wanted.artifact:
                folders.append(places.in_folder(held.enter_context(local.opened(wanted)), model))
                continue
            with registered.opened(wanted) as place:
                for file in model.files:
                    place.bring(file)
        hub = places.on_hub(Hub(http), models)
        gone = store.take((file.artifact for model in models for file in model.files), (*folders, hub), http)
    if gone:
        where = next(f"{file.path} of {m.called} at {m.at}" for m in models for file in m.files if file.artifact == gone[0])
        raise LockError("a file is listed and is not there", where=where, fix="ask who runs the hub, or its proxy")
    for model in models:
        _check_safetensors(model)


def lay_out(name: str, target: Path) -> str:
    """Write a fetched model as a folder that `from_pretrained()` takes; returns the outcome in a few words.

    Whole or not at all, by verified bytes; files of the folder that are not ours stay.

    Raises:
        UsageError: no such model, or the folder holds something else where a file of the model goes.
        LockError: it was not fetched, or is altered.
        MissingEnvironmentError: no permission, no space, another process at it.
    """
    model = pinned(name)
    _check_safetensors(model)
    done = "laid out" if model_folder.lay_out(model, target) else "was there already"
    return f"{name} at {model.at} {done} in {target}, {console.size(model.size)}"


def _resolve(model: ModelInput, commit: str) -> PinnedModel:
    if model.repo:
        with hub_account.session() as http:
            return models_resolve.from_hub(Hub(http), model, commit)
    if model.artifact:
        with registered.opened(model) as place:
            return models_resolve.from_folder(place, model)
    with local.opened(model) as folder:
        return models_resolve.from_folder(folder, model)


def _input(name: str) -> ModelInput:
    """What models.in says of a locked model; the lock holds no place."""
    for model in models_in.read_input():
        if model.name == name:
            return model
    raise LockError(f"the model {name} is locked, and models.in does not ask for it", fix=_RELOCK)


def _locked() -> ModelsLock:
    """What is locked now; without a good lock nothing is."""
    try:
        return models_lock.read_lock()
    except LockError:
        return ModelsLock("", ())


def _chosen(chosen: Iterable[str] | None) -> tuple[PinnedModel, ...]:
    if not models_lock.lock_path().exists() and not models_in.read_input():
        locked: dict[str, PinnedModel] = {}
    else:
        locked = {model.name: model for model in models_lock.read_lock().models}
    wanted = list(locked) if chosen is None else list(chosen)
    for name in wanted:
        if name not in locked:
            there = f"there are: {', '.join(locked)}" if locked else "none is pinned: see lockfiles/models.in"
            raise UsageError(f"no model {name!r} is locked", where=paths.shown(models_lock.lock_path()), fix=there)
    return tuple(locked[name] for name in wanted)


def _check_safetensors(model: PinnedModel) -> None:
    """Look at the headers in the store: the lock's hash says which bytes these are, not that they are fit to load."""
    for file in model.files:
        if file.path.endswith(".safetensors") and store.has(file.artifact):
            try:
                first = functools.partial(_first, store.path(file.artifact))
                safetensors.check(f"{file.path} of {model.called}", file.size, first)
            except LockError:
                # Altered in the store is another answer than unfit.
                store.verified(file.artifact)
                raise


def _first(file: Path, count: int) -> bytes:
    with file.open("rb") as opened:
        return opened.read(count)
