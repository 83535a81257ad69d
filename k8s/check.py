"""`invoke check`: pin and check any plain manifests, send nothing, name every finding at once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from common import console
from k8s.envs import environment
from k8s.prepare import checked, gate


def run_check(places: Sequence[str], env_name: str) -> str:
    """Check manifests as `invoke deploy` would before it sends them, and print the result.

    Args:
        places: files and directories.
        env_name: the environment they are for.

    Returns:
        The outcome in a few words.

    Raises:
        UsageError: no such environment, or a place does not exist or holds no manifest.
        LockError: `lockfiles/images.lock` was edited into something else.
        PolicyError: something is wrong with the manifests.
    """
    env = environment.load(env_name)
    rendered, findings = checked.check([Path(place) for place in places], env, checked.locked_images(required=False))
    checked.refuse(findings)
    for pin in rendered.pins:
        console.info(f"{pin.title}: {pin.written} → {pin.pinned}")
    for placement in rendered.placements:
        console.info(placement.text())
    for line in gate.unproven((pin.pinned for pin in rendered.pins), env):
        console.warn(f"deploy would refuse {line}")
    outcome = f"{len(rendered.objects)} objects are clean for {env.name} (Kubernetes {env.kubernetes})"
    console.done(outcome)
    return outcome
