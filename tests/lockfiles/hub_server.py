"""A hub of models on this machine: it keeps repositories, commits and branches, and speaks the hub's file protocol.

Two real HTTP servers, as the hub has: itself, and on another host a CDN that gives the big files, those in Git LFS, by a
signed address and, as S3 does, refuses a request that brings a token as well. `huggingface_hub` itself downloads from it.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

_LFS = (".safetensors", ".bin", ".pt", ".model", ".gguf")
_PAGE = 3  # Files of one page of a tree; the real hub's is 1000.
Files = dict[str, bytes]


@dataclass(frozen=True)
class Asked:
    """A request that came in."""

    server: str
    method: str
    path: str
    token: str
    range: str


@dataclass
class Faults:
    """What goes wrong; paths are those of files.

    Attributes:
        busy: (status, Retry-After) that the next requests to the hub get.
        altered: bytes that are served instead of a file's own.
        cut: after how many bytes the connection breaks, for each of the next requests for a file.
        listed: what the lists say of a file, instead of the truth.
        removed: files that are listed, and not served.
        collected: commits that git has collected as garbage.
        drops_questions: a proxy that does not pass on `?blobs=true`: sizes are missing from the list of files.
        portal: a page for people comes instead of every answer.
        whole: ranges are not served.
        leads_around: the next page of a list is said to be on another host.
    """

    busy: list[tuple[int, str]] = field(default_factory=list)
    altered: Files = field(default_factory=dict)
    cut: dict[str, list[int]] = field(default_factory=dict)
    listed: dict[str, dict[str, Any]] = field(default_factory=dict)
    removed: set[str] = field(default_factory=set)
    collected: set[str] = field(default_factory=set)
    drops_questions: bool = False
    portal: bool = False
    whole: bool = False
    leads_around: bool = False


class HubServer:
    """The hub's state. `endpoint` is what HF_ENDPOINT is set to."""

    def __init__(self) -> None:
        self.endpoint = self.cdn = ""
        self.prefix = ""
        self.commits: dict[tuple[str, str], Files] = {}
        self.branches: dict[tuple[str, str], str] = {}
        self.renamed: dict[str, str] = {}
        self.secret = ""  # Where set, repositories are private to who brings it.
        self.gated = False
        self.faults = Faults()
        self.asked: list[Asked] = []

    def push(self, repo: str, files: Files, branch: str = "main") -> str:
        """A commit that holds exactly these files; the branch moves to it."""
        parent = self.branches.get((repo, branch), "")
        told = repr((parent, sorted((path, blob_id(data)) for path, data in files.items())))
        commit = hashlib.sha1(told.encode()).hexdigest()
        self.commits[repo, commit] = dict(files)
        self.branches[repo, branch] = commit
        return commit

    def find(self, repo: str, revision: str) -> tuple[str, Files] | None:
        commit = self.branches.get((repo, revision), revision)
        files = self.commits.get((repo, commit))
        return None if files is None or commit in self.faults.collected else (commit, files)

    def asked_for(self, path: str, server: str = "") -> list[Asked]:
        return [one for one in self.asked if path in one.path and server in one.server]


def blob_id(data: bytes) -> str:
    """Git's id of a file."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def pointer(data: bytes) -> bytes:
    """What git keeps of a file that is in LFS."""
    text = f"version https://git-lfs.github.com/spec/v1\noid sha256:{hashlib.sha256(data).hexdigest()}\nsize {len(data)}\n"
    return text.encode()


def tensors_file(**tensors: list[float]) -> bytes:
    """A safetensors file, made by hand from the format's description."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    data = b""
    for name, values in sorted(tensors.items()):
        packed = struct.pack(f"<{len(values)}f", *values)
        header[name] = {"dtype": "F32", "shape": [len(values)], "data_offsets": [len(data), len(data) + len(packed)]}
        data += packed
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


@contextmanager
def serving(prefix: str = "") -> Iterator[HubServer]:
    """A hub that answers; `prefix` is the path that a proxy puts before everything."""
    state = HubServer()
    state.prefix = prefix

    class Hub(_Hub):
        hub = state

    class Cdn(_Cdn):
        hub = state

    servers = [ThreadingHTTPServer(("127.0.0.1", 0), handler) for handler in (Hub, Cdn)]
    for server in servers:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    state.endpoint = f"http://127.0.0.1:{servers[0].server_port}{prefix}"
    state.cdn = f"http://localhost:{servers[1].server_port}"
    try:
        yield state
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: HubServer
    server_name = ""

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self) -> None:
        token = self.headers.get("Authorization", "")
        self.hub.asked.append(Asked(self.server_name, self.command, self.path, token, self.headers.get("Range", "")))
        # One request per connection: no thread is left waiting for another when the server ends.
        self.close_connection = True
        # Whoever asks may have read enough.
        with suppress(BrokenPipeError, ConnectionResetError):
            self.route()

    def route(self) -> None:
        raise NotImplementedError

    def reply(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None, *, cut: int | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), "Connection": "close", **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[:cut])

    def serve_bytes(self, path: str, data: bytes, headers: dict[str, str]) -> None:
        """A file's bytes, with ranges, compression on the way, and what goes wrong."""
        data = self.hub.faults.altered.get(path, data)
        cuts = self.hub.faults.cut.get(path, [])
        cut = cuts.pop(0) if cuts and self.command == "GET" else None
        spec = self.headers.get("Range", "")
        if spec.startswith("bytes=") and not self.hub.faults.whole:
            first, _, last = spec.removeprefix("bytes=").partition("-")
            begin, end = int(first), min(int(last) if last else len(data) - 1, len(data) - 1)
            if begin >= len(data):
                self.reply(416, headers={"Content-Range": f"bytes */{len(data)}"})
                return
            span = {"Content-Range": f"bytes {begin}-{end}/{len(data)}"}
            self.reply(206, data[begin : end + 1], {**headers, **span}, cut=cut)
            return
        if self.server_name == "hub" and "gzip" in self.headers.get("Accept-Encoding", "") and self.command == "GET":
            # The real hub does this with text.
            self.reply(200, gzip.compress(data), {**headers, "Content-Encoding": "gzip"}, cut=cut)
            return
        self.reply(200, data, {**headers, "Accept-Ranges": "bytes"}, cut=cut)


class _Cdn(_Handler):
    server_name = "cdn"

    def route(self) -> None:
        parts = urlsplit(self.path)
        # A signed address and a token at once: S3 refuses that.
        if self.headers.get("Authorization") or parse_qs(parts.query).get("signature") != ["good"]:
            self.reply(400, b"Only one auth mechanism allowed")
            return
        wanted = parts.path.removeprefix("/")
        for files in self.hub.commits.values():
            for path, data in files.items():
                if hashlib.sha256(data).hexdigest() == wanted:
                    self.serve_bytes(path, data, {"ETag": f'"{wanted}"'})
                    return
        self.reply(403)


class _Hub(_Handler):
    server_name = "hub"

    def route(self) -> None:
        faults, url = self.hub.faults, urlsplit(self.path)
        if not url.path.startswith(self.hub.prefix + "/"):
            self.reply(404)
            return
        if faults.busy:
            status, after = faults.busy.pop(0)
            self.reply(status, headers={"Retry-After": after} if after else {})
            return
        if faults.portal:
            self.reply(200, b"<html>Please log in</html>", {"Content-Type": "text/html"})
            return
        question = parse_qs(url.query)
        parts = [unquote(part) for part in url.path.removeprefix(self.hub.prefix + "/").split("/")]
        api = parts[:2] == ["api", "models"]
        repo, rest = "/".join(parts[2:4] if api else parts[:2]), parts[4:] if api else parts[2:]
        repo = self.hub.renamed.get(repo, repo)
        if not self._may(repo):
            return
        action, revision = rest[0] if rest else "revision", rest[1] if len(rest) > 1 else "main"
        found = self.hub.find(repo, revision)
        if found is None:
            self._error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        elif api and action == "revision":
            self._revision(repo, *found, blobs="blobs" in question and not faults.drops_questions)
        elif api and action == "tree":
            start = int(question.get("cursor", ["0"])[0])
            # Without the question, the hub lists one folder alone.
            self._tree(url.path, *found, start=start, recursive=question.get("recursive", [""])[0].lower() == "true")
        elif action == "resolve":
            self._resolve(*found, "/".join(rest[2:]))
        else:
            self.reply(404)

    def _may(self, repo: str) -> bool:
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        known = any(repo == name for name, _ in self.hub.commits)
        if token and self.hub.secret and token != self.hub.secret:
            self._error(401, "", "Invalid credentials in Authorization header")
        elif not known or (self.hub.secret and token != self.hub.secret):
            # To a stranger, a private repository looks like none.
            self._error(404 if token else 401, "RepoNotFound", "Repository not found")
        else:
            return True
        return False

    def _error(self, status: int, code: str, message: str) -> None:
        headers = {"X-Error-Message": message, **({"X-Error-Code": code} if code else {})}
        self.reply(status, json.dumps({"error": message}).encode(), headers)

    def _json(self, body: object, headers: dict[str, str] | None = None) -> None:
        self.reply(200, json.dumps(body).encode(), {"Content-Type": "application/json", **(headers or {})})

    def _revision(self, repo: str, commit: str, files: Files, *, blobs: bool) -> None:
        siblings = []
        for path, data in files.items():
            entry: dict[str, Any] = {"rfilename": path}
            if blobs:
                entry |= {"size": len(data), "blobId": blob_id(data)}
                if path.endswith(_LFS):
                    text, sha256 = pointer(data), hashlib.sha256(data).hexdigest()
                    entry["blobId"] = blob_id(text)
                    entry["lfs"] = {"sha256": sha256, "size": len(data), "pointerSize": len(text)}
            siblings.append(entry | self.hub.faults.listed.get(path, {}))
        gated = "manual" if self.hub.gated else False
        self._json({"_id": "0", "id": repo, "modelId": repo, "sha": commit, "gated": gated, "siblings": siblings})

    def _tree(self, path: str, _: str, files: Files, *, start: int, recursive: bool) -> None:
        entries: dict[str, dict[str, Any]] = {}
        for name, data in sorted(files.items()):
            for depth in range(1, name.count("/") + 1):
                folder = "/".join(name.split("/")[:depth])
                entries[folder] = {"type": "directory", "oid": "0" * 40, "size": 0, "path": folder}
            entry: dict[str, Any] = {"type": "file", "oid": blob_id(data), "size": len(data), "path": name}
            if name.endswith(_LFS):
                text = pointer(data)
                entry["oid"] = blob_id(text)
                entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": len(text)}
            entries[name] = entry | self.hub.faults.listed.get(name, {})
        shown = [entry for name, entry in entries.items() if recursive or "/" not in name]
        headers = {}
        if start + _PAGE < len(shown):
            host = "http://elsewhere.invalid" if self.hub.faults.leads_around else f"http://{self.headers['Host']}"
            headers["Link"] = f'<{host}{path}?recursive=true&cursor={start + _PAGE}>; rel="next"'
        self._json(shown[start : start + _PAGE], headers)

    def _resolve(self, commit: str, files: Files, path: str) -> None:
        token = self.headers.get("Authorization", "")
        if self.hub.gated:
            self._error(403 if token else 401, "GatedRepo", "Access to this model is restricted")
        elif path not in files or path in self.hub.faults.removed:
            self.reply(404, headers={"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
        elif path.endswith(_LFS):
            data = files[path]
            sha256 = hashlib.sha256(data).hexdigest()
            headers = {"X-Repo-Commit": commit, "X-Linked-Size": str(len(data)), "X-Linked-Etag": f'"{sha256}"'}
            self.reply(302, headers={**headers, "Location": f"{self.hub.cdn}/{quote(sha256)}?signature=good"})
        else:
            data = files[path]
            self.serve_bytes(path, data, {"X-Repo-Commit": commit, "ETag": f'"{blob_id(data)}"'})
