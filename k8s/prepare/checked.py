"""Manifests read, set, pinned, placed and judged: a set that may be sent, or everything that is wrong with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from common import console, paths
from common.errors import LockError, PolicyError
from k8s.envs.environment import Environment
from k8s.objects import manifests, schema
from k8s.objects.findings import Finding
from k8s.objects.manifests import Manifest
from k8s.prepare import accelerator, gpu_nodes, pin, policy_ports, preflight, registry_access, served_model, settings
from k8s.prepare.config_hashes import with_config_hashes
from k8s.prepare.rendered import RenderedSet
from k8s.rules import all as rules
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
        The set ready to be sent, and everything that is wrong with it, sorted. The set may be sent only if nothing is wrong.

    Raises:
        UsageError: a place does not exist or holds no manifest, or the environment sets something that the manifests have not.
    """
    objects, unreadable = _read(places, env)
    rendered, findings = _judged(objects, env, locked)
    return rendered, tuple(sorted({*unreadable, *findings}))


def from_git(env: Environment, locked: Mapping[str, PinnedImage], live: served_model.Live) -> RenderedSet:
    """The set that this checkout says, ready to be sent, with the model that is to be served.

    The model is in the set before the rules judge it: what is judged is what is sent.

    Args:
        env: where it would go.
        locked: `lockfiles/images.lock`, by image name.
        live: asks the cluster for the model where the environment names none.

    Raises:
        PolicyError: something is wrong with the manifests, or an image cannot be pinned.
    """
    objects, unreadable = _read([paths.K8S / "manifests"], env)
    settled = served_model.settle(objects, env, live)
    rendered, findings = _judged(settled.objects, env, locked, settled.models)
    refuse(sorted({*unreadable, *findings}))
    waiting = (served_model.without_pods(one) if one.identity in settled.idle else one for one in rendered.objects)
    return replace(rendered, objects=tuple(waiting))


def _read(places: Sequence[Path], env: Environment) -> tuple[tuple[Manifest, ...], tuple[Finding, ...]]:
    """The manifests as the environment sets them, and what cannot be read."""
    objects, unreadable = manifests.load(places)
    objects = accelerator.adapt(settings.apply(objects, env.settings, env.file), env)
    return policy_ports.apply(registry_access.apply(objects, env.network), env.network), unreadable


def _judged(
    objects: Sequence[Manifest], env: Environment, locked: Mapping[str, PinnedImage], models: frozenset[str] = frozenset()
) -> tuple[RenderedSet, set[Finding]]:
    """Schema, pins, nodes and rules: the set as it would be sent, and everything that is wrong with it."""
    kinds = schema.schema(env.kubernetes)
    walks = [kinds.walk(manifest) for manifest in preflight.add(objects)]
    pinned, pins, unpinned = pin.pin(walks, env, {name: image.digest for name, image in locked.items()}, models)
    placed, placements, nowhere = gpu_nodes.place(pinned, pins, env, locked)
    misfits = [finding for walk in walks for finding in walk.findings]
    rendered = RenderedSet(with_config_hashes(preflight.placed(placed)), pins, placements)
    found = {*unpinned, *nowhere, *misfits, *rules.check(walks, env)}
    # What is wrong with a preflight's object is wrong with what it was made of, and said there.
    made = {walk.manifest.title for walk in walks if preflight.is_one(walk.manifest)}
    return rendered, {one for one in found if one.title not in made} or found


def refuse(findings: Sequence[Finding]) -> None:
    """Print the findings and refuse, if there are any.

    Raises:
        PolicyError: there are.
    """
    if not findings:
        return
    for finding in findings:
        console.warn(finding.text())
    files = sorted({finding.file for finding in findings})
    raise PolicyError(
        f"{len(findings)} finding{'s' if len(findings) > 1 else ''} in {len(files)} file{'s' if len(files) > 1 else ''}",
        where=", ".join(files[:3]) + (" …" if len(files) > 3 else ""),
        fix="nothing was sent; each line above says what to do",
    )


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
