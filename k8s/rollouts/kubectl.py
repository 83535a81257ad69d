"""kubectl, for one context: calls, what its errors mean, and the checks before the first call."""

from __future__ import annotations

import json
import re
import shlex
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from common import console, single_node
from common.errors import MissingEnvironmentError, PinwheelError, PolicyError
from common.run import Result, run
from k8s.envs.environment import ClusterTarget
from k8s.objects.manifests import Manifest

FIELD_MANAGER = "pinwheel"
# Bytes of data that a ConfigMap of ours may have. An API server takes 1 MiB for all of it; the rest is room for metadata and
# for the server's book of field managers.
CONFIG_MAP_ROOM = 900_000
# Of a Secret as JSON: the key names alone leave kubectl.
_KEY_NAMES = "{{range $key, $value := .data}}{{$key}}\n{{end}}"
_INSTALL = "install kubectl (the version of your cluster or one beside it) and put it on PATH"
# What passes by itself: the server is overloaded, restarting or cut off. Everything else would only be refused again.
_PASSING = re.compile(
    r"InternalError|Internal error|ServiceUnavailable|Too ?Many ?Requests|Timeout:|the server is currently unable|EOF"
    r"|connection re(?:fused|set)|to the server \S+ was refused|i/o timeout|TLS handshake timeout|no route to host"
    r"|no answer within|client connection lost|server closed|has prevented the request from succeeding|try again later"
    r"|unexpected error when reading response body|context deadline exceeded|http2: |transport is closing|broken pipe"
    r"|has not answered for",
    re.IGNORECASE,
)
_ADVICE = re.compile(r"Please review the fields above.*?#conflicts", re.DOTALL)
# Of a kind that the cluster has not: the kind and its apiVersion.
UNSERVED = re.compile(r'no matches for kind "([^"]+)" in version "([^"]+)"')


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
        lease: how long a deploy that gives no sign of life keeps others away; whole seconds, as the Lease says it.
        hopeless: how long a pod may have a reason that does not get better by waiting; somebody may just be mending it.
        lasting: how long a trouble of every normal start must last to be told: a pod that waits for its volume or a node.
        away: how long a cluster may not answer once something was sent, or while one only looks on: as long as an upgrade of
            its control plane takes (outage.py).
    """

    rollout: float = 1800
    settle: float = 15
    request: float = 30
    pause: float = 2
    tries: int = 4
    lease: int = 60
    hopeless: float = 120
    lasting: float = 20
    away: float = 600


def brief(result: Result) -> str:
    """Kubectl's own words, as one line without its advice."""
    text = _ADVICE.sub("", result.stderr).strip() or result.stdout.strip()
    lines = [
        line.strip().removeprefix("error: ").removeprefix("Error from server ") for line in text.splitlines() if line.strip()
    ]
    return " | ".join(lines[:6]) or f"code {result.code}"


def listed(answer: str) -> list[dict[str, Any]]:
    """The objects of an answer in JSON: none, one, or a List of them."""
    if not answer.strip():
        return []
    parsed: dict[str, Any] = json.loads(answer)
    return parsed["items"] if parsed.get("kind") == "List" else [parsed]


def of_cluster(bodies: Iterable[Mapping[str, Any]]) -> list[Manifest]:
    """What the cluster answered, as manifests."""
    return [Manifest("cluster", dict(body), {}) for body in bodies]


class UnservedError(PolicyError):
    """The cluster has not all the kinds of a set.

    Args:
        kinds: (kind, apiVersion) of those it has not.
        context: of the cluster.
    """

    def __init__(self, kinds: frozenset[tuple[str, str]], context: str) -> None:
        self.kinds = kinds
        names = ", ".join(f"{kind} ({version})" for kind, version in sorted(kinds))
        argo = any(version.startswith("argoproj.io/") for _, version in kinds)
        first = "install Argo Workflows first (docs/cluster.md says how)" if argo else "install what brings them first"
        super().__init__(f"the cluster has no such kinds: {names}", where=context, fix=f"{first}; nothing was sent")


def passing(result: Result) -> bool:
    """Whether a failed call may go well by itself a while later."""
    return bool(_PASSING.search(result.stderr))


class Kubectl:
    """kubectl for one context.

    Args:
        target: the cluster, by kubeconfig and context.
        patience: how long to wait and how often to try.
    """

    def __init__(self, target: ClusterTarget, patience: Patience) -> None:
        self.target, self.context, self.patience = target, target.context, patience
        # For how many seconds the cluster was away while a call waited for it, and whether one gave up on it (outage.py).
        self.silent, self.given_up = 0.0, False
        self._program = ["kubectl"]
        # Variables beside those of this process.
        self.env: dict[str, str] = {}
        if target.kubeconfig:
            self._program.append(f"--kubeconfig={target.kubeconfig}")
        if target.of_this_machine:
            if not single_node.kubectl().exists():
                fix = "bring it up: `invoke cluster --up`"
                raise MissingEnvironmentError("there is no cluster on this machine", where=target.kubeconfig, fix=fix)
            self._program[0] = str(single_node.kubectl())
            self.env = single_node.without_proxy()

    @property
    def shown(self) -> str:
        """How it is called, for people."""
        return shlex.join(self.argv([]))

    def argv(self, args: Sequence[str]) -> list[str]:
        """The whole command line, for a call that goes on while others are made."""
        return [*self._program, "--context", self.context, *args]

    def call(self, args: Sequence[str], *, stdin: str | None = None, timeout: float = 0, tries: int = 0) -> Result:
        """Run kubectl; what may pass by itself is tried again. The caller looks at the code.

        Args:
            args: after `kubectl --context …`.
            stdin: manifests.
            timeout: of one try, seconds; default: a few requests' worth.
            tries: default: those of the patience.

        Raises:
            MissingEnvironmentError: kubectl is not installed.
        """
        argv = self.argv(args)
        for left in range((tries or self.patience.tries) - 1, -1, -1):
            result = run(argv, stdin=stdin, timeout=timeout or 4 * self.patience.request, missing=_INSTALL, env=self.env)
            # 124: it used up its time; a second try would double the wait.
            if result.code in {0, 124} or not left or not _PASSING.search(result.stderr):
                break
            console.debug(f"kubectl: {brief(result)}; trying again in {self.patience.pause} s")
            time.sleep(self.patience.pause)
        return result

    def request(self, args: Sequence[str], *, stdin: str | None = None) -> Result:
        """`call` whose requests end after a while."""
        return self.call([f"--request-timeout={self.patience.request:g}s", *args], stdin=stdin)

    def preflight(self, expected: str) -> None:
        """Make sure that the context exists, the server answers, and is not older than the schema the set was checked against.

        Raises:
            MissingEnvironmentError: no kubectl, no such context, no answer.
            PolicyError: the server is older.
        """
        argv = [*self._program, "config", "get-contexts", "-o", "name"]
        answer = run(argv, timeout=self.patience.request, missing=_INSTALL)
        if answer.code:
            raise MissingEnvironmentError(
                "kubectl cannot read your kubeconfig", where=brief(answer), fix="mend it, or set KUBECONFIG"
            )
        if self.context not in answer.stdout.split("\n"):
            known = ", ".join(answer.stdout.split()) or "none"
            fix = f"set `context` in the environment or add it to your kubeconfig; there are: {known}"
            raise MissingEnvironmentError(f"kubectl knows no context {self.context!r}", where="kubeconfig", fix=fix)
        answer = self.request(["version", "-o", "json"])
        try:
            server: dict[str, Any] = json.loads(answer.stdout)["serverVersion"]
            version = (int(server["major"]), int(re.sub(r"\D", "", str(server["minor"]))))
        except (ValueError, KeyError, TypeError):
            fix = "see whether the cluster is up and your credentials are valid: `kubectl --context … version`"
            what = f"the cluster of context {self.context!r} does not answer"
            raise MissingEnvironmentError(what, where=brief(answer), fix=fix) from None
        shown = f"{version[0]}.{version[1]}"
        if version < tuple(map(int, expected.split("."))):
            what = f"the cluster runs Kubernetes {shown}, the manifests were checked against {expected}"
            raise PolicyError(what, where=self.context, fix="set `kubernetes` in the environment to what it runs")
        if shown != expected:
            console.warn(f"the cluster runs Kubernetes {shown}, the manifests were checked against {expected}")

    def live(self, text: str, *, owners: bool = False) -> list[dict[str, Any]]:
        """What the cluster holds of the objects in `text`; those that are not there are left out.

        Args:
            text: manifests.
            owners: with `managedFields`, which say who owns what.

        Raises:
            MissingEnvironmentError: the cluster does not answer.
            PolicyError: it does not let us look.
            UnservedError: it has not all the kinds.
        """
        extra = ["--show-managed-fields"] if owners else []
        answer = self.request(["get", "-f", "-", "--ignore-not-found", *extra, "-o", "json"], stdin=text)
        if unserved := frozenset(UNSERVED.findall(answer.stderr)):
            raise UnservedError(unserved, self.context)
        if answer.code:
            fix = "see whether the cluster is up and you may `get` these objects"
            raise refusal(answer, "the cluster does not say what it runs", fix)
        return listed(answer.stdout)

    def get(self, resource: str, namespace: str, name: str) -> dict[str, Any] | None:
        """One object; None where it, or its namespace, is not there.

        Raises:
            MissingEnvironmentError: the cluster does not answer.
            PolicyError: it does not let us look.
        """
        answer = self.request(["get", resource, name, "-n", namespace, "--ignore-not-found", "-o", "json"])
        if answer.code:
            fix = f"see whether the cluster is up and you may `get` {resource} in {namespace}"
            what = f"the cluster does not show {resource} {namespace}/{name}"
            raise refusal(answer, what, fix)
        return next(iter(listed(answer.stdout)), None)

    def secret_keys(self, namespace: str, name: str) -> frozenset[str]:
        """The keys that a Secret holds; none where it is not there. Its values stay in kubectl.

        Raises:
            MissingEnvironmentError: the cluster does not answer.
            PolicyError: it does not let us look.
        """
        args = ["get", "secret", name, "-n", namespace, "--ignore-not-found", "-o", f"go-template={_KEY_NAMES}"]
        answer = self.request(args)
        if answer.code:
            fix = f"let your account `get` Secrets in {namespace}; nothing was sent"
            raise refusal(answer, f"the cluster does not show Secret {namespace}/{name}", fix)
        return frozenset(answer.stdout.split())

    def create(self, body: Mapping[str, Any]) -> Result:
        """Make an object that must not be there; its new form comes as JSON."""
        return self._write("create", body)

    def replace(self, body: Mapping[str, Any]) -> Result:
        """Write an object whole; with a resource version in it only over that very version. Its new form comes as JSON."""
        return self._write("replace", body)

    def _write(self, verb: str, body: Mapping[str, Any]) -> Result:
        args = [verb, f"--field-manager={FIELD_MANAGER}", "-o", "json", "-f", "-"]
        return self.request(args, stdin=json.dumps(body))

    def labelled(self, label: str) -> bool | None:
        """Whether any node carries a label; None where we are not told, as nodes are not everybody's to list."""
        answer = self.request(["get", "nodes", "-l", label, "-o", "name"])
        return None if answer.code else bool(answer.stdout.strip())

    def apply(self, text: str, *, part: str = "", force: bool = False) -> Result:
        """Server-side apply with our field manager.

        Args:
            text: manifests.
            part: of our manager: parts of an object that are applied one without the other.
            force: also where another manager owns a field, for what is ours alone. Else such a field is theirs.
        """
        manager = f"{FIELD_MANAGER}.{part}" if part else FIELD_MANAGER
        extra = ["--force-conflicts"] if force else []
        return self.request(["apply", "--server-side", f"--field-manager={manager}", *extra, "-f", "-"], stdin=text)

    def dry_run(self, text: str, *, force: bool = False) -> Result:
        """What the objects would be after an apply, and whose, as JSON (`listed`); the server judges it, and keeps nothing.

        Args:
            text: manifests.
            force: as if every field of theirs were ours.
        """
        extra = ["--force-conflicts"] if force else []
        head = ["apply", "--server-side", "--dry-run=server", f"--field-manager={FIELD_MANAGER}"]
        return self.request([*head, *extra, "--show-managed-fields", "-o", "json", "-f", "-"], stdin=text)

    def delete(self, text: str) -> Result:
        """Delete the objects of `text`; those that are gone already are no failure. What they own goes after them."""
        return self.request(["delete", "--ignore-not-found", "--wait=false", "-f", "-"], stdin=text)

    def resources(self, group: str) -> frozenset[str]:
        """The resources of an API group that the cluster serves now, `workflows.argoproj.io`."""
        answer = self.request(["api-resources", f"--api-group={group}", "--cached=false", "-o", "name"])
        return frozenset(answer.stdout.split())


def refusal(result: Result, what: str, fix: str) -> PinwheelError:
    """The error for a call that failed before anything was sent: the cluster is away, or it refuses."""
    if passing(result):
        return MissingEnvironmentError(what, where=brief(result), fix="the cluster is overloaded or away; try again later")
    return PolicyError(what, where=brief(result), fix=fix)
