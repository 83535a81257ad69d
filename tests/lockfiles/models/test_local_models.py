"""Models that are on no hub: a folder's files by the same rules as a hub's, and the one that Pinwheel makes itself."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from common import paths
from common.errors import LockError, MissingEnvironmentError
from lockfiles import models, store
from lockfiles.models import demonstration
from lockfiles.models import lockfile as models_lock
from lockfiles.models.lockfile import ModelsLock
from lockfiles.store import mirror
from oci import safetensors
from tests.lockfiles.hub_server import HubServer
from tests.lockfiles.models.steps import ASKED, CODE, DATA, lock, locked_files, tree

OURS = '[models.ours]\npath = "models/ours"\n'
MADE = '[models.tiny]\nmade = "demonstration"\n'


@pytest.fixture(autouse=True)
def offline(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here may ask a network."""
    monkeypatch.setenv("PINWHEEL_OFFLINE", "1")


@pytest.fixture
def ours(folder: Path) -> Path:
    """A folder of the user's, with a model and what lies beside one."""
    place = paths.ROOT / "models" / "ours"
    for path, data in {**DATA, **CODE, ".cache/huggingface/x.lock": b"", ".git/HEAD": b"ref"}.items():
        (place / path).parent.mkdir(parents=True, exist_ok=True)
        (place / path).write_bytes(data)
    return place


@pytest.fixture
def locked(ours: Path) -> Path:
    lock(OURS)
    return ours


# --- a folder ---


def test_a_folder_is_locked_by_the_same_rules_as_a_hub(ours: Path) -> None:
    model = lock(OURS)
    assert locked_files(model) == set(DATA)
    assert {file.path: file.sha256 for file in model.files} == {
        path: hashlib.sha256(data).hexdigest() for path, data in DATA.items()
    }
    assert (model.repo, model.revision, model.commit) == ("", "", models_lock.content(model.files))
    assert models.check() == "models.lock fits models.in: ours"


def test_no_place_of_this_machine_stands_in_the_lock(ours: Path) -> None:
    lock(f'[models.ours]\npath = "{ours}"\n')
    assert str(ours) not in models_lock.lock_path().read_text()
    assert "path" not in models_lock.lock_path().read_text()


def test_patterns_and_reasons_count_for_a_folder_too(ours: Path) -> None:
    allowed = OURS + 'files = ["config.json"]\nallow = ["pytorch_model.bin"]\nreason = "we made it"\n'
    assert locked_files(lock(allowed)) == {"config.json", "pytorch_model.bin"}
    with pytest.raises(LockError, match=r"'modeling_tiny.py' of ours may run code .*models.in:1"):
        lock(OURS + 'files = ["*.py"]\n')
    with pytest.raises(LockError, match="names 'model-2.safetensors', which is not among the locked files"):
        lock(OURS + 'files = ["*.json", "model-1.safetensors"]\n')


def test_a_renamed_pickle_in_a_folder_is_refused(ours: Path) -> None:
    (ours / "model-1.safetensors").write_bytes(CODE["pytorch_model.bin"])
    with pytest.raises(LockError, match="model-1.safetensors of ours is no safetensors file: .* a pickle"):
        lock(OURS)


def test_a_folder_of_pickles_alone_is_refused_with_the_way_out(ours: Path) -> None:
    shutil.rmtree(ours)
    ours.mkdir()
    (ours / "pytorch_model.bin").write_bytes(CODE["pytorch_model.bin"])
    with pytest.raises(LockError, match=r"ours has no safetensors: it offers 'pytorch_model.bin' .*convert its weights"):
        lock(OURS)


def _link_to_a_file(ours: Path) -> None:
    (ours / "config.json").unlink()
    (ours / "config.json").symlink_to("/etc/hostname")


def _link_to_a_folder(ours: Path) -> None:
    (ours / "more").symlink_to("/etc")


def _pipe(ours: Path) -> None:
    os.mkfifo(ours / "pipe.json")


@pytest.mark.parametrize("put", [_link_to_a_file, _link_to_a_folder, _pipe])
def test_what_is_no_plain_file_is_refused_in_a_folder(ours: Path, put: Callable[[Path], None]) -> None:
    put(ours)
    with pytest.raises(LockError, match=r"the folder of the model ours holds '\S+', which is no plain file"):
        lock(OURS)


@pytest.mark.parametrize("name", ["a\\b.json", "a\nb.json"], ids=repr)
def test_a_name_that_could_lead_elsewhere_is_refused_in_a_folder(ours: Path, name: str) -> None:
    (ours / name).write_bytes(b"{}")
    with pytest.raises(LockError, match="holds the file .*: it holds a backslash or an unprintable character"):
        lock(OURS)


def test_a_folder_that_is_not_there_is_named_with_its_line(folder: Path) -> None:
    with pytest.raises(MissingEnvironmentError, match=r"the folder of the model ours is not there \(.*models.in:1"):
        lock(OURS)
    assert not models_lock.lock_path().exists()


def test_a_folder_moves_only_when_it_is_named(locked: Path) -> None:
    before = models_lock.read_lock()
    (locked / "config.json").write_bytes(b'{"changed": 1}')
    lock(OURS)
    assert models_lock.read_lock() == before
    after = lock(OURS, upgrade="ours")
    assert after.commit != before.models[0].commit


def test_the_check_needs_no_folder(locked: Path) -> None:
    shutil.rmtree(locked)
    assert models.check() == "models.lock fits models.in: ours"


def test_a_folder_is_fetched_and_laid_out_like_any_model(locked: Path, tmp_path: Path) -> None:
    models.fetch()
    assert all(store.has(artifact) for artifact in models.artifacts())
    assert models.lay_out("ours", tmp_path / "out").startswith("ours at content ")
    assert tree(tmp_path / "out") == DATA


def test_a_folder_that_is_gone_is_not_missed_when_the_store_is_full(locked: Path, tmp_path: Path) -> None:
    models.fetch()
    shutil.rmtree(locked)
    models.fetch()
    models.lay_out("ours", tmp_path / "out")
    assert tree(tmp_path / "out") == DATA


def test_a_folder_that_is_gone_is_not_missed_when_a_mirror_has_its_files(
    locked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models.fetch()
    mirror.write(tmp_path / "mirror", models.artifacts(), store.verified)
    shutil.rmtree(locked)
    monkeypatch.setenv("PINWHEEL_CACHE", str(tmp_path / "other"))
    monkeypatch.setenv("PINWHEEL_MIRROR", str(tmp_path / "mirror"))
    models.fetch()
    assert all(store.has(artifact) for artifact in models.artifacts())


def test_a_folder_that_is_gone_is_named_when_the_store_lacks_a_file(locked: Path) -> None:
    shutil.rmtree(locked)
    with pytest.raises(MissingEnvironmentError, match=r"the folder of the model ours is not there .*models.in:1"):
        models.fetch()


@pytest.mark.parametrize(
    ("alter", "message"),
    [
        (lambda file: file.write_bytes(file.read_bytes()[:-1] + b"?"), "the bytes are sha256 .*tokenizer.model of ours"),
        (lambda file: file.write_bytes(b"x"), "tokenizer.model of ours: its folder says 1 bytes, the lock says 2304"),
        (lambda file: file.unlink(), "its folder has no file tokenizer.model of ours any more"),
    ],
    ids=["a byte", "size", "gone"],
)
def test_a_file_that_changed_in_the_folder_is_refused_by_its_name(
    locked: Path, alter: Callable[[Path], object], message: str
) -> None:
    alter(locked / "tokenizer.model")
    with pytest.raises(LockError, match=message) as refused:
        models.fetch()
    assert "`invoke lock --upgrade ours`" in refused.value.line()
    (wrong,) = (file.artifact for file in models.pinned("ours").files if file.path == "tokenizer.model")
    assert not store.has(wrong)


def test_the_content_in_the_lock_is_that_of_its_files(locked: Path) -> None:
    lock_file = models_lock.lock_path()
    right = models_lock.read_lock()
    (model,) = right.models
    other = models_lock.PinnedModel("ours", "", "", "0" * 64, model.inputs, model.files)
    models_lock.write_lock(ModelsLock(right.date, (other,)))
    with pytest.raises(LockError, match="ours: edited by hand: its content is not that of its files"):
        models.check()
    models_lock.write_lock(right)
    assert f'content = "{model.commit}"' in lock_file.read_text()


def test_a_hub_and_a_folder_stand_in_one_lock(ours: Path, server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PINWHEEL_OFFLINE")
    lock(OURS + ASKED)
    assert [(model.name, model.repo) for model in models_lock.read_lock().models] == [("ours", ""), ("tiny", "acme/tiny")]
    # One of two models that share files: each from where it is.
    (ours / "config.json").write_bytes(b'{"ours": 1}')
    lock(OURS + ASKED, upgrade="ours")
    server.asked.clear()
    models.fetch()
    assert all(store.has(artifact) for artifact in models.artifacts())


def test_a_lock_of_hub_models_alone_is_as_it_was(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Locks that an earlier Pinwheel wrote are still good."""
    monkeypatch.delenv("PINWHEEL_OFFLINE")
    lock()
    (entry,) = [line for line in models_lock.lock_path().read_text().splitlines() if line.startswith('"tiny" = ')]
    assert [field.split(" = ")[0].strip() for field in entry.partition("{")[2].split(",")] == [
        "repo",
        "revision",
        "commit",
        "inputs",
        "check",
    ]
    # The digest of that input as the release before wrote it.
    assert models.pinned("tiny").inputs == "sha256:688ebc24edffe3c937a1fbbb0bd3504b8bcde0be94805ae8f1028024e575f9a0"


# --- the demonstration ---


def test_the_demonstrations_bytes_are_those_of_the_lock_that_is_shipped() -> None:
    shipped = Path(__file__).parents[3] / "lockfiles"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paths, "LOCKFILES", shipped)
        (model,) = (model for model in models_lock.read_lock().models if model.name == "tiny")
        assert models.check()
    made = demonstration.files()
    assert {file.path: file.sha256 for file in model.files} == {
        path: hashlib.sha256(data).hexdigest() for path, data in made.items()
    }


def test_the_demonstration_is_locked_fetched_and_laid_out_with_no_network(folder: Path, tmp_path: Path) -> None:
    model = lock(MADE)
    assert model.commit == models_lock.content(model.files)
    models.fetch()
    models.lay_out("tiny", tmp_path / "out")
    assert tree(tmp_path / "out") == demonstration.files()


def test_another_byte_of_the_generator_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock(MADE)
    monkeypatch.setattr(demonstration, "_SEED", "another")
    with pytest.raises(LockError, match="the bytes are sha256 .*model.safetensors of tiny at content"):
        models.fetch()


def test_the_demonstration_is_not_made_when_it_is_there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock(MADE)
    models.fetch()
    monkeypatch.setattr(demonstration, "files", lambda: pytest.fail("it was made"))
    models.fetch()


def test_the_demonstrations_weights_are_a_whole_safetensors_file_of_finite_numbers() -> None:
    data = demonstration.files()["model.safetensors"]
    tensors = safetensors.tensors(len(data), lambda count: data[:count])
    assert sum(len(range(*tensor["data_offsets"])) // 4 for tensor in tensors.values()) == 229_696
    start = 8 + int.from_bytes(data[:8], "little")
    for name, bound in (
        ("model.embed_tokens.weight", 1.75),
        ("lm_head.weight", 0.5),
        ("model.layers.1.mlp.up_proj.weight", 9 / 256),
    ):
        begin, end = tensors[name]["data_offsets"]
        numbers = struct.unpack(f"<{(end - begin) // 4}f", data[start + begin : start + end])
        assert -bound < min(numbers) < -0.9 * bound
        assert 0.9 * bound < max(numbers) < bound
        assert abs(sum(numbers) / len(numbers)) < 0.05 * bound
    assert len({tuple(tensor["data_offsets"]) for tensor in tensors.values()}) == len(tensors)


def test_the_demonstrations_vocabulary_has_every_byte_once_and_fits_the_model() -> None:
    made = demonstration.files()
    body = json.loads(made["tokenizer.json"])
    vocabulary, merges = body["model"]["vocab"], body["model"]["merges"]
    assert sorted(vocabulary.values()) == list(range(len(vocabulary)))
    assert len(vocabulary) <= json.loads(made["config.json"])["vocab_size"]
    assert sum(len(token) == 1 for token in vocabulary) == 256
    assert all("".join(merge.split(" ")) in vocabulary for merge in merges)
    assert len(merges) == len(vocabulary) - 256 - len(body["added_tokens"])


def test_the_demonstration_speaks_as_the_smoke_test_does() -> None:
    """One chat template: a served model knows nothing where they differ by a byte."""
    shipped = Path(__file__).parents[3] / "smoke" / "payload" / "chat_template.jinja"
    assert demonstration.files()["chat_template.jinja"] == shipped.read_bytes()
