"""Locking and fetching models from a hub; the hub's own client must get the same from it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from common.errors import LockError, MissingEnvironmentError, PinwheelError, UsageError
from lockfiles import models, store
from lockfiles.models import inputs as models_in
from lockfiles.models import lockfile as models_lock
from lockfiles.models.hub import Hub
from lockfiles.models.lockfile import ModelsLock, PinnedFile, PinnedModel
from lockfiles.store import mirror
from tests.lockfiles.hub_server import HubServer, blob_id, tensors_file
from tests.lockfiles.models.steps import ASKED, CODE, DATA, REPO, SECRET, ask, lock, locked_files, shards, tree

pytestmark = pytest.mark.slow


def test_a_branch_is_locked_as_its_commit_with_every_file_by_content(server: HubServer) -> None:
    model = lock()
    assert model.commit == server.branches[REPO, "main"]
    assert {file.path: (file.size, file.sha256) for file in model.files} == {
        path: (len(data), hashlib.sha256(data).hexdigest()) for path, data in DATA.items()
    }


def test_the_lock_has_one_line_per_file_sorted_and_no_location(server: HubServer) -> None:
    lock()
    text = models_lock.lock_path().read_text()
    listed = [json.loads(line.partition(" = ")[0]) for line in text.splitlines() if "sha256 = " in line]
    assert listed == sorted(DATA)
    assert "127.0.0.1" not in text
    assert "http" not in text


def test_a_relock_changes_no_byte_and_asks_nobody(locked: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    before = models_lock.lock_path().read_text()
    monkeypatch.setattr(models, "datetime", None)  # No new date is made either.
    lock()
    assert models_lock.lock_path().read_text() == before
    assert locked.asked == []


def test_a_branch_that_moved_is_followed_only_when_it_is_named(locked: HubServer) -> None:
    first = lock().commit
    second = locked.push(REPO, {**DATA, **shards(7.0)})
    assert lock().commit == first
    assert lock(upgrade="other").commit == first
    assert lock(upgrade="tiny").commit == second
    third = locked.push(REPO, DATA)
    assert lock(upgrade="all").commit == third


def test_other_files_of_the_same_branch_are_taken_from_the_locked_commit(locked: HubServer) -> None:
    first = lock().commit
    locked.push(REPO, {**DATA, **shards(7.0)})
    model = lock(ASKED + 'files = ["config.json"]\n')
    assert (model.commit, locked_files(model)) == (first, {"config.json"})


def test_a_bump_changes_only_the_lines_of_its_model(locked: HubServer) -> None:
    locked.push("acme/other", DATA)
    both = ASKED + '[models.other]\nrepo = "acme/other"\nrevision = "main"\n'
    lock(both)
    before = models_lock.lock_path().read_text().splitlines()
    locked.push("acme/other", {**DATA, "LICENSE": b"MIT\n"})
    lock(both, "other")
    after = models_lock.lock_path().read_text().splitlines()
    changed = [line.split(" = ")[0] for line, old in zip(after, before, strict=True) if line != old]
    assert set(changed) - {"date"} == {'"other"', '"LICENSE"'}


def test_a_tag_or_a_commit_can_be_named(server: HubServer) -> None:
    old = server.push(REPO, {**DATA, "LICENSE": b"MIT\n"}, "refs/pr/1")
    assert lock(ASKED.replace('"main"', '"refs/pr/1"')).commit == old
    assert lock(ASKED.replace('"main"', f'"{old}"')).commit == old
    assert lock(ASKED.replace('"main"', f'"{old}"'), "tiny").commit == old


def test_a_failure_leaves_the_old_lock_as_it_was(locked: HubServer) -> None:
    before = models_lock.lock_path().read_text()
    with pytest.raises(LockError):
        lock(ASKED + '[models.zzz]\nrepo = "acme/none"\nrevision = "main"\n')
    assert models_lock.lock_path().read_text() == before


def test_without_a_model_there_is_no_lock_and_none_is_missed(locked: HubServer) -> None:
    ask("# none\n")
    with pytest.raises(LockError, match="tiny is locked, and models.in does not ask for it"):
        models.check()
    models.write(models.resolve_all())
    assert not models_lock.lock_path().exists()
    assert models.check() == "no model is pinned"
    assert models.artifacts() == ()
    models.fetch()
    assert locked.asked == []


def test_a_big_file_is_not_downloaded_to_lock_it(server: HubServer) -> None:
    weights = tensors_file(a=[1.0] * 200_000)
    server.push(REPO, {"model.safetensors": weights})
    lock()
    (asked,) = server.asked_for("", "cdn")
    assert asked.range == "bytes=0-262143"


def test_pickles_and_code_are_never_taken_unasked(server: HubServer) -> None:
    assert locked_files(lock()) == set(DATA)
    assert locked_files(lock(ASKED + 'files = ["*"]\n')) == set(DATA)


def test_a_pickle_is_taken_when_it_is_allowed_with_a_reason(server: HubServer) -> None:
    model = lock(ASKED + 'allow = ["pytorch_model.bin"]\nreason = "we made it ourselves"\n')
    assert locked_files(model) == {*DATA, "pytorch_model.bin"}


def test_a_repository_of_pickles_alone_is_refused_with_the_way_out(server: HubServer) -> None:
    server.push(REPO, {"config.json": b"{}", **CODE})
    with pytest.raises(
        LockError, match=r"has no safetensors: it offers .*'pytorch_model.bin'.*models.in:1.*converted"
    ) as refused:
        lock()
    assert "allow with the reason" in refused.value.line()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('files = ["config.json", "*.gguf"]', r"has no file '\*.gguf' \(lockfiles/models.in:1\)"),
        ('files = ["config.json", "*.bin"]', r"'pytorch_model.bin' of acme/tiny may run code .*allow = \['\*.bin'\]"),
        ('files = ["*.py"]', "'modeling_tiny.py' of acme/tiny may run code"),
        ('allow = ["*.pt"]\nreason = "old"', r"has no file '\*.pt'"),
    ],
    ids=["nothing", "pickle", "code", "allowed for nothing"],
)
def test_a_pattern_that_takes_nothing_is_refused(server: HubServer, line: str, message: str) -> None:
    with pytest.raises(LockError, match=message):
        lock(ASKED + line + "\n")


def test_an_index_that_names_a_shard_which_is_not_taken_is_refused(server: HubServer) -> None:
    with pytest.raises(
        LockError, match="index.json of acme/tiny names 'model-2.safetensors', which is not among the locked files"
    ):
        lock(ASKED + 'files = ["*.json", "model-1.safetensors"]\n')


@pytest.mark.parametrize("text", [b"[]", b"{}", b'{"weight_map": 3}', b"\xff", b"["], ids=repr)
def test_an_index_that_is_none_is_refused(server: HubServer, text: bytes) -> None:
    server.push(REPO, {**DATA, "model.safetensors.index.json": text})
    with pytest.raises(LockError, match="is no index of shards"):
        lock()


def test_an_index_that_is_another_one_the_second_time_is_refused(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Hub, "start", lambda *_: b'{"weight_map": {}}')
    with pytest.raises(LockError, match="index.json of acme/tiny changed while it was read"):
        lock(ASKED + 'files = ["*.json"]\n')


def test_an_index_in_a_folder_names_the_shards_of_that_folder(server: HubServer) -> None:
    server.push(REPO, {f"text/{path}": data for path, data in shards().items()})
    assert locked_files(lock()) == {f"text/{path}" for path in shards()}


def test_a_renamed_pickle_is_refused_before_it_is_locked(server: HubServer) -> None:
    server.push(REPO, {"model.safetensors": CODE["pytorch_model.bin"]})
    with pytest.raises(LockError, match="model.safetensors of acme/tiny is no safetensors file: .* a pickle"):
        lock()
    assert not models_lock.lock_path().exists()


def test_a_renamed_pickle_that_got_into_a_lock_is_neither_fetched_nor_laid_out(locked: HubServer, tmp_path: Path) -> None:
    bad = CODE["pytorch_model.bin"]
    commit = locked.push(REPO, {"model.safetensors": bad})
    (model,) = models_lock.read_lock().models
    file = PinnedFile("model.safetensors", len(bad), hashlib.sha256(bad).hexdigest())
    models_lock.write_lock(ModelsLock("2026-01-02", (PinnedModel("tiny", REPO, "main", commit, model.inputs, (file,)),)))
    for act in (models.fetch, lambda: models.lay_out("tiny", tmp_path / "out")):
        with pytest.raises(LockError, match="is no safetensors file"):
            act()
    assert not (tmp_path / "out").exists()


CLIENT = """
import sys
from huggingface_hub import snapshot_download
repo, commit, folder, *patterns = sys.argv[1:]
snapshot_download(repo, revision=commit, local_dir=folder, allow_patterns=patterns)
"""


@pytest.mark.parametrize(
    "patterns", [models_in.DATA, ("*.json", "model-*"), ("onnx*", "*.model")], ids=["default", "some", "folder"]
)
@pytest.mark.parametrize("private", [False, True], ids=["public", "private"])
def test_the_folder_is_what_the_hubs_own_client_makes_of_the_same_repository(
    server: HubServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, patterns: tuple[str, ...], private: bool
) -> None:
    if private:
        server.secret = SECRET
        monkeypatch.setenv("HF_TOKEN", SECRET)
    files = "" if patterns == models_in.DATA else f"files = {json.dumps(patterns)}\n"
    model = lock(ASKED + files)
    models.fetch()
    models.lay_out("tiny", tmp_path / "ours")
    theirs = tmp_path / "theirs"
    env = {**os.environ, "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    subprocess.run([sys.executable, "-c", CLIENT, REPO, model.commit, theirs, *patterns], env=env, check=True, timeout=120)
    assert tree(tmp_path / "ours") == tree(theirs)
    assert tree(theirs)


def test_a_fetched_model_is_fetched_once(locked: HubServer) -> None:
    models.fetch(["tiny"])
    assert all(store.has(artifact) for artifact in models.artifacts())
    locked.asked.clear()
    models.fetch()
    assert locked.asked == []


def test_the_locked_commit_is_fetched_after_the_branch_moved(locked: HubServer, tmp_path: Path) -> None:
    locked.push(REPO, {**DATA, **shards(7.0)})
    models.fetch()
    models.lay_out("tiny", tmp_path / "out")
    assert tree(tmp_path / "out") == DATA


def test_a_connection_cut_in_mid_file_is_gone_on_with(locked: HubServer) -> None:
    locked.faults.cut["tokenizer.model"] = [1000]
    models.fetch()
    assert [one.range for one in locked.asked_for("", "cdn") if one.range] == ["bytes=1000-"]


def test_a_file_that_stays_truncated_is_named_and_not_kept(locked: HubServer) -> None:
    locked.faults.cut["config.json"] = [10] * 9
    with pytest.raises(MissingEnvironmentError, match=r"cannot be fetched: .*config.json of acme/tiny at commit .*HF_ENDPOINT"):
        models.fetch()
    assert not all(store.has(artifact) for artifact in models.artifacts())


@pytest.mark.parametrize("path", ["config.json", "model-1.safetensors"])
@pytest.mark.parametrize(
    "alter",
    [lambda data: data[:-1] + b"?", lambda data: data + b"x", lambda data: data[:-1]],
    ids=["changed", "longer", "shorter"],
)
def test_altered_bytes_are_refused_and_nothing_is_kept(locked: HubServer, path: str, alter: Callable[[bytes], bytes]) -> None:
    locked.faults.altered[path] = alter(DATA[path])
    with pytest.raises(PinwheelError, match=re.escape(f"{path} of acme/tiny")):
        models.fetch()
    (artifact,) = [file.artifact for file in models_lock.read_lock().models[0].files if file.path == path]
    assert not store.has(artifact)


def test_a_lie_that_got_into_the_lock_is_found_when_the_bytes_come(server: HubServer) -> None:
    data = DATA["tokenizer.model"]
    fake = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize {len(data)}\n".encode()
    lfs = {"sha256": "0" * 64, "size": len(data), "pointerSize": len(fake)}
    server.faults.listed["tokenizer.model"] = {"lfs": lfs, "blobId": blob_id(fake)}
    lock()
    with pytest.raises(LockError, match=r"the bytes are sha256 \w+, the lock says 0+ \(tokenizer.model of acme/tiny"):
        models.fetch()


def test_a_collected_commit_is_named_with_the_way_out(locked: HubServer) -> None:
    commit = locked.branches[REPO, "main"]
    locked.faults.collected.add(commit)
    with pytest.raises(LockError, match=f"acme/tiny has no revision {commit} on your hub: `invoke lock --upgrade tiny`"):
        models.fetch()
    with pytest.raises(LockError, match=r"`invoke lock --upgrade tiny` takes the newest of main"):
        lock(ASKED + 'files = ["*.json", "*.safetensors"]\n')


def test_a_file_that_the_hub_lists_and_does_not_have_is_named(locked: HubServer) -> None:
    locked.faults.removed.add("config.json")
    with pytest.raises(LockError, match=r"a file is listed and is not there \(config.json of acme/tiny at commit"):
        models.fetch()


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"rfilename": "other.json"}, "your hub has no file tokenizer.model of acme/tiny any more"),
        ({"size": 1, "lfs": None}, "your hub says 1 bytes, the lock says 2304"),
        ({"lfs": {"sha256": "0" * 64, "size": 2304}}, "your hub says sha256 0+, the lock says sha256"),
    ],
    ids=["gone", "size", "hash"],
)
def test_a_commit_that_changed_is_refused_before_a_byte_is_fetched(
    locked: HubServer, said: dict[str, Any], message: str
) -> None:
    locked.faults.listed["tokenizer.model"] = said
    with pytest.raises(LockError, match=message):
        models.fetch()
    assert not locked.asked_for("tokenizer.model")


def test_a_gated_model_says_what_to_do(locked: HubServer) -> None:
    locked.gated = True
    with pytest.raises(
        MissingEnvironmentError, match="the server answers 401 .*terms of a gated model are accepted on the hub's page"
    ):
        models.fetch()


def test_an_unknown_model_is_refused_with_those_there_are(locked: HubServer) -> None:
    with pytest.raises(UsageError, match="no model 'huge' is locked .*there are: tiny"):
        models.fetch(["huge"])


def test_offline_nothing_is_asked(locked: HubServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PINWHEEL_OFFLINE", "1")
    with pytest.raises(MissingEnvironmentError, match=r"of the model tiny is not in the store, .* offline .*PINWHEEL_MIRROR"):
        models.fetch()
    with pytest.raises(MissingEnvironmentError, match="offline"):
        lock(upgrade="tiny")
    assert lock().name == "tiny"
    assert locked.asked == []
    monkeypatch.delenv("PINWHEEL_OFFLINE")
    models.fetch()
    monkeypatch.setenv("PINWHEEL_OFFLINE", "1")
    locked.asked.clear()
    models.fetch()
    models.lay_out("tiny", tmp_path / "out")
    assert locked.asked == []


def test_a_mirror_serves_a_model_offline(locked: HubServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    models.fetch()
    mirror.write(tmp_path / "mirror", models.artifacts(), store.verified)
    monkeypatch.setenv("PINWHEEL_CACHE", str(tmp_path / "another cache"))
    monkeypatch.setenv("PINWHEEL_MIRROR", str(tmp_path / "mirror"))
    monkeypatch.setenv("PINWHEEL_OFFLINE", "1")
    locked.asked.clear()
    models.fetch()
    models.lay_out("tiny", tmp_path / "out")
    assert tree(tmp_path / "out") == DATA
    assert locked.asked == []


def test_what_two_models_share_is_kept_once(server: HubServer) -> None:
    server.push("acme/other", {**DATA, "LICENSE.txt": DATA["LICENSE"]})
    lock(ASKED + '[models.other]\nrepo = "acme/other"\nrevision = "main"\n')
    assert set(models.artifacts(["other"])) == set(models.artifacts(["tiny"])) == set(models.artifacts())
