"""Advisories, from a server that speaks OSV's batch query."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import pytest

from common import offline
from lockfiles import advisories
from lockfiles.changes import Move
from lockfiles.model import Wheel
from tests.lockfiles.conftest import artifact


class Source(BaseHTTPRequestHandler):
    """Knows two advisories of one 1.0, one of them still open in 1.1; gives one to a page."""

    known: ClassVar[dict[tuple[str, str], list[str]]] = {("one", "1.0"): ["GHSA-1", "GHSA-2"], ("one", "1.1"): ["GHSA-2"]}
    asked: ClassVar[list[Any]] = []
    answer: ClassVar[bytes | None] = None

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.asked.append(body)
        results = []
        for query in body["queries"]:
            ids = self.known.get((query["package"]["name"], query["version"]), [])
            start = int(query.get("page_token", "0"))
            page: dict[str, Any] = {"vulns": [{"id": one} for one in ids[start : start + 1]]} if ids else {}
            if start + 1 < len(ids):
                page["next_page_token"] = str(start + 1)
            results.append(page)
        data = self.answer or json.dumps({"results": results}).encode()
        self.send_response(200 if self.path == "/v1/querybatch" else 404)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Source]]:
    class Own(Source):
        asked: ClassVar[list[Any]] = []

    http = ThreadingHTTPServer(("127.0.0.1", 0), Own)
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    monkeypatch.setenv("PINWHEEL_ADVISORIES", f"http://127.0.0.1:{http.server_address[1]}/")
    yield Own
    http.shutdown()
    http.server_close()
    thread.join()


def _move(old: str, new: str, name: str = "one") -> Move:
    def wheel(version: str) -> Wheel | None:
        return Wheel(name, version, artifact(f"{name}-{version}-py3-none-any.whl")) if version else None

    return Move(name, wheel(old), wheel(new), ("small",))


def said(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join("".join(capsys.readouterr()).split())


def test_every_page_of_an_answer_is_read(source: type[Source]) -> None:
    assert advisories.known([("one", "1.0"), ("two", "1.0")]) == {("one", "1.0"): ("GHSA-1", "GHSA-2"), ("two", "1.0"): ()}
    assert len(source.asked) == 2


def test_an_upgrade_tells_what_it_fixes(source: type[Source], capsys: pytest.CaptureFixture[str]) -> None:
    advisories.show([_move("1.0", "1.1")])
    text = said(capsys)
    assert "advisories fixed by one: GHSA-1" in text
    assert "advisories: 1 fixed, 0 brought" in text


def test_a_package_that_comes_tells_what_it_brings(source: type[Source], capsys: pytest.CaptureFixture[str]) -> None:
    advisories.show([_move("", "1.1")])
    assert "advisories brought by one: GHSA-2" in said(capsys)


def test_nothing_moved_asks_nothing(source: type[Source], capsys: pytest.CaptureFixture[str]) -> None:
    advisories.show([])
    assert (source.asked, said(capsys)) == ([], "")


@pytest.mark.parametrize("answer", [b"<html>", b"[]", b'{"results": []}', b'{"results": [7, 7]}'])
def test_a_server_that_speaks_otherwise_is_no_source(
    source: type[Source], monkeypatch: pytest.MonkeyPatch, answer: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(source, "answer", answer)
    advisories.show([_move("1.0", "1.1")])
    assert "no source answers" in said(capsys)


def test_no_source_fails_nothing_and_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PINWHEEL_ADVISORIES", "http://127.0.0.1:1")
    advisories.show([_move("1.0", "1.1")])
    assert "no source answers" in said(capsys)


def test_offline_no_source_is_asked(source: type[Source]) -> None:
    with offline.forced(wanted=True):
        assert advisories.known([("one", "1.0")]) is None
    assert source.asked == []
