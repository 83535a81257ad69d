"""`invoke deploy`: check, pin, then render into a directory or apply to a cluster.

Which bytes may run is decided twice: every image is pinned to the digest in `lockfiles/images.lock`, which was pushed and read
back; and that digest must carry the proof that the environment asks for, signed by its key. So must the model that is served.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from common import console, git, paths
from k8s import check
from k8s.envs import environment
from k8s.envs.environment import ClusterTarget, DirectoryTarget, Environment
from k8s.objects import findings
from k8s.prepare import gate, served_model
from k8s.prepare import rendered as render
from k8s.prepare.pin import Images, image_line, images
from k8s.prepare.rendered import RenderedSet
from k8s.rollouts import apply, receipt
from k8s.rollouts.apply import Order, Origin, Outcome
from k8s.rollouts.kubectl import Patience
from k8s.rollouts.receipt import DeployedImage, DeployReceipt
from k8s.rollouts.release import Release
from lockfiles.images_lock import PinnedImage


def deploy(
    env_name: str,
    *,
    dry_run: bool = False,
    yes: bool = False,
    wait: bool = False,
    prune: bool = False,
    patience: Patience | None = None,
) -> DeployReceipt:
    """Put the manifests of `k8s/manifests/` where the environment says, pinned to the digests that were pushed.

    Args:
        env_name: one of `k8s/envs/`.
        dry_run: say what would happen and change nothing.
        yes: the plan for a cluster is agreed to beforehand; otherwise it is asked for on the terminal.
        wait: for another deploy to the same cluster to end, instead of being refused.
        prune: delete what earlier releases left in the cluster and the set no longer has.
        patience: how long to wait for a cluster; default: as long as a large model may take to load.

    Returns:
        What was done, as written to `dist/deploy/<env_name>.json` (a dry run writes nothing).

    Raises:
        UsageError: the environment is unknown or wrong, its directory cannot be written, or the plan was not agreed to.
        LockError: nothing was pushed yet, or the lock was edited.
        PolicyError: a manifest is wrong, an image cannot be pinned or lacks proof, the model lacks its signature, or the
            cluster refuses the set; nothing was sent.
        RegistryError: the proof cannot be read.
        MissingEnvironmentError: no kubectl, no such context, no answer from the cluster.
        DeployRolledBackError: the cluster failed on the way and runs the last good set again.
        DeployNotRolledBackError: the cluster failed on the way and does not run the last good set.
    """
    env = environment.load(env_name)
    locked = check.locked_images(required=True)
    console.info(f"environment  {env.name}: {env.where}")
    rendered = from_git(env, locked, patience)
    console.info(f"checked      {len(rendered.objects)} objects against Kubernetes {env.kubernetes}")
    for placement in rendered.placements:
        console.info(placement.text())
    for name, other in env.substitute.items():
        console.warn(f"{name} is replaced by {other} ({env.file}): this set is to look at, not to apply")
    # Others' images, which a manifest names by digest, carry no proof of ours.
    ours = {image.digest for image in locked.values()}
    proof = gate.check((pin.pinned for pin in rendered.pins if pin.pinned.digest in ours), env) + gate.check_model(env)
    match env.target:
        case DirectoryTarget():
            result = _to_directory(rendered, env, env.target, dry_run=dry_run)
        case ClusterTarget():
            order, origin = Order(dry_run, yes, wait, prune), Origin(git.revision(), proof)
            outcome = apply.deploy(rendered, env, env.target, patience or Patience(), order, origin)
            result = of_cluster(rendered, env, outcome)
    if not dry_run:
        console.info(f"receipt      {paths.shown(receipt.write(result))}")
    return result


def from_git(env: Environment, locked: Mapping[str, PinnedImage], patience: Patience | None = None) -> RenderedSet:
    """The set that this checkout says, ready to be sent, with the model that is to be served.

    Args:
        env: where it would go.
        locked: `lockfiles/images.lock`, by image name.
        patience: how long to wait for a cluster, which is asked for the model where the environment names none.

    Raises:
        PolicyError: something is wrong with the manifests, or an image cannot be pinned.
        MissingEnvironmentError: no kubectl, no such context, no answer from the cluster.
    """
    rendered, found = check.check([paths.K8S / "manifests"], env, locked)
    check.refuse(found)
    settled = served_model.settle(rendered, env, patience or Patience())
    left_out = {one.identity for one in rendered.objects} - {one.identity for one in settled.objects}
    return dataclasses.replace(settled, left_out=frozenset(left_out))


def of_cluster(rendered: RenderedSet, env: Environment, outcome: Outcome) -> DeployReceipt:
    """The receipt of a set that was sent to a cluster, or that a dry run planned."""
    result = "running" if outcome.release else "planned"
    source = outcome.release.source if outcome.release else git.revision()
    return _receipt(rendered, env, result, outcome.before, outcome.changed, source, outcome.release)


def _to_directory(rendered: RenderedSet, env: Environment, target: DirectoryTarget, *, dry_run: bool) -> DeployReceipt:
    content = render.files(rendered, paths.K8S / "manifests", env)
    previous = render.current(target.path)
    before = images(render.objects_in(previous), env.kubernetes)
    changed = tuple(render.changes(previous, content))
    for name, what in changed:
        console.info(f"{what:<12} {name}")
    if not changed:
        console.info("unchanged    every file is as it was")
    for pin in rendered.pins:
        console.info(image_line(pin, before.get((pin.identity, pin.path), "")))
    if dry_run:
        console.done(f"dry run: {paths.shown(target.path)} was left as it is")
    else:
        if changed:
            render.write(target.path, content)
        console.done(f"rendered     {len(content)} files in {paths.shown(target.path)}")
    return _receipt(rendered, env, "planned" if dry_run else "rendered", before, changed, git.revision(), None)


def _receipt(
    rendered: RenderedSet,
    env: Environment,
    result: str,
    before: Images,
    changed: tuple[tuple[str, str], ...],
    source: str,
    made: Release | None,
) -> DeployReceipt:
    deployed = sorted(
        DeployedImage(
            pin.title, findings.shown(pin.path), str(pin.pinned), pin.written, before.get((pin.identity, pin.path), "")
        )
        for pin in rendered.pins
    )
    titles = tuple(one.title for one in rendered.objects)
    return DeployReceipt(env.name, env.where, result, source, tuple(deployed), titles, changed, made)
