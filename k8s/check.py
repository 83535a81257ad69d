"""`invoke check`: pin and check any plain manifests, send nothing, name every finding at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from common import console
from common.errors import LockError, PolicyError
from k8s.envs import environment
from k8s.envs.environment import Environment
from k8s.objects import manifests, schema
from k8s.objects.findings import Finding
from k8s.objects.schema import Walk
from k8s.prepare import gpu_nodes, pin, settings
from k8s.prepare.rendered import RenderedSet, with_config_hashes
from k8s.rules import objects as rules_object
from k8s.rules import pods as rules_pod
from k8s.rules import policies, quotas, references, security, workflow, workflow_scripts, workflow_values
from k8s.rules.whole_set import WholeSet
from lockfiles import images_lock
from lockfiles.images_lock import PinnedImage


def check(
    places: Sequence[Path], env: Environment, locked: Mapping[str, PinnedImage]
) -> tuple[RenderedSet, tuple[Finding, ...]]:
    """Read, check and pin manifests.

    Args:
        places: files and directories.
        env: the environment they are for.
        locked: `lockfiles/images.lock`, by image name.

    Returns:
        The set ready to be sent, and everything that is wrong with it, sorted; it may be sent only if that is nothing.

    Raises:
        UsageError: a place does not exist or holds no manifest, or the environment sets something that the manifests have not.
    """
    objects, found = manifests.load(places)
    objects = settings.apply(objects, env.settings, env.file)
    kinds = schema.schema(env.kubernetes)
    walks = [kinds.walk(one) for one in objects]
    pinned, pins, unpinned = pin.pin(walks, env, {name: image.digest for name, image in locked.items()})
    placed, placements, nowhere = gpu_nodes.place(pinned, pins, env, locked)
    misfits = [finding for walk in walks for finding in walk.findings]
    rendered = RenderedSet(with_config_hashes(placed), pins, placements)
    return rendered, tuple(sorted({*found, *unpinned, *nowhere, *misfits, *crossed(walks, env)}))


def crossed(walks: Sequence[Walk], env: Environment) -> Iterator[Finding]:
    """What the rules find, within objects and between them; what only does not fit its schema is not among it.

    Args:
        walks: of the manifests, in order.
        env: the environment they are for.
    """
    objects = [walk.manifest for walk in walks]
    sent = [inner.manifest for walk in walks for inner in walk.inner]  # By workflows, while they run.
    whole = WholeSet.of_walks(walks, env)
    yield from rules_object.check(walks)
    yield from rules_pod.check([*objects, *sent])
    yield from security.check([*objects, *sent])
    yield from references.check(walks, env)
    yield from policies.check(walks, whole)
    yield from quotas.check(whole)
    yield from workflow.check(walks)
    yield from workflow_values.check(walks)
    yield from workflow_scripts.check(objects)


def refuse(found: Sequence[Finding]) -> None:
    """Print the findings and refuse, if there are any.

    Raises:
        PolicyError: there are.
    """
    if not found:
        return
    for finding in found:
        console.warn(finding.text())
    files = sorted({finding.file for finding in found})
    raise PolicyError(
        f"{len(found)} finding{'s' if len(found) > 1 else ''} in {len(files)} file{'s' if len(files) > 1 else ''}",
        where=", ".join(files[:3]) + (" …" if len(files) > 3 else ""),
        fix="nothing was sent; each line above says what to do",
    )


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
    rendered, found = check([Path(place) for place in places], env, locked_images(required=False))
    refuse(found)
    for pin_ in rendered.pins:
        console.info(f"{pin_.title}: {pin_.written} → {pin_.pinned}")
    for placement in rendered.placements:
        console.info(placement.text())
    outcome = f"{len(rendered.objects)} objects are clean for {env.name} (Kubernetes {env.kubernetes})"
    console.done(outcome)
    return outcome


def locked_images(*, required: bool) -> dict[str, PinnedImage]:
    """What `lockfiles/images.lock` says of each image name.

    Args:
        required: whether an absent lock is an error; without one every name of ours is unknown.

    Raises:
        LockError: the lock is absent though required, or was edited into something else.
    """
    try:
        return {image.name: image for image in images_lock.read()}
    except LockError:
        if required or images_lock.path().exists():
            raise
        return {}
