"""A simulator of a Kubernetes API server that real kubectl talks to: stateful, server-side apply, a Deployment controller.

What it does like a real one: discovery, OpenAPI v3, GET, LIST, WATCH, server-side apply with ownership and conflicts, creating
and replacing with a resource version as precondition, deleting, dry runs, 404 in absent namespaces, generations, rollouts that
take a while, pods and their logs, kinds of CustomResourceDefinitions. Argo's kinds are served as by its minimal CRDs: without a
schema, each list one field. What a test injects: `faults` (an answer instead of the true one, or none), `away` (nobody
listens), `forbidden` (verbs and resources that RBAC refuses), `terminating` (namespaces), `bad_images` and `troubles`
(rollouts that never finish, and why; of a preflight only with `preflights_fail`), `race` (a stale failure reported after the
next rollout began), `put` (pods, events, whatever a controller would have made).
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from k8s.objects import schema
from tests.k8s.simulator.controller import Trouble, identity, pods, replica_set
from tests.k8s.simulator.discovery import Key
from tests.k8s.simulator.store import CRD, Live, Store
from tests.k8s.simulator.wire import Fault, Handler, Server, is_preflight
from tests.waiting import reserved_port

# test_cluster.py runs on both: what differs is discovery and schema, and one pass shows that. Everything else has the newest.
VERSIONS = ("1.32", schema.versions()[-1])


class ApiServer(Store):
    """The simulator; serves while used as a context manager.

    Args:
        rollout: seconds a good rollout takes.
        race: seconds for which a rollout after a failed one still reports the failure.
        version: of Kubernetes.
        crds: whether Argo Workflows is installed.
    """

    def __init__(self, *, rollout: float = 0.1, race: float = 0.0, version: str = VERSIONS[0], crds: bool = True) -> None:
        super().__init__(version, crds=crds)
        self.rollout, self.race = rollout, race
        self.minor = version.split(".")[1]
        self.faults: list[Fault] = []
        self.forbidden: set[tuple[str, str]] = set()  # Verb and plural: ("create", "workflows").
        self.bad_images: set[str] = set()
        self.troubles: dict[str, Trouble] = {}  # By a part of the image.
        self.silent_failure = self.preflights_fail = False
        self.crd_delay = 0.1
        self.requests: list[tuple[str, str]] = []
        self._timers: list[threading.Timer] = []

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

    def put(self, body: dict[str, Any]) -> None:
        """An object as a controller or the kubelet writes it, status and all: a pod, an event."""
        metadata = body["metadata"]
        key: Key = (body["apiVersion"], body["kind"], metadata.get("namespace", ""), metadata["name"])
        with self.changed:
            self.attend(key, body)

    def put_log(self, namespace: str, pod: str, container: str, text: str, *, previous: bool = False) -> None:
        """What a container of a pod said."""
        self.logs[(namespace, pod, container, previous)] = text

    def remove(self, kind: str, name: str) -> None:
        with self.changed:
            self.delete(next(key for key in (*self.objects, *self.attendants) if key[1] == kind and key[3] == name))

    # --- life ---

    def __enter__(self) -> ApiServer:
        self._port = reserved_port()
        self._serve()
        return self

    def _serve(self) -> None:
        handler = type("Handler", (Handler,), {"api": self})
        self._http = Server(self._port.getsockname(), handler)
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        self._away = False

    @property
    def away(self) -> bool:
        """Whether nobody listens: connections are refused, as by a control plane that is upgraded."""
        return self._away

    @away.setter
    def away(self, away: bool) -> None:
        if away and not self._away:
            self._away = True
            self._http.vanish()
        elif self._away and not away:
            self._serve()

    def __exit__(self, *_: object) -> None:
        with self.changed:
            self.stopping = True
            self.changed.notify_all()
        for timer in self._timers:
            timer.cancel()
        self.away = True
        self._port.close()

    def kubeconfig(self, file: Path, context: str) -> Path:
        address = f"http://127.0.0.1:{self._port.getsockname()[1]}"
        body = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "simulator", "cluster": {"server": address}}],
            "users": [{"name": "nobody", "user": {}}],
            "contexts": [{"name": context, "context": {"cluster": "simulator", "user": "nobody"}}],
        }
        file.write_text(json.dumps(body))
        return file

    # --- the controllers ---

    def pending(self) -> bool:
        """Whether a controller has something left to do."""
        return any(timer.is_alive() for timer in self._timers)

    def finish(self) -> None:
        """Let the controllers do now what they have left to do."""
        for timer in self._timers:
            timer.cancel()
            timer.function(*timer.args, **timer.kwargs)

    def controllers(self, key: Key, live: Live) -> None:
        if key[1] == "Deployment":
            self._controller(key, live)
        elif key[:2] == CRD and not live.status:
            self._later(self.crd_delay, lambda: self._established(key, live))

    def _established(self, key: Key, live: Live) -> None:
        live.status = {"conditions": [{"type": "Established", "status": "True", "reason": "InitialNamesAccepted"}]}
        self.tell("MODIFIED", key)

    def _controller(self, key: Key, live: Live) -> None:
        generation = live.generation
        failed_before = any(one.get("reason") == "ProgressDeadlineExceeded" for one in live.status.get("conditions", []))
        deployment = self.full(key)
        images = json.dumps(deployment["spec"]["template"])
        trouble = next((one for part, one in self.troubles.items() if part in images), None)
        bad = trouble is not None or any(part in images for part in self.bad_images)
        replicas = int(deployment["spec"]["replicas"])
        delay = self.rollout
        if is_preflight(key) and not self.preflights_fail:
            trouble, bad, delay = None, False, min(delay, 0.1)
        if failed_before and not bad:  # The generation is seen at once, the old condition stays for a while.
            live.status = {**live.status, "observedGeneration": generation}
            self.tell("MODIFIED", key)
            delay += self.race
        owner, made = replica_set(key, deployment, trouble)
        self.attend(owner, made)
        for pod, body in pods(owner, made, trouble, ready=False):
            self.attend(pod, body)
            if trouble and trouble.log:
                kind = "initContainers" if trouble.init else "containers"
                self.put_log(pod[2], pod[3], body["spec"][kind][0]["name"], trouble.log, previous=True)

        def finish() -> None:
            if live.generation != generation or self.objects.get(key) is not live:
                return
            reason = "ProgressDeadlineExceeded" if bad else "NewReplicaSetAvailable"
            ready = 0 if bad else replicas
            live.status = {
                "observedGeneration": generation,
                "replicas": replicas,
                "updatedReplicas": replicas,
                "readyReplicas": ready,
                "availableReplicas": ready,
                "conditions": []
                if bad and self.silent_failure
                else [{"type": "Progressing", "status": "False" if bad else "True", "reason": reason}],
            }
            if not bad:
                for old in [one for one, body in self.attendants.items() if _owned(body, key) and one != owner]:
                    self.delete(old)
                for pod, body in pods(owner, made, None, ready=True):
                    self.attend(pod, body)
            self.tell("MODIFIED", key)

        self._later(delay, finish)

    def _later(self, delay: float, what: Callable[[], None]) -> None:
        """Do something after a while, if the server is still there."""

        def done() -> None:
            with self.changed:
                if not self.stopping:
                    what()

        timer = threading.Timer(delay, done)
        timer.daemon = True
        self._timers.append(timer)
        timer.start()


def _owned(body: dict[str, Any], key: Key) -> bool:
    return any(one["uid"] == identity(key) for one in body["metadata"].get("ownerReferences", []))
