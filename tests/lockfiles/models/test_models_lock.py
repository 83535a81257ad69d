"""models.lock: stale, edited, and read back as it was written."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common import paths
from common.errors import LockError
from lockfiles import models
from lockfiles.models import hub
from lockfiles.models import inputs as models_in
from lockfiles.models import lockfile as models_lock
from lockfiles.models.lockfile import ModelsLock, PinnedFile, PinnedModel
from tests.lockfiles.hub_server import HubServer
from tests.lockfiles.models.steps import ASKED, REPO, ask, lock


def test_a_fresh_lock_holds_and_asks_nobody(locked: HubServer) -> None:
    assert models.check() == "models.lock fits models.in: tiny"
    assert locked.asked == []


def test_comments_layout_and_reasons_do_not_make_the_lock_stale(server: HubServer) -> None:
    allow = 'allow = ["*.bin"]\nreason = "one"\n'
    lock(ASKED + allow)
    ask("# new\n" + ASKED + allow.replace("one", "other"))
    models.check()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (ASKED.replace('"main"', '"v2"'), r"models.tiny changed since it was locked \(lockfiles/models.in:1\)"),
        ("\n" + ASKED + 'files = ["*.json"]\n', r"models.tiny changed since it was locked \(lockfiles/models.in:2\)"),
        (ASKED + '[models.b]\nrepo = "a/b"\nrevision = "x"\n', r"the model b is not locked \(lockfiles/models.in:4\)"),
    ],
    ids=["revision", "files", "another model"],
)
def test_a_stale_lock_is_refused_with_the_inputs_line(locked: HubServer, text: str, message: str) -> None:
    ask(text)
    with pytest.raises(LockError, match=message):
        models.check()


def line_of(text: str, start: str) -> int:
    return next(number for number, line in enumerate(text.splitlines(), 1) if line.startswith(start))


# The line that is edited, how, and the line that the refusal names: the same, unless something else is written here.
EDITS: dict[str, tuple[str, Callable[[str], str], str]] = {
    "hash": ('"LICENSE"', lambda line: re.sub(r'sha256 = "\w', 'sha256 = "0', line), ""),
    "short hash": ('"LICENSE"', lambda line: re.sub(r'sha256 = "\w', 'sha256 = "', line), ""),
    "size": ('"LICENSE"', lambda line: line.replace("size = 11", "size = 12"), ""),
    "path": ('"LICENSE"', lambda line: line.replace("LICENSE", "LICENCE"), ""),
    "path up": ('"LICENSE"', lambda line: line.replace("LICENSE", "../LICENSE"), ""),
    "no check": ('"LICENSE"', lambda line: re.sub(r', check = "\w+"', "", line), ""),
    "more": ('"LICENSE"', lambda line: line.replace("size", 'url = "x", size'), ""),
    "no table": ('"LICENSE"', lambda _: '"LICENSE" = 3', ""),
    "no hash": ('"LICENSE"', lambda line: re.sub(r', sha256 = "\w+"', "", line), ""),
    "date as hash": ('"LICENSE"', lambda line: re.sub(r'sha256 = "\w+"', "sha256 = 2026-01-01", line), ""),
    "twice": ('"LICENSE"', lambda line: f"{line}\n{line}", "next"),
    "no toml": ('"LICENSE"', lambda line: line.replace("=", "", 1), ""),
    "commit": ('"tiny"', lambda line: re.sub(r'commit = "\w{4}', 'commit = "0000', line), ""),
    "repo": ('"tiny"', lambda line: line.replace(REPO, "evil/tiny"), ""),
    "file gone": ('"LICENSE"', lambda _: "", '"tiny"'),
    "date": ("date", lambda _: 'date = "2020-01-01"', "checksum"),
    "checksum": ("checksum", lambda line: re.sub(r"sha256:\w", "sha256:x", line), ""),
    "head": ("date", lambda line: line + '\nhost = "x"', "next"),
    "model renamed": ('[files."tiny"]', lambda _: "[files.other]", "none"),
}


@pytest.mark.parametrize(("start", "edit", "named"), EDITS.values(), ids=EDITS)
def test_an_edit_by_hand_is_refused_with_its_line(
    locked: HubServer, start: str, edit: Callable[[str], str], named: str
) -> None:
    file = models_lock.lock_path()
    text = file.read_text()
    number = line_of(text, start)
    lines = text.splitlines()
    lines[number - 1] = edit(lines[number - 1])
    file.write_text("\n".join(lines) + "\n")
    assert file.read_text() != text
    with pytest.raises(LockError) as refused:
        models.check()
    expected = {"": number, "next": number + 1}.get(named) or (0 if named == "none" else line_of(text, named))
    assert refused.value.where == "lockfiles/models.lock" + (f":{expected}" if expected else "")


def test_a_lock_that_is_not_sorted_is_refused(locked: HubServer) -> None:
    file = models_lock.lock_path()
    lines = file.read_text().splitlines()
    at = line_of(file.read_text(), '"LICENSE"') - 1
    lines[at], lines[at + 1] = lines[at + 1], lines[at]
    file.write_text("\n".join(lines) + "\n")
    with pytest.raises(LockError, match=rf"stands after .*: not sorted \(lockfiles/models.lock:{at + 2}\)"):
        models.check()


def test_a_lock_of_another_format_is_refused(locked: HubServer) -> None:
    file = models_lock.lock_path()
    file.write_text(file.read_text().replace("format = 1", "format = 9"))
    with pytest.raises(LockError, match="lock format 9, this Pinwheel reads 1"):
        models.check()


def test_a_missing_lock_is_named(folder: Path) -> None:
    ask(ASKED)
    with pytest.raises(LockError, match=r"the models are not locked \(lockfiles/models.lock\): run `invoke lock`"):
        models.check()


@pytest.mark.parametrize("path", ["../config.json", "/config.json", "a/../../config.json", "a\\b.json"])
def test_a_forged_lock_cannot_lead_out_of_a_folder(locked: HubServer, path: str) -> None:
    file = PinnedFile(path, 1, "0" * 64)
    models_lock.write_lock(ModelsLock("2026-01-02", (PinnedModel("tiny", REPO, "main", "c" * 40, "sha256:1", (file,)),)))
    with pytest.raises(LockError, match="leads elsewhere|backslash"):
        models.artifacts()


@pytest.mark.parametrize("bad", [{"commit": "a" * 40, "revision": "b" * 40}, {"path": "model.py"}], ids=["commit", "code"])
def test_a_lock_that_holds_what_the_input_does_not_take_is_refused(locked: HubServer, bad: dict[str, str]) -> None:
    ask(ASKED.replace("main", bad.get("revision", "main")))
    wanted = models_in.read_input()[0]
    file = PinnedFile(bad.get("path", "config.json"), 1, "0" * 64)
    forged = PinnedModel("tiny", REPO, wanted.revision, bad.get("commit", "c" * 40), wanted.digest, (file,))
    models_lock.write_lock(ModelsLock("2026-01-02", (forged,)))
    with pytest.raises(LockError, match="holds the (file|commit) .*, which models.in does not take"):
        models.check()


_PARTS = st.one_of(st.sampled_from(["", ".", "..", "a", "config.json", "..\\x", " ", "~", "-rf"]), st.text(max_size=6))
_PATHS = st.lists(_PARTS, max_size=5).map("/".join)


@settings(deadline=None, max_examples=30)  # It writes to disk.
@given(st.dictionaries(_PATHS.filter(lambda path: not hub.unsafe(path)), st.integers(0, 1 << 62), min_size=1))
def test_every_path_comes_out_of_the_lock_as_it_went_in(files: dict[str, int]) -> None:
    pinned = tuple(PinnedFile(path, size, f"{size:064x}") for path, size in sorted(files.items()))
    written = ModelsLock("2026-01-02", (PinnedModel("tiny", REPO, "main", "c" * 40, "sha256:1", pinned),))
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setattr(paths, "LOCKFILES", Path(folder))
        models_lock.write_lock(written)
        assert models_lock.read_lock() == written
