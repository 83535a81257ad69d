"""Serve another model: the deploy step of the pipeline.

    python -m pinwheel_pipeline.promote REF [--namespace llm-inference] [--deployment llama-factory-inference]
                                        [--timeout 7200] [--api URL]

First the Deployment's preflight (`NAME-preflight`, made by `invoke deploy`) tries REF where the server would run, and as the
server would: it pulls the image and verifies the model's manifest and signature. Only then the pod template's annotation
`pinwheel.io/model` is set to REF by server-side apply. The step waits until every pod serves it, and puts the former model
back where that fails, or where the step is told to end. A Deployment that had no model has no pods either: it gets its first
pod together with its first model, and loses it again when that is not served. It talks to the cluster's API as the pod's own
ServiceAccount; `--api http://127.0.0.1:8001` is what `kubectl proxy` serves, for a run by hand. It needs get and patch on the
one Deployment and its preflight; if it may list pods too, it says why they do not start. Where the Deployment does not exist
yet, it says what to do and ends well.

Exit codes: 0 served, 16 failed and the former model is back, 17 failed and it is NOT, 143 told to end and the former model
named again. Where what serves was not touched: 2 settings, 10 the API refuses or cannot be reached, 14 the registry, 15 the
model or its pod is refused.
"""

from __future__ import annotations

import argparse
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.errors import DeployNotRolledBackError, ExitCode, MissingEnvironmentError, UsageError, of_code
from oci.reference import ImageRef

from . import cluster, rollout_state
from .cluster import Api, ApiError
from .model_annotation import ANNOTATION, MANAGER, preflight
from .pod_reasons import ONCE_MORE, Endings, Problem, alike
from .program import say, start
from .rollout_state import FailedError, State

# On the Deployment itself, and only while a rollout is under way: what to put back if this process dies and the step runs
# again; `none` for no model.
BEFORE, NOTHING = "pinwheel.io/model-before", "none"
# Seconds: between two looks at the Deployment; how long a problem must last, as an old one may show for a moment; to put the
# former model back after SIGTERM, of the 30 that a pod has; how long the API may be away once something was changed, as for an
# upgrade of the control plane; how long a preflight may pull its image.
INTERVAL, GRACE, AFTER_SIGTERM, AWAY, PULL = 3.0, 6.0, 20.0, 600.0, 1800.0


class TerminatedError(BaseException):
    """The step was told to end."""


@dataclass
class Rollout:
    """One Deployment and the model that it shall serve.

    Attributes:
        api: the cluster's.
        namespace: of the Deployment.
        name: of the Deployment.
        printed: lines that were printed, so that none is printed twice.
        endings: of the pods' containers.
        since: when a problem was first seen; 0: there is none.
        grace: seconds that a problem must last, as an old one may show for a moment.
    """

    api: Api
    namespace: str
    name: str
    printed: set[str] = field(default_factory=set)
    endings: Endings = field(default_factory=Endings)
    since: float = 0.0
    grace: float = field(default_factory=lambda: GRACE)

    @property
    def path(self) -> str:
        """Of the Deployment."""
        return f"/apis/apps/v1/namespaces/{self.namespace}/deployments/{self.name}"

    def set(self, model: str, before: str, *, replicas: int | None = None, force: bool = True) -> dict[str, Any]:
        """Apply the annotations, which are all that this manager keeps of the Deployment; empty ones are removed."""
        body: dict[str, Any] = {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": self.name, "namespace": self.namespace},
            "spec": {"template": {"metadata": {"annotations": {ANNOTATION: model}}}} if model else {},
        }
        if before:
            body["metadata"]["annotations"] = {BEFORE: before}
        if replicas is not None:
            body["spec"]["replicas"] = replicas
        return self.api.apply(self.path, body, MANAGER, force=force)

    def wait(self, model: str, seconds: float) -> None:
        """Wait until all pods serve the model, as kubectl's `rollout status` judges it.

        Raises:
            FailedError: they cannot be, or are not in time.
        """
        end, silent = time.monotonic() + seconds, self.api.silent
        self.printed, self.since = set(), 0.0
        while True:
            body = self.api.get(self.path) or {}
            if self.api.silent > silent:
                # Nobody could say how far it is, or mend anything.
                end, silent, self.since = end + self.api.silent - silent, self.api.silent, 0.0
            if not body:
                raise FailedError("the Deployment is gone")
            if annotation(body) != model:
                raise FailedError(f"somebody else set the model to {annotation(body) or 'none'} meanwhile")
            state = rollout_state.state(body)
            if state.done:
                return
            self.say(state.text)
            reasons = self.reasons(body, model)
            self.judge(state, reasons)
            if time.monotonic() > end:
                raise FailedError(f"not done within {seconds:.0f} s" + "".join(f"; {reason}" for reason in sorted(reasons)))
            time.sleep(INTERVAL)

    def judge(self, state: State, reasons: dict[str, Problem]) -> None:
        """Give up on a hopeless rollout, once its problem has lasted a while.

        Raises:
            FailedError: the problem has lasted that long.
        """
        hopeless = {reason: problem for reason, problem in sorted(reasons.items()) if problem.hopeless}
        if not state.failed and not hopeless:
            self.since = 0.0
            return
        self.since = self.since or time.monotonic()
        if time.monotonic() >= self.since + self.grace:
            problems = list(hopeless) or ["the Deployment's progress deadline is over", *sorted(reasons)]
            raise FailedError("; ".join(problems), next((one.exit_code for one in hopeless.values()), ExitCode.POLICY))

    def reasons(self, body: dict[str, Any], model: str) -> dict[str, Problem]:
        """What keeps pods of this model from running; nothing if pods may not be listed."""
        problems: dict[str, Problem] = {}
        labels = body.get("spec", {}).get("selector", {}).get("matchLabels", {})
        for pod in self.api.pods(self.namespace, labels):
            if pod.get("metadata", {}).get("annotations", {}).get(ANNOTATION, "") == model:
                found = cluster.pod_problems(pod, self.endings)
                name = str(pod["metadata"].get("name", "?"))
                for reason in sorted(found):
                    # Not again for the next pod, nor for the next restart; an exit code is no number that only passes.
                    other = reason.replace(name, "")
                    self.say(reason, other if "exit code" in other else alike(other))
                problems |= found
        return problems

    def say(self, text: str, known_by: str = "") -> None:
        """Print a line, unless it, or one that is known by the same, was printed already."""
        if (known_by or text) not in self.printed:
            self.printed.add(known_by or text)
            say(text)


def annotation(body: dict[str, Any]) -> str:
    """The model that a Deployment names."""
    template = body.get("spec", {}).get("template", {}).get("metadata", {})
    return str((template.get("annotations") or {}).get(ANNOTATION, ""))


def main(argv: list[str]) -> int:
    """Run the program; returns the exit code."""
    parser = argparse.ArgumentParser(prog="promote")
    parser.add_argument("model")
    parser.add_argument("--namespace", default="llm-inference")
    parser.add_argument("--deployment", default="llama-factory-inference")
    # Four pods, one after the other, each within the Deployment's own progress deadline of 29 minutes.
    parser.add_argument("--timeout", type=float, default=7200.0)
    parser.add_argument("--api", default="")
    options = parser.parse_args(argv)
    try:
        model = str(ImageRef.in_registry(options.model, pinned=True))
    except ValueError as problem:
        raise UsageError(str(problem)) from None
    rollout = Rollout(Api(options.api, Path(cluster.ACCOUNT)), options.namespace, options.deployment)
    body = rollout.api.get(rollout.path)
    if body is None:
        where = f"{options.namespace} has no Deployment {options.deployment} yet"
        say(f"{where}: write `model: {{reference: {model}}}` into the environment's file and run `invoke deploy`")
        return 0
    current = annotation(body)
    before_note = (body["metadata"].get("annotations") or {}).get(BEFORE, "")
    # An earlier run died half way: the model to put back is the one before that run.
    before = current
    if current == model and before_note:
        before = "" if before_note == NOTHING else before_note
    try:
        signal.signal(signal.SIGTERM, _terminate)
        try_beforehand(rollout, model, options.timeout)
        # Where no model was named nothing ran; an autoscaler lets a Deployment alone that has no pods.
        first = 1 if not current and body["spec"].get("replicas") == 0 else None
        return promote(rollout, model, before, options.timeout, first)
    except TerminatedError:
        return put_back(rollout, model, before, "told to end", AFTER_SIGTERM, terminated=True)
    except (FailedError, ApiError) as problem:
        return put_back(rollout, model, before, str(problem), options.timeout)


def try_beforehand(rollout: Rollout, model: str, seconds: float) -> None:
    """See that the server's image can be pulled and the model is signed, before what serves is touched.

    Raises:
        PinwheelError: not so; its class is that of the failure.
        ApiError: the API refuses.
    """
    endings = Endings(preflight=True)
    trial = Rollout(rollout.api, rollout.namespace, preflight(rollout.name), endings=endings, grace=ONCE_MORE)
    if rollout.api.get(trial.path) is None:
        say(f"{rollout.namespace} has no Deployment {trial.name}: nothing is tried beforehand; `invoke deploy` makes it")
        return
    say(f"{trial.name}: tries {model}")
    try:
        # What a step that was killed left is no trouble: its pod goes before this one's comes.
        trial.set(model, "", replicas=1)
        trial.wait(model, min(seconds, PULL))
    except FailedError as problem:
        why = f"{rollout.name} was not touched, as {model} would not start there: {problem}"
        raise of_code(problem.code)(why, fix="mend the cause and submit the run again") from None
    finally:
        # Whoever the next one is, it finds no pod and no model named.
        try:
            trial.set("", "", replicas=0)
        except ApiError as problem:
            say(f"{trial.name} keeps its pod: {problem}")


def promote(rollout: Rollout, model: str, before: str, seconds: float, replicas: int | None = None) -> int:
    """Set the model, and how many pods serve it if that is known, and wait for it."""
    say(f"{rollout.name}: {before or 'no model'} -> {model}")
    applied = rollout.set(model, (before or NOTHING) if before != model else "", replicas=replicas)
    rollout.api.away = AWAY
    rollout.wait(model, seconds)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        # Not by force: if somebody set another model in this moment, theirs stays.
        rollout.set(model, "", force=False)
    except ApiError as problem:
        say(f"the note {BEFORE} stays on the Deployment: {problem}")
    replicas = applied["spec"].get("replicas", 1)
    say(f"served: {model}" if replicas else f"set: {model}; the Deployment has 0 replicas, so that nothing loaded it yet")
    say(f"write `model: {{reference: {model}}}` into the environment's file, or the next `invoke deploy` asks for it")
    return 0


def put_back(rollout: Rollout, model: str, before: str, reason: str, seconds: float, *, terminated: bool = False) -> int:
    """Name the former model again, and wait for it too.

    Returns:
        the exit code, which tells whether it is back.
    """
    # Ignore a second SIGTERM: this must not be left half done.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    say(f"{model} is not served: {reason}")
    # Also where the very change was not answered: it may have been made.
    rollout.api.away = min(AWAY, seconds)
    former = before or "no model, as before"
    if before == model:
        # It was named already when this step began, and no other model is known.
        say(f"{model} stays named, as it was before this step: no former model is known")
        return ExitCode.TERMINATED if terminated else ExitCode.DEPLOY_NOT_ROLLED_BACK
    try:
        live = rollout.api.get(rollout.path)
        if live is None:
            raise DeployNotRolledBackError("the Deployment is gone", fix="run `invoke deploy`")
        if annotation(live) == before:
            if not terminated:
                raise MissingEnvironmentError(f"nothing was changed, {former} is named: {reason}")
            say(f"nothing was changed, {former} is named")
            return ExitCode.TERMINATED
        if annotation(live) != model:
            raise DeployNotRolledBackError(f"left as somebody else set it: {annotation(live) or 'no model'}")
        rollout.set(before, "", replicas=None if before else 0)
        say(f"put back: {former}")
        if not before:
            # Without a model there are no pods, as before: there is nothing to wait for.
            return ExitCode.TERMINATED if terminated else ExitCode.DEPLOY_ROLLED_BACK
        rollout.wait(before, seconds)
    except (FailedError, ApiError) as problem:
        if terminated and isinstance(problem, FailedError):
            say(f"the rollout of {former} goes on by itself: {problem}")
            return ExitCode.TERMINATED
        fix = f"look at it: kubectl -n {rollout.namespace} describe deployment {rollout.name}"
        raise DeployNotRolledBackError(f"{former} is NOT served again: {problem}", fix=fix) from None
    say(f"served again: {former}")
    return ExitCode.TERMINATED if terminated else ExitCode.DEPLOY_ROLLED_BACK


def _terminate(*_: object) -> None:
    raise TerminatedError


if __name__ == "__main__":
    start("promote", main)
