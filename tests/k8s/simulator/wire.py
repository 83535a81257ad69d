"""The simulator's HTTP side: requests in, answers out, and the faults between them."""

from __future__ import annotations

import contextlib
import json
import socket
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import yaml

from k8s.pipeline.model_annotation import preflight
from tests.k8s.simulator.apply import TIME, ConflictError
from tests.k8s.simulator.discovery import Key, discovery, locate

if TYPE_CHECKING:
    from tests.k8s.simulator.apiserver import ApiServer


@dataclass
class Fault:
    """An answer instead of the true one.

    Attributes:
        code: HTTP status; 0 cuts the connection without an answer.
        method: which requests; `*` for all that write.
        kind: of which objects; empty for all.
        dry_run: whether dry runs, real requests or (None) both.
        times: how often; then the server is well again.
        after: how many fitting requests go well before.
        message: of the answer, instead of the usual words for its code.
        retry_after: seconds, as a 429 asks for them.
        preflight: whether it hits what is there for a preflight, instead of everything else.
    """

    code: int
    method: str = "PATCH"
    kind: str = ""
    dry_run: bool | None = False
    times: int = 1_000
    after: int = 0
    message: str = ""
    retry_after: int = 0
    preflight: bool = False

    def hits(self, method: str, place: Key, *, dry_run: bool) -> bool:
        kind = place[1]
        if is_preflight(place) is not self.preflight:
            return False
        if self.method != method and not (self.method == "*" and method != "GET"):
            return False
        if self.kind not in {"", kind} or self.dry_run not in {None, dry_run}:
            return False
        if self.after:
            self.after -= 1
            return False
        self.times -= 1
        return self.times >= 0


def is_preflight(key: Key) -> bool:
    """Whether an object is there for a preflight alone."""
    return key[3].endswith(preflight(""))


def status(code: int, message: str, reason: str, causes: list[dict[str, str]] | None = None) -> dict[str, Any]:
    body: dict[str, Any] = {"apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure", "code": code}
    return {**body, "message": message, "reason": reason, "details": {"causes": causes or []}}


def conflicting(key: Key, conflict: ConflictError) -> dict[str, Any]:
    """The words of a real server, which kubectl prints."""
    parts, causes = [], []
    count = sum(map(len, conflict.fields.values()))
    for who, fields in sorted(conflict.fields.items()):
        wrote = f" using {key[0]} at {TIME}" if who in conflict.updaters else ""
        owner = f'conflict{"s" if count > 1 else ""} with "{who}"{wrote}'
        listed = f" {fields[0]}" if count == 1 else "".join(f"\n- {one}" for one in fields)
        parts.append(f"{owner}:{listed}")
        causes += [{"reason": "FieldManagerConflict", "message": owner, "field": one} for one in fields]
    head = f"Apply failed with {count} conflict{'s' if count > 1 else ''}: "
    return status(409, head + "\n".join(parts), "Conflict", causes)


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, *arguments: Any) -> None:
        self._open: set[Any] = set()
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def vanish(self) -> None:
        """Listen no more, and cut the connections that are there."""
        self.shutdown()
        self.server_close()
        for one in tuple(self._open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def handle_error(self, *_: object) -> None:
        """Quiet: kubectl ends a watch by closing the connection."""


class Handler(BaseHTTPRequestHandler):
    api: ApiServer
    protocol_version = "HTTP/1.1"
    # An answer in one packet: header and body in two would wait 40 ms for each other.
    wbufsize = -1
    disable_nagle_algorithm = True

    def log_message(self, *_: object) -> None:
        """Quiet: tests look at `ApiServer.requests`."""

    def _answer(self, code: int, body: dict[str, Any], retry_after: int = 0) -> None:
        data = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        if code == 429:
            self.send_header("Retry-After", str(retry_after))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        self.api.requests.append(("GET", self.path))
        if (body := discovery(url.path, self.api.minor, self.api.served())) is not None:
            self._answer(200, body)
            return
        if url.path == "/openapi/v2":  # Asked for kinds that v3 does not know; empty, as protobuf.
            self._text("application/com.github.proto-openapi.spec.v2.v1.0+protobuf", b"")
            return
        place, query = locate(url.path, self.api.served()), parse_qs(url.query)
        if place is None:
            self._answer(404, _no_resource())
        elif not self._refused("GET", place, dry_run=False):
            if place[1] == "Pod" and url.path.endswith("/log"):
                self._log(place, query)
            else:
                self._objects(place, query)

    def _log(self, place: Key, query: dict[str, list[str]]) -> None:
        previous = query.get("previous", [""])[0] == "true"
        text = self.api.log(place, query.get("container", [""])[0], previous=previous)
        if text is None:
            what = f'{"previous terminated " if previous else ""}container in pod "{place[3]}" not found'
            self._answer(400, status(400, what, "BadRequest"))
            return
        lines = text.splitlines(keepends=True)
        self._text("text/plain", "".join(lines[-int(query.get("tailLines", ["1000000"])[0]) :]).encode())

    def _text(self, kind: str, data: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _objects(self, place: Key, query: dict[str, list[str]]) -> None:
        api, kind, namespace, name = place
        if name:
            found = self.api.find(place)
            if found is None:
                self._answer(404, status(404, f'{self.api.plural(place)} "{name}" not found', "NotFound"))
            else:
                self._answer(200, found)
            return
        fields = [one.partition("=") for one in query.get("fieldSelector", [""])[0].split(",") if one]
        only = next((value for key, _, value in fields if key == "metadata.name"), "")
        if query.get("watch", [""])[0] not in {"1", "true"}:
            listed = self.api.listing(api, kind, namespace, only)
            wanted = [one for one in query.get("labelSelector", [""])[0].split(",") if one]
            listed["items"] = [
                one
                for one in listed["items"]
                if _labelled(one, wanted) and all(_field(one, key) == value for key, _, value in fields)
            ]
            self._answer(200, listed)
            return
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.flush()
        since = int(query.get("resourceVersion", ["0"])[0] or 0)
        with contextlib.suppress(OSError):
            for event in self.api.watch(api, kind, namespace, only, since):
                line = json.dumps(event).encode() + b"\n"
                self.wfile.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")
                self.wfile.flush()
            self.wfile.write(b"0\r\n\r\n")

    def do_PATCH(self) -> None:
        url = urlsplit(self.path)
        self.api.requests.append(("PATCH", self.path))
        query = parse_qs(url.query)
        body = yaml.safe_load(self.rfile.read(int(self.headers["Content-Length"])))
        place = locate(url.path, self.api.served())
        if place is None:
            self._answer(404, _no_resource())
            return
        assert self.headers["Content-Type"].startswith("application/apply-patch+yaml"), self.headers["Content-Type"]
        dry_run = "dryRun" in query
        if self._refused("PATCH", place, dry_run=dry_run):
            return
        force = query.get("force", ["false"])[0] == "true"
        self._answer(*self.api.apply(place, body, query["fieldManager"][0], force=force, dry_run=dry_run))

    def do_POST(self) -> None:
        self._write("POST")

    def do_PUT(self) -> None:
        self._write("PUT")

    def _write(self, method: str) -> None:
        """Create an object, or write it whole."""
        url = urlsplit(self.path)
        self.api.requests.append((method, self.path))
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        place = locate(url.path, self.api.served())
        if place is None:
            self._answer(404, _no_resource())
            return
        key = (*place[:3], body["metadata"]["name"])
        if self._refused(method, key, dry_run=False):
            return
        manager = parse_qs(url.query).get("fieldManager", ["kubectl-" + method.lower()])[0]
        self._answer(*(self.api.create if method == "POST" else self.api.replace)(key, body, manager))

    def do_DELETE(self) -> None:
        url = urlsplit(self.path)
        self.api.requests.append(("DELETE", self.path))
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        place = locate(url.path, self.api.served())
        if place is None:
            self._answer(404, _no_resource())
        elif not self._refused("DELETE", place, dry_run=False):
            self._answer(*self.api.delete(place))

    def _refused(self, method: str, place: Key, *, dry_run: bool) -> bool:
        """Answer by a fault or a lacking right; false where neither is in the way."""
        if self._faulty(method, place, dry_run=dry_run):
            return True
        verb = _VERBS[method] if method != "GET" or place[3] else "list"
        if (verb, self.api.plural(place)) not in self.api.forbidden:
            return False
        group = place[0].partition("/")[0] if "/" in place[0] else ""
        resource = f"{self.api.plural(place)}.{group}" if group else self.api.plural(place)
        inside = f' in the namespace "{place[2]}"' if place[2] else " at the cluster scope"
        what = (
            f'{resource} "{place[3]}" is forbidden: User "nobody" cannot {verb} resource "{self.api.plural(place)}" '
            f'in API group "{group}"{inside}'
        )
        self._answer(403, status(403, what, "Forbidden"))
        return True

    def _faulty(self, method: str, place: Key, *, dry_run: bool) -> bool:
        kind = place[1]
        for fault in self.api.faults:
            if fault.hits(method, place, dry_run=dry_run):
                if not fault.code:
                    self.close_connection = True
                    self.connection.close()
                elif fault.code == 409:
                    self._answer(
                        409,
                        conflicting(
                            ("apps/v1", kind, "", ""), ConflictError({"kubectl-edit": [".spec.replicas"]}, {"kubectl-edit"})
                        ),
                    )
                else:
                    reason, message = _REASONS[fault.code]
                    self._answer(fault.code, status(fault.code, fault.message or message, reason), fault.retry_after)
                return True
        return False


def _no_resource() -> dict[str, Any]:
    return status(404, "the server could not find the requested resource", "NotFound")


def _labelled(body: dict[str, Any], wanted: list[str]) -> bool:
    """Whether an object fits a label selector of `key` and `key=value`."""
    labels = body["metadata"].get("labels", {})
    for one in wanted:
        key, equals, value = one.replace("==", "=").partition("=")
        if key not in labels or (equals and labels[key] != value):
            return False
    return True


def _field(body: dict[str, Any], path: str) -> Any:
    here: Any = body
    for step in path.split("."):
        here = here.get(step, "") if isinstance(here, dict) else ""
    return here


_VERBS = {"GET": "get", "PATCH": "patch", "POST": "create", "PUT": "update", "DELETE": "delete"}
_REASONS = {
    403: ("Forbidden", "User may not do this: a policy forbids it"),
    429: ("TooManyRequests", "the server has received too many requests and has asked us to try again later"),
    500: ("InternalError", "Internal error occurred: etcdserver: leader changed"),
    503: ("ServiceUnavailable", "the server is currently unable to handle the request"),
}
