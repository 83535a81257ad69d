"""`invoke deploy`: check, pin, then render into a directory or apply to a cluster.

Which bytes may run is decided twice: every image is pinned to the digest in `lockfiles/images.lock`, which was pushed and read
back; and that digest must carry the proof that the environment asks for, signed by its key. So must the model that is served.
"""

from __future__ import annotations

import datetime

from common import console, git, paths
from common.errors import PolicyError, UsageError
from k8s.envs import environment
from k8s.envs.environment import ClusterTarget, DirectoryTarget, Environment
from k8s.prepare import admission, checked, directory, gate
from k8s.prepare.pin import images
from k8s.prepare.rendered import RenderedSet, image_lines
from k8s.rollouts import apply, circumstances, live_model, receipt
from k8s.rollouts.apply import Order, Origin
from k8s.rollouts.circumstances import Excuse
from k8s.rollouts.kubectl import Patience
from k8s.rollouts.receipt import DeployReceipt


def deploy(
    env_name: str,
    *,
    dry_run: bool = False,
    yes: bool = False,
    wait: bool = False,
    prune: bool = False,
    without_proof: str = "",
    patience: Patience | None = None,
) -> DeployReceipt:
    """Put the manifests of `k8s/manifests/` where the environment says, pinned to the digests that were pushed.

    Args:
        env_name: one of `k8s/envs/`.
        dry_run: say what would happen and change nothing.
        yes: the plan for a cluster is agreed to beforehand; otherwise it is asked for on the terminal.
        wait: for another deploy to the same cluster to end, instead of being refused.
        prune: delete what earlier releases left in the cluster and the set no longer has.
        without_proof: why images may go that lack the proof which is asked for; empty: they may not.
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
        DeployNotRecordedError: the set runs, but its record could not be written, or what it left could not be deleted.
        DeployRolledBackError: the cluster failed on the way and runs the last good set again.
        DeployNotRolledBackError: the cluster failed on the way and does not run the last good set.
    """
    env = environment.load(env_name)
    excuse = _excuse(env, without_proof) if without_proof else None
    locked = checked.locked_images(required=True)
    console.info(f"environment  {env.name}: {env.where}")
    rendered = live_model.set_from_git(env, locked, patience or Patience())
    console.info(f"checked      {len(rendered.objects)} objects against Kubernetes {env.kubernetes}")
    for placement in rendered.placements:
        console.info(placement.text())
    if not env.gpu:
        console.info(f"accelerator  none ({env.file}): served by {env.image_for('llama-factory-api')}, trained on the CPU")
    proof = gate.check((pin.pinned for pin in rendered.pins), env, whole=True, excused=excuse is not None)
    if excuse and not any(text.startswith(gate.LACKING) for _, text in proof):
        console.info("proof        every image carries it: nothing is excused")
        excuse = None
    if excuse:
        console.warn(f"{excuse.text()} ({circumstances.who()})")
    proof += gate.check_model(env)
    admission.tell(rendered.objects, env)
    match env.target:
        case DirectoryTarget():
            result = _to_directory(rendered, env, env.target, dry_run=dry_run)
        case ClusterTarget():
            order, origin = Order(dry_run, yes, wait, prune), Origin(git.revision(), proof, excuse=excuse)
            outcome = apply.deploy(rendered, env, env.target, patience or Patience(), order, origin)
            result = receipt.of_set(rendered, env, outcome.result, outcome.before, outcome.changed, outcome.release)
    if not dry_run:
        console.info(f"receipt      {paths.shown(receipt.write(result))}")
    return result


def _excuse(env: Environment, reason: str) -> Excuse:
    """The excuse for a deploy without proof.

    Raises:
        UsageError: it makes no sense here.
        PolicyError: the environment does not allow it, or not to this person.
    """
    allowed = env.without_proof
    reason = " ".join(reason.split())
    if not reason or not reason.isprintable():
        raise UsageError("--without-proof takes the reason, in a few words", fix="say why it cannot wait; the record keeps it")
    if isinstance(env.target, DirectoryTarget) or env.proof is None:
        why = "asks for no proof" if env.proof is None else "is rendered into a directory, which keeps no record"
        raise UsageError(f"{env.name} {why}", where=env.file, fix="leave --without-proof out")
    if allowed is None:
        fix = "write `without-proof: {people: [NAME], hours: 24}` there, and have it reviewed"
        raise PolicyError(f"nobody may deploy to {env.name} without proof", where=env.file, fix=fix)
    who = circumstances.who()
    if allowed.people and not allowed.people & set(who.split(", ")):
        raise PolicyError(
            f"{who} may not deploy to {env.name} without proof", where=env.file, fix="ask one of `without-proof.people`"
        )
    end = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=allowed.hours)
    return Excuse(reason, end.strftime(circumstances.TIME))


def _to_directory(rendered: RenderedSet, env: Environment, target: DirectoryTarget, *, dry_run: bool) -> DeployReceipt:
    content = directory.files(rendered, paths.K8S / "manifests", env)
    previous = directory.current(target.path)
    before = images(directory.objects_in(previous), env.kubernetes)
    changed = tuple(directory.changes(previous, content))
    for name, what in changed:
        console.info(f"{what:<12} {name}")
    if not changed:
        console.info("unchanged    every file is as it was")
    for line in image_lines(rendered.pins, before):
        console.info(line)
    if dry_run:
        console.done(f"dry run: {paths.shown(target.path)} was left as it is")
    else:
        if changed:
            directory.write(target.path, content)
        console.done(f"rendered     {len(content)} files in {paths.shown(target.path)}")
    return receipt.of_set(rendered, env, "planned" if dry_run else "rendered", before, changed)
