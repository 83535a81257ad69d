"""A package index on loopback: real HTTP, project pages in JSON (PEP 691), range requests, tiny wheels made on the spot."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import re
import ssl
import sys
import threading
import traceback
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import quote, unquote


def wheel(
    name: str,
    version: str,
    requires: Sequence[str] = (),
    *,
    extras: Sequence[str] = (),
    python: str = "",
    holds: Mapping[str, str] | None = None,
) -> bytes:
    """A wheel of metadata and what it is said to hold; the same arguments give the same bytes."""
    head = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    head += [f"Requires-Python: {python}"] if python else []
    head += [f"Provides-Extra: {extra}" for extra in extras]
    head += [f"Requires-Dist: {text}" for text in requires]
    info = f"{name.replace('-', '_')}-{version}.dist-info"
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        for file, text in (
            (f"{info}/METADATA", "\n".join(head) + "\n\nA package.\n"),
            (f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"),
            (f"{info}/RECORD", ""),
            *(holds or {}).items(),
        ):
            archive.writestr(zipfile.ZipInfo(file), text)
    return held.getvalue()


class Index:
    """What the server serves and what it was asked.

    Attributes:
        address: of the simple index, ends in a slash.
        files: bytes by path, without the leading slash.
        asked: (path, Range header) of every request.
        ranges: whether parts of files are served.
        html: whether pages are HTML without sizes (PEP 503).
        metadata: whether METADATA is served beside the wheels (PEP 658).
        compresses: whether files are compressed for clients that accept it, and ranges counted in what is sent.
        wrong: status to answer for a path, instead of its bytes.
        status: project status and its reason (PEP 792) by project.
        hides: whether a project in quarantine shows no file.
        instead: bytes and content type to answer for a path.
        login: `user:password` that every request must bring; empty for none.
    """

    def __init__(self) -> None:
        self.address = ""
        self.files: dict[str, bytes] = {}
        self.asked: list[tuple[str, str]] = []
        self.ranges = True
        self.html = False
        self.metadata = False
        self.compresses = False
        self.wrong: dict[str, list[int]] = {}
        self.instead: dict[str, tuple[bytes, str]] = {}
        self.login = ""
        self.status: dict[str, tuple[str, str]] = {}
        self.hides = True
        self._python: dict[str, str] = {}
        self._uploaded: dict[str, str] = {}
        self._yanked: set[str] = set()

    def add(
        self,
        name: str,
        version: str,
        *requires: str,
        tag: str = "py3-none-any",
        extras: Sequence[str] = (),
        python: str = "",
        uploaded: str = "",
        yanked: bool = False,
        holds: Mapping[str, str] | None = None,
    ) -> None:
        """Publish a wheel that asks for `requires`."""
        file = f"{name.replace('-', '_')}-{version}-{tag}.whl"
        self.files[f"files/{file}"] = wheel(name, version, requires, extras=extras, python=python, holds=holds)
        self._python[file], self._uploaded[file] = python, uploaded
        self._yanked |= {file} if yanked else set()

    def add_sdist(self, name: str, version: str) -> None:
        """Publish a source archive that nothing can build."""
        self.files[f"files/{name}-{version}.tar.gz"] = b"no archive"

    def page(self, project: str) -> bytes | None:
        """The project's page (PEP 691); None if there is no such project."""
        entries = []
        status, reason = self.status.get(project, ("", ""))
        quarantined = status == "quarantined" and self.hides
        for path, data in sorted(self.files.items()):
            file = path.rpartition("/")[2]
            if quarantined:
                break
            if path.endswith((".whl", ".tar.gz")) and file.partition("-")[0].replace("_", "-").lower() == project:
                entry: dict[str, Any] = {"filename": file, "url": f"/{quote(path)}", "size": len(data)}
                entry["hashes"] = {"sha256": hashlib.sha256(data).hexdigest()}
                entry |= {"requires-python": self._python[file]} if self._python.get(file) else {}
                entry |= {"upload-time": self._uploaded[file]} if self._uploaded.get(file) else {}
                entry |= {"yanked": file in self._yanked, "core-metadata": self.metadata and file.endswith(".whl")}
                entries.append(entry)
        if self.html:
            links = [f'<a href="{e["url"]}#sha256={e["hashes"]["sha256"]}">{e["filename"]}</a>' for e in entries]
            told = (("pypi:project-status", status), ("pypi:project-status-reason", reason))
            head = [f'<meta name="{name}" content="{text}">' for name, text in told if text]
            return "\n".join([*head, *links]).encode() if links or status else None
        body = {"meta": {"api-version": "1.4" if status else "1.0"}, "name": project, "files": entries}
        body |= {"project-status": {"status": status, "reason": reason}, "versions": []} if status else {}
        return json.dumps(body).encode() if entries or status else None

    def url(self, path: str) -> str:
        """The full address of a path."""
        return self.address.removesuffix("simple/") + path


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Headers and body are two writes: without this the second waits for the first's acknowledgement, 40 ms each.
    disable_nagle_algorithm = True
    index: Index

    def do_GET(self) -> None:
        path = unquote(self.path.partition("?")[0].lstrip("/"))
        span = self.headers.get("Range", "")
        self.index.asked.append((path, span))
        expected = f"Basic {base64.b64encode(self.index.login.encode()).decode()}"
        if self.index.login and self.headers.get("Authorization") != expected:
            return self._say(401, b"", {"WWW-Authenticate": "Basic"})
        if queue := self.index.wrong.get(path):
            return self._say(queue.pop(0), b"", {})
        if given := self.index.instead.get(path):
            return self._say(200, given[0], {"Content-Type": given[1]})
        if project := re.fullmatch(r"simple/([^/]+)/", path):
            page = self.index.page(project[1])
            kind = "text/html" if self.index.html else "application/vnd.pypi.simple.v1+json"
            return self._say(200 if page else 404, page or b"", {"Content-Type": kind})
        data = self.index.files.get(path)
        if data is None and self.index.metadata and path.endswith(".metadata"):
            with zipfile.ZipFile(io.BytesIO(self.index.files[path.removesuffix(".metadata")])) as archive:
                data = next(archive.read(name) for name in archive.namelist() if name.endswith("METADATA"))
        if data is None:
            return self._say(404, b"", {})
        if self.index.compresses and "gzip" in self.headers.get("Accept-Encoding", ""):
            data = gzip.compress(data)
        told = re.fullmatch(r"bytes=(\d*)-(\d*)", span)
        if not (told and self.index.ranges):
            return self._say(200, data, {})
        first = int(told[1]) if told[1] else max(0, len(data) - int(told[2]))
        last = min(int(told[2]), len(data) - 1) if told[1] and told[2] else len(data) - 1
        if first > last:
            return self._say(416, b"", {"Content-Range": f"bytes */{len(data)}"})
        return self._say(206, data[first : last + 1], {"Content-Range": f"bytes {first}-{last}/{len(data)}"})

    def do_HEAD(self) -> None:
        data = self.index.files.get(self.path.lstrip("/"))
        self.send_response(200 if data is not None else 404)
        self.send_header("Content-Length", str(len(data or b"")))
        if self.index.ranges:
            self.send_header("Accept-Ranges", "bytes")
        self.end_headers()

    def _say(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """A client that hangs up in the middle of an answer has read enough."""
        if not isinstance(sys.exception(), (ConnectionError, ssl.SSLError)):
            traceback.print_exc()


@contextmanager
def serving(context: ssl.SSLContext | None = None) -> Iterator[Index]:
    """An empty index that answers until the block ends; over TLS where a context is given."""
    index = Index()
    own = type("Handler", (_Handler,), {"index": index})
    http = _Server(("127.0.0.1", 0), own)
    if context:
        http.socket = context.wrap_socket(http.socket, server_side=True)
    index.address = f"{'https' if context else 'http'}://127.0.0.1:{http.server_address[1]}/simple/"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield index
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
