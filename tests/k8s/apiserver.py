"""A simulator of a Kubernetes API server that real kubectl talks to: stateful, server-side apply, a Deployment controller.

What it does like a real one: discovery, OpenAPI v3, GET, LIST, WATCH, server-side apply with ownership and conflicts, dry runs,
404 in absent namespaces, generations, rollouts that take a while. What a test injects: `faults` (an answer instead of the true
one, or none), `bad_images` (rollouts that never finish), `race` (a stale failure reported after the next rollout began).
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

from k8s import schema
from k8s.manifests import Manifest
from tests.k8s.apply import ConflictError, Stored
from tests.k8s.discovery import RESOURCES, VERSION, Key, discovery, locate


@dataclass
class Fault:
    """An answer instead of the true one.

    Attributes:
        code: HTTP status; 0 cuts the connection without an answer.
        method: which requests.
        kind: of which objects; empty for all.
        dry_run: whether dry runs, real requests or (None) both.
        times: how often; then the server is well again.
        after: how many fitting requests go well before.
    """

    code: int
    method: str = "PATCH"
    kind: str = ""
    dry_run: bool | None = False
    times: int = 1_000
    after: int = 0

    def hits(self, method: str, kind: str, *, dry_run: bool) -> bool:
        if self.method != method or self.kind not in {"", kind} or self.dry_run not in {None, dry_run}:
            return False
        if self.after:
            self.after -= 1
            return False
        self.times -= 1
        return self.times >= 0


@dataclass
class _Live:
    stored: Stored
    version: int
    generation: int = 1
    status: dict[str, Any] = field(default_factory=dict)


class ApiServer:
    """The simulator; serves while used as a context manager.

    Args:
        rollout: seconds a good rollout takes.
        race: seconds for which a rollout after a failed one still reports the failure.
    """

    def __init__(self, *, rollout: float = 0.1, race: float = 0.0) -> None:
        self.rollout, self.race = rollout, race
        self.minor = VERSION.split(".")[1]
        self.faults: list[Fault] = []
        self.bad_images: set[str] = set()
        self.silent_failure = False
        self.objects: dict[Key, _Live] = {}
        self.requests: list[tuple[str, str]] = []
        self._schema = schema.schema(VERSION)
        self._changed = threading.Condition(threading.RLock())
        self._events: list[tuple[int, str, Key, dict[str, Any]]] = []
        self._version = 100
        self._timers: list[threading.Timer] = []
        self._stopping = False

    # --- what tests ask ---

    def body(self, kind: str, name: str) -> dict[str, Any]:
        with self._changed:
            return next(self._full(key) for key in self.objects if key[1] == kind and key[3] == name)

    def image(self) -> str:
        found = self.body("Deployment", "llama-factory-inference")["spec"]["template"]["spec"]["containers"][0]["image"]
        assert isinstance(found, str)
        return found

    def kinds(self) -> set[str]:
        with self._changed:
            return {key[1] for key in self.objects}

    def edit(self, kind: str, name: str, body: dict[str, Any], manager: str) -> None:
        """Another manager applies fields, taking them from whoever has them."""
        with self._changed:
            key = next(key for key in self.objects if key[1] == kind and key[3] == name)
            self._store(key, body, manager, force=True)

    # --- life ---

    def __enter__(self) -> ApiServer:
        handler = type("Handler", (_Handler,), {"api": self})
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._http.daemon_threads = True
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        for timer in self._timers:
            timer.cancel()
        self._http.shutdown()
        self._http.server_close()

    def kubeconfig(self, file: Path, context: str) -> Path:
        address = f"http://127.0.0.1:{self._http.server_address[1]}"
        body = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "simulator", "cluster": {"server": address}}],
            "users": [{"name": "nobody", "user": {}}],
            "contexts": [{"name": context, "context": {"cluster": "simulator", "user": "nobody"}}],
        }
        file.write_text(json.dumps(body))
        return file

    # --- objects ---

    def apply(self, key: Key, body: dict[str, Any], manager: str, *, force: bool, dry_run: bool) -> tuple[int, dict[str, Any]]:
        with self._changed:
            namespace = ("v1", "Namespace", "", key[2])
            if key[2] and namespace not in self.objects:
                return 404, status(404, f'namespaces "{key[2]}" not found', "NotFound")
            walked = self._schema.walk(Manifest("request", body, {}))
            if walked.findings:
                return 422, status(422, f'{key[1]} "{key[3]}" is invalid: {walked.findings[0].what}', "Invalid")
            try:
                if dry_run:
                    stored = self.objects[key].stored.copy() if key in self.objects else Stored()
                    stored.apply(self._schema, self._schema.kinds[key[:2]], body, manager, force=force)
                    return 200, self._dressed(key, stored)
                created = self._store(key, body, manager, force=force)
            except ConflictError as conflict:
                return 409, _conflict(key, conflict)
            return (201 if created else 200), self._full(key)

    def _store(self, key: Key, body: dict[str, Any], manager: str, *, force: bool) -> bool:
        created = key not in self.objects
        stored = Stored() if created else self.objects[key].stored.copy()
        before = dict(stored.leaves)
        stored.apply(self._schema, self._schema.kinds[key[:2]], body, manager, force=force)
        if created:
            self.objects[key] = _Live(stored, 0)
        live = self.objects[key]
        live.stored = stored
        if created or stored.leaves != before:
            live.generation += not created
            self._tell("ADDED" if created else "MODIFIED", key)
            if key[1] == "Deployment":
                self._controller(key, live)
        return created

    def _tell(self, event: str, key: Key) -> None:
        self._version += 1
        self.objects[key].version = self._version
        self._events.append((self._version, event, key, self._full(key)))
        self._changed.notify_all()

    def _full(self, key: Key) -> dict[str, Any]:
        return self._dressed(key, self.objects[key].stored)

    def _dressed(self, key: Key, stored: Stored) -> dict[str, Any]:
        """An object as the server gives it out: with what it fills in itself."""
        live = self.objects.get(key)
        body = stored.body()
        body["metadata"] |= {
            "uid": "uid-" + "-".join(key).replace("/", "-").lower(),
            "resourceVersion": str(live.version if live else 0),
            "generation": live.generation if live else 1,
            "creationTimestamp": "2026-01-01T00:00:00Z",
        }
        if key[1] == "Deployment":
            body["spec"].setdefault("replicas", 1)
            body["status"] = live.status if live else {}
        return body

    # --- the Deployment controller ---

    def _controller(self, key: Key, live: _Live) -> None:
        generation = live.generation
        failed_before = any(one.get("reason") == "ProgressDeadlineExceeded" for one in live.status.get("conditions", []))
        image = live.stored.body()["spec"]["template"]["spec"]["containers"][0]["image"]
        bad = any(part in image for part in self.bad_images)
        delay = self.rollout
        if failed_before and not bad:  # The generation is seen at once, the old condition stays for a while.
            live.status = {**live.status, "observedGeneration": generation}
            self._tell("MODIFIED", key)
            delay += self.race

        def finish() -> None:
            with self._changed:
                if self._stopping or live.generation != generation:
                    return
                reason = "ProgressDeadlineExceeded" if bad else "NewReplicaSetAvailable"
                ready = 0 if bad else 1
                live.status = {
                    "observedGeneration": generation,
                    "replicas": 1,
                    "updatedReplicas": 1,
                    "readyReplicas": ready,
                    "availableReplicas": ready,
                    "conditions": []
                    if bad and self.silent_failure
                    else [{"type": "Progressing", "status": "False" if bad else "True", "reason": reason}],
                }
                self._tell("MODIFIED", key)

        timer = threading.Timer(delay, finish)
        timer.daemon = True
        self._timers.append(timer)
        timer.start()

    # --- watching ---

    def listing(self, api: str, kind: str, namespace: str, name: str) -> dict[str, Any]:
        with self._changed:
            found = [self._full(key) for key in self.objects if _fits(key, api, kind, namespace, name)]
            meta = {"resourceVersion": str(self._version)}
            return {"apiVersion": api, "kind": f"{kind}List", "metadata": meta, "items": found}

    def watch(self, api: str, kind: str, namespace: str, name: str, since: int) -> Iterator[dict[str, Any]]:
        end = time.monotonic() + 60
        while time.monotonic() < end:
            with self._changed:
                fresh = [one for one in self._events if one[0] > since and _fits(one[2], api, kind, namespace, name)]
                if not fresh and not self._stopping:
                    self._changed.wait(0.5)
                if self._stopping:
                    return
            for version, event, _, body in fresh:
                since = version
                yield {"type": event, "object": body}


def _fits(key: Key, api: str, kind: str, namespace: str, name: str) -> bool:
    return key[:2] == (api, kind) and namespace in {"", key[2]} and name in {"", key[3]}


def status(code: int, message: str, reason: str, causes: list[dict[str, str]] | None = None) -> dict[str, Any]:
    body: dict[str, Any] = {"apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure", "code": code}
    return {**body, "message": message, "reason": reason, "details": {"causes": causes or []}}


def _conflict(key: Key, conflict: ConflictError) -> dict[str, Any]:
    """The words of a real server, which kubectl prints."""
    parts, causes = [], []
    count = sum(map(len, conflict.fields.values()))
    for who, fields in sorted(conflict.fields.items()):
        owner = f'conflict{"s" if count > 1 else ""} with "{who}" using {key[0]}'
        listed = f" {fields[0]}" if count == 1 else "".join(f"\n- {one}" for one in fields)
        parts.append(f"{owner}:{listed}")
        causes += [{"reason": "FieldManagerConflict", "message": owner, "field": one} for one in fields]
    head = f"Apply failed with {count} conflict{'s' if count > 1 else ''}: "
    return status(409, head + "\n".join(parts), "Conflict", causes)


class _Handler(BaseHTTPRequestHandler):
    api: ApiServer
    protocol_version = "HTTP/1.1"
    # An answer in one packet: header and body in two would wait 40 ms for each other.
    wbufsize = -1
    disable_nagle_algorithm = True

    def log_message(self, *_: object) -> None:
        """Quiet: tests look at `ApiServer.requests`."""

    def _answer(self, code: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        if code == 429:
            self.send_header("Retry-After", "0")
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        self.api.requests.append(("GET", self.path))
        if (body := discovery(url.path, self.api.minor)) is not None:
            self._answer(200, body)
            return
        place = locate(url.path)
        if place is None:
            self._answer(404, status(404, "the server could not find the requested resource", "NotFound"))
        elif not self._faulty("GET", place[1], dry_run=False):
            self._objects(place, parse_qs(url.query))

    def _objects(self, place: Key, query: dict[str, list[str]]) -> None:
        api, kind, namespace, name = place
        if name:
            with self.api._changed:
                found = self.api._full(place) if place in self.api.objects else None
            if found is None:
                plural = RESOURCES[(api, kind)]
                self._answer(404, status(404, f'{plural} "{name}" not found', "NotFound"))
            else:
                self._answer(200, found)
            return
        selector = query.get("fieldSelector", [""])[0]
        only = selector.partition("metadata.name=")[2]
        if query.get("watch", [""])[0] not in {"1", "true"}:
            self._answer(200, self.api.listing(api, kind, namespace, only))
            return
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
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
        place = locate(url.path)
        assert place, self.path
        assert self.headers["Content-Type"].startswith("application/apply-patch+yaml"), self.headers["Content-Type"]
        dry_run = "dryRun" in query
        if self._faulty("PATCH", place[1], dry_run=dry_run):
            return
        force = query.get("force", ["false"])[0] == "true"
        self._answer(*self.api.apply(place, body, query["fieldManager"][0], force=force, dry_run=dry_run))

    def _faulty(self, method: str, kind: str, *, dry_run: bool) -> bool:
        for fault in self.api.faults:
            if fault.hits(method, kind, dry_run=dry_run):
                if not fault.code:
                    self.close_connection = True
                    self.connection.close()
                elif fault.code == 409:
                    self._answer(409, _conflict(("apps/v1", kind, "", ""), ConflictError({"kubectl-edit": [".spec.replicas"]})))
                else:
                    reason, message = _REASONS[fault.code]
                    self._answer(fault.code, status(fault.code, message, reason))
                return True
        return False


_REASONS = {
    403: ("Forbidden", "User may not do this: a policy forbids it"),
    429: ("TooManyRequests", "the server has received too many requests and has asked us to try again later"),
    500: ("InternalError", "Internal error occurred: etcdserver: leader changed"),
    503: ("ServiceUnavailable", "the server is currently unable to handle the request"),
}
