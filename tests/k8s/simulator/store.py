"""The state of the simulated API server: objects with owners, versions and events; what may be written, and who watches."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from k8s.objects import schema
from k8s.objects.manifests import Manifest
from tests.k8s.simulator.apply import TIME, ConflictError, Stored
from tests.k8s.simulator.controller import identity
from tests.k8s.simulator.discovery import ARGO, ARGO_API, BUILT_IN, Key, Resource, Served
from tests.k8s.simulator.wire import conflicting, status

# Kinds whose objects are not counted from change to change.
_WITHOUT_GENERATION = {"Namespace", "ConfigMap", "Secret", "Service", "ServiceAccount", "Lease", "LimitRange", "ResourceQuota"}
_WITHOUT_GENERATION |= {"PersistentVolumeClaim", "Role", "RoleBinding", "HorizontalPodAutoscaler"}
CRD = ("apiextensions.k8s.io/v1", "CustomResourceDefinition")


@dataclass
class Live:
    stored: Stored
    version: int
    generation: int = 1
    status: dict[str, Any] = field(default_factory=dict)


class Store:
    """What the server holds.

    Args:
        version: of Kubernetes.
        crds: whether Argo Workflows is installed.
    """

    def __init__(self, version: str, *, crds: bool) -> None:
        self.crds = crds
        self.terminating: set[str] = set()
        self.objects: dict[Key, Live] = {}
        # What controllers made, whole: pods, ReplicaSets, events.
        self.attendants: dict[Key, dict[str, Any]] = {}
        self.logs: dict[tuple[str, str, str, bool], str] = {}  # Namespace, pod, container, of the one before.
        self.changed = threading.Condition(threading.RLock())
        self.stopping = False
        self._schema = schema.schema(version)
        self._events: list[tuple[int, str, Key, dict[str, Any]]] = []
        self._version = 100

    # --- kinds ---

    def served(self) -> Served:
        """The kinds there are now."""
        with self.changed:
            found = {**BUILT_IN, **(ARGO if self.crds else {})}
            for key, live in self.objects.items():
                if key[:2] == CRD and live.status:
                    spec = live.stored.body()["spec"]
                    one = Resource(spec["names"]["plural"], spec["scope"] == "Namespaced")
                    found |= {
                        (f"{spec['group']}/{version['name']}", spec["names"]["kind"]): one for version in spec["versions"]
                    }
            return found

    def plural(self, key: Key) -> str:
        return self.served()[key[:2]].plural

    def _called(self, key: Key) -> str:
        """An object in the words of an answer: resource, group and name."""
        group = key[0].rpartition("/")[0]
        return f'{self.plural(key)}{"." if group else ""}{group} "{key[3]}"'

    def _definition(self, key: Key) -> str:
        """Of the kind's schema; empty for those that have none here."""
        return "" if key[0] == ARGO_API else self._schema.kinds.get(key[:2], "")

    def _invalid(self, key: Key, body: dict[str, Any]) -> tuple[int, dict[str, Any]] | None:
        walked = self._schema.walk(Manifest("request", body, {})) if self._definition(key) else None
        if walked and walked.findings:
            first = walked.findings[0]
            if first.what.startswith("unknown field"):
                where = f"{key[2]}/{key[3]}; {key[0] if '/' in key[0] else f'/{key[0]}'}, Kind={key[1]}"
                what = f"failed to create typed patch object ({where}): .{first.path}: field not declared in schema"
                return 500, status(500, what, "")
            return 422, status(422, f'{key[1]} "{key[3]}" is invalid: {walked.findings[0].what}', "Invalid")
        return None

    def _homeless(self, key: Key) -> tuple[int, dict[str, Any]] | None:
        """The answer to who writes into a namespace that is not there, or makes something in one that is going."""
        if key[2] and ("v1", "Namespace", "", key[2]) not in self.objects:
            return 404, status(404, f'namespaces "{key[2]}" not found', "NotFound")
        if key[2] in self.terminating and key not in self.objects:
            what = f"{self._called(key)} is forbidden: unable to create new content in namespace {key[2]} "
            return 403, status(403, what + "because it is being terminated", "Forbidden")
        return None

    # --- objects ---

    def apply(self, key: Key, body: dict[str, Any], manager: str, *, force: bool, dry_run: bool) -> tuple[int, dict[str, Any]]:
        with self.changed:
            if wrong := self._homeless(key) or self._stale(key, body):
                return wrong
            body = _sent(body)
            stored = self.objects[key].stored.copy() if key in self.objects else Stored()
            try:
                stored.apply(self._schema, self._definition(key), body, manager, force=force)
            except ConflictError as conflict:
                return 409, conflicting(key, conflict)
            # What the object becomes has to be valid: an apply may hold a part of it.
            if wrong := self._invalid(key, stored.body()):
                return wrong
            if dry_run:
                return 200, self._dressed(key, stored)
            created = self._keep(key, stored)
            return (201 if created else 200), self.full(key)

    def create(self, key: Key, body: dict[str, Any], manager: str) -> tuple[int, dict[str, Any]]:
        with self.changed:
            if key in self.objects:
                return 409, status(409, f"{self._called(key)} already exists", "AlreadyExists")
            return self._whole(key, body, manager)

    def replace(self, key: Key, body: dict[str, Any], manager: str) -> tuple[int, dict[str, Any]]:
        with self.changed:
            if key not in self.objects:
                return 404, status(404, f"{self._called(key)} not found", "NotFound")
            return self._stale(key, body) or self._whole(key, body, manager)

    def _stale(self, key: Key, body: dict[str, Any]) -> tuple[int, dict[str, Any]] | None:
        """The answer to a writer that knows another version than there is."""
        known = body["metadata"].get("resourceVersion")
        if not known or (key in self.objects and str(self.objects[key].version) == known):
            return None
        what = f"Operation cannot be fulfilled on {self._called(key)}: the object has been modified; please apply "
        return 409, status(409, what + "your changes to the latest version and try again", "Conflict")

    def _whole(self, key: Key, body: dict[str, Any], manager: str) -> tuple[int, dict[str, Any]]:
        if wrong := self._homeless(key) or self._invalid(key, _sent(body)):
            return wrong
        created = key not in self.objects
        if created:
            self.objects[key] = Live(Stored(), 0)
        self.objects[key].stored.replace(self._schema, self._definition(key), _sent(body), manager)
        self.tell("ADDED" if created else "MODIFIED", key)
        return (201 if created else 200), self.full(key)

    def _store(self, key: Key, body: dict[str, Any], manager: str, *, force: bool) -> bool:
        stored = Stored() if key not in self.objects else self.objects[key].stored.copy()
        stored.apply(self._schema, self._definition(key), body, manager, force=force)
        return self._keep(key, stored)

    def _keep(self, key: Key, stored: Stored) -> bool:
        created = key not in self.objects
        if created:
            self.objects[key] = Live(Stored(), 0)
        live = self.objects[key]
        before, live.stored = live.stored.leaves, stored
        if created or stored.leaves != before:
            live.generation += not created
            self.tell("ADDED" if created else "MODIFIED", key)
            self.controllers(key, live)
        return created

    def controllers(self, key: Key, live: Live) -> None:
        """What the control plane does about an object whose fields changed."""

    def delete(self, key: Key) -> tuple[int, dict[str, Any]]:
        with self.changed:
            if self.find(key) is None:
                return 404, status(404, f"{self._called(key)} not found", "NotFound")
            gone = self.full(key)
            self._version += 1
            self._events.append((self._version, "DELETED", key, gone))
            self.objects.pop(key, None)
            self.attendants.pop(key, None)
            self._orphans(gone["metadata"]["uid"])
            self.changed.notify_all()
            details = {"name": key[3], "kind": self.plural(key), "uid": gone["metadata"]["uid"]}
            return 200, {"apiVersion": "v1", "kind": "Status", "status": "Success", "details": details}

    def _orphans(self, uid: str) -> None:
        """What belonged to something that is gone goes too."""
        for key, body in list(self.attendants.items()):
            if any(one["uid"] == uid for one in body["metadata"].get("ownerReferences", [])) and key in self.attendants:
                self.delete(key)

    def attend(self, key: Key, body: dict[str, Any]) -> None:
        created = key not in self.attendants
        metadata = {"uid": identity(key), "creationTimestamp": "2026-01-01T00:00:00Z", **body["metadata"]}
        metadata["resourceVersion"] = str(self._version + 1)
        self.attendants[key] = {**body, "metadata": metadata}
        self.tell("ADDED" if created else "MODIFIED", key)

    def tell(self, event: str, key: Key) -> None:
        self._version += 1
        if key in self.objects:
            self.objects[key].version = self._version
        self._events.append((self._version, event, key, self.full(key)))
        self.changed.notify_all()

    def find(self, key: Key) -> dict[str, Any] | None:
        with self.changed:
            return self.full(key) if key in self.objects or key in self.attendants else None

    def log(self, key: Key, container: str, *, previous: bool) -> str | None:
        """What a container said; of the first one where none is named."""
        with self.changed:
            found = [
                text
                for (*place, name, old), text in self.logs.items()
                if place == [*key[2:]] and old == previous and container in {"", name}
            ]
            if found:
                return found[0]
            return "" if key in self.attendants and not previous else None

    def full(self, key: Key) -> dict[str, Any]:
        if key in self.attendants:
            return self.attendants[key]
        return self._dressed(key, self.objects[key].stored)

    def _dressed(self, key: Key, stored: Stored) -> dict[str, Any]:
        """An object as the server gives it out: with what it fills in itself."""
        live = self.objects.get(key)
        body = stored.body()
        body["metadata"] |= {
            "uid": identity(key),
            "resourceVersion": str(live.version if live else 0),
            **({} if key[1] in _WITHOUT_GENERATION else {"generation": live.generation if live else 1}),
            "creationTimestamp": TIME,
            "managedFields": stored.managed_fields(key[0]),
        }
        if key[1] == "Deployment":
            body["spec"].setdefault("replicas", 1)
            body["status"] = live.status if live else {}
        elif key[:2] == CRD and live:
            body["status"] = live.status
        elif key[1] == "Namespace":
            body["status"] = {"phase": "Terminating" if key[3] in self.terminating else "Active"}
        return body

    # --- watching ---

    def listing(self, api: str, kind: str, namespace: str, name: str) -> dict[str, Any]:
        with self.changed:
            there = (*self.objects, *self.attendants)
            found = [self.full(key) for key in there if _fits(key, api, kind, namespace, name)]
            meta = {"resourceVersion": str(self._version)}
            return {"apiVersion": api, "kind": f"{kind}List", "metadata": meta, "items": found}

    def watch(self, api: str, kind: str, namespace: str, name: str, since: int) -> Iterator[dict[str, Any]]:
        end = time.monotonic() + 60
        while time.monotonic() < end:
            with self.changed:
                fresh = [one for one in self._events if one[0] > since and _fits(one[2], api, kind, namespace, name)]
                if not fresh and not self.stopping:
                    self.changed.wait(0.5)
                if self.stopping:
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
