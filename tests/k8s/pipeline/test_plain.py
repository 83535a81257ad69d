"""What a step that ran before put on the volume leads a later one nowhere, and does not hold it."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import PinwheelError, PolicyError
from k8s.pipeline import artifact, card, checkpoints, plain, register
from tests.k8s.pipeline.conftest import Run

SECRET = b"THE KEY"


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A folder that a step has and the volume has not."""
    folder = tmp_path / "signing"
    folder.mkdir()
    for name in ("train.log", "a", "train_results.json", "model.key"):
        (folder / name).write_bytes(SECRET)
    return folder


@pytest.fixture
def work(tmp_path: Path) -> Path:
    (tmp_path / "work" / "logs").mkdir(parents=True)
    (tmp_path / "work" / "logs" / "a").write_bytes(b"mine")
    return tmp_path / "work"


def bind(place: Path) -> None:
    # A path may be longer than a socket's name.
    before = Path.cwd()
    os.chdir(place.parent)
    try:
        socket.socket(socket.AF_UNIX).bind(place.name)
    finally:
        os.chdir(before)


KINDS: dict[str, Callable[[Path, Path], object]] = {
    "link": lambda place, secret: place.symlink_to(secret / "a"),
    "link to itself": lambda place, _: place.symlink_to(place),
    "pipe": lambda place, _: os.mkfifo(place),
    "socket": lambda place, _: bind(place),
    "folder": lambda place, _: place.mkdir(),
    "link to a device": lambda place, _: place.symlink_to("/dev/zero"),
}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_WRONLY | os.O_APPEND | os.O_CREAT], ids=["read", "append"])
def test_what_is_no_plain_file_is_refused_at_once(
    work: Path, secret: Path, kind: Callable[[Path, Path], object], flags: int
) -> None:
    (work / "logs/a").unlink()
    kind(work / "logs/a", secret)
    with pytest.raises(PolicyError, match="logs/a is not a plain file: an earlier step"):
        plain.opened(work / "logs/a", flags)
    assert (secret / "a").read_bytes() == SECRET


@pytest.mark.parametrize("depth", ["work", "work/logs"])
def test_a_folder_on_the_way_that_is_a_link_is_refused(work: Path, secret: Path, tmp_path: Path, depth: str) -> None:
    (tmp_path / depth).rename(tmp_path / "moved")
    (tmp_path / depth).symlink_to(secret if depth == "work/logs" else tmp_path / "moved")
    for use in (plain.opened, plain.read, lambda file: plain.check_folder(file.parent)):
        with pytest.raises(PolicyError, match=f"{depth} is not a plain folder"):
            use(work / "logs/a")


def test_a_plain_file_is_read_and_a_missing_one_is_missing(work: Path) -> None:
    assert plain.read(work / "logs/a") == b"mine"
    assert plain.read(work / "logs/a", 2) == b"mi"
    assert plain.read(work / "logs/b") is None
    assert plain.read(work / "none/b") is None
    with pytest.raises(FileNotFoundError, match="none"):
        plain.check_folder(work / "none")


@given(st.lists(st.sampled_from(["..", ".", "logs", "a", "b", "work"]), min_size=1, max_size=6))
@settings(max_examples=60, deadline=None, database=None)
def test_no_link_is_ever_followed(tmp_path_factory: pytest.TempPathFactory, parts: list[str]) -> None:
    root = tmp_path_factory.mktemp("volume")
    (root / "secret").write_bytes(SECRET)
    for folder in ("work", "work/logs", "work/logs/a"):
        (root / folder).mkdir()
        (root / folder / "b").symlink_to(root)
    (root / "work/logs/a/secret").symlink_to(root / "secret")
    place = root.joinpath("work", *parts, "secret")
    try:
        found = plain.read(place)
    except PolicyError:
        found = None
    assert found is None or os.path.realpath(place) == os.path.normpath(place)


def test_a_folder_is_emptied_and_never_what_a_link_leads_to(work: Path, secret: Path) -> None:
    (work / "logs/deep").mkdir()
    (work / "logs/deep/link").symlink_to(secret)
    plain.empty(work / "logs")
    assert list((work / "logs").iterdir()) == []
    (work / "logs").rmdir()
    (work / "logs").symlink_to(secret)
    plain.empty(work / "logs")
    assert not (work / "logs").is_symlink()
    (work / "logs").rmdir()
    os.mkfifo(work / "logs")
    plain.empty(work / "logs")
    plain.empty(work / "new/export")
    assert (work / "new/export").is_dir()
    (work / "new/export").rmdir()
    (work / "new").rmdir()
    (work / "new").symlink_to(secret)
    with pytest.raises(PolicyError, match="new is not a plain folder"):
        plain.empty(work / "new/train.log")
    assert sorted(file.name for file in secret.iterdir()) == ["a", "model.key", "train.log", "train_results.json"]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path).write().export()


def moved(run: Run, name: str) -> None:
    """A folder of the run is a link to one that holds what it held."""
    run.path(name).rename(run.root / "moved")
    run.path(name).symlink_to(run.root / "moved")


@pytest.mark.parametrize("name", ["export", "logs", "output", "dataset"])
def test_no_folder_of_a_run_may_be_a_link(run: Run, name: str) -> None:
    run.path(name).mkdir(parents=True, exist_ok=True)
    moved(run, name)
    with pytest.raises(PolicyError, match=f"{name} is not a plain folder"):
        run.register()


@pytest.mark.parametrize("name", ["base/README.md", "output/train_results.json", "export/config.json", "logs/train.log"])
def test_a_pipe_ends_the_step_with_one_line(run: Run, name: str) -> None:
    run.path(name).parent.mkdir(parents=True, exist_ok=True)
    run.path(name).unlink(missing_ok=True)
    os.mkfifo(run.path(name))
    with pytest.raises(PolicyError, match=f"{Path(name).name}.*(is not a plain file|it is no file)"):
        run.register()


def test_the_card_and_a_checkpoint_are_read_in_the_same_way(tmp_path: Path, secret: Path) -> None:
    (tmp_path / "output/checkpoint-1").mkdir(parents=True)
    os.mkfifo(tmp_path / "output/checkpoint-1/trainer_state.json")
    (tmp_path / "output/train_results.json").symlink_to(secret / "train_results.json")
    with pytest.raises(PolicyError, match="trainer_state.json is not a plain file"):
        checkpoints.incomplete(tmp_path / "output/checkpoint-1")
    with pytest.raises(PolicyError, match="train_results.json is not a plain file"):
        card.metrics(tmp_path / "output")


@pytest.mark.parametrize(
    ("dtype", "shape"),
    [("F32", [10**300]), ("F32", [2**63] * 64), ("NEW", [2**63] * 64), ("NEW", [1]), ("F32", [1] * 65), ("F32", [1] * 100_000)],
    ids=["beyond 64 bits", "many", "of an unknown kind", "of no bytes", "too many axes", "far too many axes"],
)
def test_a_shape_that_no_file_holds_is_refused(tmp_path: Path, dtype: str, shape: list[int]) -> None:
    header = f'{{"w":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[0,0]}}}}'.encode()
    file = tmp_path / "model.safetensors"
    file.write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(PolicyError, match="no safetensors file"):
        artifact.tensors(file)


def test_the_key_comes_in_a_variable_that_nothing_later_sees(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(register.KEY_VARIABLE, (run.root / "own.key").read_text())
    key = register.private_key(None)
    assert key.public_key() == register.private_key(run.root / "own.key").public_key()
    assert register.KEY_VARIABLE not in os.environ
    with pytest.raises(PinwheelError, match="no key to sign with: MODEL_SIGNING_KEY is empty"):
        register.private_key(None)
    monkeypatch.setenv(register.KEY_VARIABLE, "no key")
    with pytest.raises(PinwheelError, match="MODEL_SIGNING_KEY"):
        register.private_key(None)
