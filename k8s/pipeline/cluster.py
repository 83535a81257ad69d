"""The Kubernetes API, as far as the deploy step needs it: get, server-side apply, why pods do not start.

In a pod: the address of the environment, the ServiceAccount's token, read anew each time as it is renewed, and its CA
(kubernetes.io, "Accessing the Kubernetes API from a Pod").
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from common.errors import MissingEnvironmentError, PinwheelError, UsageError
from oci.client.http import Http, Request
from oci.client.patience import TransientError
from oci.client.target import host_of, is_loopback

from . import pod_reasons
from .pod_reasons import Endings, Problem
from .program import PATIENCE, say

ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
_MOST = 32 << 20


class ApiError(MissingEnvironmentError):
    """The API refused, or could not be reached for too long."""

    def __init__(self, what: str, status: int = 0) -> None:
        super().__init__(what[:500])
        self.status = status


@dataclass(frozen=True, slots=True)
class _Server:
    """Where the API answers."""

    host: str
    address: str
    plain_http: bool
    called: str = "the API"


class Api:
    """The cluster's API.

    Args:
        address: of `kubectl proxy`; empty: that of the pod's environment.
        account: the folder with the ServiceAccount's token and CA.

    Raises:
        UsageError: `kubectl proxy` does not serve at such an address.
        MissingEnvironmentError: this is no pod with a token.

    Attributes:
        away: for how many seconds a request waits for an API that does not answer; 0: it only tries a few times.
        silent: for how many it has waited, all in all.
    """

    def __init__(self, address: str, account: Path) -> None:
        self.away, self.silent = 0.0, 0.0
        self._token = account / "token"
        if address:
            if urlsplit(address).scheme != "http" or not is_loopback(urlsplit(address).hostname or ""):
                raise UsageError("--api names what `kubectl proxy` serves", where=address, fix="write http://127.0.0.1:8001")
            place = _Server(host_of(address), address.rstrip("/"), plain_http=True)
            self._http = Http(place, PATIENCE)
            return
        host, port = os.environ.get("KUBERNETES_SERVICE_HOST", ""), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
        if not host or not self._token.exists():
            raise MissingEnvironmentError("no ServiceAccount's token is mounted here", fix="run in a pod, or name --api")
        name = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        place = _Server(name, f"https://{name}", plain_http=False)
        self._http = Http(place, PATIENCE, secret=self._authorization, ca=account / "ca.crt")

    def _authorization(self) -> dict[str, str]:
        # Read anew each time: the kubelet renews it.
        token = self._token.read_text(encoding="utf-8").strip()
        return {"Authorization": f"Bearer {token}"} if token else {}

    def get(self, path: str) -> dict[str, Any] | None:
        """An object; None where there is none.

        Raises:
            ApiError: the API does not give it.
        """
        try:
            return self._ask("GET", path)
        except ApiError as problem:
            if problem.status == 404:
                return None
            raise

    def apply(self, path: str, body: dict[str, Any], manager: str, *, force: bool) -> dict[str, Any]:
        """Server-side apply (kubernetes.io, "Server-Side Apply").

        Raises:
            ApiError: it is refused.
        """
        query = urlencode({"fieldManager": manager, "force": "true" if force else "false"})
        return self._ask("PATCH", f"{path}?{query}", json.dumps(body, sort_keys=True).encode())

    def pods(self, namespace: str, labels: dict[str, str]) -> list[dict[str, Any]]:
        """The pods with these labels; none if they may not be listed, because they only serve messages."""
        selector = ",".join(f"{key}={value}" for key, value in sorted(labels.items()))
        try:
            answer = self._ask("GET", f"/api/v1/namespaces/{namespace}/pods?{urlencode({'labelSelector': selector})}")
        except ApiError:
            return []
        items = answer.get("items")
        return items if isinstance(items, list) else []

    def _ask(self, method: str, path: str, body: bytes = b"") -> dict[str, Any]:
        action = f"{method} {path.partition('?')[0]}"
        # An apply patch is YAML; JSON is YAML.
        headers = {"Accept": "application/json", "Content-Type": "application/apply-patch+yaml"}
        request = Request(method, path, headers=headers, body=(lambda: body) if body else None, most=_MOST)
        attempts, since = self._http.attempts(action), 0.0
        try:
            while True:
                try:
                    answer = self._send(request, action)
                except TransientError as problem:
                    # It answers where it says that one asks too much (429) or at the wrong moment (409).
                    if not self.away or " answers 4" in problem.reason:
                        attempts.failed(problem)
                        continue
                    since = self._wait(since, f"{action}: {problem.reason}")
                    continue
                if since:
                    self.silent += time.monotonic() - since
                    say(f"the cluster answers again, after {time.monotonic() - since:.0f} s")
                return answer
        except ApiError:
            raise
        except PinwheelError as problem:
            raise ApiError(problem.line()) from None

    def _wait(self, since: float, why: str) -> float:
        """Wait a little for an API that does not answer; returns since when.

        Raises:
            ApiError: it has been away for too long.
        """
        if not since:
            say("the cluster does not answer; waiting")
        elif time.monotonic() - since >= self.away:
            raise ApiError(f"the cluster has not answered for {self.away:.0f} s: {why}")
        time.sleep(PATIENCE.pause)
        return since or time.monotonic()

    def _send(self, request: Request, action: str) -> dict[str, Any]:
        answer = self._http.send(request)
        try:
            body = json.loads(answer.data)
        except ValueError:
            body = {}
        if answer.status == 409 and "force=true" in request.url:
            # With force, only two writers at the same time conflict: try again.
            raise TransientError("the API answers 409")
        if answer.status >= 300 or not isinstance(body, dict):
            message = str(body.get("message", "")) if isinstance(body, dict) else ""
            raise ApiError(f"{action}: the API answers {answer.status} {message}", answer.status)
        return body


def pod_problems(pod: dict[str, Any], endings: Endings) -> dict[str, Problem]:
    """What keeps a pod from running: each problem by a line for people.

    Args:
        pod: as the cluster gives it.
        endings: what is known from earlier looks.
    """
    name = (pod.get("metadata") or {}).get("name", "?")
    found: dict[str, Problem] = {}
    for problem in pod_reasons.problems(pod, endings):
        explanation = problem.message if problem.code is None else f"exit code {problem.code}"
        if problem.hopeless and problem.same > 1:
            explanation += f", {problem.same} times in a row"
        if problem.said:
            explanation += f": {problem.said}"
        place = f"{name}/{problem.container}" if problem.container else name
        found[" ".join(f"{place}: {problem.reason} {explanation}".split())[:400]] = problem
    return found
