"""`invoke deploy`: check, pin, then render into a directory or apply to a cluster.

Which bytes may run is decided by `lockfiles/images.lock` alone for now: every image is pinned to the digest that was pushed and
read back. That the digest carries a signature and a passed smoke attestation is not asked here yet; a deploy does not claim it.
"""

from __future__ import annotations

from common import console, git, paths
from k8s import check, cluster, environment, findings, receipt, render
from k8s.environment import ClusterTarget, DirectoryTarget, Environment
from k8s.kubectl import Patience
from k8s.pin import Images, image_line, images
from k8s.receipt import DeployedImage, DeployReceipt
from k8s.render import RenderedSet


def deploy(env_name: str, *, dry_run: bool = False, patience: Patience | None = None) -> DeployReceipt:
    """Put the manifests of `k8s/manifests/` where the environment says, pinned to the digests that were pushed.

    Args:
        env_name: one of `k8s/envs/`.
        dry_run: say what would happen and change nothing.
        patience: how long to wait for a cluster; default: as long as a large model may take to load.

    Returns:
        What was done, as written to `dist/deploy/<env_name>.json` (a dry run writes nothing).

    Raises:
        UsageError: the environment is unknown or wrong, or its directory cannot be written.
        LockError: nothing was pushed yet, or the lock was edited.
        PolicyError: a manifest is wrong or an image cannot be pinned, or the cluster refuses the set; nothing was sent.
        MissingEnvironmentError: no kubectl, no such context, no answer from the cluster.
        DeployRolledBackError: the cluster failed on the way and runs the last good set again.
        DeployNotRolledBackError: the cluster failed on the way and does not run the last good set.
    """
    env = environment.load(env_name)
    root = paths.K8S / "manifests"
    rendered, found = check.check([root], env, check.locked_images(required=True))
    check.refuse(found)
    console.info(f"environment  {env.name}: {env.where}")
    console.info(f"checked      {len(rendered.objects)} objects against Kubernetes {env.kubernetes}")
    for placement in rendered.placements:
        console.info(placement.text())
    for name, other in env.substitute.items():
        console.warn(f"{name} is replaced by {other} ({env.file}): this set is to look at, not to apply")
    match env.target:
        case DirectoryTarget():
            result = _to_directory(rendered, env, env.target, dry_run=dry_run)
        case ClusterTarget():
            outcome = cluster.deploy(rendered, env, env.target, patience or Patience(), dry_run=dry_run)
            result = _receipt(rendered, env, "planned" if dry_run else "running", outcome.before, outcome.changed)
    if not dry_run:
        console.info(f"receipt      {paths.shown(receipt.write(result))}")
    return result


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
    return _receipt(rendered, env, "planned" if dry_run else "rendered", before, changed)


def _receipt(
    rendered: RenderedSet, env: Environment, result: str, before: Images, changed: tuple[tuple[str, str], ...]
) -> DeployReceipt:
    deployed = sorted(
        DeployedImage(
            pin.title, findings.shown(pin.path), str(pin.pinned), pin.written, before.get((pin.identity, pin.path), "")
        )
        for pin in rendered.pins
    )
    titles = tuple(one.title for one in rendered.objects)
    return DeployReceipt(env.name, env.where, result, git.revision(), tuple(deployed), titles, changed)
