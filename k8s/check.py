"""`invoke check`: pin and check any plain manifests, send nothing, name every finding at once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from common import console
from common.errors import UsageError
from k8s import report
from k8s.envs import environment
from k8s.prepare import checked, gate

# How the result is told to other programs.
JSON, SARIF = "json", "sarif"


def run_check(places: Sequence[str], env_name: str, form: str = "") -> str:
    """Check manifests as `invoke deploy` would before it sends them, and print the result.

    Args:
        places: files and directories; `-` is standard input.
        env_name: the environment they are for.
        form: `json` or `sarif` for a program that reads standard output; empty for people.

    Returns:
        The outcome in a few words.

    Raises:
        UsageError: no such environment, or a place does not exist or holds no manifest.
        LockError: `lockfiles/images.lock` was edited into something else.
        PolicyError: something is wrong with the manifests.
    """
    if not places:
        raise UsageError("nothing to check", fix="name files or folders of manifests, or - for standard input")
    env = environment.load(env_name)
    rendered, told = checked.judge([Path(place) for place in places], env, checked.locked_images(required=False))
    if form:
        console.machine(report.as_json(rendered, told, env) if form == JSON else report.as_sarif(told))
    checked.say(told, env)
    checked.refuse(told.refused)
    for pin in rendered.pins:
        console.info(f"{pin.title}: {pin.written} → {pin.pinned}")
    for placement in rendered.placements:
        console.info(placement.text())
    for line in gate.unproven((pin.pinned for pin in rendered.pins), env):
        console.warn(f"deploy would refuse {line}")
    outcome = f"{len(rendered.objects)} objects are clean for {env.name} (Kubernetes {env.kubernetes})"
    console.done(outcome)
    return outcome
