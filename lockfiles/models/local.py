"""Models that are on no hub: in a folder of the user's, or made by Pinwheel; both are read as a folder."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common import paths
from common.errors import LockError, MissingEnvironmentError
from common.files import sha256_file
from lockfiles.models import demonstration
from lockfiles.models import inputs as models_in
from lockfiles.models.hub import HubFile, Snapshot, check_paths
from lockfiles.models.inputs import ModelInput


class Folder:
    """A folder that holds a model.

    Args:
        name: the model's.
        place: the folder.
    """

    def __init__(self, name: str, place: Path) -> None:
        self._name, self._place = name, place

    def snapshot(self) -> Snapshot:
        """The files that it holds now; hidden ones do not count: git and the hub's own tools keep theirs among them.

        Raises:
            LockError: it holds a link, or a file that must not be laid out.
            MissingEnvironmentError: there is no such folder.
        """
        called = f"the folder of the model {self._name}"
        if not self._place.is_dir():
            fix = f"put the model there, or name another folder in {models_in.place(self._name)}"
            raise MissingEnvironmentError(f"{called} is not there", where=str(self._place), fix=fix)
        files = []
        for file in self._place.rglob("*"):
            path = file.relative_to(self._place).as_posix()
            if any(part.startswith(".") for part in path.split("/")) or (file.is_dir() and not file.is_symlink()):
                continue
            if file.is_symlink() or not file.is_file():
                fix = "put the file itself there: where a link leads is not pinned"
                raise LockError(f"{called} holds {path!r}, which is no plain file", where=str(self._place), fix=fix)
            files.append(HubFile(path, file.stat().st_size))
        files.sort(key=lambda file: file.path)
        check_paths(called, [file.path for file in files])
        return Snapshot(self._name, "", tuple(files))

    def address(self, path: str) -> str:
        """Where a file's bytes are."""
        return (self._place / path).absolute().as_uri()

    def digest(self, _: Snapshot, file: HubFile) -> str:
        """The sha256 of a file; 64 hex digits."""
        return sha256_file(self._place / file.path).removeprefix("sha256:")

    def start(self, _: Snapshot, file: HubFile, count: int) -> bytes:
        """The first bytes of a file, or all, where it is shorter."""
        with (self._place / file.path).open("rb") as opened:
            return opened.read(count)


@contextmanager
def opened(wanted: ModelInput) -> Iterator[Folder]:
    """The folder of a model that is on no hub; that of one which Pinwheel makes is there as long as the block runs."""
    if wanted.path:
        yield Folder(wanted.name, paths.ROOT / wanted.path)
        return
    with tempfile.TemporaryDirectory(prefix="pinwheel-") as scratch:
        for path, data in demonstration.files().items():
            (Path(scratch) / path).write_bytes(data)
        yield Folder(wanted.name, Path(scratch))
