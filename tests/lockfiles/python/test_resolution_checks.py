"""What a resolver passes over in silence: each is said in one line, and refused where nobody asked for it."""

from __future__ import annotations

import datetime
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from common import console
from common.errors import LockError
from lockfiles import changes, check, explain, lock, lockfile
from lockfiles.model import Deb
from tests.lockfiles.conftest import OLD, artifact, versions
from tests.lockfiles.small_index import Index, wheel

pytestmark = pytest.mark.slow

TWO = "files/two-1.0-py3-none-any.whl"


def ask(locks: Path, *requires: str, more: str = "") -> None:
    (locks / "small.in").write_text(f"requires = {json.dumps(requires)}\n{more}")


def judged(locks: Path, expected: str) -> None:
    """Lock: it goes well, or is refused in these words and writes nothing."""
    if not expected:
        lock.write_all()
        return
    with pytest.raises(LockError, match=expected):
        lock.write_all()
    assert not (locks / "small.lock").exists()


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
    judged(locks, expected)


def test_an_extra_that_only_another_package_asks_for_wrongly_is_its_own_affair(index: Index, locks: Path) -> None:
    index.add("four", "1.0", "two[nothing]", uploaded=OLD)
    ask(locks, "four")
    lock.write_all()
    assert set(versions()) == {"four", "two"}


@pytest.mark.parametrize(
    ("name", "version", "expected"),
    [
        ("four", "2.0", "four-1.0-py3-none-any.whl says of itself that it is four 2.0"),
        ("five", "1.0", "four.* broken"),
        ("four", "new", "invalid metadata.*the wheel of four is broken"),
        ("Four", "1.0.0", ""),
    ],
)
def test_a_wheel_that_is_another_package_than_its_name_says_is_refused(
    index: Index, locks: Path, name: str, version: str, expected: str
) -> None:
    index.add("four", "1.0", uploaded=OLD)
    index.files["files/four-1.0-py3-none-any.whl"] = wheel(name, version)
    ask(locks, "four")
    judged(locks, expected)


@pytest.mark.parametrize("data", [b"", b"no archive", wheel("four", "1.0")[:-9]])
def test_a_wheel_that_is_no_archive_is_said_to_be_broken(index: Index, locks: Path, data: bytes) -> None:
    index.add("four", "1.0", uploaded=OLD)
    index.files["files/four-1.0-py3-none-any.whl"] = data
    ask(locks, "four")
    with pytest.raises(LockError, match="four.*pin another version"):
        lock.write_all()


@pytest.mark.parametrize(
    ("tag", "python", "yanked", "expected"),
    [
        ("cp312-cp312-manylinux_2_17_x86_64", "", False, "no wheel of four runs on the base"),
        ("cp311-cp311-musllinux_1_2_x86_64", "", False, "no wheel of four runs on the base"),
        ("cp311-cp311-manylinux_2_17_aarch64", "", False, "no wheel of four runs on the base"),
        ("cp311-cp311-manylinux_2_39_x86_64", "", False, "no wheel of four runs on the base"),
        ("py2-none-any", "", False, "no wheel of four runs on the base"),
        ("py3-none-any", ">=3.12", False, "four is for Python >=3.12, which the base's is not"),
        (
            "py3-none-any",
            "",
            True,
            "what fits of four was withdrawn .yanked.; who means it pins it, four==VERSION",
        ),
        ("cp39-abi3-manylinux2014_x86_64", "", False, ""),
    ],
)
def test_a_package_of_which_nothing_fits_is_refused_with_the_reason(
    index: Index, locks: Path, tag: str, python: str, yanked: bool, expected: str
) -> None:
    for version in ("1.0", "1!0.5", "2.0rc1"):
        index.add("four", version, tag=tag, python=python, yanked=yanked, uploaded=OLD)
    ask(locks, "four")
    if not expected:
        lock.write_all()
        assert versions() == {"four": "1!0.5"}
        return
    with pytest.raises(LockError, match=expected):
        lock.write_all()


def test_a_requirement_whose_marker_never_holds_is_said(index: Index, locks: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ask(locks, "one", "three; python_version < '3.9'", "two; sys_platform == 'linux'")
    lock.write_all()
    assert versions() == {"one": "1.0", "two": "1.0"}
    told = said(capsys)
    assert "small.in: \"three; python_version < '3.9'\" brings nothing: its marker does not hold in the image" in told
    assert "two;" not in told


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


UNRESOLVED = {
    "young": ('requires = ["user"]', "young==2.0 is younger than the cooldown in policy.toml"),
    "young_range": ('requires = ["young>=2"]', "young==2.0 is younger than the cooldown in policy.toml"),
    "source_only": ('requires = ["src"]', r"src is published as source only: describe it under \[sdists.src\]"),
    "nowhere": ('requires = ["nowhere"]', r"nowhere is not on the index that is asked for it: \[sources\] names another one"),
    "pins_apart": ('requires = ["one==1.0", "two==9"]', "loosen or move a pin"),
}


@pytest.mark.parametrize("name", UNRESOLVED)
def test_a_lock_that_fails_names_the_very_command_and_only_options_that_there_are(
    index: Index, locks: Path, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text, expected = UNRESOLVED[name]
    young = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    index.add("young", "1.0", uploaded=OLD)
    index.add("young", "2.0", uploaded=young)
    index.add("user", "1.0", "young>=2", uploaded=OLD)
    index.add_sdist("src", "1.0")
    index._uploaded["src-1.0.tar.gz"] = OLD
    (locks / "small.in").write_text(f"{text}\n")
    with pytest.raises(LockError, match=expected) as refused:
        lock.write_all()
    line = refused.value.line()
    assert "`invoke lock --explain lockfiles/small.in`" in line
    with pytest.raises(LockError, match="small.in does not resolve"):
        explain.explain(str(locks / "small.in"), 7)
    for told in (line, said(capsys)):
        options = set(re.findall(r"(?<!\w)--?[a-z]{2}[a-z-]*|exclude-newer[a-z-]*", told)) - {"--explain", "--upgrade"}
        assert not options
    # What is proposed for a release that is too young works.
    if name == "young":
        ask(locks, "user", "young==2.0")
        lock.write_all()
        assert versions()["young"] == "2.0"


def test_a_withdrawn_tool_is_refused_like_a_package(index: Index, locks: Path) -> None:
    lock.write_all()
    index.add("tool", "2.0", uploaded=OLD)
    project = '[project]\nname = "x"\nversion = "0"\nrequires-python = ">=3.11"\ndependencies = ["tool"{}]\n'
    project += "[project.optional-dependencies]\ntest = []\n"
    (locks.parent / "pyproject.toml").write_text(project.format(""))
    lock.write_all()
    index._yanked.add("tool-2.0-py3-none-any.whl")
    (locks.parent / "pyproject.toml").write_text(project.format(', "three"'))
    with pytest.raises(LockError, match="tool 2.0 was withdrawn"):
        lock.write_all()


def test_every_move_is_told_and_nothing_moved_is_true(
    index: Index, locks: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert changes.show(*lock.write_all()) == "small new"
    assert changes.show(*lock.write_all()) == "nothing moved"
    index.add("tool", "2.0", uploaded=OLD)
    (locks.parent / "pyproject.toml").write_text(
        '[project]\nname = "x"\nversion = "0"\nrequires-python = ">=3.11"\ndependencies = ["tool"]\n'
        "[project.optional-dependencies]\ntest = []\n"
    )
    (locks / "models.in").write_text('[models.tiny]\nmade = "demonstration"\n')
    ask(locks, "one", "three")
    assert changes.show(*lock.write_all()) == "1 package, 1 tool, 1 model moved"
    told = said(capsys)
    assert "toolkit: tool absent → 2.0" in told
    assert "model tiny absent → " in told


def test_a_table_of_debs_is_readable_whatever_their_licences(
    locks: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = changes.read()
    assert before.base
    names = ["openssh-server", "openssh-client", "openssh-sftp-server", "libpython3.11-stdlib"]
    licence = " AND ".join(f"BSD-{number}-Clause" for number in range(40))
    debs = tuple(Deb(name, "1:9.2p1-2+deb12u7", "amd64", artifact(f"{name}.deb"), licence=licence) for name in names)
    after = replace(before, base=replace(before.base, debs=(*before.base.debs, *debs)))
    for width in (40, 80, 160):
        monkeypatch.setattr(console, "out", Console(width=width, force_terminal=True, highlight=False))
        assert changes.show(before, after) == "4 packages moved"
        told = capsys.readouterr().out
        for name in names:
            assert name in told
        assert "BSD-0-Clause and 39 more" in told or width < 160
