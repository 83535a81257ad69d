"""The air-gap mirror: what `fetch --to` writes, read by us, by pip and by uv."""

from __future__ import annotations

import errno
import functools
import os
import sys
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from uv import find_uv_bin

from common.errors import BuildError, LockError, MissingEnvironmentError, UsageError
from common.files import sha256_file
from common.run import run
from lockfiles import store
from lockfiles.model import Artifact
from lockfiles.python import index
from lockfiles.store import mirror
from tests.lockfiles.conftest import artifact, fill
from tests.lockfiles.small_index import wheel

pytestmark = pytest.mark.slow

# "+" and "&" must survive the page and the address.
DATA = wheel("one", "1.0+cpu")
WHEEL = artifact("one-1.0+cpu-py3-none-any.whl", DATA)
SDIST = artifact("two_parts-2.0.tar.gz", b"the source")
DEB = artifact("curl_7.88.1-10+deb12u14_amd64.deb", b"the deb")
BYTES = {WHEEL: DATA, SDIST: b"the source", DEB: b"the deb"}


@pytest.fixture
def filled(own_folders: Path) -> Path:
    """A store that holds the three; returns where the mirror goes."""
    for one, data in BYTES.items():
        with store.adding(one) as out:
            out.write(data)
    return own_folders / "a mirror & more"


def empty_the_store() -> None:
    store.prune(set())
    assert not any(store.has(one) for one in BYTES)


def nowhere(_: Artifact) -> str:
    raise LockError("the index was asked")


def fetch() -> None:
    with index.session() as http:
        store.download(BYTES, nowhere, http)


def inside(folder: Path, one: Artifact) -> Path:
    return folder / "sha256" / one.sha256 / one.file


def tree(folder: Path) -> dict[str, str]:
    return {str(f.relative_to(folder)): sha256_file(f) for f in sorted(folder.rglob("*")) if f.is_file()}


class Quiet(SimpleHTTPRequestHandler):
    asked: list[str] = []  # noqa: RUF012

    def do_GET(self) -> None:
        self.asked.append(self.path)
        super().do_GET()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def served(filled: Path) -> Iterator[str]:
    """The mirror on a plain web server."""
    mirror.write(filled, BYTES, store.verified)
    Quiet.asked.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(filled)))
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


def test_a_mirror_has_the_form_that_every_tool_reads(filled: Path) -> None:
    assert mirror.write(filled, BYTES, store.verified) == (3, sum(len(data) for data in BYTES.values()))
    assert sorted(tree(filled)) == sorted(
        [f"sha256/{one.sha256}/{one.file}" for one in BYTES]
        + ["simple/index.html", "simple/one/index.html", "simple/two-parts/index.html"]
    )
    link = f"../../sha256/{WHEEL.sha256}/one-1.0%2Bcpu-py3-none-any.whl#sha256={WHEEL.sha256}"
    assert f'<a href="{link}">one-1.0+cpu-py3-none-any.whl</a>' in (filled / "simple/one/index.html").read_text()
    assert '<a href="two-parts/">two-parts</a>' in (filled / "simple/index.html").read_text()
    # A link to the store, not a second copy.
    assert inside(filled, WHEEL).samefile(store.path(WHEEL))


def test_a_second_run_adds_only_what_is_missing_and_keeps_earlier_files(filled: Path) -> None:
    mirror.write(filled, [WHEEL, DEB], store.verified)
    first = tree(filled)
    times = {file: file.stat().st_mtime_ns for file in filled.rglob("*.html")}
    asked: list[Artifact] = []

    def source(one: Artifact) -> Path:
        asked.append(one)
        return store.verified(one)

    assert mirror.write(filled, [WHEEL, SDIST], source) == (1, SDIST.size)
    assert asked == [SDIST]
    second = tree(filled)
    assert mirror.write(filled, BYTES, source) == (0, 0)
    assert tree(filled) == second
    assert {name: second[name] for name in first if name != "simple/index.html"} == {
        name: digest for name, digest in first.items() if name != "simple/index.html"
    }
    assert (filled / "simple/one/index.html").stat().st_mtime_ns == times[filled / "simple/one/index.html"]


def test_the_same_files_give_the_same_pages_in_any_order(filled: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    mirror.write(filled, BYTES, store.verified)
    for one in reversed(BYTES):
        mirror.write(other, [one], store.verified)
    assert tree(other) == tree(filled)


def test_a_damaged_file_of_a_mirror_is_mended(filled: Path) -> None:
    mirror.write(filled, BYTES, store.verified)
    inside(filled, DEB).unlink()
    inside(filled, DEB).write_bytes(b"the de")
    assert mirror.write(filled, BYTES, store.verified) == (1, DEB.size)
    assert inside(filled, DEB).read_bytes() == b"the deb"


def test_altered_bytes_of_the_store_never_reach_a_mirror(filled: Path) -> None:
    store.path(DEB).unlink()
    fill(DEB, b"THE DEB")
    with pytest.raises(LockError, match=f"{DEB.file.replace('+', '.')}: the store's bytes are sha256"):
        mirror.write(filled, BYTES, store.verified)
    assert not inside(filled, DEB).exists()


@pytest.mark.host
def test_a_mirror_on_another_disk_holds_copies_and_says_when_it_is_full(filled: Path) -> None:
    data = os.urandom(3_000_000)
    big = artifact("big-1.0-py3-none-any.whl", data)
    with store.adding(big) as out:
        out.write(data)
    filled.mkdir()
    run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", filled], error=BuildError)
    try:
        assert mirror.write(filled, BYTES, store.verified)[0] == 3
        assert inside(filled, WHEEL).read_bytes() == DATA
        with pytest.raises(MissingEnvironmentError, match=r"no space left for the mirror .*free some, or name a folder"):
            mirror.write(filled, [big], store.verified)
        assert [file.name for file in inside(filled, big).parent.iterdir()] == []
    finally:
        run(["umount", filled], error=BuildError)


def test_a_disk_without_hard_links_gets_copies(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    mirror.write(filled, BYTES, store.verified)
    assert {one: inside(filled, one).read_bytes() for one in BYTES} == BYTES
    assert not inside(filled, WHEEL).samefile(store.path(WHEEL))


def test_a_name_that_leads_out_of_the_mirror_is_refused(filled: Path) -> None:
    bad = artifact("../../../bad-1.0.tar.gz", b"x")
    with store.adding(bad) as out:
        out.write(b"x")
    with pytest.raises(LockError, match="is no file name"):
        mirror.write(filled, [bad], store.verified)


@pytest.mark.parametrize("form", ["folder", "file"])
def test_offline_an_empty_store_is_filled_from_a_folder(filled: Path, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    mirror.write(filled, BYTES, store.verified)
    empty_the_store()
    monkeypatch.setenv("PINWHEEL_OFFLINE", "1")
    monkeypatch.setenv("PINWHEEL_MIRROR", str(filled) if form == "folder" else filled.as_uri())
    fetch()
    assert {one: store.verified(one).read_bytes() for one in BYTES} == BYTES
    # A copy: what happens to the mirror later does not reach the store.
    assert not inside(filled, WHEEL).samefile(store.path(WHEEL))


def test_offline_an_empty_store_is_filled_from_the_mirrors_address_alone(served: str, monkeypatch: pytest.MonkeyPatch) -> None:
    empty_the_store()
    monkeypatch.setenv("PINWHEEL_OFFLINE", "1")
    monkeypatch.setenv("PINWHEEL_MIRROR", served)
    fetch()
    assert {one: store.verified(one).read_bytes() for one in BYTES} == BYTES
    with index.session() as http, pytest.raises(MissingEnvironmentError, match="this run is offline"):
        http.get("http://127.0.0.1:1/")


def test_the_mirror_is_asked_before_the_index_and_the_index_for_the_rest(served: str, monkeypatch: pytest.MonkeyPatch) -> None:
    empty_the_store()
    monkeypatch.setenv("PINWHEEL_MIRROR", served.rstrip("/"))
    fetch()
    extra = artifact("three-3.0-py3-none-any.whl")
    with index.session() as http, pytest.raises(LockError, match="the index was asked"):
        store.download([extra], nowhere, http)
    assert f"/sha256/{extra.sha256}/{extra.file}" in Quiet.asked
    with index.session() as http:
        assert store.take([extra], mirror.places(), http) == [extra]


def test_a_damaged_file_of_the_mirror_is_refused_by_name_and_path(
    filled: Path, served: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty_the_store()
    inside(filled, DEB).write_bytes(b"THE DEB")
    monkeypatch.setenv("PINWHEEL_MIRROR", str(filled))
    with pytest.raises(LockError) as refused:
        fetch()
    said = refused.value.line()
    assert said.startswith(f"{DEB.file}: the bytes are sha256")
    assert f"({inside(filled, DEB)}): the mirror's file is damaged; write it again with `invoke fetch --to DIR`" in said
    assert not store.has(DEB)
    monkeypatch.setenv("PINWHEEL_MIRROR", served.replace("http://", "http://user:s3cret@"))
    with pytest.raises(LockError) as refused:
        fetch()
    assert f"(PINWHEEL_MIRROR: sha256/{DEB.sha256}/{DEB.file})" in refused.value.line()
    assert "s3cret" not in refused.value.line()


def test_a_mirror_that_is_down_is_named_without_its_password(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    empty_the_store()
    monkeypatch.setenv("PINWHEEL_MIRROR", "http://user:s3cret@127.0.0.1:1/")
    with pytest.raises(MissingEnvironmentError, match="cannot be fetched: .*check the network and PINWHEEL_MIRROR") as refused:
        fetch()
    assert "s3cret" not in refused.value.line()


def test_a_setting_that_names_no_mirror_is_refused(own_folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PINWHEEL_MIRROR", str(own_folders))
    with pytest.raises(MissingEnvironmentError, match=rf"PINWHEEL_MIRROR names no mirror \({own_folders}\): write one"):
        fetch()
    monkeypatch.setenv("PINWHEEL_MIRROR", "ftp://user:s3cret@example.com/")
    with pytest.raises(UsageError, match="PINWHEEL_MIRROR names neither a folder nor an http address: give one of them$"):
        fetch()


CLEAN = {name: None for name in os.environ if name.startswith(("PIP_", "UV_"))} | {
    "PIP_CONFIG_FILE": os.devnull,
    "UV_NO_CONFIG": "1",
}


def test_pip_gets_the_same_file_from_the_folder(filled: Path, tmp_path: Path) -> None:
    mirror.write(filled, BYTES, store.verified)
    got = tmp_path / "got"
    asked = tmp_path / "asked.txt"
    asked.write_text(f"one==1.0+cpu --hash=sha256:{WHEEL.sha256}\n")
    argv: list[str | Path] = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-cache-dir", "--require-hashes"]
    argv += ["--index-url", (filled / "simple").as_uri(), "-d", got, "-r", asked]
    run(argv, env=CLEAN, error=BuildError)
    assert (got / WHEEL.file).read_bytes() == DATA


@pytest.mark.parametrize("form", ["folder", "http"])
def test_uv_resolves_and_installs_from_the_mirror(filled: Path, served: str, tmp_path: Path, form: str) -> None:
    at = (filled / "simple").as_uri() if form == "folder" else f"{served}simple/"
    asked, locked = tmp_path / "asked.in", tmp_path / "locked.txt"
    asked.write_text("one\n")
    uv: list[str | Path] = [find_uv_bin(), "pip"]
    options: list[str | Path] = ["--default-index", at, "--cache-dir", tmp_path / "uv", "--quiet"]
    python: list[str | Path] = ["--python", sys.executable]
    run([*uv, "compile", *options, *python, "--generate-hashes", asked, "-o", locked], env=CLEAN, error=BuildError)
    assert f"one==1.0+cpu \\\n    --hash=sha256:{WHEEL.sha256}\n" in locked.read_text()
    install = ["install", *options, *python, "--require-hashes", "--target", tmp_path / "installed", "-r", locked]
    run([*uv, *install], env=CLEAN, error=BuildError)
    assert (tmp_path / "installed/one-1.0+cpu.dist-info/METADATA").is_file()
