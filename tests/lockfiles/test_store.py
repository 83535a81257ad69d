"""The store and the index, against a server that misbehaves."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from common.errors import LockError, MissingEnvironmentError
from lockfiles import index, store
from lockfiles.model import Artifact
from tests.lockfiles.conftest import artifact, fill

DATA = os.urandom(300_000)
WHEEL = artifact("one-1.0-py3-none-any.whl", DATA)


class Index(BaseHTTPRequestHandler):
    """A package index of one project; `serve` decides what a file's address gives."""

    serve: Callable[[BaseHTTPRequestHandler], None]
    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        if self.path == "/simple/one/":
            page = f'<a href="/files/{WHEEL.file}">{WHEEL.file}</a>'.encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(page)))
            self.end_headers()
            self.wfile.write(page)
        elif self.path.startswith("/files/"):
            type(self).serve(self)
        else:
            self.send_error(404)

    def log_message(self, *_: object) -> None:
        pass


def answer(data: bytes, *, claimed: int | None = None, code: int = 200) -> Callable[[BaseHTTPRequestHandler], None]:
    def serve(request: BaseHTTPRequestHandler) -> None:
        request.send_response(code)
        request.send_header("Content-Length", str(len(data) if claimed is None else claimed))
        request.end_headers()
        request.wfile.write(data)

    return serve


@pytest.fixture
def server(own_folders: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Index]]:
    class Own(Index):
        asked: list[str] = []  # noqa: RUF012
        serve = staticmethod(answer(DATA))

    http = ThreadingHTTPServer(("127.0.0.1", 0), Own)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    monkeypatch.setenv("UV_DEFAULT_INDEX", f"http://127.0.0.1:{http.server_port}/simple/")
    yield Own
    http.shutdown()
    http.server_close()


def fetch(*wanted: Artifact) -> None:
    with index.session() as http:
        store.download(wanted, index.Locator(http), http)


def nothing_is_left_of(wanted: Artifact) -> bool:
    folder = store.path(wanted).parent
    return not folder.exists() or not list(folder.iterdir())


def test_a_fetched_file_is_verified_and_fetched_once(server: type[Index]) -> None:
    fetch(WHEEL)
    assert store.verified(WHEEL).read_bytes() == DATA
    asked = len(server.asked)
    fetch(WHEEL)
    assert len(server.asked) == asked


@pytest.mark.parametrize(
    ("serve", "message"),
    [
        (answer(DATA[:-1] + bytes([DATA[-1] ^ 1])), "the bytes are sha256 .*, the lock says"),
        (answer(DATA + b"x"), "more bytes than the lock's 300000"),
    ],
    ids=["altered", "longer"],
)
def test_altered_bytes_are_refused_and_nothing_is_kept(
    server: type[Index], serve: Callable[[BaseHTTPRequestHandler], None], message: str
) -> None:
    server.serve = staticmethod(serve)
    with pytest.raises(LockError, match=message):
        fetch(WHEEL)
    assert nothing_is_left_of(WHEEL)


@pytest.mark.parametrize(
    ("serve", "message"),
    [
        (answer(DATA[:1000]), "cannot be fetched: ConnectionError 1000 of 300000 bytes"),
        (answer(DATA[:1000], claimed=len(DATA)), "cannot be fetched: "),
        (answer(b"", code=503), "cannot be fetched: the server answers 503"),
        (answer(b"", code=404), "cannot be fetched: the server answers 404"),
    ],
    ids=["short", "cut", "unavailable", "gone"],
)
def test_a_failing_server_is_asked_again_and_then_named(
    server: type[Index], serve: Callable[[BaseHTTPRequestHandler], None], message: str
) -> None:
    server.serve = staticmethod(serve)
    with pytest.raises(MissingEnvironmentError, match=message) as refused:
        fetch(WHEEL)
    assert sum(path.startswith("/files/") for path in server.asked) == 3
    assert "127.0.0.1" not in refused.value.line()  # an address may carry credentials
    assert nothing_is_left_of(WHEEL)


def test_a_connection_cut_once_is_mended(server: type[Index]) -> None:
    tries = iter([answer(DATA[:1000], claimed=len(DATA)), answer(DATA)])

    def serve(request: BaseHTTPRequestHandler) -> None:
        next(tries)(request)

    server.serve = staticmethod(serve)
    fetch(WHEEL)
    assert store.verified(WHEEL).read_bytes() == DATA


def test_a_file_gone_from_the_index_is_named(server: type[Index]) -> None:
    with pytest.raises(LockError, match="one-2.0-py3-none-any.whl is not on your index any more"):
        fetch(artifact("one-2.0-py3-none-any.whl"))


def test_a_project_gone_from_the_index_is_named(server: type[Index]) -> None:
    with pytest.raises(LockError, match="your index has no project other"):
        fetch(artifact("other-2.0-py3-none-any.whl"))


def test_an_index_that_is_down_is_named_without_its_address(own_folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://user:secret@127.0.0.1:1/simple/")
    with pytest.raises(MissingEnvironmentError, match="your package index does not answer for one") as refused:
        fetch(WHEEL)
    assert "secret" not in refused.value.line()


def test_bytes_altered_in_the_store_are_refused_and_removed(own_folders: Path) -> None:
    fill(WHEEL, DATA[:-1] + b"?")
    with pytest.raises(LockError, match=r"the store's bytes are sha256 \w+, the lock says"):
        store.verified(WHEEL)
    assert not store.has(WHEEL)


def test_a_truncated_file_in_the_store_does_not_count_as_there(own_folders: Path) -> None:
    fill(WHEEL, DATA[:10])
    assert not store.has(WHEEL)


def test_a_full_disk_is_one_line_and_leaves_nothing(own_folders: Path) -> None:
    with pytest.raises(MissingEnvironmentError, match="no space left for the store"), store.adding(WHEEL):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert nothing_is_left_of(WHEEL)


def test_a_file_that_cannot_be_read_is_named(own_folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(WHEEL, DATA)

    def refuse(_: Path) -> str:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(store, "sha256_file", refuse)
    with pytest.raises(
        MissingEnvironmentError, match="one-1.0-py3-none-any.whl cannot be read from the store: Input/output error"
    ):
        store.verified(WHEEL)


def test_two_writers_of_one_file_both_succeed(own_folders: Path) -> None:
    with store.adding(WHEEL) as one, store.adding(WHEEL) as other:
        one.write(DATA)
        other.write(DATA)
    assert hashlib.sha256(store.verified(WHEEL).read_bytes()).hexdigest() == WHEEL.sha256
    assert [p.name for p in store.path(WHEEL).parent.iterdir()] == [WHEEL.sha256]


def test_the_index_comes_from_the_users_pip_configuration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "pip.conf").write_text("[global]\nindex-url = https://proxy.example.com/simple\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    assert index.url() == "https://proxy.example.com/simple"
    monkeypatch.setenv("PIP_INDEX_URL", "https://other.example.com/simple")
    assert index.url() == "https://other.example.com/simple"
