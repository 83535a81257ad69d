"""Reading, writing and checking locks."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.errors import LockError, UsageError
from lockfiles import images_lock, inputs, lock, model
from lockfiles.images_lock import PinnedImage


def test_a_lock_that_fits_its_input_passes(locks: Path) -> None:
    lock.check()


def test_a_lock_survives_being_written_again(locks: Path) -> None:
    before = (locks / "small.lock").read_bytes()
    model.write_set(model.read_set("small"))
    assert (locks / "small.lock").read_bytes() == before
    assert model.read_base().version("libc6") == "2.36"


def test_a_comment_in_an_input_makes_no_lock_stale(locks: Path) -> None:
    file = locks / "small.in"
    file.write_text("# why\n" + file.read_text())
    lock.check()


# Each edit is made to a valid lock or input; what it must be refused with.
EDITS = {
    "input_changed": ("small.in", "one==1.0", "one==1.1", "small.in changed since it was locked"),
    "base_input_changed": ("base.in", '"python3.11"', '"python3.11", "gcc"', "base.in changed since it was locked"),
    "input_misspelt": ("small.in", "requires", "require", "unknown key 'require'"),
    "input_no_requirement": ("small.in", "one==1.0", "one=1.0", "not a requirement: 'one=1.0'"),
    "input_no_list": ("small.in", r'\["one==1.0"\]', '"one==1.0"', "requires must be a list of strings"),
    "input_no_toml": ("small.in", r"\[", "(", "not TOML"),
    "hash_edited": ("small.lock", r'sha256 = "..', 'sha256 = "ff', "edited by hand"),
    "version_edited": ("small.lock", '"1.0"', '"1.1"', "edited by hand"),
    "line_removed": ("small.lock", '"one" = .*\n', "", "edited by hand"),
    "date_unquoted": ("small.lock", '"2026-01-02"', "2026-01-02", "edited by hand"),
    "input_with_a_date": ("small.in", r"requires", "shims = 2026-01-02\nrequires", "shims must be a table"),
    "date_edited": ("small.lock", "2026-01-02", "2026-01-03", "edited by hand"),
    "base_hash_edited": ("base.lock", r'sha256 = "..', 'sha256 = "ff', "edited by hand"),
    "format_of_tomorrow": ("small.lock", "format = 1", "format = 2", "lock format 2"),
    "merge_conflict": ("small.lock", '"one"', '<<<<<<< HEAD\n"one"', "not a lock"),
    "line_doubled": ("small.lock", '("one" = .*\n)', r"\1\1", "not a lock"),
    "emptied": ("small.lock", r"(?s).*", "", "lock format None"),
    "toolkit_edited": ("toolkit.txt", "one==1.0", "one==1.1", "toolkit.txt is stale or was edited"),
    "toolkit_head_edited": ("toolkit.txt", "inputs = sha256:..", "inputs = sha256:zz", "toolkit.txt is stale or was edited"),
}


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_by_hand_is_refused_by_name(locks: Path, name: str) -> None:
    file, old, new, message = EDITS[name]
    text = (locks / file).read_text()
    edited = re.sub(old, new, text, count=1)
    assert edited != text
    (locks / file).write_text(edited)
    with pytest.raises((LockError, UsageError), match=re.escape(message)) as refused:
        lock.check()
    assert file.rpartition(".")[0] in refused.value.line()


# The same, with a checksum that fits: what a lock may not say even then.
FORGERIES = {
    "hash_of_wrong_length": ("small.lock", r'sha256 = "..', 'sha256 = "', "one: not a sha256"),
    "hash_in_capitals": ("small.lock", r'sha256 = "..', 'sha256 = "AA', "one: not a sha256"),
    "hash_missing": ("small.lock", r', sha256 = "\w+"', "", "one: missing or unknown sha256"),
    "size_negative": ("small.lock", r"size = \d+", "size = -1", "one: not a file name and a size"),
    "file_leaves_the_store": ("small.lock", "one-1.0-py3", "../one-1.0-py3", "one: not a file name and a size"),
    "file_of_another_package": ("small.lock", "one-1.0-py3", "three-1.0-py3", "one 1.0: its file is three-1.0"),
    "file_of_another_version": ("small.lock", "one-1.0-py3", "one-1.1-py3", "one 1.0: its file is one-1.1"),
    "file_no_wheel": ("small.lock", "one-1.0-py3-none-any.whl", "one-1.0.tar.gz", "one: not a wheel"),
    "name_not_normalised": ("small.lock", '"one" =', '"One" =', "One 1.0: its file"),
    "location_in_a_line": ("small.lock", "one-1.0-py3-none-any.whl", "https://x.example.com/a.whl", "one: not a file name"),
    "unknown_field": ("small.lock", 'version = "1.0"', 'version = "1.0", url = "x"', "one: missing or unknown url"),
    "wheel_of_another_platform": (
        "small.lock",
        "one-1.0-py3-none-any",
        "one-1.0-cp311-cp311-win_amd64",
        "win_amd64.whl does not run on the base",
    ),
    "wheel_for_a_newer_glibc": (
        "small.lock",
        "one-1.0-py3-none-any",
        "one-1.0-cp311-cp311-manylinux_2_39_x86_64",
        "does not run on the base",
    ),
    "wheel_for_a_newer_python": ("small.lock", "one-1.0-py3-none", "one-1.0-cp312-cp312", "does not run on the base"),
    "unsorted": ("small.lock", r'("one" = .*\n)("two" = .*\n)', r"\2\1", "[wheels] is not sorted"),
    "chosen_for_another_base": ("small.lock", 'python = "3.11.2"', 'python = "3.11.1"', "was chosen for Python 3.11.1"),
    "base_without_python": ("base.lock", '"python3.11" = .*\n', "", "python3.11 is not in the base"),
    "base_with_another_python": ("base.lock", "3.11.2-6", "3.11.4-1", "the base has Python 3.11.4, the images promise 3.11.2"),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forged_lock_with_a_fitting_checksum_is_refused(locks: Path, name: str) -> None:
    file, old, new, message = FORGERIES[name]
    text = (locks / file).read_text()
    edited = re.sub(old, new, text, count=1)
    assert edited != text
    import tomllib

    checksum = model._checksum(tomllib.loads(edited))
    (locks / file).write_text(re.sub(r'checksum = "[^"]*"', f'checksum = "{checksum}"', edited))
    with pytest.raises(LockError, match=re.escape(message)):
        lock.check()


def test_a_missing_lock_says_how_to_get_it(locks: Path) -> None:
    (locks / "small.lock").unlink()
    with pytest.raises(LockError, match=r"small is not locked \(lockfiles/small.lock\): run `invoke lock`"):
        lock.check()


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
    wanted = model.read_set("small")
    file.write_bytes(bytes(altered))
    try:
        assert model.read_set("small") == wanted  # a comment or a blank: the meaning is the same
    except LockError:
        pass
    finally:
        file.write_bytes(original)


def test_the_real_locks_of_this_project_hold() -> None:
    lock.check()
    for name in inputs.set_names():
        assert "://" not in model.lock_path(name).read_text()
    assert "://" not in model.lock_path("base").read_text()


def test_images_keep_their_line_when_others_are_pushed(locks: Path) -> None:
    one, two = (PinnedImage(name, "sha256:" + digit * 64, "1") for name, digit in (("one", "1"), ("two", "2")))
    images_lock.write([two])
    images_lock.write([one])
    assert images_lock.read() == (one, two)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("sha256:1", "sha256:x", "not a sha256 digest"),
        ("format = 1", "format = 9", "format 9"),
        ("digest", "digset", "unexpected keyword"),
        ("[[", "[", "not an images lock"),
    ],
)
def test_an_edited_images_lock_is_refused(locks: Path, old: str, new: str, message: str) -> None:
    images_lock.write([PinnedImage("one", "sha256:" + "1" * 64, "1")])
    images_lock.path().write_text(images_lock.path().read_text().replace(old, new))
    with pytest.raises(LockError, match=message):
        images_lock.read()


def test_no_images_lock_says_push_first(locks: Path) -> None:
    with pytest.raises(LockError, match="no image was pushed yet"):
        images_lock.read()
