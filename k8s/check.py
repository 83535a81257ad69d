"""`invoke check`: pin and check any plain manifests, send nothing, name every finding at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from common import console
from common.errors import LockError, PolicyError
from k8s import environment, manifests, nodes, pin, rules_object, rules_pod, rules_refs, schema
from k8s.environment import Environment
from k8s.findings import Finding
from k8s.render import RenderedSet, with_config_hashes
from lockfiles import images_lock


def check(places: Sequence[Path], env: Environment, digests: Mapping[str, str]) -> tuple[RenderedSet, tuple[Finding, ...]]:
    """Read, check and pin manifests.

    Args:
        places: files and directories.
        env: the environment they are for.
        digests: by image name.

    Returns:
        The set ready to be sent, and everything that is wrong with it, sorted; it may be sent only if that is nothing.

    Raises:
        UsageError: a place does not exist or holds no manifest.
        LockError: what an image asks of a GPU cannot be read from the lock of its set.
    """
    objects, found = manifests.load(places)
    kinds = schema.schema(env.kubernetes)
    walks = [kinds.walk(one) for one in objects]
    pinned, pins, unpinned = pin.pin(walks, env, digests)
    placed, placements, nowhere = nodes.place(pinned, pins, env)
    misfits = [finding for walk in walks for finding in walk.findings]
    crossed = [*rules_object.check(walks), *rules_pod.check(objects), *rules_refs.check(walks, env)]
    rendered = RenderedSet(with_config_hashes(placed), pins, placements)
    return rendered, tuple(sorted({*found, *unpinned, *nowhere, *misfits, *crossed}))


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
        LockError: `lockfiles/images.lock` was edited into something else, or the lock of an image's set is missing or was.
        PolicyError: something is wrong with the manifests.
    """
    env = environment.load(env_name)
    rendered, found = check([Path(place) for place in places], env, locked_digests(required=False))
    refuse(found)
    for pin_ in rendered.pins:
        console.info(f"{pin_.title}: {pin_.written} → {pin_.pinned}")
    for placement in rendered.placements:
        console.info(placement.text())
    outcome = f"{len(rendered.objects)} objects are clean for {env.name} (Kubernetes {env.kubernetes})"
    console.done(outcome)
    return outcome


def locked_digests(*, required: bool) -> dict[str, str]:
    """The digest of each image name in `lockfiles/images.lock`.

    Args:
        required: whether an absent lock is an error; without one every name of ours is unknown.

    Raises:
        LockError: the lock is absent though required, or was edited into something else.
    """
    try:
        return {image.name: image.digest for image in images_lock.read()}
    except LockError:
        if required or images_lock.path().exists():
            raise
        return {}
