"""Advisory data: fetched whole or not at all, dated, answered offline."""

from __future__ import annotations

import datetime
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from common import paths
from common.errors import MissingEnvironmentError, UsageError
from lockfiles.audit import data
from lockfiles.audit.data import Index
from tests.lockfiles.audit.records import sample, write


class _Silent(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def served(published: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Silent, directory=str(published))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv(data.VARIABLE, f"http://127.0.0.1:{server.server_port}/")
        yield published
        server.shutdown()


def names(package: str) -> list[str]:
    with Index() as index:
        return [name for name, _ in index.about("PyPI", package)]


def test_what_was_fetched_is_answered_without_a_source(published: Path) -> None:
    assert data.fetch() == "1 records of PyPI, 1 records of Go, 2 records of Debian"
    for file in published.iterdir():
        file.unlink()
    assert names("urllib3") == ["PYSEC-2023-212"]
    assert names("urllib4") == []
    with Index() as index:
        pypi, _, debian = index.sources
        assert (pypi.newest, debian.newest) == ("2023-10-25T18:28:34.811764Z", "")
        assert pypi.age(datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=3, hours=1)) == 3


def test_from_an_address(served: Path) -> None:
    data.fetch()
    assert names("urllib3") == ["PYSEC-2023-212"]


def test_the_mirror_comes_first_and_is_written(published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data.fetch()
    assert data.write_mirror(tmp_path / "air") == 3
    monkeypatch.setenv("PINWHEEL_MIRROR", str(tmp_path / "air"))
    monkeypatch.setenv("PINWHEEL_OFFLINE", "1")
    monkeypatch.delenv(data.VARIABLE)
    data.path().unlink()
    data.fetch()
    assert names("urllib3") == ["PYSEC-2023-212"]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "PyPI.zip").unlink(), "no PyPI.zip there"),
        (lambda folder: (folder / "PyPI.zip").write_bytes(b"<html>"), "the advisories of PyPI cannot be read"),
        (lambda folder: (folder / "Go.zip").write_bytes((folder / "Go.zip").read_bytes()[:-40]), "the advisories of Go cannot"),
        (lambda folder: write(folder, pypi=["{"]), "the advisories of PyPI cannot be read"),
        (lambda folder: write(folder, pypi=["[7]"]), "no advisory"),
        (lambda folder: write(folder, debian={}), "the advisories of Debian are empty"),
        (lambda folder: write(folder, debian=[1]), "not the security tracker's form"),
        (lambda folder: (folder / "Debian.json").write_text("["), "the advisories of Debian cannot be read"),
    ],
    ids=["absent", "web page", "cut", "no JSON", "no record", "empty", "list", "cut JSON"],
)
def test_what_cannot_be_read_leaves_the_old_data(published: Path, spoil: Callable[[Path], object], message: str) -> None:
    data.fetch()
    spoil(published)
    with pytest.raises(MissingEnvironmentError, match=message) as caught:
        data.fetch()
    assert "\n" not in caught.value.line()
    assert names("urllib3") == ["PYSEC-2023-212"]
    assert sorted(file.name for file in data.path().parent.iterdir()) == ["Debian.json", "Go.zip", "PyPI.zip", "index.sqlite"]


def test_a_flipped_bit_in_a_record_is_noticed(published: Path) -> None:
    file = published / "PyPI.zip"
    body = bytearray(file.read_bytes())
    body[60] ^= 1
    file.write_bytes(body)
    with pytest.raises(MissingEnvironmentError, match="the advisories of PyPI cannot be read"):
        data.fetch()


def test_a_server_that_refuses_is_named_by_its_status(served: Path) -> None:
    (served / "Go.zip").unlink()
    with pytest.raises(MissingEnvironmentError, match=r"it answers 404 \(PINWHEEL_ADVISORY_DATA, Go\.zip\)"):
        data.fetch()


def test_without_data_that_is_said(own_folders: Path) -> None:
    with pytest.raises(MissingEnvironmentError, match="no advisory data.*invoke fetch --advisories"):
        Index()


def test_an_index_of_something_else_is_one_line(published: Path) -> None:
    data.fetch()
    data.path().write_bytes(b"not SQLite at all, but some bytes" * 100)
    with pytest.raises(MissingEnvironmentError, match="the advisory index is unreadable"):
        Index()


def test_a_record_about_many_packages_is_found_under_each(published: Path) -> None:
    body = sample("PYSEC-2023-212")
    body["affected"].append({"package": {"ecosystem": "PyPI", "name": "Other_Name"}, "versions": ["1"]})
    body["affected"].append({"package": {"ecosystem": "crates.io", "name": "else"}, "versions": ["1"]})
    write(published, pypi=[json.dumps({**body, "id": "PYSEC-2026-9"})])
    data.fetch()
    assert names("other-name") == ["PYSEC-2026-9"]
    assert names("else") == []


def test_a_copy_is_as_old_as_what_was_copied(published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    then = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=30, hours=1)
    for file in published.iterdir():
        os.utime(file, (then.timestamp(), then.timestamp()))

    def ages() -> set[int]:
        with Index() as index:
            return {source.age(datetime.datetime.now(datetime.UTC)) for source in index.sources}

    data.fetch()
    assert ages() == {30}
    data.write_mirror(tmp_path / "air")
    monkeypatch.setenv("PINWHEEL_MIRROR", str(tmp_path / "air"))
    data.fetch()
    assert ages() == {30}


def test_a_file_at_an_address_is_as_old_as_its_server_says(served: Path) -> None:
    then = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=9, hours=1)
    os.utime(served / "Go.zip", (then.timestamp(), then.timestamp()))
    data.fetch()
    with Index() as index:
        ages = {source.ecosystem: source.age(datetime.datetime.now(datetime.UTC)) for source in index.sources}
    assert ages == {"PyPI": 0, "Go": 9, "Debian": 0}


def test_a_mirror_on_the_network_comes_first_too_and_is_all_that_is_asked_offline(
    served: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data.fetch()
    data.write_mirror(served / "air")
    monkeypatch.setenv("PINWHEEL_MIRROR", os.environ[data.VARIABLE] + "air/")
    monkeypatch.setenv("PINWHEEL_OFFLINE", "1")
    monkeypatch.delenv(data.VARIABLE)
    data.path().unlink()
    data.fetch()
    assert names("urllib3") == ["PYSEC-2023-212"]
    (served / "air/advisories/Go.zip").unlink()
    with pytest.raises(MissingEnvironmentError, match="the advisories of Go are not in the mirror"):
        data.fetch()


def test_a_mirror_without_advisories_leaves_them_to_the_next_place(served: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PINWHEEL_MIRROR", os.environ[data.VARIABLE] + "nothing")
    data.fetch()
    assert names("urllib3") == ["PYSEC-2023-212"]


@pytest.mark.parametrize("form", ["{}", "{}/", "file://{}"])
def test_a_folder_is_named_as_a_path_or_an_address(published: Path, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    monkeypatch.setenv(data.VARIABLE, form.format(published))
    data.fetch()
    assert names("urllib3") == ["PYSEC-2023-212"]


def test_what_names_neither_a_folder_nor_a_web_address_is_refused(published: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(data.VARIABLE, "s3://bucket/advisories")
    with pytest.raises(UsageError, match="PINWHEEL_ADVISORY_DATA names neither"):
        data.fetch()


def test_fetch_advisories_to_writes_them_into_a_mirror_and_says_where(published: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "invoke", "fetch", "--advisories", "--to", str(tmp_path / "air")],
        cwd=paths.ROOT,
        env={**os.environ, "PINWHEEL_CACHE": str(paths.cache())},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    written = {file.name: file.read_bytes() for file in (tmp_path / "air/advisories").iterdir()}
    assert written == {file.name: file.read_bytes() for file in published.iterdir()}
    assert str(tmp_path / "air") in done.stdout + done.stderr
