"""`lock --upgrade vulnerable`: real uv against a small index, with advisories about what it holds."""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from common import offline
from common.errors import MissingEnvironmentError
from lockfiles import lock, lockfile, toolkit
from lockfiles.model import BaseLock
from tests.lockfiles.audit.records import affects
from tests.lockfiles.conftest import OLD, Known, versions
from tests.lockfiles.small_index import Index
from tests.lockfiles.test_lock import ask_for_toolkit, contents, days_ago, now

pytestmark = pytest.mark.slow


def before(fixed: str, name: str = "two", identifier: str = "PYSEC-2026-1") -> dict[str, Any]:
    return affects(name, {"introduced": "0"}, {"fixed": fixed}, identifier=identifier)


def told(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join("".join(capsys.readouterr()).split())


def test_only_what_has_a_defect_moves_and_to_the_lowest_release_without_it(
    index: Index, known: Known, capsys: pytest.CaptureFixture[str]
) -> None:
    lock.write_all()
    for name in ("one", "two"):
        for version in ("1.1", "1.2", "2.0"):
            index.add(name, version, *(["two>=1"] if name == "one" else []), uploaded=OLD)
    known(before("1.2"))
    lock.write_all("vulnerable")
    assert versions() == {"one": "1.0", "two": "1.2"}
    assert "no known defect is left" in told(capsys)


def test_without_a_defect_nothing_moves_and_no_byte_changes(index: Index, locks: Path, known: Known) -> None:
    lock.write_all()
    index.add("two", "2.0", uploaded=OLD)
    known(before("0.9"))
    held = contents(locks)
    lock.write_all("vulnerable")
    assert contents(locks) == held


def test_several_advisories_are_fixed_by_one_move(index: Index, known: Known) -> None:
    lock.write_all()
    for version in ("1.1", "1.2", "1.3", "1.4"):
        index.add("two", version, uploaded=OLD)
    # 1.3 brought a defect of its own.
    regression = affects("two", {"introduced": "1.3"}, {"fixed": "1.4"}, identifier="PYSEC-2026-3")
    known(before("1.1"), before("1.3", identifier="PYSEC-2026-2"), regression)
    lock.write_all("vulnerable")
    assert versions()["two"] == "1.4"


def test_a_defect_that_is_never_fixed_does_not_stop_the_others(
    index: Index, known: Known, capsys: pytest.CaptureFixture[str]
) -> None:
    lock.write_all()
    index.add("two", "1.1", uploaded=OLD)
    forever = affects("two", {"introduced": "0"}, identifier="PYSEC-2026-2")
    known(before("1.1"), forever, before("9", name="one", identifier="PYSEC-2026-4"))
    lock.write_all("vulnerable")
    assert versions() == {"one": "1.0", "two": "1.1"}
    text = told(capsys)
    assert "left: two 1.1: PYSEC-2026-2 (high), no fix is published" in text
    assert "left: one 1.0: PYSEC-2026-4 (high), fixed in 9; your index has no release above it with fewer known defects" in text
    assert "known defects left: 2" in text


def test_what_must_move_with_it_moves(index: Index, known: Known) -> None:
    lock.write_all()
    index.add("one", "1.1", "two>=2", uploaded=OLD)
    index.add("two", "2.0", uploaded=OLD)
    known(before("1.1", name="one"))
    lock.write_all("vulnerable")
    assert versions() == {"one": "1.1", "two": "2.0"}


def test_a_pin_keeps_its_package_and_the_others_move_all_the_same(
    index: Index, locks: Path, known: Known, capsys: pytest.CaptureFixture[str]
) -> None:
    (locks / "small.in").write_text('requires = ["one==1.0", "three"]\n')
    lock.write_all()
    for name in ("one", "two", "three"):
        index.add(name, "1.1", uploaded=OLD)
    records = [before("1.1", name=name, identifier=f"PYSEC-2026-{name}") for name in ("one", "two", "three")]
    known(*records)
    lock.write_all("vulnerable")
    assert versions() == {"one": "1.0", "two": "1.1", "three": "1.1"}
    assert "left: one 1.0: PYSEC-2026-one (high), fixed in 1.1; small.in does not resolve" in told(capsys)


def test_the_cooldown_lets_the_fix_through_and_nothing_else_that_young(index: Index, known: Known) -> None:
    lock.write_all()
    index.add("one", "2.0", "two>=1", uploaded=days_ago(1))
    index.add("two", "1.1", uploaded=days_ago(3))
    index.add("two", "1.2", uploaded=days_ago(2))
    index.add("two", "3.0", uploaded=now())
    known(before("1.1"))
    lock.write_all("vulnerable")
    assert versions() == {"one": "1.0", "two": "1.1"}


@pytest.mark.parametrize("young", [False, True])
def test_a_fix_that_was_withdrawn_or_is_malware_is_never_taken(index: Index, known: Known, young: bool) -> None:
    lock.write_all()
    when = days_ago(2) if young else OLD
    index.add("two", "1.1", uploaded=when, yanked=True)
    index.add("two", "1.2", uploaded=when)
    index.add("two", "1.3", uploaded=when)
    known(before("1.1"), affects("two", versions=["1.2"], identifier="MAL-2026-1"))
    lock.write_all("vulnerable")
    assert versions()["two"] == "1.3"


def test_malware_that_is_locked_moves_too(index: Index, known: Known) -> None:
    lock.write_all()
    index.add("two", "1.1", uploaded=OLD)
    known(affects("two", versions=["1.0"], identifier="MAL-2026-1"))
    lock.write_all("vulnerable")
    assert versions()["two"] == "1.1"


def test_no_pre_release_and_no_file_for_another_machine_is_a_fix(index: Index, known: Known) -> None:
    lock.write_all()
    index.add("two", "1.1rc1", uploaded=OLD)
    index.add("two", "1.1", tag="cp311-cp311-win_amd64", uploaded=OLD)
    index.add("two", "1.2", python=">=3.13", uploaded=OLD)
    index.add("two", "1.3", uploaded=OLD)
    known(before("1.1rc1"))
    lock.write_all("vulnerable")
    assert versions()["two"] == "1.3"


def test_sets_that_agree_move_together(index: Index, locks: Path, known: Known) -> None:
    (locks / "other.in").write_text('requires = ["two"]\n[agrees]\nwith = "small"\n')
    lock.write_all()
    index.add("two", "1.1", uploaded=OLD)
    known(before("1.1"))
    lock.write_all("vulnerable")
    assert [versions(name)["two"] for name in ("small", "other")] == ["1.1", "1.1"]


@pytest.mark.parametrize("young", [False, True])
def test_the_toolkit_moves_as_the_sets_do(index: Index, known: Known, young: bool) -> None:
    ask_for_toolkit("three", "two")
    lock.write_all()
    index.add("two", "2.0", uploaded=OLD)
    index.add("three", "1.1", uploaded=days_ago(2) if young else OLD)
    index.add("three", "3.0", uploaded=now())
    known(before("1.1", name="three"))
    lock.write_all("vulnerable")
    assert toolkit.versions() == {"two": "1.0", "three": "1.1"}


def test_what_vex_silences_stays(index: Index, locks: Path, known: Known) -> None:
    lock.write_all()
    index.add("two", "1.1", uploaded=OLD)
    known(before("1.1"))
    until = datetime.datetime.now(datetime.UTC).date().isoformat()
    keys = {"advisory": "PYSEC-2026-1", "package": "two", "status": "fixed", "reason": "ours is patched", "until": until}
    (locks / "vex.toml").write_text("[[vex]]\n" + "".join(f'{key} = "{value}"\n' for key, value in keys.items()))
    lock.write_all("vulnerable")
    assert versions()["two"] == "1.0"


def test_without_data_or_offline_nothing_is_written(index: Index, locks: Path, known: Known) -> None:
    lock.write_all()
    held = contents(locks)
    with pytest.raises(MissingEnvironmentError, match="no advisory data"):
        lock.write_all("vulnerable")
    known(before("1.1"))
    with offline.forced(wanted=True), pytest.raises(MissingEnvironmentError):
        lock.write_all("vulnerable")
    assert contents(locks) == held


def test_debian_packages_with_a_fix_are_asked_for_by_name(
    index: Index, known: Known, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lock.write_all()
    asked: list[Iterable[str]] = []
    base = lockfile.read_base()

    def resolve(_: object, __: str, fixes: Iterable[str]) -> BaseLock:
        asked.append(fixes)
        return base

    monkeypatch.setattr(lock, "_resolve_base", resolve)
    fixed = {"bookworm": {"status": "resolved", "fixed_version": "2.36-9+deb12u99", "urgency": "high"}}
    opened = {"bookworm": {"status": "open", "urgency": "low", "nodsa": "Minor issue"}}
    debian = {"libc6": {"CVE-2026-1": {"releases": fixed}}, "python3.11": {"CVE-2026-2": {"releases": opened}}}
    known(debian=debian)
    lock.write_all("vulnerable")
    assert asked == [frozenset({"libc6"})]
    text = told(capsys)
    assert "left: libc6 2.36-9+deb12u14: CVE-2026-1 (high), fixed in 2.36-9+deb12u99; Debian's mirror" in text
    assert "CVE-2026-2 (low), no fix is published; no security update of its own: Minor issue" in text
