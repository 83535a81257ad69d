"""A hub that lies, refuses, is busy, or is none."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import LockError, MissingEnvironmentError, PinwheelError
from lockfiles import models
from lockfiles.models import account as hub_account
from lockfiles.models import hub
from lockfiles.models import lockfile as models_lock
from tests.lockfiles.hub_server import HubServer, blob_id, pointer, serving
from tests.lockfiles.models.steps import ASKED, CODE, DATA, REPO, SECRET, lock, tree

pytestmark = pytest.mark.slow


def test_a_lying_sha256_that_gits_own_id_gives_away_is_refused(server: HubServer) -> None:
    data = DATA["tokenizer.model"]
    server.faults.listed["tokenizer.model"] = {
        "lfs": {"sha256": "0" * 64, "size": len(data), "pointerSize": len(pointer(data))}
    }
    with pytest.raises(LockError, match="'tokenizer.model' is said to be sha256 0+, git says otherwise"):
        lock()


def test_gits_id_of_a_published_file_is_the_one_we_compute() -> None:
    # From huggingface_hub's documentation of list_repo_tree.
    entry = {
        "path": "pytorch_model.bin",
        "size": 548123560,
        "oid": "64eaa9c526867e404b68f2c5d66fd78e27026523",
        "lfs": {
            "oid": "9be78edb5b928eba33aa88f431551348f7466ba9f5ef3daf1d552398722a5436",
            "size": 548123560,
            "pointerSize": 134,
        },
    }
    assert hub._file(entry).sha256 == "9be78edb5b928eba33aa88f431551348f7466ba9f5ef3daf1d552398722a5436"


LIES: dict[str, tuple[str, dict[str, Any], str]] = {
    "smaller": ("LICENSE", {"size": 3}, "LICENSE of acme/tiny has other bytes than your hub's list"),
    "larger": ("LICENSE", {"size": 300}, "LICENSE of acme/tiny has other bytes"),
    "other git id": ("LICENSE", {"blobId": blob_id(b"x")}, "LICENSE of acme/tiny has other bytes"),
    "negative": ("LICENSE", {"size": -1}, "makes no sense"),
    "no number": ("LICENSE", {"size": "11"}, "makes no sense"),
    "no hash": ("tokenizer.model", {"lfs": {"sha256": "../etc", "size": 2304}}, "makes no sense"),
    "two sizes": ("tokenizer.model", {"lfs": {"sha256": "0" * 64, "size": 1}}, "makes no sense"),
    "no path": ("LICENSE", {"rfilename": None}, "makes no sense"),
    "up": ("LICENSE", {"rfilename": "../../LICENSE"}, "holds the file '../../LICENSE': it is absolute, or leads elsewhere"),
    "absolute": ("LICENSE", {"rfilename": "/etc/LICENSE"}, "leads elsewhere"),
    "dot": ("LICENSE", {"rfilename": "./LICENSE"}, "leads elsewhere"),
    "backslash": ("LICENSE", {"rfilename": "..\\LICENSE"}, "a backslash"),
    "control": ("LICENSE", {"rfilename": "a\x1b[2J.json"}, "unprintable"),
    "newline": ("LICENSE", {"rfilename": "a\nb.json"}, "unprintable"),
    "long": ("LICENSE", {"rfilename": "a" * 300}, "longer than 255 bytes"),
    "ours": ("LICENSE", {"rfilename": ".pinwheel-model"}, "Pinwheel's own"),
    "twice": ("LICENSE", {"rfilename": "README.md"}, "stands twice"),
    "below a file": ("LICENSE", {"rfilename": "README.md/a.json"}, "lies in a file"),
}


@pytest.mark.parametrize(("path", "said", "message"), LIES.values(), ids=LIES)
def test_a_list_of_files_that_cannot_be_right_is_refused(
    server: HubServer, path: str, said: dict[str, Any], message: str
) -> None:
    server.faults.listed[path] = said
    with pytest.raises(LockError, match=re.escape(message)) as refused:
        lock()
    assert refused.value.line().isprintable()
    assert not models_lock.lock_path().exists()


def test_a_small_file_that_a_proxy_altered_is_not_locked(server: HubServer) -> None:
    server.faults.altered["config.json"] = DATA["config.json"].replace(b"Tiny", b"Evil")
    with pytest.raises(LockError, match="config.json of acme/tiny has other bytes than your hub's list of files says"):
        lock()


def test_a_cut_connection_is_tried_again_at_locking(server: HubServer) -> None:
    server.faults.cut["tokenizer.json"] = [100, 200]
    assert lock().commit == server.branches[REPO, "main"]


def test_a_hub_that_answers_with_another_commit_is_refused(server: HubServer) -> None:
    asked = "a" * 40
    server.branches[REPO, asked] = server.branches[REPO, "main"]
    with pytest.raises(LockError, match=f"asked for commit {asked} of acme/tiny, your hub answers with {'[0-9a-f]' * 40}"):
        lock(ASKED.replace('"main"', f'"{asked}"'))


def test_a_renamed_repository_is_refused_with_its_new_name(server: HubServer) -> None:
    server.renamed["acme/old"] = REPO
    with pytest.raises(LockError, match="acme/old is 'acme/tiny' on your hub now: write that name"):
        lock(ASKED.replace(REPO, "acme/old"))


def test_a_busy_hub_is_asked_again(server: HubServer) -> None:
    server.faults.busy = [(429, "0"), (503, ""), (502, "")]
    assert lock().commit == server.branches[REPO, "main"]


@pytest.mark.parametrize(
    ("status", "message"),
    [(429, "answers 429 for acme/tiny: wait a while"), (503, "answers 503 for acme/tiny: check the network")],
)
def test_a_hub_that_stays_busy_is_named(server: HubServer, status: int, message: str) -> None:
    server.faults.busy = [(status, "0")] * 4
    with pytest.raises(MissingEnvironmentError, match=message):
        lock()
    assert server.faults.busy == []


def test_a_hub_that_asks_for_patience_gets_it(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr(time, "sleep", waited.append)
    server.faults.busy = [(429, "7"), (429, "99999")]
    lock()
    assert waited == [7.0, 60]


REFUSALS: dict[str, tuple[Callable[[HubServer], object], type[PinwheelError], str]] = {
    "no repository": (
        lambda s: s.commits.clear(),
        LockError,
        "your hub has no repository acme/tiny, or does not show it to you",
    ),
    "no revision": (
        lambda s: s.branches.clear(),
        LockError,
        r"acme/tiny has no revision main on your hub: name another in .*models.in:1",
    ),
    "gated": (lambda s: setattr(s, "gated", True), MissingEnvironmentError, "acme/tiny is gated.*accept its terms"),
    "private": (lambda s: setattr(s, "secret", SECRET), LockError, "a private one needs HF_TOKEN"),
    "login page": (
        lambda s: setattr(s.faults, "portal", True),
        MissingEnvironmentError,
        "what answers for acme/tiny is no hub",
    ),
    "another path": (lambda s: setattr(s, "prefix", "/hf"), LockError, "or HF_ENDPOINT names no hub"),
    "file removed": (
        lambda s: s.faults.removed.add("LICENSE"),
        LockError,
        "has no file LICENSE on your hub, although its list names it",
    ),
}


@pytest.mark.parametrize(("make", "error", "message"), REFUSALS.values(), ids=REFUSALS)
def test_a_refusal_of_the_hub_is_said_in_one_line(
    server: HubServer, make: Callable[[HubServer], object], error: type[PinwheelError], message: str
) -> None:
    make(server)
    with pytest.raises(error, match=message) as refused:
        lock()
    assert "127.0.0.1" not in refused.value.line()


def test_a_hub_that_is_down_is_named_without_its_address(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://user:secret@127.0.0.1:1/hf")
    with pytest.raises(MissingEnvironmentError, match="your hub does not answer for acme/tiny: ConnectionError") as refused:
        lock()
    assert "secret" not in refused.value.line()


@pytest.mark.parametrize("address", ["huggingface.co", "ftp://secret.example", "http://", "http://secret:port/"])
def test_an_endpoint_that_is_none_is_refused_without_showing_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", address)
    with pytest.raises(MissingEnvironmentError, match="HF_ENDPOINT is no web address") as refused:
        lock()
    assert "secret" not in refused.value.line()


def test_the_default_endpoint_is_the_hubs_own(folder: Path) -> None:
    assert hub_account.endpoint() == "https://huggingface.co"


def test_a_proxy_that_drops_the_question_leads_to_the_same_lock(server: HubServer) -> None:
    lock()
    before = models_lock.lock_path().read_text()
    models_lock.lock_path().unlink()

    def listed() -> set[str]:
        return {one.path for one in server.asked if "/tree/" in one.path}

    assert not listed()
    server.faults.drops_questions = True
    server.faults.leads_around = True  # Whatever host the next page is said to be on, the user's hub is asked.
    lock()
    assert len(listed()) > 1
    assert models_lock.lock_path().read_text() == before


def test_a_proxy_with_a_path_and_no_ranges_serves_as_well(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with serving("/artifactory/api/huggingfaceml/hub") as running:
        monkeypatch.setenv("HF_ENDPOINT", running.endpoint + "/")
        running.faults.whole = True
        running.push(REPO, {**DATA, **CODE})
        lock()
        models.fetch()
        models.lay_out("tiny", tmp_path / "out")
    assert tree(tmp_path / "out") == DATA


_PARTS = st.one_of(st.sampled_from(["", ".", "..", "a", "config.json", "..\\x", " ", "~", "-rf"]), st.text(max_size=6))
_PATHS = st.lists(_PARTS, max_size=5).map("/".join)


@given(_PATHS)
def test_a_path_that_is_not_refused_stays_below_its_folder(path: str) -> None:
    root = Path("/folder/of/ours")
    if not hub.unsafe(path):
        inside = os.path.normpath(f"{root}/{path}")
        assert inside == f"{root}/{path}"
        assert inside.isprintable()
        assert "\\" not in inside


@given(_PATHS, st.sampled_from(["..", ".", "", "a\0b", "a\\b", "a\nb", "\ud800", "\x7f"]), _PATHS)
def test_a_path_with_a_bad_part_is_refused(before: str, bad: str, after: str) -> None:
    assert hub.unsafe(f"{before}/{bad}/{after}")
