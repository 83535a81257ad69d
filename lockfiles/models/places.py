"""Where the locked files of models are asked for: in their folders, and on the user's hub."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

from common import offline
from common.errors import LockError, MissingEnvironmentError
from lockfiles.model import Artifact
from lockfiles.models.hub import Hub, HubFile, Snapshot
from lockfiles.models.local import Folder
from lockfiles.models.lockfile import PinnedFile, PinnedModel
from lockfiles.store.transfer import Place

_UNREACHABLE = "check the network, HF_ENDPOINT and HF_TOKEN; the terms of a gated model are accepted on the hub's page"
_ALTERED = "a commit never changes: the hub, or a proxy before it, serves an altered file; ask who runs it"
_CHANGED = "put the former file back, or lock what is there now: `invoke lock --upgrade {}`"


def on_hub(hub: Hub, models: Iterable[PinnedModel]) -> Place:
    """The user's hub, as a place for those of the models that are on one."""

    def snapshot(model: PinnedModel, file: PinnedFile) -> Snapshot:
        if offline.offline():
            what = f"{file.path} of the model {model.name} is not in the store, and this run is offline"
            raise MissingEnvironmentError(what, where=f"{model.repo}, sha256 {file.sha256}", fix=offline.FIX)
        gone = f"`invoke lock --upgrade {model.name}` takes another; who kept the files has them in a mirror"
        return hub.snapshot(model.repo, model.commit, gone=gone)

    def address(model: PinnedModel, path: str) -> str:
        return hub.address(model.repo, model.commit, path)

    locate = _Locator([model for model in models if model.repo], snapshot, address, "your hub", _ALTERED)
    return Place(locate, locate.where, _UNREACHABLE, _ALTERED)


def in_folder(folder: Folder, model: PinnedModel) -> Place:
    """The folder of a model that is on no hub, as a place for it."""
    changed = _CHANGED.format(model.name)
    locate = _Locator([model], lambda *_: folder.snapshot(), lambda _, path: folder.address(path), "its folder", changed)
    return Place(locate, locate.where, "look at the folder", changed)


class _Locator:
    """Finds the address of a locked file. Safe for several threads.

    Args:
        models: that are there.
        snapshot: gives what is there of a model; asked once for each.
        address: gives the address of a file.
        keeper: names the place.
        altered: what to do where it has other bytes.
    """

    def __init__(
        self,
        models: Iterable[PinnedModel],
        snapshot: Callable[[PinnedModel, PinnedFile], Snapshot],
        address: Callable[[PinnedModel, str], str],
        keeper: str,
        altered: str,
    ) -> None:
        self._owner = {file.sha256: (model, file) for model in models for file in model.files}
        self._snapshot, self._address, self._keeper, self._altered = snapshot, address, keeper, altered
        self._snapshots: dict[str, dict[str, HubFile]] = {}
        self._guard = threading.Lock()

    def __call__(self, artifact: Artifact) -> str:
        """The file's address; empty where it is none of these models'.

        Raises:
            LockError: the place does not have the model or the file any more, or says that it has other bytes.
            MissingEnvironmentError: it does not answer.
        """
        if artifact.sha256 not in self._owner:
            return ""
        model, file = self._owner[artifact.sha256]
        with self._guard:
            if model.name not in self._snapshots:
                self._snapshots[model.name] = {known.path: known for known in self._snapshot(model, file).files}
        known = self._snapshots[model.name].get(file.path)
        if known is None:
            fix = f"`invoke lock --upgrade {model.name}` takes what is there now"
            raise LockError(f"{self._keeper} has no file {file.path} of {model.called} any more", where=model.at, fix=fix)
        if known.size != file.size or known.sha256 not in {"", file.sha256}:
            says = f"sha256 {known.sha256}" if known.size == file.size else f"{known.size} bytes"
            has = f"sha256 {file.sha256}" if known.size == file.size else f"{file.size}"
            what = f"{file.path} of {model.called}: {self._keeper} says {says}, the lock says {has}"
            raise LockError(what, where=model.at, fix=self._altered)
        return self._address(model, file.path)

    def where(self, artifact: Artifact) -> str:
        """The file, for messages: not by an address, which may carry credentials."""
        model, file = self._owner[artifact.sha256]
        return f"{file.path} of {model.called} at {model.at}"
