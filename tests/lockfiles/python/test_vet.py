"""What a resolver passes over in silence: each is said in one line, and refused where nobody asked for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.errors import LockError
from lockfiles import check, lock, lockfile
from tests.lockfiles.conftest import OLD, versions
from tests.lockfiles.small_index import Index, wheel

pytestmark = pytest.mark.slow

TWO = "files/two-1.0-py3-none-any.whl"


def ask(locks: Path, *requires: str, more: str = "") -> None:
    (locks / "small.in").write_text(f"requires = {list(requires)}\n{more}")


def said(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join("".join(capsys.readouterr()).split())


@pytest.mark.parametrize(
    ("asked", "more", "expected"),
    [
        ("one[sokcs]", "", "one 1.0 has no extra 'sokcs' .*small.in:1.*: it has more"),
        ("one[more,other]", "", "one 1.0 has no extra 'other'"),
        ("one[More]", "", ""),
        ("two[cli]", "", "two 1.0 has no extra 'cli' .*: it has none: name what it should bring yourself"),
        ("one[sokcs]; sys_platform == 'win32'", "", ""),
        ("one", "overrides = ['two[cli]']", "two 1.0 has no extra 'cli'"),
    ],
)
def test_an_extra_that_does_not_exist_is_refused_with_those_that_do(
    index: Index, locks: Path, asked: str, more: str, expected: str
) -> None:
    ask(locks, asked, "three", more=more)
    if not expected:
        lock.write_all()
        return
    with pytest.raises(LockError, match=expected):
        lock.write_all()
    assert not (locks / "small.lock").exists()


def test_an_extra_that_only_another_package_asks_for_wrongly_is_its_own_affair(index: Index, locks: Path) -> None:
    index.add("four", "1.0", "two[nothing]", uploaded=OLD)
    ask(locks, "four")
    lock.write_all()
    assert set(versions()) == {"four", "two"}


@pytest.mark.parametrize("upgrade", ["", "one", "all"])
def test_other_bytes_under_a_locked_name_are_refused_unless_that_package_is_named(
    index: Index, locks: Path, upgrade: str, capsys: pytest.CaptureFixture[str]
) -> None:
    lock.write_all()
    before = (locks / "small.lock").read_bytes()
    index.files[TWO] = wheel("two", "1.0", ["three"])
    ask(locks, "one", "three")
    with pytest.raises(
        LockError, match="two-1.0-py3-none-any.whl: your index has other bytes under this name than the lock"
    ) as it:
        lock.write_all(upgrade)
    assert "ask who runs the index: a release never changes; `invoke lock --upgrade two`" in it.value.line()
    assert (locks / "small.lock").read_bytes() == before
    lock.write_all("two")
    assert "taken, as you asked for two" in said(capsys)
    assert lockfile.read_set("small").wheels[-1].needs == ("three",)


def test_a_new_set_takes_no_other_bytes_than_the_sets_there_are(index: Index, locks: Path) -> None:
    lock.write_all()
    index.files[TWO] = wheel("two", "1.0", ["three"])
    (locks / "other.in").write_text('requires = ["two"]\n')
    with pytest.raises(LockError, match="other bytes under this name"):
        lock.write_all()
    assert not (locks / "other.lock").exists()


def test_a_new_build_is_said_and_the_locked_file_stays(index: Index, locks: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lock.write_all()
    index.add("two", "1.0", tag="1-py3-none-any", extras=["other-bytes"], uploaded=OLD)
    ask(locks, "one", "three")
    lock.write_all()
    assert lockfile.read_set("small").wheels[-1].artifact.file == "two-1.0-py3-none-any.whl"
    assert "your index has a newer file of the same version of two; the locked one stays: `invoke lock --upgrade" in said(
        capsys
    )
    lock.write_all("two")
    assert lockfile.read_set("small").wheels[-1].artifact.file == "two-1.0-1-py3-none-any.whl"


def test_a_file_that_left_the_index_stays_locked_and_is_said(
    index: Index, locks: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lock.write_all()
    del index.files[TWO]
    index.add("two", "1.0", tag="1-py3-none-any", extras=["other-bytes"], uploaded=OLD)
    ask(locks, "one", "three")
    lock.write_all()
    assert lockfile.read_set("small").wheels[-1].artifact.file == "two-1.0-py3-none-any.whl"
    assert "two-1.0-py3-none-any.whl is not on your index any more; it stays locked" in said(capsys)


def test_a_withdrawn_release_is_taken_only_where_an_input_pins_it_and_is_said(
    index: Index, locks: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index.add("two", "2.0", uploaded=OLD, yanked=True)
    lock.write_all()
    assert versions()["two"] == "1.0"
    assert "withdrawn" not in said(capsys)
    ask(locks, "one", "two==2.0")
    lock.write_all()
    assert versions()["two"] == "2.0"
    assert "two 2.0 was withdrawn by its authors (yanked); it is taken, for an input pins it" in said(capsys)


def test_a_release_that_was_withdrawn_after_it_was_locked_is_refused_until_somebody_decides(
    index: Index, locks: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index.add("two", "2.0", uploaded=OLD)
    lock.write_all()
    index._yanked.add("two-2.0-py3-none-any.whl")
    lock.write_all()  # nothing was edited, so nothing is asked
    ask(locks, "one", "three")
    with pytest.raises(
        LockError, match=r"two 2.0 was withdrawn .*yanked.*`invoke lock --upgrade two` takes another; .*two==2.0"
    ):
        lock.write_all()
    lock.write_all("two")
    assert versions()["two"] == "1.0"
    check.check()
