"""The Kubernetes API, as far as the deploy step needs it: get, server-side apply, the reasons of pods.

In a pod: the address of the environment, the ServiceAccount's token, read anew each time as it is renewed, and its CA
(kubernetes.io, "Accessing the Kubernetes API from a Pod").
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from common.errors import MissingEnvironmentError, PinwheelError, UsageError
from oci.client.http import Http, Request
from oci.client.patience import TransientError
from oci.client.target import host_of, is_loopback

from . import pod_reasons
from .program import PATIENCE

ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
_MOST = 32 << 20
# A container that ended so often ends so again, where nothing but the model is new.
_CRASHES = 3


class ApiError(MissingEnvironmentError):
    """The API refused for good, or could not be reached for long."""

    def __init__(self, what: str, status: int = 0) -> None:
        super().__init__(what[:500])
        self.status = status


@dataclass(frozen=True, slots=True)
class _Address:
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
        UsageError: the address is none of `kubectl proxy`.
        MissingEnvironmentError: this is no pod with a token.
    """

    def __init__(self, address: str, account: Path) -> None:
        self._token = account / "token"
        if address:
            if urlsplit(address).scheme != "http" or not is_loopback(urlsplit(address).hostname or ""):
                raise UsageError("--api names what `kubectl proxy` serves", where=address, fix="write http://127.0.0.1:8001")
            place = _Address(host_of(address), address.rstrip("/"), plain_http=True)
            self._http = Http(place, PATIENCE)
            return
        host, port = os.environ.get("KUBERNETES_SERVICE_HOST", ""), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
        if not host or not self._token.exists():
            raise MissingEnvironmentError("no ServiceAccount's token is mounted here", fix="run in a pod, or name --api")
        name = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        place = _Address(name, f"https://{name}", plain_http=False)
        self._http = Http(place, PATIENCE, secret=self._authorization, ca=account / "ca.crt")

    def _authorization(self) -> dict[str, str]:
        # Read anew each time: the kubelet renews it.
        token = self._token.read_text(encoding="utf-8").strip()
        return {"Authorization": f"Bearer {token}"} if token else {}

    def get(self, path: str) -> dict[str, Any] | None:
        """An object; None where there is none.

        Raises:
            ApiError: it cannot be had.
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
        question = urlencode({"fieldManager": manager, "force": "true" if force else "false"})
        return self._ask("PATCH", f"{path}?{question}", json.dumps(body, sort_keys=True).encode())

    def pods(self, namespace: str, labels: dict[str, str]) -> list[dict[str, Any]]:
        """The pods with these labels; none, where they may not be listed: they are for messages alone."""
        selector = ",".join(f"{key}={value}" for key, value in sorted(labels.items()))
        try:
            listed = self._ask("GET", f"/api/v1/namespaces/{namespace}/pods?{urlencode({'labelSelector': selector})}")
        except ApiError:
            return []
        items = listed.get("items")
        return items if isinstance(items, list) else []

    def _ask(self, method: str, path: str, body: bytes = b"") -> dict[str, Any]:
        what = f"{method} {path.partition('?')[0]}"
        # An apply patch is YAML; JSON is YAML.
        headers = {"Accept": "application/json", "Content-Type": "application/apply-patch+yaml"}
        request = Request(method, path, headers=headers, body=(lambda: body) if body else None, most=_MOST)
        attempts = self._http.attempts(what)
        try:
            while True:
                try:
                    return self._answer(request, what)
                except TransientError as problem:
                    attempts.failed(problem)
        except ApiError:
            raise
        except PinwheelError as problem:
            raise ApiError(problem.line()) from None

    def _answer(self, request: Request, what: str) -> dict[str, Any]:
        answer = self._http.send(request)
        try:
            found = json.loads(answer.data)
        except ValueError:
            found = {}
        if answer.status == 409 and "force=true" in request.url:
            # With force, a conflict is one of versions: two writers at once.
            raise TransientError("the API answers 409")
        if answer.status >= 300 or not isinstance(found, dict):
            said = str(found.get("message", "")) if isinstance(found, dict) else ""
            raise ApiError(f"{what}: the API answers {answer.status} {said}", answer.status)
        return found


def troubles(pod: dict[str, Any]) -> dict[str, bool]:
    """What a pod hangs on, in one line each, with whether it cannot get better."""
    name, status = pod.get("metadata", {}).get("name", "?"), pod.get("status", {})
    found: dict[str, bool] = {}
    for one in status.get("conditions") or []:
        if one.get("type") == "PodScheduled" and one.get("status") == "False":
            # A node may still be made for it.
            found[_line(name, one.get("reason", ""), one.get("message", ""))] = False
    for one in [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]:
        waiting = one.get("state", {}).get("waiting") or {}
        reason, message = waiting.get("reason", ""), waiting.get("message", "")
        if reason in pod_reasons.ON_ITS_WAY:
            continue
        ended = one.get("lastState", {}).get("terminated") or {}
        said = f"exit code {ended['exitCode']}" if "exitCode" in ended else message
        crashed = reason == "CrashLoopBackOff" and one.get("restartCount", 0) >= _CRASHES
        found[_line(f"{name}/{one.get('name', '?')}", reason, said)] = crashed or pod_reasons.hopeless(reason, message)
    return found


def _line(name: str, reason: str, said: str) -> str:
    return " ".join(f"{name}: {reason} {said}".split())[:400]
