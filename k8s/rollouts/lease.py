"""One deploy at a time: the Lease `pinwheel-<environment>`, beside the release record.

It is taken before the first object is sent, renewed six times in its duration (60 s) while the deploy goes on, and let go of at
the end. A deploy that is killed stops renewing: its lease ends by itself, and the next deploy takes it over. Clocks of two
machines differ, so a lease whose time seems up must also stand still while it is watched, for a third of its duration.

A cluster that is away takes no renewal, and lets nobody else in either. So a lease that could not be renewed for that reason is
not lost: when the cluster is back, a renewal tells. It is a replace of the very version that we wrote, which fails if somebody
else took the lease since.

Taking it is a create, or a replace of the very version that was read: of two who try, the server lets one through.
"""

from __future__ import annotations

import datetime
import json
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from common import console
from common.errors import MissingEnvironmentError, PinwheelError, PolicyError
from k8s.rollouts.kubectl import Kubectl, passing, refusal

RESOURCE = "leases.coordination.k8s.io"
_TIME = "%Y-%m-%dT%H:%M:%S.%fZ"


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def _age(spec: dict[str, Any]) -> float:
    """Seconds since the holder's last sign of life, by both machines' clocks; 0 where it says nothing readable."""
    try:
        return (_now() - datetime.datetime.fromisoformat(str(spec.get("renewTime")))).total_seconds()
    except (ValueError, TypeError):
        return 0.0


class Lease:
    """The lease of one environment.

    Args:
        kubectl: of the cluster.
        environment: its name.
        namespace: where the lease lies.
        who: takes it, for people.
    """

    def __init__(self, kubectl: Kubectl, environment: str, namespace: str, who: str) -> None:
        self._kubectl, self.environment, self.namespace = kubectl, environment, namespace
        self.name = f"pinwheel-{environment}"
        # Two deploys of one person on one machine are two.
        self._me = f"{who} ({uuid.uuid4().hex[:8]})"
        self._duration = kubectl.patience.lease
        self._body: dict[str, Any] = {}
        self._renewed = 0.0
        # Who else has it; and whether the last renewal failed only because the cluster was away.
        self._gone, self._away = "", False
        self._stop, self._writing = threading.Event(), threading.Lock()

    # --- taking ---

    def take(self, *, wait: bool) -> None:
        """Take the lease.

        Args:
            wait: for a deploy that holds it, instead of being refused.

        Raises:
            PolicyError: another deploy holds it, or the cluster refuses it.
            MissingEnvironmentError: the cluster does not answer.
        """
        watched, since, told = "", time.monotonic(), False
        while True:
            asked = time.monotonic()
            live = self._kubectl.get(RESOURCE, self.namespace, self.name)
            # While the cluster does not answer, its holder cannot renew it either.
            since += time.monotonic() - asked
            spec = (live or {}).get("spec") or {}
            holder = str(spec.get("holderIdentity") or "")
            if holder == self._me:  # The answer to our own request was lost.
                self._taken(live or {})
                return
            version = str((live or {}).get("metadata", {}).get("resourceVersion", ""))
            if version != watched:
                watched, since = version, time.monotonic()
            still, lasts = time.monotonic() - since, float(spec.get("leaseDurationSeconds") or self._duration)
            seems_over = _age(spec) > lasts
            if not holder or still >= lasts or (seems_over and still >= lasts / 3):
                if self._try(live, spec):
                    if holder:
                        console.warn(f"the lease of {holder} had ended without being let go of; taken over")
                    return
            elif not (wait or seems_over):
                raise self._held(holder, spec)
            else:
                if not told:
                    console.info(f"waiting      for the lease of {holder}, held since {spec.get('acquireTime', 'unknown')}")
                    told = True
                time.sleep(min(self._kubectl.patience.pause, lasts / 6))

    def _held(self, holder: str, spec: dict[str, Any]) -> PolicyError:
        what = (
            f"another deploy to {self.environment} is running: {holder}, since {spec.get('acquireTime', 'unknown')}, "
            f"last sign of life {_age(spec):.0f} s ago; nothing was sent"
        )
        fix = f"wait for its end, or add --wait; if it was killed, its lease ends {self._duration} s after that sign"
        return PolicyError(what, where=f"Lease {self.namespace}/{self.name}", fix=fix)

    def _try(self, live: dict[str, Any] | None, spec: dict[str, Any]) -> bool:
        """Create or replace it; false where somebody was faster."""
        now = _now().strftime(_TIME)
        fresh = {
            "holderIdentity": self._me,
            "leaseDurationSeconds": self._duration,
            "acquireTime": now,
            "renewTime": now,
            "leaseTransitions": int(spec.get("leaseTransitions") or 0) + (live is not None),
        }
        metadata = {"name": self.name, "namespace": self.namespace, "labels": {"app.kubernetes.io/part-of": "pinwheel"}}
        body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": fresh}
        if live is None:
            answer = self._kubectl.create(body)
        else:
            metadata["resourceVersion"] = live["metadata"]["resourceVersion"]
            answer = self._kubectl.replace(body)
        if not answer.code:
            self._taken(json.loads(answer.stdout))
            return True
        if "(AlreadyExists)" in answer.stderr or "(Conflict)" in answer.stderr:
            return False
        fix = f"let your account `get`, `create` and `update` {RESOURCE} in {self.namespace}; nothing was sent"
        raise refusal(answer, f"the lease {self.namespace}/{self.name} cannot be taken", fix)

    def _taken(self, body: dict[str, Any]) -> None:
        self._body, self._renewed = body, time.monotonic()

    # --- keeping ---

    def lost(self) -> str:
        """Why the lease is no longer ours; empty while it is, and while the cluster is away, as nobody can take it then."""
        if not self._gone and self._age() > self._duration:
            self.renew()
        if self._gone or self._age() <= self._duration:
            return self._gone
        if self._away and self._age() <= self._duration + self._kubectl.patience.away:
            return ""
        return f"the lease {self.namespace}/{self.name} could not be renewed for {self._age():.0f} s"

    def _age(self) -> float:
        return time.monotonic() - self._renewed

    def renew(self) -> bool:
        """Renew it now; whether the cluster took that. Afterwards `lost` knows what there is to know."""
        with self._writing:
            started = time.monotonic()
            try:
                body = {**self._body, "spec": {**self._body["spec"], "renewTime": _now().strftime(_TIME)}}
                answer = self._kubectl.replace(body)
                if not answer.code:
                    self._body, self._renewed, self._away = json.loads(answer.stdout), started, False
                    return True
                self._away = passing(answer)
                if "(Conflict)" in answer.stderr or "(NotFound)" in answer.stderr:
                    self._look()
            except PinwheelError as problem:
                self._away = isinstance(problem, MissingEnvironmentError)
                console.debug(f"lease: {problem.line()}")
            return False

    def _renewing(self) -> None:
        while not self._stop.wait(self._duration / 6) and not self._gone:
            self.renew()

    def _look(self) -> None:
        """Somebody wrote it, or an answer to us was lost."""
        live = self._kubectl.get(RESOURCE, self.namespace, self.name)
        holder = ((live or {}).get("spec") or {}).get("holderIdentity")
        if holder == self._me:
            self._body = live or {}
        else:
            self._gone = f"the lease {self.namespace}/{self.name} was taken over by {holder or 'somebody who removed it'}"

    # --- letting go ---

    def release(self) -> None:
        """Let go of it; what cannot be let go of ends by itself."""
        if self.lost():
            return
        spec = {key: value for key, value in self._body["spec"].items() if key != "holderIdentity"}
        answer = self._kubectl.replace({**self._body, "spec": spec})
        if answer.code:
            console.warn(f"the lease {self.namespace}/{self.name} could not be let go of; it ends in {self._duration} s")

    @contextmanager
    def held(self, *, wait: bool) -> Iterator[Lease]:
        """Hold the lease while the block runs.

        Args:
            wait: for a deploy that holds it, instead of being refused.

        Raises:
            PolicyError: another deploy holds it, or the cluster refuses it.
            MissingEnvironmentError: the cluster does not answer.
        """
        self.take(wait=wait)
        keeper = threading.Thread(target=self._renewing, name="lease", daemon=True)
        keeper.start()
        try:
            yield self
        finally:
            self._stop.set()
            keeper.join()
            self.release()


def holder(kubectl: Kubectl, environment: str, namespace: str) -> str:
    """Who deploys to an environment now, for people; empty: nobody."""
    live = kubectl.get(RESOURCE, namespace, f"pinwheel-{environment}")
    spec = (live or {}).get("spec") or {}
    if not spec.get("holderIdentity") or _age(spec) > float(spec.get("leaseDurationSeconds") or 0):
        return ""
    return f"{spec['holderIdentity']}, since {spec.get('acquireTime', 'unknown')}"
