"""kubectl, for one context: calls, what its errors mean, and the checks before the first call."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from common import console
from common.errors import MissingEnvironmentError, PinwheelError, PolicyError
from common.run import Result, run

FIELD_MANAGER = "pinwheel"
_INSTALL = "install kubectl (the version of your cluster or one beside it) and put it on PATH"
# What passes by itself: the server is overloaded, restarting or cut off. Everything else would only be refused again.
_PASSING = re.compile(
    r"InternalError|Internal error|ServiceUnavailable|Too ?Many ?Requests|Timeout:|the server is currently unable|EOF"
    r"|connection re(?:fused|set)|i/o timeout|TLS handshake timeout|no route to host|no answer within|client connection lost"
    r"|server closed|has prevented the request from succeeding|unexpected error when reading response body|try again later"
    r"|http2: |transport is closing|broken pipe",
    re.IGNORECASE,
)
_ADVICE = re.compile(r"Please review the fields above.*?#conflicts", re.DOTALL)
# Its output is read here: no pager, no colours, no other program.
_PLAIN_DIFF = {"KUBECTL_EXTERNAL_DIFF": None}
_CONFLICT = re.compile(r'conflicts? with "(?P<owner>[^"]+)"[^\n]*?:(?P<fields>(?: \.[^\n]*|(?:\n- [^\n]*)+))')


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait, in seconds.

    Attributes:
        rollout: for a workload to run its new pods; above the Deployment's own progressDeadlineSeconds.
        settle: after putting the last good set back, how long a failed status may still turn good: for a while the controller
            reports the failure before.
        request: for one request.
        pause: between two tries of what may pass by itself.
        tries: of a call that fails with something that may pass.
    """

    rollout: float = 1800
    settle: float = 15
    request: float = 30
    pause: float = 2
    tries: int = 4


@dataclass(frozen=True, slots=True)
class Conflict:
    """A field that another manager owns.

    Attributes:
        owner: the manager, as kubectl names it.
        field: `.spec.replicas`.
    """

    owner: str
    field: str


def conflicts(said: str) -> tuple[Conflict, ...]:
    """The conflicts that kubectl reports for a server-side apply."""
    found = []
    for match in _CONFLICT.finditer(said):
        for line in match["fields"].strip().splitlines():
            found.append(Conflict(match["owner"], line.removeprefix("- ").strip()))
    return tuple(found)


def brief(result: Result) -> str:
    """Kubectl's own words, as one line without its advice."""
    said = _ADVICE.sub("", result.stderr).strip() or result.stdout.strip()
    lines = [
        line.strip().removeprefix("error: ").removeprefix("Error from server ") for line in said.splitlines() if line.strip()
    ]
    return " | ".join(lines[:6]) or f"code {result.code}"


class Kubectl:
    """kubectl for one context.

    Args:
        context: of the user's kubeconfig.
        patience: how long to wait and how often to try.
    """

    def __init__(self, context: str, patience: Patience) -> None:
        self.context, self.patience = context, patience

    def call(self, args: Sequence[str], *, stdin: str | None = None, good: Sequence[int] = (0,), timeout: float = 0) -> Result:
        """Run kubectl; what may pass by itself is tried again. The caller looks at the code.

        Args:
            args: after `kubectl --context …`.
            stdin: manifests.
            good: codes that need no second try.
            timeout: of one try, seconds; default: a few requests' worth.

        Raises:
            MissingEnvironmentError: kubectl is not installed.
        """
        argv = ["kubectl", "--context", self.context, *args]
        for left in range(self.patience.tries - 1, -1, -1):
            result = run(argv, stdin=stdin, env=_PLAIN_DIFF, timeout=timeout or 4 * self.patience.request, missing=_INSTALL)
            # 124: it used up its time; a second try would double the wait.
            if result.code in {*good, 124} or not left or not _PASSING.search(result.stderr):
                break
            console.debug(f"kubectl: {brief(result)}; trying again in {self.patience.pause} s")
            time.sleep(self.patience.pause)
        return result

    def request(self, args: Sequence[str], *, stdin: str | None = None, good: Sequence[int] = (0,)) -> Result:
        """`call` whose requests end after a while."""
        return self.call([f"--request-timeout={self.patience.request:g}s", *args], stdin=stdin, good=good)

    def preflight(self, wanted: str) -> None:
        """Make sure that the context exists, the server answers, and is not older than the schema the set was checked against.

        Raises:
            MissingEnvironmentError: no kubectl, no such context, no answer.
            PolicyError: the server is older.
        """
        said = run(["kubectl", "config", "get-contexts", "-o", "name"], timeout=self.patience.request, missing=_INSTALL)
        if said.code:
            raise MissingEnvironmentError(
                "kubectl cannot read your kubeconfig", where=brief(said), fix="mend it, or set KUBECONFIG"
            )
        if self.context not in said.stdout.split("\n"):
            known = ", ".join(said.stdout.split()) or "none"
            fix = f"set `context` in the environment or add it to your kubeconfig; there are: {known}"
            raise MissingEnvironmentError(f"kubectl knows no context {self.context!r}", where="kubeconfig", fix=fix)
        said = self.request(["version", "-o", "json"])
        try:
            server: dict[str, Any] = json.loads(said.stdout)["serverVersion"]
            found = (int(server["major"]), int(re.sub(r"\D", "", str(server["minor"]))))
        except (ValueError, KeyError, TypeError):
            fix = "see whether the cluster is up and your credentials are valid: `kubectl --context … version`"
            what = f"the cluster of context {self.context!r} does not answer"
            raise MissingEnvironmentError(what, where=brief(said), fix=fix) from None
        shown = f"{found[0]}.{found[1]}"
        if found < tuple(map(int, wanted.split("."))):
            what = f"the cluster runs Kubernetes {shown}, the manifests were checked against {wanted}"
            raise PolicyError(what, where=self.context, fix="set `kubernetes` in the environment to what it runs")
        if shown != wanted:
            console.warn(f"the cluster runs Kubernetes {shown}, the manifests were checked against {wanted}")

    def live(self, text: str) -> list[dict[str, Any]]:
        """What the cluster holds of the objects in `text`; those that are not there are left out.

        Raises:
            MissingEnvironmentError: the cluster does not answer, or does not let us look.
        """
        said = self.request(["get", "-f", "-", "--ignore-not-found", "-o", "json"], stdin=text)
        if said.code:
            fix = "see whether the cluster is up and you may `get` these objects"
            raise MissingEnvironmentError("the cluster does not say what it runs", where=brief(said), fix=fix)
        if not said.stdout.strip():
            return []
        found: dict[str, Any] = json.loads(said.stdout)
        return found["items"] if found.get("kind") == "List" else [found]

    def labelled(self, label: str) -> bool | None:
        """Whether any node carries a label; None where we are not told, as nodes are not everybody's to list."""
        said = self.request(["get", "nodes", "-l", label, "-o", "name"])
        return None if said.code else bool(said.stdout.strip())

    def apply(self, text: str, *, dry_run: bool = False) -> Result:
        """Server-side apply with our field manager. Never forced: a field that another manager owns is theirs."""
        extra = ["--dry-run=server"] if dry_run else []
        return self.request(["apply", "--server-side", f"--field-manager={FIELD_MANAGER}", *extra, "-f", "-"], stdin=text)

    def diff(self, text: str) -> Result:
        """What an apply would change; code 0 nothing, 1 something, above that it would be refused."""
        args = ["diff", "--server-side", f"--field-manager={FIELD_MANAGER}", "-f", "-"]
        return self.request(args, stdin=text, good=(0, 1))

    def rollout(self, kind: str, namespace: str, name: str, seconds: float) -> Result:
        """Wait until a workload runs its newest pods, at most `seconds`."""
        args = ["rollout", "status", f"{kind.lower()}/{name}", "-n", namespace, f"--timeout={max(seconds, 1):.0f}s"]
        return self.call(args, timeout=seconds + self.patience.request)


def refusal(result: Result, what: str, fix: str) -> PinwheelError:
    """The error for a call that failed before anything was sent: the cluster is away, or it refuses."""
    if _PASSING.search(result.stderr):
        return MissingEnvironmentError(what, where=brief(result), fix="the cluster is overloaded or away; try again later")
    return PolicyError(what, where=brief(result), fix=fix)
