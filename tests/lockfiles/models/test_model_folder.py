"""A model's folder: whole or not at all, and nobody else's files touched."""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from common.errors import LockError, MissingEnvironmentError, UsageError
from lockfiles import models, store
from lockfiles.models import folder as model_folder
from lockfiles.models import lockfile as models_lock
from lockfiles.models.lockfile import PinnedFile
from tests.lockfiles.hub_server import HubServer, tensors_file
from tests.lockfiles.models.steps import DATA, shards, tree, upgrade

pytestmark = pytest.mark.slow

SMALLER = {"config.json": b"{}", "model.safetensors": tensors_file(a=[1.0])}


def test_the_record_lets_sha256sum_check_the_folder(fetched: HubServer, tmp_path: Path) -> None:
    models.lay_out("tiny", tmp_path / "out")
    command = ["sha256sum", "--check", "--strict", model_folder.RECORD]
    said = subprocess.run(command, cwd=tmp_path / "out", capture_output=True, text=True, check=True)
    assert len(said.stdout.splitlines()) == len(DATA)


def test_laying_out_again_touches_nothing(fetched: HubServer, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert "laid out" in models.lay_out("tiny", out)
    before = {file: (file.stat().st_ino, file.stat().st_mtime_ns) for file in out.rglob("*")}
    assert "was there already" in models.lay_out("tiny", out)
    assert {file: (file.stat().st_ino, file.stat().st_mtime_ns) for file in out.rglob("*")} == before


def test_another_commit_replaces_what_is_ours_and_nothing_else(fetched: HubServer, tmp_path: Path) -> None:
    out = tmp_path / "out"
    models.lay_out("tiny", out)
    (out / "notes.md").write_text("mine")
    (out / "onnx café" / "mine.txt").write_text("mine too")
    upgrade(fetched, SMALLER)
    models.lay_out("tiny", out)
    assert tree(out) == {**SMALLER, "notes.md": b"mine", "onnx café/mine.txt": b"mine too"}


def test_folders_that_became_empty_go(fetched: HubServer, tmp_path: Path) -> None:
    models.lay_out("tiny", tmp_path / "out")
    upgrade(fetched, SMALLER)
    models.lay_out("tiny", tmp_path / "out")
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [model_folder.RECORD, *sorted(SMALLER)]


def test_a_file_of_ours_that_somebody_changed_is_not_ours_any_more(fetched: HubServer, tmp_path: Path) -> None:
    out = tmp_path / "out"
    models.lay_out("tiny", out)
    (out / "tokenizer.json").write_text("changed")
    upgrade(fetched, SMALLER)
    models.lay_out("tiny", out)
    assert tree(out) == {**SMALLER, "tokenizer.json": b"changed"}
    (out / "tokenizer.json").unlink()
    (out / "model.safetensors").write_bytes(b"mine")
    upgrade(fetched, DATA)
    with pytest.raises(UsageError, match=r"a loader may take model.safetensors, which is not the model's"):
        models.lay_out("tiny", out)
    upgrade(fetched, SMALLER)
    (out / "model.safetensors").unlink()
    (out / "config.json").write_text("changed")
    with pytest.raises(UsageError, match="a file that is not ours stands where the model's config.json goes"):
        models.lay_out("tiny", out)


def make_folder(out: Path) -> None:
    (out / "config.json").mkdir(parents=True)


def make_link(out: Path) -> None:
    out.mkdir()
    (out / "config.json").symlink_to(out.parent / "elsewhere.json")


def make_linked_folder(out: Path) -> None:
    out.mkdir()
    (out.parent / "elsewhere").mkdir()
    (out / "onnx café").symlink_to(out.parent / "elsewhere")


def make_file(out: Path) -> None:
    out.mkdir()
    (out / "config.json").write_text("mine")


def make_weights(out: Path) -> None:
    (out / "old").mkdir(parents=True)
    (out / "old" / "pytorch_model.bin").write_bytes(b"mine")


def make_code(out: Path) -> None:
    out.mkdir()
    (out / "modeling_tiny.py").symlink_to("/nowhere")


@pytest.mark.parametrize("make", [make_folder, make_link, make_linked_folder, make_file, make_weights, make_code])
def test_a_folder_with_something_else_in_the_models_place_is_left_as_it_was(
    fetched: HubServer, tmp_path: Path, make: Callable[[Path], None]
) -> None:
    make(tmp_path / "out")
    before = sorted(tmp_path.joinpath("out").rglob("*")), tree(tmp_path / "out")
    with pytest.raises(UsageError):
        models.lay_out("tiny", tmp_path / "out")
    assert (sorted(tmp_path.joinpath("out").rglob("*")), tree(tmp_path / "out")) == before
    assert not (tmp_path / "elsewhere.json").exists()
    assert not list(tmp_path.glob("elsewhere/*"))


def test_a_target_that_is_a_file_is_refused(fetched: HubServer, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("x")
    with pytest.raises(UsageError, match="not a folder"):
        models.lay_out("tiny", tmp_path / "out")


def test_a_target_that_is_a_link_to_a_folder_is_followed(fetched: HubServer, tmp_path: Path) -> None:
    (tmp_path / "volume").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "volume")
    models.lay_out("tiny", tmp_path / "out")
    assert tree(tmp_path / "volume") == DATA


def test_a_record_cannot_lead_out_of_its_folder(fetched: HubServer, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"x")
    out = tmp_path / "out"
    out.mkdir()
    sha256 = hashlib.sha256(b"x").hexdigest()
    (out / model_folder.RECORD).write_text(f"{sha256}  ../victim\n{sha256}  {victim}\n")
    models.lay_out("tiny", out)
    assert victim.exists()


def test_a_model_that_was_not_fetched_is_not_laid_out(locked: HubServer, tmp_path: Path) -> None:
    with pytest.raises(LockError, match="is not in the store .*invoke fetch"):
        models.lay_out("tiny", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("linked", [0, 1 << 30], ids=["linked", "copied"])
@pytest.mark.parametrize("path", ["tokenizer.model", "model-2.safetensors"])
def test_bytes_altered_in_the_store_are_not_laid_out(
    fetched: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, linked: int
) -> None:
    monkeypatch.setattr(model_folder, "_LINKED", linked)
    (artifact,) = [file.artifact for file in models_lock.read_lock().models[0].files if file.path == path]
    store.path(artifact).chmod(0o644)
    data = DATA[path]
    store.path(artifact).write_bytes(bytes([data[0] ^ 1]) + data[1:])
    with pytest.raises(LockError, match=r"the store's bytes are sha256 \w+, the lock says"):
        models.lay_out("tiny", tmp_path / "out")
    assert not [file for file in tmp_path.iterdir() if "out" in file.name]


def test_what_is_big_is_linked_and_what_people_edit_is_copied(
    fetched: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_folder, "_LINKED", 2000)
    models.lay_out("tiny", tmp_path / "out")
    (tmp_path / "out" / "config.json").write_text("mine")
    linked = {path for path in DATA if (tmp_path / "out" / path).stat().st_nlink > 1}
    assert linked == {path for path, data in DATA.items() if len(data) >= 2000}
    assert all(store.verified(artifact) for artifact in models.artifacts())


def test_where_no_link_can_be_made_everything_is_copied(
    fetched: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(model_folder, "_LINKED", 0)
    monkeypatch.setattr(os, "link", refuse)
    models.lay_out("tiny", tmp_path / "out")
    assert tree(tmp_path / "out") == DATA


@pytest.mark.parametrize("there", [False, True], ids=["new folder", "folder with an older model"])
def test_a_full_disk_leaves_what_was_there(
    fetched: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    out = tmp_path / "out"
    if there:
        models.lay_out("tiny", out)
        upgrade(fetched, SMALLER)
    before = tree(tmp_path / "out") if there else None
    real, calls = model_folder._place, []

    def full(file: PinnedFile, stage: Path) -> None:
        calls.append(file)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        real(file, stage)

    monkeypatch.setattr(model_folder, "_place", full)
    with pytest.raises(MissingEnvironmentError, match="no space left for the model"):
        models.lay_out("tiny", out)
    assert (tree(out) if out.exists() else None) == before
    assert not list(tmp_path.rglob(f"*{model_folder.PART}*"))


class KilledError(BaseException):
    """As a process that is killed: nothing after it runs on purpose."""


@pytest.mark.parametrize("after", range(3))
def test_a_run_that_was_killed_leaves_nothing_a_loader_takes_and_the_next_one_goes_on(
    fetched: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    out = tmp_path / "out"
    models.lay_out("tiny", out)
    second = {**DATA, **shards(7.0), "config.json": b'{"second": 1}'}
    upgrade(fetched, second)
    real, moved = Path.replace, []

    def replace(self: Path, target: Path) -> Path:
        if model_folder.PART in str(self) and self.name != model_folder.RECORD:
            moved.append(target)
            if len(moved) > after:
                raise KilledError
        return real(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", replace)
        with pytest.raises(KilledError):
            models.lay_out("tiny", out)
    assert not (out / "config.json").exists()
    # Not even the version that was on its way: a third one finds all files its own to replace.
    third = {**DATA, **shards(9.0), "config.json": b'{"third": 1}'}
    upgrade(fetched, third)
    models.lay_out("tiny", out)
    assert tree(out) == third


def test_what_a_killed_run_left_beside_the_folder_is_used_up(fetched: HubServer, tmp_path: Path) -> None:
    left = tmp_path / ".out.pinwheel-part"
    (left / "sub").mkdir(parents=True)
    (left / "sub" / "half").write_text("x")
    (left / "link").symlink_to(tmp_path)
    models.lay_out("tiny", tmp_path / "out")
    assert tree(tmp_path / "out") == DATA
    assert not left.exists()


def test_two_at_the_same_folder_do_not_meet(fetched: HubServer, tmp_path: Path) -> None:
    stage = tmp_path / ".out.pinwheel-part"
    stage.mkdir()
    fd = os.open(stage, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    with pytest.raises(MissingEnvironmentError, match="another process lays out a model here"):
        models.lay_out("tiny", tmp_path / "out")
    os.close(fd)
    models.lay_out("tiny", tmp_path / "out")
    assert tree(tmp_path / "out") == DATA


def test_who_waited_for_a_folder_that_another_one_finished_gives_up(
    fetched: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = tmp_path / f".out{model_folder.PART}"

    def finished_meanwhile(fd: int, how: int) -> None:
        stage.rename(tmp_path / "elsewhere")
        stage.mkdir()

    monkeypatch.setattr(fcntl, "flock", finished_meanwhile)
    with pytest.raises(MissingEnvironmentError, match="another process lays out a model here"):
        models.lay_out("tiny", tmp_path / "out")
    assert not (tmp_path / "out").exists()
