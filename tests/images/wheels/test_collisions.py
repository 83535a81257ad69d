"""Paths that two packages bring with different bytes: all of them at once, and what to do about them."""

from __future__ import annotations

import tomllib
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from common import paths
from common.errors import BuildError
from images import spec
from images.spec import Conflict, RecordError
from images.wheels import collisions
from images.wheels.install import SITE
from lockfiles.model import SetLock, Wheel
from tests.images.wheels.wheels import layer_of, make, stored

IMAGE = replace(spec.read("train"), conflicts=(), record_errors=(), left_out=())
CV2 = {
    "cv2/__init__.py": b"a = 1\n",
    "cv2/version.py": b"headless = False\n",
    "cv2/cv2.abi3.so": b"\x7fELF1",
    "cv2/same.py": b"s\n",
}


@pytest.fixture
def two(own_folders: Path) -> list[Wheel]:
    """As opencv-python and opencv-python-headless."""
    other = {name: data if "same" in name else data + b"# headless\n" for name, data in CV2.items()}
    entry = "[console_scripts]\ncv = {}:main\n"
    one = stored(make(own_folders, CV2, name="opencv_python", entry_points=entry.format("cv2")))
    return [one, stored(make(own_folders, other, name="opencv_python_headless", entry_points=entry.format("cv2.headless")))]


@pytest.fixture
def lock(two: list[Wheel], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> SetLock:
    (tmp_path / "small.in").write_text('requires = ["opencv-python"]\n')
    monkeypatch.setattr(paths, "LOCKFILES", tmp_path)
    asking = Wheel("albumentations", "1.0", two[0].artifact, needs=("opencv-python-headless>=4",))
    return SetLock("small", "", "", "3.11.2", "2.36", (asking, *two))


EXPECTED = [f"{SITE}/cv2/{name}" for name in ("__init__.py", "cv2.abi3.so", "version.py")]


def test_all_are_found_at_once_and_no_bytecode(two: list[Wheel]) -> None:
    found = collisions.find(IMAGE, [], two)
    assert [one.path for one in found] == ["opt/venv/bin/cv", *EXPECTED]
    assert {(one.one, one.other) for one in found} == {("opencv-python", "opencv-python-headless")}


def test_what_layers_hold_that_are_made_already_counts_and_their_bytecode_does_not(two: list[Wheel]) -> None:
    held = {f"{SITE}/cv2/version.py": ("00", "old"), f"{SITE}/cv2/__pycache__/version.cpython-311.pyc": ("00", "old")}
    other = {**held, f"{SITE}/cv2/__pycache__/version.cpython-311.pyc": ("01", "new")}
    assert [one.path for one in collisions.find(IMAGE, [held, other], two[:1])] == [f"{SITE}/cv2/version.py"]


def test_the_message_names_every_path_who_needs_each_side_and_lines_that_settle_it(
    lock: SetLock, two: list[Wheel], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(
        BuildError, match=r"different bytes at 4 paths: opencv-python and opencv-python-headless at 4 .*small.in"
    ):
        collisions.check(lock, IMAGE, [], two)
    said = "".join(capsys.readouterr())
    assert "opencv-python is needed by small.in" in said
    assert "opencv-python-headless is needed by albumentations" in said
    lines = [
        line[line.index("    ") :].strip()
        for line in said.splitlines()
        if line.strip().startswith(("[[", "path", "keep", "drop", "reason"))
    ]
    stated = tomllib.loads("\n".join(lines))["conflicts"]
    settled = replace(IMAGE, conflicts=tuple(Conflict(**one) for one in stated))
    collisions.check(lock, settled, [], two)
    # And the layer is made by exactly these.
    layer_of(
        *(Path(paths.LOCKFILES) / wheel.artifact.file for wheel in two), rules={w.name: settled.rules(w.name) for w in two}
    )


def test_a_broken_wheel_is_left_to_its_installation(own_folders: Path, two: list[Wheel]) -> None:
    broken = stored(make(own_folders, {"one/a.py": b"1"}, record="nonsense\n"))
    assert len(collisions.find(IMAGE, [], [broken, *two])) == 4


@pytest.mark.parametrize(
    ("drop", "add", "excused"),
    [
        ("one/core.py", "", ["one/core.py"]),
        ("", "one/old.py,sha256=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA,6\n", ["one/old.py"]),
        ("one/core.py", "one/core.py,,\n", ["one/core.py"]),
        ("one/core.py", "one/core.py,md5=AAAA,6\n", ["one/core.py"]),
        ("one/core.py", "one/core.py,sha256=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA,6\n", ["one/core.py"]),
        ("", "one/,,\n", ["one/"]),
        ("one/core.py", "one\\core.py,,\n", ["one/core.py", "one\\core.py"]),
    ],
)
def test_a_record_that_pip_accepts_is_refused_until_it_is_stated(
    drop: str, add: str, excused: list[str], own_folders: Path
) -> None:
    """selenium 4.1.0 forgot a file; others list a folder, a file that is gone, or one with another hash or none."""
    files = {"one/__init__.py": b"x = 1\n", "one/core.py": b"y = 2\n"}
    path = make(own_folders, files)

    with zipfile.ZipFile(path) as archive:
        record = archive.read("one-1.0.dist-info/RECORD").decode()
    kept = "".join(line for line in record.splitlines(keepends=True) if not (drop and line.startswith(f'"{drop}"')))
    path = make(own_folders, files, record=add + kept)
    with pytest.raises(
        BuildError, match=r'or look at each file and state in image.toml: \[\[record_errors\]\] package = "one"'
    ):
        layer_of(path)
    image = replace(IMAGE, record_errors=tuple(RecordError("one", "1.0", name, "looked at") for name in excused))
    _, held = layer_of(path, rules={"one": image.rules("one")})
    assert f"{SITE}/one/core.py" in held


def test_all_that_a_record_forgets_is_named_at_once(own_folders: Path) -> None:
    path = make(own_folders, {f"one/{n}.py": b"1" for n in range(9)}, record="one-1.0.dist-info/RECORD,,\n")
    with pytest.raises(BuildError, match=r"METADATA is not in RECORD, and so with 10 more \(.*one/0.py.*\)"):
        layer_of(path)
