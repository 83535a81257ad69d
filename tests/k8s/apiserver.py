"""A simulator of a Kubernetes API server that real kubectl talks to: stateful, server-side apply, a Deployment controller.

What it does like a real one: discovery, OpenAPI v3, GET, LIST, WATCH, server-side apply with ownership and conflicts, creating
and replacing with a resource version as precondition, dry runs, 404 in absent namespaces, generations, rollouts that take a
while. What a test injects: `faults` (an answer instead of the true one, or none), `bad_images` (rollouts that never finish),
`race` (a stale failure reported after the next rollout began).
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from k8s import schema
from k8s.manifests import Manifest
from tests.k8s.apply import ConflictError, Stored
from tests.k8s.discovery import RESOURCES, VERSION, Key
from tests.k8s.wire import Fault, Handler, Server, conflicting, status


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
        self.changed = threading.Condition(threading.RLock())
        self._events: list[tuple[int, str, Key, dict[str, Any]]] = []
        self._version = 100
        self._timers: list[threading.Timer] = []
        self._stopping = False

    # --- what tests ask ---

    def body(self, kind: str, name: str) -> dict[str, Any]:
        with self.changed:
            return next(self.full(key) for key in self.objects if key[1] == kind and key[3] == name)

    def image(self) -> str:
        found = self.body("Deployment", "llama-factory-inference")["spec"]["template"]["spec"]["containers"][0]["image"]
        assert isinstance(found, str)
        return found

    def kinds(self) -> set[str]:
        with self.changed:
            return {key[1] for key in self.objects}

    def edit(self, kind: str, name: str, body: dict[str, Any], manager: str) -> None:
        """Another manager applies fields, taking them from whoever has them."""
        with self.changed:
            key = next(key for key in self.objects if key[1] == kind and key[3] == name)
            self._store(key, body, manager, force=True)

    # --- life ---

    def __enter__(self) -> ApiServer:
        handler = type("Handler", (Handler,), {"api": self})
        self._http = Server(("127.0.0.1", 0), handler)
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with self.changed:
            self._stopping = True
            self.changed.notify_all()
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
        with self.changed:
            namespace = ("v1", "Namespace", "", key[2])
            if key[2] and namespace not in self.objects:
                return 404, status(404, f'namespaces "{key[2]}" not found', "NotFound")
            walked = self._schema.walk(Manifest("request", body, {}))
            if walked.findings:
                return 422, status(422, f'{key[1]} "{key[3]}" is invalid: {walked.findings[0].what}', "Invalid")
            if stale := self._stale(key, body):
                return stale
            body = _sent(body)
            try:
                if dry_run:
                    stored = self.objects[key].stored.copy() if key in self.objects else Stored()
                    stored.apply(self._schema, self._schema.kinds[key[:2]], body, manager, force=force)
                    return 200, self._dressed(key, stored)
                created = self._store(key, body, manager, force=force)
            except ConflictError as conflict:
                return 409, conflicting(key, conflict)
            return (201 if created else 200), self.full(key)

    def create(self, key: Key, body: dict[str, Any], manager: str) -> tuple[int, dict[str, Any]]:
        with self.changed:
            if key in self.objects:
                return 409, status(409, f'{RESOURCES[key[:2]]} "{key[3]}" already exists', "AlreadyExists")
            return self._whole(key, body, manager)

    def replace(self, key: Key, body: dict[str, Any], manager: str) -> tuple[int, dict[str, Any]]:
        with self.changed:
            if key not in self.objects:
                return 404, status(404, f'{RESOURCES[key[:2]]} "{key[3]}" not found', "NotFound")
            return self._stale(key, body) or self._whole(key, body, manager)

    def _stale(self, key: Key, body: dict[str, Any]) -> tuple[int, dict[str, Any]] | None:
        """The answer to a writer that knows another version than there is."""
        known = body["metadata"].get("resourceVersion")
        if not known or (key in self.objects and str(self.objects[key].version) == known):
            return None
        what = f'Operation cannot be fulfilled on {RESOURCES[key[:2]]} "{key[3]}": the object has been modified; please apply '
        return 409, status(409, what + "your changes to the latest version and try again", "Conflict")

    def _whole(self, key: Key, body: dict[str, Any], manager: str) -> tuple[int, dict[str, Any]]:
        if key[2] and ("v1", "Namespace", "", key[2]) not in self.objects:
            return 404, status(404, f'namespaces "{key[2]}" not found', "NotFound")
        walked = self._schema.walk(Manifest("request", _sent(body), {}))
        if walked.findings:
            return 422, status(422, f'{key[1]} "{key[3]}" is invalid: {walked.findings[0].what}', "Invalid")
        created = key not in self.objects
        if created:
            self.objects[key] = _Live(Stored(), 0)
        self.objects[key].stored.replace(self._schema, self._schema.kinds[key[:2]], _sent(body), manager)
        self._tell("ADDED" if created else "MODIFIED", key)
        return (201 if created else 200), self.full(key)

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
        self._events.append((self._version, event, key, self.full(key)))
        self.changed.notify_all()

    def full(self, key: Key) -> dict[str, Any]:
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
            "managedFields": stored.managed_fields(key[0]),
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
            with self.changed:
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
        with self.changed:
            found = [self.full(key) for key in self.objects if _fits(key, api, kind, namespace, name)]
            meta = {"resourceVersion": str(self._version)}
            return {"apiVersion": api, "kind": f"{kind}List", "metadata": meta, "items": found}

    def watch(self, api: str, kind: str, namespace: str, name: str, since: int) -> Iterator[dict[str, Any]]:
        end = time.monotonic() + 60
        while time.monotonic() < end:
            with self.changed:
                fresh = [one for one in self._events if one[0] > since and _fits(one[2], api, kind, namespace, name)]
                if not fresh and not self._stopping:
                    self.changed.wait(0.5)
                if self._stopping:
                    return
            for version, event, _, body in fresh:
                since = version
                yield {"type": event, "object": body}


def _sent(body: dict[str, Any]) -> dict[str, Any]:
    """What a writer says of an object, without what the server said of it before."""
    said = {"uid", "resourceVersion", "generation", "creationTimestamp", "managedFields"}
    return {**body, "metadata": {key: value for key, value in body["metadata"].items() if key not in said}}


def _fits(key: Key, api: str, kind: str, namespace: str, name: str) -> bool:
    return key[:2] == (api, kind) and namespace in {"", key[2]} and name in {"", key[3]}
