"""The cache is believed only where nobody else can have written; what others put there leads to nothing of the user's."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from common import ownership, paths
from common.errors import LockError, MissingEnvironmentError
from lockfiles import store
from lockfiles.model import Artifact

DATA = b"wheel bytes " * 1000
ARTIFACT = Artifact("x-1-py3-none-any.whl", len(DATA), hashlib.sha256(DATA).hexdigest())


@pytest.fixture
def entry(own_folders: Path) -> Path:
    """Where the store keeps the artifact; the folder is there."""
    place = store.path(ARTIFACT)
    place.parent.mkdir(parents=True)
    return place


def keep(entry: Path) -> None:
    entry.write_bytes(DATA)
    entry.chmod(0o444)


def with_mode(mode: int, owner: int = -1) -> Callable[[Path], None]:
    def plant(place: Path) -> None:
        place.write_bytes(DATA)
        place.chmod(mode)
        os.chown(place, owner, owner)

    return plant


PLANTED: dict[str, Callable[[Path], object]] = {
    "link": lambda place: place.symlink_to(place.parent.parent.parent.parent / "victim"),
    "pipe": os.mkfifo,
    "for the group to write": with_mode(0o664),
    "for all to write": with_mode(0o646),
}
if os.geteuid() == 0:
    PLANTED["of another user"] = with_mode(0o644, 65534)


@pytest.mark.parametrize("plant", PLANTED.values(), ids=PLANTED)
@pytest.mark.parametrize("name", ["", ".part-", ".part-.etag"], ids=["entry", "part", "name of the server's file"])
def test_what_others_planted_in_the_store_is_refused_and_leads_nowhere(
    entry: Path, own_folders: Path, plant: Callable[[Path], object], name: str
) -> None:
    victim = own_folders / "victim"
    victim.write_bytes(DATA)
    victim.chmod(0o600)
    prefix, dot, ending = name.partition(".etag")
    plant(entry.with_name(f"{prefix}{entry.name}{dot}{ending}"))

    def use() -> None:
        if not name:
            store.missing([ARTIFACT])
            with store.opened(ARTIFACT):
                pass
        with store.adding(ARTIFACT) as part:
            part.write(DATA)

    with pytest.raises(MissingEnvironmentError, match="what lies in the cache is"):
        use()
    assert (victim.read_bytes(), victim.stat().st_mode & 0o777) == (DATA, 0o600)


@pytest.mark.parametrize("depth", [0, 1, 2], ids=["the cache", "the store", "a folder of it"])
@pytest.mark.parametrize("how", ["link", "for others to write"])
def test_a_folder_that_others_can_write_to_is_refused(entry: Path, own_folders: Path, depth: int, how: str) -> None:
    keep(entry)
    folder = [own_folders / "cache", own_folders / "cache/store", entry.parent][depth]
    if how == "link":
        folder.rename(own_folders / "moved")
        folder.symlink_to(own_folders / "moved")
    else:
        folder.chmod(0o777)
    with pytest.raises(MissingEnvironmentError, match=f"what lies in the cache is .*{how}"):
        store.missing([ARTIFACT])
    with pytest.raises(MissingEnvironmentError, match="what lies in the cache is"):
        paths.cache("store", entry.parent.name)


def test_ones_own_store_is_used(entry: Path) -> None:
    keep(entry)
    assert store.missing([ARTIFACT]) == []
    with store.opened(ARTIFACT) as file:
        assert file.read() == DATA
        # Another process looks what is there: that changes the file's change time, and nothing else.
        store.missing([ARTIFACT])


def test_bytes_that_changed_under_it_are_found_though_the_times_are_put_back(entry: Path) -> None:
    keep(entry)

    def read() -> None:
        with store.opened(ARTIFACT) as file:
            before = entry.stat()
            entry.chmod(0o644)
            with entry.open("r+b") as out:
                out.write(b"EVIL")
            os.utime(entry, ns=(before.st_atime_ns, before.st_mtime_ns))
            entry.chmod(0o444)
            assert file.read(4) == b"EVIL"

    with pytest.raises(LockError, match="was written to while it was read"):
        read()


def test_what_is_not_there_and_what_is_hidden_pass_the_look(tmp_path: Path) -> None:
    ownership.check(tmp_path / "none")
    ownership.check(tmp_path / "none/deeper")
    (tmp_path / "file").write_text("")
    ownership.check(tmp_path / "file/below")
    with pytest.raises(FileNotFoundError):
        ownership.opened(tmp_path / "none")
