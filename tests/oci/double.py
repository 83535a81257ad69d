"""A registry on loopback: real HTTP, the distribution spec 1.1's push, pull, mount and resume, and faults on demand."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import ssl
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from oci.descriptor import INDEX

USER, PASSWORD, IDENTITY = "ada", "s3cret-pass", "identity-token-123"
_PATH = re.compile(r"/v2/(?P<repo>.+)/(?P<kind>blobs/uploads|blobs|manifests|referrers)/(?P<rest>[^/]*)")


def digest_of(data: bytes | bytearray) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


@dataclass
class Request:
    """What the double was asked."""

    method: str
    path: str
    headers: dict[str, str]
    body: int = 0


@dataclass
class Fault:
    """Something that goes wrong `times` times, with requests of a method whose path matches."""

    method: str
    path: str
    act: Callable[[Handler], None]
    times: int


@dataclass
class Double:
    """State and behaviour of the registry.

    Attributes:
        address: host and port.
        blobs: by repository and digest.
        manifests: by repository and tag or digest.
        sessions: bytes of open uploads, by id.
        asked: every request, in order.
        auth: how it knows users: nothing, `basic` or `bearer`.
        lifetime: seconds a token lasts.
        slow: seconds for a MiB of a request's body, before anything is looked at, as behind a proxy that buffers.
        least: OCI-Chunk-Min-Length; 0: none.
        largest: bytes of a request's body, more is answered with 413; 0: any.
        chunks: whether it takes PATCH.
        mounts: whether it mounts.
        absolute: whether a Location is a whole address.
        keeps_parts: whether bytes of a request that was cut are kept.
        strict: whether a manifest is refused when a blob is missing.
        pretends: digests of blobs that it says it has.
        referrers: whether it has the referrers API.
        hides: whether it refuses a tag that is not there, as Artifactory does to who may not list tags.
        silent: whether it does not say that it noted a subject.
        fixed: the tags, as a pattern, that cannot be moved once they are there.
        refuses: the status of its answer to who tries.
        readable: repositories, as patterns, that a token is given for.
        forbids: whether there is no token at all, but a 403, where one of the repositories asked for is not readable.
        ended: nobody needs an answer any more.
    """

    address: str = ""
    scheme: str = "http"
    blobs: defaultdict[str, dict[str, bytes]] = field(default_factory=lambda: defaultdict(dict))
    manifests: defaultdict[str, dict[str, tuple[str, bytes]]] = field(default_factory=lambda: defaultdict(dict))
    sessions: dict[str, bytearray] = field(default_factory=dict)
    asked: list[Request] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    tokens: dict[str, tuple[set[str], float]] = field(default_factory=dict)
    auth: str = ""
    lifetime: float = 60
    slow: float = 0
    least: int = 0
    largest: int = 0
    chunks: bool = True
    mounts: bool = True
    absolute: bool = False
    keeps_parts: bool = True
    strict: bool = True
    pretends: set[str] = field(default_factory=set)
    referrers: bool = False
    hides: bool = False
    silent: bool = False
    fixed: str = ""
    refuses: int = 400
    readable: set[str] = field(default_factory=lambda: {".*"})
    forbids: bool = False
    ended: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def fail(self, method: str, path: str, act: Callable[[Handler], None], times: int = 1) -> None:
        """Let the next `times` requests of that kind go wrong."""
        self.faults.append(Fault(method, path, act, times))

    def fault(self, method: str, path: str) -> Fault | None:
        """What goes wrong with a request; each time is given out once."""
        with self.lock:
            for one in self.faults:
                if one.times and one.method == method and re.search(one.path, path):
                    one.times -= 1
                    return one
        return None

    def count(self, method: str, path: str = "") -> int:
        """How many such requests there were."""
        return sum(one.method == method and bool(re.search(path, one.path)) for one in self.asked)

    @property
    def received(self) -> int:
        """Bytes of blobs that arrived, those of requests that went wrong included."""
        return sum(one.body for one in self.asked if "/blobs/" in one.path)


def answers(status: int, headers: dict[str, str] | None = None, data: bytes = b"") -> Callable[[Handler], None]:
    """A fault: another answer, once the request was read."""

    def act(handler: Handler) -> None:
        handler.take(None)
        handler.answer(status, headers or {}, data)

    return act


def cuts(after: int) -> Callable[[Handler], None]:
    """A fault: the connection is cut after so many bytes of the body."""

    def act(handler: Handler) -> None:
        session = handler.session()
        handler.take(session if handler.double.keeps_parts else None, after)
        handler.close_connection = True
        handler.connection.shutdown(socket.SHUT_RDWR)

    return act


def stalls(seconds: float) -> Callable[[Handler], None]:
    """A fault: the request is read, and for a while nothing is said."""

    def act(handler: Handler) -> None:
        handler.take(None)
        handler.double.ended.wait(seconds)
        handler.close_connection = True

    return act


def forgets(handler: Handler) -> None:
    """A fault: the upload session is gone."""
    handler.double.sessions.pop(urlsplit(handler.path).path.rpartition("/")[2], None)
    answers(404, {}, b'{"errors":[{"code":"BLOB_UPLOAD_UNKNOWN","message":"blob upload unknown to registry"}]}')(handler)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Headers and body are two writes: without this the second waits for the first's acknowledgement, 40 ms each.
    disable_nagle_algorithm = True
    double: Double

    def _serve(self) -> None:
        parts = urlsplit(self.path)
        self.query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        self.scopes = parse_qs(parts.query).get("scope", [])
        self.request_ = Request(self.command, self.path, {k.lower(): v for k, v in self.headers.items()})
        self.double.asked.append(self.request_)
        self.left = int(self.headers.get("Content-Length") or 0)
        self.double.ended.wait(self.double.slow * self.left / (1 << 20))
        if fault := self.double.fault(self.command, self.path):
            return fault.act(self)
        if parts.path == "/token":
            return self._token()
        found = _PATH.fullmatch(parts.path)
        if found is None:
            if parts.path == "/v2/" and self.double.auth and "Authorization" not in self.headers:
                # Which is how skopeo finds out what is asked for.
                realm = f'realm="{self.double.scheme}://{self.double.address}/token",service="double"'
                self._refuse(f"Bearer {realm}" if self.double.auth == "bearer" else 'Basic realm="double"')
                return None
            return self.answer(200 if parts.path == "/v2/" else 404)
        self.repo, kind, self.rest = found["repo"], found["kind"], found["rest"]
        if not self._allowed():
            return None
        return {"blobs/uploads": self._upload, "blobs": self._blob, "manifests": self._manifest, "referrers": self._referrers}[
            kind
        ]()

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = _serve

    def take(self, session: bytearray | None, limit: int = -1) -> None:
        """Read the body, or `limit` bytes of it, into a session."""
        left = self.left if limit < 0 else min(limit, self.left)
        while left:
            data = self.rfile.read1(min(left, 1 << 16))
            if not data:
                break
            left -= len(data)
            self.request_.body += len(data)
            if session is not None:
                session += data

    def answer(self, status: int, headers: dict[str, str] | None = None, data: bytes = b"") -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if "Content-Length" not in (headers or {}):
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def session(self) -> bytearray | None:
        return self.double.sessions.get(urlsplit(self.path).path.rpartition("/")[2])

    def error(self, status: int, code: str, headers: dict[str, str] | None = None) -> None:
        self.answer(status, headers, json.dumps({"errors": [{"code": code, "message": code.lower()}]}).encode())

    def _location(self, path: str) -> str:
        return f"{self.double.scheme}://{self.double.address}{path}" if self.double.absolute else path

    def _upload(self) -> None:
        if self.command == "POST":
            held = self.double.blobs[self.query.get("from", "")].get(self.query.get("mount", ""))
            if held is not None and self.double.mounts:
                self.double.blobs[self.repo][self.query["mount"]] = held
                return self.answer(201, {"Location": f"/v2/{self.repo}/blobs/{self.query['mount']}"})
            name = uuid.uuid4().hex
            self.double.sessions[name] = bytearray()
            more = {"OCI-Chunk-Min-Length": str(self.double.least)} if self.double.least else {}
            return self.answer(202, {"Location": self._location(f"/v2/{self.repo}/blobs/uploads/{name}?state=a%3Db"), **more})
        session = self.session()
        if session is None or self.query.get("state") != "a=b":
            self.take(None)
            return self.error(404, "BLOB_UPLOAD_UNKNOWN")
        if self.double.largest and self.left > self.double.largest:
            self.take(None)
            return self.answer(413)
        place = {"Location": self._location(f"/v2/{self.repo}/blobs/uploads/{self.rest}?state=a%3Db")}
        if self.command == "GET":
            return self.answer(204, {**place, "Range": f"0-{max(0, len(session) - 1)}"})
        span = re.fullmatch(r"(\d+)-(\d+)", self.headers.get("Content-Range", ""))
        if span and (int(span[1]) != len(session) or int(span[2]) - int(span[1]) + 1 != self.left):
            self.take(None)
            return self.answer(416, {**place, "Range": f"0-{max(0, len(session) - 1)}"})
        if self.command == "PATCH":
            if not self.double.chunks:
                self.take(None)
                return self.error(405, "UNSUPPORTED")
            if self.left < self.double.least:
                self.take(None)
                return self.error(400, "SIZE_INVALID")
            self.take(session)
            return self.answer(202, {**place, "Range": f"0-{len(session) - 1}"})
        self.take(session)
        del self.double.sessions[self.rest]
        if digest_of(session) != self.query["digest"]:
            return self.error(400, "DIGEST_INVALID")
        self.double.blobs[self.repo][self.query["digest"]] = bytes(session)
        self.double.pretends.discard(self.query["digest"])
        return self.answer(201, {"Docker-Content-Digest": self.query["digest"]})

    def _blob(self) -> None:
        data = self.double.blobs[self.repo].get(self.rest)
        if data is None:
            return self.answer(200) if self.rest in self.double.pretends else self.error(404, "BLOB_UNKNOWN")
        return self.answer(200, {"Content-Length": str(len(data))}, data)

    def _manifest(self) -> None:
        held = self.double.manifests[self.repo]
        if self.command == "PUT":
            data = self.rfile.read(self.left)
            if self.double.fixed and self.rest in held and re.search(self.double.fixed, self.rest):
                return self.error(self.double.refuses, "TAG_INVALID")
            body = json.loads(data)
            named = [one["digest"] for one in [body.get("config"), *body.get("layers", [])] if one]
            if self.double.strict and not set(named) <= set(self.double.blobs[self.repo]):
                return self.error(400, "MANIFEST_BLOB_UNKNOWN")
            held[self.rest] = held[digest_of(data)] = (self.headers["Content-Type"], data)
            # Nobody need keep the list of referrers by hand (distribution spec 1.1, "Pushing Manifests with Subject").
            noted = (
                {"OCI-Subject": body["subject"]["digest"]}
                if self.double.referrers and "subject" in body and not self.double.silent
                else {}
            )
            return self.answer(201, {"Docker-Content-Digest": digest_of(data), **noted})
        if self.rest not in held:
            hidden = self.double.hides and not self.rest.startswith("sha256:")
            return self.error(403, "UNAUTHORIZED") if hidden else self.error(404, "MANIFEST_UNKNOWN")
        kind, data = held[self.rest]
        head = {"Content-Type": kind, "Content-Length": str(len(data)), "Docker-Content-Digest": digest_of(data)}
        return self.answer(200, head, data)

    def _referrers(self) -> None:
        if not self.double.referrers:
            return self.error(404, "NOT_FOUND")
        listed = []
        for reference, (kind, data) in sorted(self.double.manifests[self.repo].items()):
            if reference != digest_of(data) or self.rest.encode() not in data:
                continue
            body = json.loads(data)
            if (body.get("subject") or {}).get("digest") == self.rest:
                described = {"mediaType": kind, "digest": reference, "size": len(data)}
                listed.append({**described, "artifactType": body.get("artifactType") or body["config"]["mediaType"]})
        index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": listed}
        return self.answer(200, {"Content-Type": INDEX}, json.dumps(index).encode())

    def _allowed(self) -> bool:
        sent = self.headers.get("Authorization", "")
        if not self.double.auth:
            return True
        if self.double.auth == "basic":
            known = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
            return sent == known or self._refuse('Basic realm="double"')
        writes = self.command in {"POST", "PUT", "PATCH"} or "/uploads/" in self.path
        needed = {f"repository:{self.repo}:{'push' if writes else 'pull'}"}
        needed |= {f"repository:{self.query['from']}:pull"} if "from" in self.query else set()
        scopes, until = self.double.tokens.get(sent.removeprefix("Bearer "), (set(), 0.0))
        if sent.startswith("Bearer ") and needed <= scopes and until > time.monotonic():
            return True
        realm = f"{self.double.scheme}://{self.double.address}/token"
        scope = f"repository:{self.repo}:{'pull,push' if writes else 'pull'}"
        return self._refuse(f'Bearer realm="{realm}",service="double",scope="{scope}"')

    def _refuse(self, challenge: str) -> bool:
        self.take(None)
        self.error(401, "UNAUTHORIZED", {"WWW-Authenticate": challenge})
        return False

    def _token(self) -> None:
        data = self.rfile.read(self.left)
        # skopeo says no length, and sends chunks.
        while self.headers.get("Transfer-Encoding") == "chunked" and (size := int(self.rfile.readline(), 16)):
            data += self.rfile.read(size + 2)[:-2]
        form = parse_qs(data.decode())
        known = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        if self.headers.get("Authorization") != known and form.get("refresh_token") != [IDENTITY]:
            return self.error(401, "UNAUTHORIZED")
        scopes = set()
        for scope in " ".join([*self.scopes, *form.get("scope", [])]).split():
            kind, repo, actions = scope.split(":")
            if any(re.fullmatch(one, repo) for one in self.double.readable):
                scopes |= {f"{kind}:{repo}:{action}" for action in actions.split(",")}
            elif self.double.forbids:
                return self.error(403, "DENIED")
        # As long as signed ones are.
        token = "token-" + uuid.uuid4().hex * 30
        self.double.tokens[token] = (scopes, time.monotonic() + self.double.lifetime)
        return self.answer(
            200, {}, json.dumps({"access_token": token, "expires_in": max(1, int(self.double.lifetime))}).encode()
        )

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(context: ssl.SSLContext | None = None) -> Iterator[Double]:
    """A double that answers until the block ends."""
    state = Double()

    class Own(Handler):
        double = state

    server = ThreadingHTTPServer(("127.0.0.1", 0), Own)
    server.daemon_threads = True
    # A client that hangs up is part of the tests.
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    if context:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        state.scheme = "https"
    state.address = f"127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.01), daemon=True)
    thread.start()
    yield state
    state.ended.set()
    server.shutdown()
    server.server_close()
