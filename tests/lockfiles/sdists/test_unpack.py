"""Archives of sdists: what is unpacked, and what is refused."""

from __future__ import annotations

import stat
import sys
import tarfile
from pathlib import Path

import pytest

from lockfiles.sdists import builder
from tests.lockfiles.sdists.conftest import tar_gz, zipped

GOOD = {"one-1.0/PKG-INFO": "x", "one-1.0/src/one.py": "x = 1\n"}


@pytest.fixture(autouse=True)
def epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1000000000")


def entry(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def unpack(folder: Path, file: str, data: bytes) -> Path:
    (folder / file).write_bytes(data)
    (folder / "source").mkdir()
    return builder.unpack(folder / file, folder / "source")


@pytest.mark.parametrize("file", ["one-1.0.tar.gz", "one-1.0.zip"])
def test_both_forms_are_unpacked_alike(file: str, tmp_path: Path) -> None:
    top = unpack(tmp_path, file, tar_gz(GOOD) if file.endswith("gz") else zipped(GOOD))
    assert top.name == "one-1.0"
    held = {str(p.relative_to(top)): (stat.S_IMODE(p.stat().st_mode), p.stat().st_mtime) for p in top.rglob("*")}
    assert held == {"PKG-INFO": (0o644, 1e9), "src": (0o755, 1e9), "src/one.py": (0o644, 1e9)}


def test_links_within_the_folder_are_kept(tmp_path: Path) -> None:
    links = {
        "a": entry("one-1.0/src/link", tarfile.SYMTYPE, "../PKG-INFO"),
        "b": entry("one-1.0/hard", tarfile.LNKTYPE, "one-1.0/PKG-INFO"),
    }
    top = unpack(tmp_path, "one-1.0.tar.gz", tar_gz({**GOOD, **links}))
    assert (top / "src/link").read_text() == (top / "hard").read_text() == "x"


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("one-1.0/../../evil", "x"),
        ("/etc/evil", "x"),
        ("one-1.0/..\\evil", "x"),
        ("one-1.0/link", entry("one-1.0/link", tarfile.SYMTYPE, "/etc/passwd")),
        ("one-1.0/link", entry("one-1.0/link", tarfile.SYMTYPE, "../../etc/passwd")),
        ("one-1.0/link", entry("one-1.0/link", tarfile.LNKTYPE, "/etc/passwd")),
        ("one-1.0/link", entry("one-1.0/link", tarfile.LNKTYPE, "../etc/passwd")),
        ("one-1.0/disk", entry("one-1.0/disk", tarfile.BLKTYPE)),
        ("one-1.0/tty", entry("one-1.0/tty", tarfile.CHRTYPE)),
        ("one-1.0/pipe", entry("one-1.0/pipe", tarfile.FIFOTYPE)),
        ("two-1.0/x", "x"),
    ],
)
def test_a_tar_that_leaves_its_folder_or_holds_devices_is_refused(
    name: str, bad: str | tarfile.TarInfo, tmp_path: Path
) -> None:
    with pytest.raises(builder.RefusedError):
        unpack(tmp_path, "one-1.0.tar.gz", tar_gz({**GOOD, name: bad}))
    assert {path.name for path in tmp_path.iterdir()} == {"one-1.0.tar.gz", "source"}


@pytest.mark.parametrize("name", ["one-1.0/../../evil", "/etc/evil", "one-1.0\\..\\evil", "two-1.0/x"])
def test_a_zip_that_leaves_its_folder_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(builder.RefusedError):
        unpack(tmp_path, "one-1.0.zip", zipped({**GOOD, name: "x"}))


@pytest.mark.parametrize(("file", "data"), [("one-1.0.tar.gz", b""), ("one-1.0.tar.gz", b"no archive"), ("one-1.0.zip", b"no")])
def test_what_is_no_archive_is_refused_in_one_line(
    file: str, data: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / file).write_bytes(data)
    monkeypatch.setattr(builder, "_SOURCE", tmp_path / "source")
    monkeypatch.setattr(builder, "Path", lambda *_: tmp_path / file)
    monkeypatch.setattr(sys, "argv", ["builder.py", "read", file])
    with pytest.raises(SystemExit, match="a broken or hostile archive: ") as ended:
        builder.main()
    assert "\n" not in str(ended.value)


@pytest.mark.parametrize(
    ("pyproject", "requires"),
    [
        (None, ["setuptools >= 40.8.0"]),
        ("[project]\nname = 'one'\n", ["setuptools >= 40.8.0"]),
        ("[build-system]\nrequires = ['hatchling']\nbuild-backend = 'hatchling.build'\n", ["hatchling"]),
        ("[build-system]\nrequires = []\nbuild-backend = 'own'\nbackend-path = ['.']\n", []),
    ],
)
def test_what_builds_it_is_what_pyproject_declares(pyproject: str | None, requires: list[str], tmp_path: Path) -> None:
    if pyproject is not None:
        (tmp_path / "pyproject.toml").write_text(pyproject)
    assert builder.declared(tmp_path)["requires"] == requires


@pytest.mark.parametrize(
    "pyproject",
    ["build-system = 1", "[build-system]\n", "[build-system]\nrequires = 'a'\n", "[build-system]\nrequires = [1]\n"],
)
def test_a_build_system_without_requirements_is_refused(pyproject: str, tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(pyproject)
    with pytest.raises(builder.RefusedError, match="no list `requires`"):
        builder.declared(tmp_path)
