"""Manifests read, set, pinned, placed and judged: a set that may be sent, or everything that is wrong with it."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from common import console, paths
from common.errors import LockError, PolicyError, UsageError
from k8s.envs import accepted
from k8s.envs.accepted import Sorted
from k8s.envs.environment import Environment
from k8s.objects import manifests, schema
from k8s.objects.findings import Finding, named
from k8s.objects.manifests import Manifest
from k8s.objects.schema import Schema, Walk
from k8s.prepare import (
    accelerator,
    admission,
    argo_texts,
    gpu_nodes,
    pin,
    policy_ports,
    preflight,
    registry_access,
    served_model,
    settings,
)
from k8s.prepare.argo_texts import Filled
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
    rendered, told = judge(places, env, locked)
    say(told, env)
    return rendered, told.refused


def judge(places: Sequence[Path], env: Environment, locked: Mapping[str, PinnedImage]) -> tuple[RenderedSet, Sorted]:
    """As `check`, and says nothing: with what the environment accepts."""
    objects, unreadable = _read(places, env)
    rendered, findings = _judged(objects, env, locked)
    return rendered, accepted.apply(sorted({*unreadable, *findings}), env.accepted, datetime.date.today())


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
    objects, unreadable = _read([_own()], env)
    settled = served_model.settle(objects, env, live)
    rendered, findings = _judged(settled.objects, env, locked, settled.models)
    told = accepted.apply(sorted({*unreadable, *findings}), env.accepted, datetime.date.today())
    say(told, env)
    refuse(told.refused)
    waiting = (served_model.without_pods(one) if one.identity in settled.idle else one for one in rendered.objects)
    return replace(rendered, objects=tuple(waiting))


def again(objects: Sequence[Manifest], env: Environment) -> tuple[Finding, ...]:
    """What is wrong by today's rules with a set that was sent before, sorted.

    Args:
        objects: the set as it was sent.
        env: the environment it is for.
    """
    written = [served_model.as_written(manifest) for manifest in objects]
    kinds = schema.of_set(env.kubernetes, written)
    rounds = _rounds([kinds.walk(manifest) for manifest in written], kinds, argo_texts.fill(written))
    misfits = [finding for walks in rounds for walk in walks for finding in walk.findings]
    # Of what was derived for a preflight the manifest that it was derived from speaks.
    derived = {manifest.title for manifest in written if preflight.is_one(manifest)}
    found = sorted(one for one in {*named("schema", misfits), *rules.check(rounds[0], env)} if one.title not in derived)
    return accepted.apply(found, env.accepted, datetime.date.today()).refused


def _own() -> Path:
    """The manifests that the environments are for."""
    return paths.K8S / "manifests"


def _read(places: Sequence[Path], env: Environment) -> tuple[tuple[Manifest, ...], tuple[Finding, ...]]:
    """The manifests as the environment sets them, and what cannot be read."""
    objects, damaged = manifests.load(places)
    if not objects and not damaged:
        raise UsageError("no object in these files", where=", ".join(map(str, places)), fix="name files that hold some")
    unreadable = tuple(named("manifest", damaged))
    objects = admission.known(objects, schema.schema(env.kubernetes))
    objects = accelerator.adapt(
        settings.apply(objects, env.settings, env.file, whole=_own() in map(Path.absolute, places)), env
    )
    return policy_ports.apply(registry_access.apply(objects, env.network), env.network), unreadable


def _judged(
    objects: Sequence[Manifest], env: Environment, locked: Mapping[str, PinnedImage], models: frozenset[str] = frozenset()
) -> tuple[RenderedSet, set[Finding]]:
    """Schema, pins, nodes and rules: the set as it would be sent, and everything that is wrong with it."""
    objects = preflight.add(objects)
    kinds = schema.of_set(env.kubernetes, objects)
    walks = [kinds.walk(manifest) for manifest in objects]
    pinned, pins, unpinned = pin.pin(walks, env, {name: image.digest for name, image in locked.items()}, models)
    placed, placements, nowhere = gpu_nodes.place(pinned, pins, env, locked)
    filled = argo_texts.fill(objects)
    rounds = _rounds(walks, kinds, filled)
    misfits = [finding for walks in rounds for walk in walks for finding in walk.findings]
    rendered = RenderedSet(admission.fill(with_config_hashes(preflight.placed(placed)), pins, env), pins, placements)
    found = {
        *named("image", (*unpinned, *filled.refused)),
        *named("gpu-node", nowhere),
        *named("schema", misfits),
        *rules.check(rounds[0], env),
    }
    # What is wrong with a preflight's object is wrong with what it was made of, and said there.
    made = {walk.manifest.title for walk in walks if preflight.is_one(walk.manifest)}
    found = {one for one in found if one.title not in made} or found
    return rendered, found | (set() if found else set(named("image", _left_open(rendered, env))))


def _rounds(walks: Sequence[Walk], kinds: Schema, filled: Filled) -> list[list[Walk]]:
    """The walks of what Argo will read: the rules see the first values, the schema all of them."""
    return [
        [walk if one is walk.manifest else kinds.walk(one) for walk, one in zip(walks, objects, strict=True)]
        for objects in filled.rounds
    ]


def say(told: Sorted, env: Environment) -> None:
    """Print what the environment accepts, each time, and the entries that accept nothing."""
    for finding, entry in told.accepted:
        console.warn(f"accepted until {entry.until} ({entry.reason}): {finding.line_with_rule()}")
    for entry in told.ended:
        console.warn(f"accepts nothing since {entry.until}: {entry.rule}, {entry.object}: mend it, or renew it in {env.file}")
    for entry in told.idle:
        console.warn(f"accepts what was not found: {entry.rule}, {entry.object}: remove it from {env.file}")


def _left_open(rendered: RenderedSet, env: Environment) -> set[Finding]:
    """Images that would not be pinned once Argo has filled its texts in."""
    found = set()
    for objects in argo_texts.fill(rendered.objects).rounds:
        changed = [one for one, before in zip(objects, rendered.objects, strict=True) if one is not before]
        titles = {one.identity: one for one in changed}
        for (identity, path), image in pin.images(changed, env.kubernetes).items():
            if "@sha256:" not in image:
                what = f"Argo would make {image} of it, which is not pinned"
                found.add(titles[identity].finding(path, what, "write the image itself by digest"))
    return found


def refuse(findings: Sequence[Finding]) -> None:
    """Print the findings and refuse, if there are any.

    Raises:
        PolicyError: there are.
    """
    if not findings:
        return
    for finding in findings:
        console.warn(finding.line_with_rule())
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
