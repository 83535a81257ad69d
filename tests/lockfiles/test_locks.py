"""Reading, writing and checking locks."""

from __future__ import annotations

import re
import tomllib
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.errors import LockError, UsageError
from lockfiles import check, images_lock, inputs, lockfile, policy
from lockfiles.images_lock import PinnedImage
from lockfiles.model import SetLock, Wheel
from tests.lockfiles.conftest import artifact


def test_a_lock_that_fits_its_input_passes(locks: Path) -> None:
    check.check()


def test_a_lock_survives_being_written_again(locks: Path) -> None:
    before = (locks / "small.lock").read_bytes()
    lockfile.write_set(lockfile.read_set("small"))
    assert (locks / "small.lock").read_bytes() == before
    assert lockfile.read_base().version("libc6") == "2.36"


@pytest.mark.parametrize("form", [b"\xef\xbb\xbf%s", b"# x\r\n%s\r\n"])
def test_how_an_editor_saves_an_input_makes_no_lock_stale(locks: Path, form: bytes) -> None:
    for name in ("small.in", "base.in"):
        (locks / name).write_bytes(form % (locks / name).read_bytes().replace(b"\n", b"\r\n"))
    check.check()


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_an_input_in_another_encoding_is_refused_with_what_to_do(locks: Path, encoding: str) -> None:
    (locks / "small.in").write_text('requires = ["one==1.0"]  # öffentlich\n', encoding=encoding)
    with pytest.raises(UsageError, match=r"not UTF-8 \(.*small.in\): save it in UTF-8"):
        check.check()


def test_a_comment_in_an_input_makes_no_lock_stale(locks: Path) -> None:
    file = locks / "small.in"
    file.write_text("# why\n" + file.read_text())
    check.check()


# Each edit is made to a valid lock or input; what it must be refused with, and in which line.
EDITS = {
    "input_changed": ("small.in", "one==1.0", "one==1.1", "small.in changed since it was locked", "small.lock"),
    "base_input_changed": (
        "base.in",
        '"python3.11"',
        '"python3.11", "gcc"',
        "base.in changed since it was locked",
        "base.lock",
    ),
    "input_misspelt": ("small.in", "requires", "require", "unknown key 'require'", "small.in"),
    "input_no_requirement": ("small.in", "one==1.0", "one=1.0", "not a requirement: 'one=1.0'", "small.in:1"),
    "input_version_unknown_to_pep_440": (
        "small.in",
        "one==1.0",
        "one===1.0.x",
        "not a requirement: 'one===1.0.x'",
        "small.in:1",
    ),
    "input_package_twice": ("small.in", '"one==1.0"', '"one==1.0", "One>=1"', "one is asked for twice", "small.in"),
    "input_sdist_version": (
        "small.in",
        r"\Z",
        '[sdists.one]\nversion = "1.x"\nrequires = []\n',
        "not a package and its version: 'one', '1.x'",
        "small.in:3",
    ),
    "input_sdist_requirement": (
        "small.in",
        r"\Z",
        '[sdists.one]\nversion = "1"\nrequires = ["!!bad"]\n',
        "not a requirement: '!!bad'",
        "small.in:4",
    ),
    "input_shim_name": ("small.in", r"\Z", '[shims]\nThree = "1.0"\n', "not a package and its version", "small.in:3"),
    "input_shim_not_normal": ("small.in", r"\Z", '[shims]\nthree = "1.0RC1"\n', "not a package and its", "small.in:3"),
    "input_address": (
        "small.in",
        '"one==1.0"',
        '"one @ https://x.example.com/one.whl"',
        "its address names no content",
        "small.in:1",
    ),
    "input_empty": ("small.in", '"one==1.0"', "", "requires must be a list of strings, and not empty", "small.in"),
    "input_exception_without_reason": (
        "small.in",
        r"\Z",
        '[agrees.except]\ntwo = ""\n',
        "takes a package's normal name and a reason: 'two', ''",
        "small.in:3",
    ),
    "input_shim_version": ("small.in", r"\Z", '[shims]\nthree = "one"\n', "not a package and its version", "small.in:3"),
    "input_no_list": ("small.in", r'\["one==1.0"\]', '"one==1.0"', "requires must be a list of strings", "small.in"),
    "input_sdist_version_as_a_number": (
        "small.in",
        r"\Z",
        "[sdists.two]\nversion = 1.10\nrequires = []\n",
        "sdists.two.version is a string, in quotes",
        "small.in",
    ),
    "input_sdist_requires": (
        "small.in",
        r"\Z",
        '[sdists.two]\nversion = "1.0"\nrequires = "one"\n',
        "sdists.two.requires must be a list of strings",
        "small.in",
    ),
    "input_not_in_ascii": ("small.in", "one==1.0", "öne==1.0", "not a requirement: 'öne==1.0'", "small.in:1"),
    "input_no_toml": ("small.in", r"\[", "(", "not TOML", "small.in"),
    "input_agrees_with_nobody": ("small.in", r"\Z", '[agrees]\nwith = "gone"\n', "agrees with 'gone'", "small.in"),
    "input_agrees_with_itself": ("small.in", r"\Z", '[agrees]\nwith = "small"\n', "agrees with 'small'", "small.in"),
    "input_agreement_misspelt": ("small.in", r"\Z", '[agrees]\nwhith = "base"\n', "[agrees] holds `with`", "small.in"),
    "input_with_a_date": ("small.in", r"requires", "shims = 2026-01-02\nrequires", "shims must be a table", "small.in"),
    "hash_edited": ("small.lock", r'sha256 = "..', 'sha256 = "ff', "one: edited by hand", "small.lock:10"),
    "version_edited": ("small.lock", '"1.0"', '"1.1"', "one: edited by hand", "small.lock:10"),
    "licence_edited": ("small.lock", '"MIT"(.*\n)\\Z', r'"GPL"\1', "two: edited by hand", "small.lock:11"),
    "need_dropped": ("small.lock", '"two>=2"', "", "one: edited by hand", "small.lock:10"),
    "need_loosened": ("small.lock", '"two>=2"', '"two"', "one: edited by hand", "small.lock:10"),
    "size_edited": ("small.lock", r"size = (\d+)", r"size = 1\1", "one: edited by hand", "small.lock:10"),
    "check_dropped": ("small.lock", r', check = "\w+"', "", "one: edited by hand", "small.lock:10"),
    "lines_swapped_bodies": (
        "small.lock",
        '"one" = (.*)\n"two" = (.*)',
        r'"one" = \2\n"two" = \1',
        "one: edited",
        "small.lock:10",
    ),
    "line_removed": ("small.lock", '"one" = .*\n', "", "the head, or which packages there are", "small.lock:7"),
    "date_edited": ("small.lock", "2026-01-02", "2026-01-03", "the head, or which packages there are", "small.lock:7"),
    "date_unquoted": ("small.lock", '"2026-01-02"', "2026-01-02", "not a day", "small.lock"),
    "glibc_edited": ("small.lock", '"2.36"', '"2.39"', "the head, or which packages there are", "small.lock:7"),
    "head_line_added": ("small.lock", "format = 2", "format = 2\nindex = 1", "missing or unknown index", "small.lock"),
    "base_hash_edited": ("base.lock", r'sha256 = "..', 'sha256 = "ff', "libc6: edited by hand", "base.lock:8"),
    "format_of_yesterday": ("small.lock", "format = 2", "format = 1", "lock format 1, this Pinwheel reads 2", "small.lock"),
    "format_of_tomorrow": ("small.lock", "format = 2", "format = 3", "lock format 3", "small.lock"),
    "merge_conflict": ("small.lock", '"one"', '<<<<<<< HEAD\n"one"', "not a lock", "small.lock:10"),
    "line_doubled": ("small.lock", '("one" = .*\n)', r"\1\1", "one stands twice, first in line 10", "small.lock:11"),
    "cut_short": ("small.lock", r"(?s)sha256 = .*", "", "not a lock", "small.lock"),
    "emptied": ("small.lock", r"(?s).*", "", "lock format None", "small.lock"),
    "toolkit_edited": ("toolkit.txt", "one==1.0", "one==1.1", "toolkit.txt is stale or was edited", "toolkit.txt"),
    "toolkit_hash_edited": ("toolkit.txt", "sha256:00", "sha256:01", "toolkit.txt is stale or was edited", "toolkit.txt"),
    "toolkit_head_edited": ("toolkit.txt", "inputs = sha256:..", "inputs = sha256:zz", "toolkit.txt is stale", "toolkit.txt"),
    "toolkit_date_edited": ("toolkit.txt", "date = 2026", "date = 2027", "toolkit.txt is stale", "toolkit.txt"),
    "toolkit_gone": ("toolkit.txt", r"(?s).*", "", "toolkit.txt is stale", "toolkit.txt"),
}


def test_an_old_lock_says_relock_once_and_a_newer_one_that_this_pinwheel_is_old(locks: Path) -> None:
    text = (locks / "small.lock").read_text()
    for number, fix in (("1", "relock once: run `invoke lock`"), ("99", "take a newer Pinwheel"), ('"x"', "relock once")):
        (locks / "small.lock").write_text(text.replace("format = 2", f"format = {number}"))
        with pytest.raises(LockError, match=fix):
            check.check()


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_by_hand_is_refused_with_its_line(locks: Path, name: str) -> None:
    file, old, new, message, where = EDITS[name]
    text = (locks / file).read_text()
    edited = re.sub(old, new, text, count=1)
    assert edited != text
    (locks / file).write_text(edited)
    with pytest.raises((LockError, UsageError), match=re.escape(message)) as refused:
        check.check()
    assert f"(lockfiles/{where})" in refused.value.line()


# The same, with checks and checksum that fit: what a lock may not say even then.
FORGERIES = {
    "hash_of_wrong_length": ("small.lock", r'sha256 = "..', 'sha256 = "', "one: not a sha256", ":10"),
    "hash_in_capitals": ("small.lock", r'sha256 = "..', 'sha256 = "AA', "one: not a sha256", ":10"),
    "hash_of_another_kind": ("small.lock", r'sha256 = "\w+"', 'sha256 = "md5:00"', "one: not a sha256", ":10"),
    "hash_missing": ("small.lock", r', sha256 = "\w+"', "", "one: missing or unknown sha256", ":10"),
    "size_negative": ("small.lock", r"size = \d+", "size = -1", "one: not a file name and a size", ":10"),
    "size_no_number": ("small.lock", r"size = \d+", "size = true", "one: not a file name and a size", ":10"),
    "file_leaves_the_store": ("small.lock", "one-1.0-py3", "../one-1.0-py3", "one: not a file name and a size", ":10"),
    "file_of_another_package": ("small.lock", "one-1.0-py3", "three-1.0-py3", "one 1.0: its file is three-1.0", ":10"),
    "file_of_another_version": ("small.lock", "one-1.0-py3", "one-1.1-py3", "one 1.0: its file is one-1.1", ":10"),
    "file_no_wheel": ("small.lock", "one-1.0-py3-none-any.whl", "one-1.0.tar.gz", "one: not a wheel", ":10"),
    "name_not_normalised": ("small.lock", '"one" =', '"One" =', "One 1.0: its file", ":10"),
    "location_in_a_line": (
        "small.lock",
        "one-1.0-py3-none-any.whl",
        "https://x.example.com/a.whl",
        "one: not a file name",
        ":10",
    ),
    "unknown_field": ("small.lock", 'version = "1.0"', 'version = "1.0", url = "x"', "one: missing or unknown url", ":10"),
    "needs_no_list": ("small.lock", r'\["two>=2"\]', '"two>=2"', "one: needs is no list of strings", ":10"),
    "need_no_requirement": ("small.lock", '"two>=2"', '"two=2"', "one: not a requirement: 'two=2'", ":10"),
    "wheel_of_another_platform": (
        "small.lock",
        "one-1.0-py3-none-any",
        "one-1.0-cp311-cp311-win_amd64",
        "win_amd64.whl does not run on the base",
        ":10",
    ),
    "wheel_for_a_newer_glibc": (
        "small.lock",
        "one-1.0-py3-none-any",
        "one-1.0-cp311-cp311-manylinux_2_39_x86_64",
        "does not run on the base",
        ":10",
    ),
    "wheel_for_a_newer_python": ("small.lock", "one-1.0-py3-none", "one-1.0-cp312-cp312", "does not run on the base", ":10"),
    "source_of_another_package": ("small.lock", "two-2.0.tar.gz", "three-9.tar.gz", "two 2.0: its file is three-9", ":11"),
    "source_no_archive": ("small.lock", "two-2.0.tar.gz", "evil.exe", "two: not a source archive: evil.exe", ":11"),
    "date_no_day": ("small.lock", "2026-01-02", "yesterday", "not a day: 'yesterday'", ""),
    "unsorted": ("small.lock", r'("one" = .*\n)("two" = .*\n)', r"\2\1", "[wheels] is not sorted", ":11"),
    "chosen_for_another_base": ("small.lock", 'python = "3.11.2"', 'python = "3.11.1"', "was chosen for Python 3.11.1", ""),
    "needed_package_removed": ("small.lock", '"two" = .*\n', "", "one needs two>=2, which is not in small.lock", ":10"),
    "asked_package_removed": ("small.lock", '"one" = .*\n', "", "small.in needs one==1.0, which is not in small.lock", ""),
    "need_not_met": ("small.lock", '"two>=2"', '"two>=3"', "one needs two>=3, two is locked as 2.0", ":11"),
    "package_nobody_asks_for": ("small.lock", '"two>=2"', "", "nothing in small.in asks for two", ":11"),
    "gpu_half_stated": ("small.lock", 'glibc = "2.36"', 'glibc = "2.36"\ncuda = "13.0"', "cuda, driver and compute go", ""),
    "base_without_python": ("base.lock", '"python3.11" = .*\n', "", "python3.11 is not in the base", ""),
    "base_with_another_python": (
        "base.lock",
        "3.11.2-6",
        "3.11.4-1",
        "the base has Python 3.11.4, the images promise 3.11.2",
        ":9",
    ),
    "deb_nobody_asks_for": ("base.lock", '"libc6"]', "]", "nothing in base.in asks for libc6", ":8"),
    "deb_needed_and_missing": ("base.lock", '"libc6"]', '"libc6", "zlib1g"]', "python3.11 needs zlib1g, which is not in", ":9"),
}


def _forge(file: Path, old: str, new: str) -> None:
    """Edit a lock and make every check and checksum fit again."""
    text = file.read_text()
    edited = re.sub(old, new, text, count=1)
    assert edited != text
    body = tomllib.loads(edited)
    entries = body.pop("wheels", None) or body.pop("debs")
    for name, entry in entries.items():
        edited = edited.replace(f'check = "{entry["check"]}"', f'check = "{lockfile._check(name, entry)}"')
    edited = re.sub(r'checksum = "[^"]*"', f'checksum = "{lockfile._checksum(body, list(entries))}"', edited)
    file.write_text(edited)


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forged_lock_with_fitting_checks_is_refused_with_the_line(locks: Path, name: str) -> None:
    file, old, new, message, line = FORGERIES[name]
    _forge(locks / file, old, new)
    with pytest.raises(LockError, match=re.escape(message)) as refused:
        check.check()
    assert f"(lockfiles/{file}{line})" in refused.value.line()


def _second(locks: Path, excepted: str = "") -> None:
    """A set `tiny` that agrees with `small`, and holds another `one`."""
    (locks / "tiny.in").write_text(f'requires = ["one"]\n[agrees]\nwith = "small"\n{excepted}')
    wheels = (Wheel("one", "1.1", artifact("one-1.1-py3-none-any.whl"), licence="MIT"),)
    lockfile.write_set(SetLock("tiny", inputs.read_set("tiny").digest, "2026-01-02", "3.11.2", "2.36", wheels))


def test_two_locks_that_disagree_on_a_shared_package_are_refused(locks: Path) -> None:
    _second(locks)
    with pytest.raises(LockError, match="tiny.lock has one 1.1, small.lock has 1.0 .*tiny.lock:10.*agrees.except"):
        check.check()


def test_a_disagreement_with_a_reason_passes(locks: Path) -> None:
    _second(locks, '[agrees.except]\none = "because"\n')
    check.check()


def test_an_override_heals_what_a_package_asks_for_wrongly(locks: Path) -> None:
    _forge(locks / "small.lock", '"two>=2"', '"two>=3"')
    (locks / "small.in").write_text('requires = ["one==1.0"]\noverrides = ["two==2.0"]\n')
    text = (locks / "small.lock").read_text()
    stale = re.search(r'inputs = "(.*)"', text)
    assert stale
    _forge(locks / "small.lock", stale[1], inputs.read_set("small").digest)
    check.check()


def test_a_lock_without_its_input_is_refused(locks: Path) -> None:
    (locks / "gone.lock").write_bytes((locks / "small.lock").read_bytes())
    with pytest.raises(LockError, match=r"gone.lock has no input \(lockfiles/gone.lock\)"):
        check.check()


@pytest.mark.parametrize("text", ["[[", "[tool]\n", "[project]\nname = 'x'\n"])
def test_a_broken_project_file_is_refused(locks: Path, text: str) -> None:
    (locks.parent / "pyproject.toml").write_text(text)
    with pytest.raises(UsageError, match=r"not a project: .*pyproject.toml"):
        check.check()


def test_a_toolkit_lock_that_is_no_text_is_refused(locks: Path) -> None:
    (locks / "toolkit.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(LockError, match="toolkit.txt is stale"):
        check.check()


def test_two_branches_that_bump_two_packages_merge(locks: Path) -> None:
    file = locks / "small.lock"
    base = file.read_text().splitlines()
    sides = []
    for name, day in (("one", "2026-01-05"), ("two", "2026-01-06")):
        lock = replace(lockfile.read_set("small"), date=day)
        bumped = [
            replace(w, artifact=artifact(w.artifact.file, b"new " + name.encode())) if w.name == name else w
            for w in lock.wheels
        ]
        lockfile.write_set(replace(lock, wheels=tuple(bumped)))
        sides.append(file.read_text().splitlines())
        file.write_text("\n".join(base) + "\n")
    changed = [[i for i, line in enumerate(side) if line != base[i]] for side in sides]
    # The package's line, and the head's date and checksum: those conflict, and both are taken from one side.
    assert changed == [[3, 6, 9], [3, 6, 10]]
    merged = [sides[1][i] if i == 10 else line for i, line in enumerate(sides[0])]
    file.write_text("\n".join(merged) + "\n")
    check.check()


def test_a_missing_lock_says_how_to_get_it(locks: Path) -> None:
    (locks / "small.lock").unlink()
    with pytest.raises(LockError, match=r"small is not locked \(lockfiles/small.lock\): run `invoke lock`"):
        check.check()


def test_a_folder_without_a_set_is_refused(locks: Path) -> None:
    (locks / "small.in").unlink()
    (locks / "small.lock").unlink()
    with pytest.raises(UsageError, match="there is no set .*write one"):
        check.check()


def test_an_unknown_set_names_those_there_are(locks: Path) -> None:
    with pytest.raises(UsageError, match=r"no such input: other.in .*: there are: base, small"):
        inputs.read_set("other")


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.integers(0, 10_000), byte=st.integers(0, 255))
def test_no_altered_byte_of_a_lock_gets_through(locks: Path, position: int, byte: int) -> None:
    file = locks / "small.lock"
    original = file.read_bytes()
    altered = bytearray(original)
    altered[position % len(original)] = byte
    wanted = lockfile.read_set("small")
    file.write_bytes(bytes(altered))
    try:
        assert lockfile.read_set("small") == wanted  # a comment or a blank: the meaning is the same
    except LockError:
        pass
    finally:
        file.write_bytes(original)


def test_the_real_locks_of_this_project_hold() -> None:
    check.check()
    for name in inputs.set_names():
        assert "://" not in lockfile.lock_path(name).read_text()
    assert "://" not in lockfile.lock_path("base").read_text()


def test_images_keep_their_line_when_others_are_pushed(locks: Path) -> None:
    one, two = (PinnedImage(name, "sha256:" + digit * 64, "1") for name, digit in (("one", "1"), ("two", "2")))
    images_lock.write([two])
    images_lock.write([one])
    assert images_lock.read() == (one, two)


def test_an_images_lock_says_what_a_digest_asks_of_a_gpu_and_nothing_where_it_asks_for_none(locks: Path) -> None:
    plain = PinnedImage("plain", "sha256:" + "1" * 64, "1")
    asking = PinnedImage("asking", "sha256:" + "2" * 64, "1", 580, ("7.5", "8.0"))
    images_lock.write([plain, asking])
    assert images_lock.read() == (asking, plain)
    first, second = tomllib.loads(images_lock.path().read_text())["image"]
    assert (first["driver"], first["compute"]) == (580, ["7.5", "8.0"])
    assert set(second) == {"name", "digest", "version", "check"}


def test_the_images_lock_of_this_project_says_what_its_images_ask_for() -> None:
    for image in images_lock.read():
        assert bool(image.driver) != image.name.endswith("-cpu")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("sha256:1", "sha256:x", "not a sha256 digest"),
        ("format = 2", "format = 9", "format 9"),
        ("sha256:11", "sha256:12", r"one: edited by hand: its check does not fit \(lockfiles/images.lock:6\)"),
        ('version = "1"', 'version = "2"', "one: edited by hand"),
        ("driver = 580", "driver = 570", "one: edited by hand"),
        ("format = 2", "format = 1", "one: edited by hand"),
        ('name = "one"', 'name = "two"', "two: edited by hand"),
        ("[[image]]", "[[image]]\nname='x'\ndigest='sha256:" + "2" * 64 + "'\nversion='1'\n[[image]]", "x: edited by hand"),
        ("digest", "digset", "ImageTable needs the fields digest, name, version"),
        ("[[", "[", "not an images lock"),
        ("driver = 580\n", "", "one: a driver and compute capabilities stand together"),
        ("driver = 580", 'driver = "580"', "ImageTable.driver is '580'"),
        ('compute = ["7.5"]\n', "", "one: a driver and compute capabilities stand together"),
        ('["7.5"]', '"7.5"', "ImageTable.compute is '7.5'"),
        ('["7.5"]', "[7.5]", "not an images lock"),
        ('["7.5"]', '["sm_75"]', "one: not a compute capability: 'sm_75'"),
    ],
)
def test_an_edited_images_lock_is_refused(locks: Path, old: str, new: str, message: str) -> None:
    images_lock.write([PinnedImage("one", "sha256:" + "1" * 64, "1", 580, ("7.5",))])
    images_lock.path().write_text(images_lock.path().read_text().replace(old, new))
    with pytest.raises(LockError, match=message):
        images_lock.read()


def test_an_image_that_was_taken_out_by_hand_is_noticed(locks: Path) -> None:
    images_lock.write([PinnedImage(name, "sha256:" + "1" * 64, "1") for name in ("one", "two")])
    whole = images_lock.path().read_text()
    images_lock.path().write_text(whole[: whole.rindex("[[image]]")])
    with pytest.raises(LockError, match="which images there are does not fit the checksum"):
        check.check()


def test_an_images_lock_without_checks_is_read_and_the_next_push_writes_them(
    locks: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images_lock.path().write_text(f"format = 1\n[[image]]\nname = 'one'\ndigest = 'sha256:{'1' * 64}'\nversion = '1'\n")
    check.check()
    assert "older form, without checks: the next `invoke push`" in " ".join(capsys.readouterr().err.split())
    images_lock.write([])
    check.check()
    assert capsys.readouterr().err == ""
    assert [image.name for image in images_lock.read()] == ["one"]


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.integers(0, 10_000), byte=st.integers(0, 255))
def test_no_altered_byte_of_an_images_lock_gets_through(locks: Path, position: int, byte: int) -> None:
    wanted = (PinnedImage("one", "sha256:" + "1" * 64, "1", 580, ("7.5",)), PinnedImage("two", "sha256:" + "2" * 64, "1"))
    images_lock.path().unlink(missing_ok=True)
    images_lock.write(wanted)
    altered = bytearray(images_lock.path().read_bytes())
    altered[position % len(altered)] = byte
    images_lock.path().write_bytes(bytes(altered))
    with suppress(LockError):
        assert images_lock.read() == wanted  # a comment or a blank: the meaning is the same


def test_no_images_lock_says_push_first(locks: Path) -> None:
    with pytest.raises(LockError, match="no image was pushed yet"):
        images_lock.read()


def test_what_may_run_at_each_start_is_allowed_for_packages_that_are_locked() -> None:
    held = {wheel.name for name in inputs.set_names() for wheel in lockfile.read_set(name).wheels}
    assert {one.package for one in policy.read().startup} <= held
