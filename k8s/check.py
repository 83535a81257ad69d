"""`invoke check`: pin and check any plain manifests, change nothing, name every finding at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from common import console
from common.errors import UsageError
from k8s.envs import environment
from k8s.envs.environment import ClusterTarget, Environment
from k8s.prepare import checked, gate, report
from k8s.rollouts import asked
from k8s.rollouts.kubectl import Kubectl, Patience

# How the result is told to other programs.
JSON, SARIF = "json", "sarif"


def run_check(
    places: Sequence[str], env_name: str, form: str = "", *, server: bool = False, patience: Patience | None = None
) -> str:
    """Check manifests as `invoke deploy` would before it sends them, and print the result.

    Args:
        places: files and directories; `-` is standard input.
        env_name: the environment they are for.
        form: `json` or `sarif` for a program that reads standard output; empty for people.
        server: ask the environment's cluster as well; nothing stays there.
        patience: how long to wait for it.

    Returns:
        The outcome in a few words.

    Raises:
        UsageError: no such environment, or it has no cluster to be asked; a place does not exist or holds no manifest.
        MissingEnvironmentError: the cluster that is to be asked does not answer.
        LockError: `lockfiles/images.lock` was edited into something else.
        PolicyError: something is wrong with the manifests.
    """
    if not places:
        raise UsageError("nothing to check", fix="name files or folders of manifests, or - for standard input")
    env = environment.load(env_name)
    kubectl = _cluster(env, patience or Patience()) if server else None
    rendered, told = checked.judge([Path(place) for place in places], env, checked.locked_images(required=False))
    said = asked.ask(kubectl, rendered.objects) if kubectl else asked.Said((), ())
    told = replace(told, refused=tuple(sorted({*told.refused, *said.findings})))
    if form:
        console.machine(report.as_json(rendered, told, env, _unasked(said)) if form == JSON else report.as_sarif(told))
    checked.say(told, env)
    for line in _unasked(said):
        console.warn(f"not asked: {line}")
    checked.refuse(told.refused)
    for pin in rendered.pins:
        console.info(f"{pin.title}: {pin.written} → {pin.pinned}")
    for placement in rendered.placements:
        console.info(placement.text())
    for line in gate.unproven((pin.pinned for pin in rendered.pins), env):
        console.warn(f"deploy would refuse {line}")
    agreed = f"; its server takes {len(rendered.objects) - len(said.unasked)} of them" if server else ""
    outcome = f"{len(rendered.objects)} objects are clean for {env.name} (Kubernetes {env.kubernetes}){agreed}"
    console.done(outcome)
    return outcome


def _cluster(env: Environment, patience: Patience) -> Kubectl:
    if not isinstance(env.target, ClusterTarget):
        fix = "leave --server out, or name an environment with a cluster: --env NAME"
        raise UsageError(f"{env.name} is rendered into a directory: there is no server to ask", where=env.file, fix=fix)
    kubectl = Kubectl(env.target, patience)
    kubectl.preflight(env.kubernetes)
    return kubectl


def _unasked(said: asked.Said) -> list[str]:
    """What the server could not judge, a line for each reason."""
    by_reason: dict[str, list[str]] = {}
    for one in said.unasked:
        by_reason.setdefault(one.why, []).append(one.title)
    return [f"{why}: {', '.join(titles)}" for why, titles in by_reason.items()]
