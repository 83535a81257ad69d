"""`invoke drift`: what the cluster holds, what the record says was deployed, and what this checkout would deploy, side by side.

Two things are drift: a cluster that is not as the last release left it (somebody changed a field of ours, added one of theirs,
or removed an object), and a checkout that says something else than the last release. Nothing is changed: the server itself is
asked by a dry run what it would make of the record, so that a value it merely writes in another way is no difference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from common import console, paths
from common.errors import DriftError, PolicyError
from k8s.envs import environment
from k8s.envs.environment import ClusterTarget, DirectoryTarget, Environment
from k8s.envs.other_images import under
from k8s.objects import strict_yaml
from k8s.objects.manifests import Identity, Manifest
from k8s.prepare import checked, directory, gate
from k8s.prepare.pin import images
from k8s.prepare.rendered import Images, RenderedSet
from k8s.rollouts import diff, kubectl, lease, live_model, release, unexpected
from k8s.rollouts import recorded as recorded_sets
from k8s.rollouts.kubectl import FIELD_MANAGER, Kubectl, Patience, of_cluster
from oci.reference import short

# The control plane's own controllers keep fields in our objects; that is their work.
_CONTROLLERS = ("kube-", "service-controller", "cloud-controller-manager")
_FIX = "see the table; `invoke deploy` puts what git says there"


@dataclass(frozen=True, slots=True)
class Foreign:
    """A change in the cluster that no deploy made.

    Attributes:
        text: the field and its values, for people.
        owner: who made it, by the server's book.
    """

    text: str
    owner: str


def drift(env_name: str, *, patience: Patience | None = None) -> str:
    """Compare what is there with what was deployed and what would be, and print it.

    Args:
        env_name: one of `k8s/envs/`.
        patience: how long to wait for the cluster.

    Returns:
        The outcome in a few words, where there is no drift.

    Raises:
        DriftError: there is drift.
        PolicyError: the manifests of this checkout are wrong, or the cluster refuses a question.
        UsageError: the environment is unknown or wrong, or something else than a rendered set lies in its directory.
        LockError: nothing was pushed yet, or the lock was edited.
        MissingEnvironmentError: no kubectl, no such context, no answer from the cluster.
    """
    env = environment.load(env_name)
    rendered = live_model.set_from_git(env, checked.locked_images(required=True), patience or Patience())
    console.info(f"environment  {env.name}: {env.where}")
    match env.target:
        case DirectoryTarget():
            return _directory(rendered, env, env.target)
        case ClusterTarget():
            return _cluster(rendered, env, env.target, patience or Patience())


def _directory(rendered: RenderedSet, env: Environment, target: DirectoryTarget) -> str:
    there, rendered_files = directory.current(target.path), directory.files(rendered, paths.K8S / "manifests", env)
    # What a deploy would create is missing there, and so on.
    words = {"created": ("missing", "there"), "removed": ("there", "not in it"), "changed": ("differs", "differs")}
    differing = directory.changes(there, rendered_files)
    if differing:
        console.table(("file", "directory", "git"), [(name, *words[what]) for name, what in differing])
        raise DriftError(f"drift: {len(differing)} of {len({*there, *rendered_files})} files", where=env.where, fix=_FIX)
    return f"no drift: {len(rendered_files)} files are as git says"


def _cluster(rendered: RenderedSet, env: Environment, target: ClusterTarget, patience: Patience) -> str:
    asked = Kubectl(target, patience)
    asked.preflight(env.kubernetes)
    namespace = release.home(target, rendered.objects)
    history = release.read(asked, env, namespace)
    if busy := lease.holder(asked, env.name, namespace):
        console.warn(f"a deploy is running, what follows may be half of it: {busy}")
    if half := history.unfinished:
        console.warn(f"{half.text()} is {half.state}: the cluster may hold parts of it")
    good = history.good
    if good is None:
        fix = "run `invoke deploy`"
        raise DriftError(f"drift: no release of {env.name} ran yet", where=f"ConfigMap {namespace}/{release.NAME}", fix=fix)
    console.info(f"record       {good.text()}")
    if good.excuse:
        console.warn(f"{good.text()} runs {good.excuse.text()}")
    recorded = recorded_sets.read_set(history, good, env)
    everything = {manifest.identity: manifest for manifest in (*recorded.objects, *rendered.objects)}
    text = strict_yaml.dump(manifest.body for manifest in everything.values())
    live = {manifest.identity: manifest for manifest in of_cluster(asked.live(text, owners=True))}
    foreign = _foreign(asked, recorded, live)
    ours, git = ({manifest.identity: manifest for manifest in objects} for objects in (recorded.objects, rendered.objects))
    rows: list[tuple[str, ...]] = []
    drifted = 0
    for identity, manifest in sorted(everything.items(), key=lambda item: item[1].title):
        changes = foreign.get(identity, [])
        row = _cells(ours.get(identity), git.get(identity), live.get(identity), len(changes))
        if row != ("as recorded", "yes", "same"):
            drifted += 1
        rows.append((manifest.title, *row, ", ".join(sorted({change.owner for change in changes}))))
    rows += _image_rows(env, list(live.values()), recorded, rendered, everything)
    console.table(("object or image", "cluster", "record", "git", "changed by"), rows)
    excused = good.excuse is not None and not good.excuse.over
    wrong = _really_runs(asked, recorded, list(live.values()), env, excused=excused)
    for identity, changes in sorted(foreign.items(), key=lambda item: everything[item[0]].title):
        for change in changes:
            console.warn(f"{everything[identity].title}: {change.text}, by {change.owner}")
    parts = [f"{drifted} of {len(everything)} objects"] if drifted else []
    parts += wrong[:3]
    if good.excuse and good.excuse.over:
        parts.append(f"release {good.number} still runs {good.excuse.text()}")
    if parts:
        fix = f"{_FIX}, `invoke rollback` what ran before; without proof: prove its images and deploy them"
        raise DriftError(f"drift: {'; '.join(parts)}", where=env.where, fix=fix)
    return f"no drift: {len(everything)} objects are as release {good.number} left them and as git says"


def _really_runs(
    asked: Kubectl, recorded: RenderedSet, live: Sequence[Manifest], env: Environment, *, excused: bool
) -> tuple[str, ...]:
    """What the pods run and the record has not, and images that run without the proof that is asked for today."""
    found = unexpected.look(asked, recorded, live, env)
    for space in found.unseen:
        console.warn(f"not checked: what the pods in {space} really run; let your account `list` pods there")
    for line in found.beside:
        console.warn(line)
    for line in found.wrong:
        console.warn(line)
    own = {pin.pinned for pin in recorded.pins if str(pin.pinned) in found.images and under(pin.pinned, env.registry)}
    try:
        gate.check(own, env, excused=excused)
    except PolicyError as problem:
        return (*found.wrong, problem.what)
    return found.wrong


def _cells(recorded: Manifest | None, in_git: Manifest | None, live: Manifest | None, changes: int) -> tuple[str, str, str]:
    """What cluster, record and git say of an object."""
    there = f"{changes} changed" if changes else "as recorded" if recorded else "there"
    says = "not in it" if in_git is None else "same" if recorded and recorded.body == in_git.body else "differs"
    return there if live else "missing", "yes" if recorded else "not in it", says


def _image_rows(
    env: Environment,
    live: Sequence[Manifest],
    recorded: RenderedSet,
    rendered: RenderedSet,
    titles: Mapping[Identity, Manifest],
) -> list[tuple[str, ...]]:
    columns: list[Images] = [images(live, env.kubernetes), recorded.images(), rendered.images()]
    rows = []
    for place in sorted({*columns[1], *columns[2], *columns[0]}, key=str):
        cells = [column.get(place, "") for column in columns]
        name = next(cell for cell in cells if cell).partition("@")[0].rsplit("/", 1)[-1]
        rows.append((f"  image {name} of {titles[place[0]].title}", *(_digest(cell) for cell in cells), ""))
    return rows


def _digest(reference: str) -> str:
    _, _, digest = reference.partition("@")
    return short(digest) if digest else reference or "none"


def _foreign(asked: Kubectl, recorded: RenderedSet, live: Mapping[Identity, Manifest]) -> dict[Identity, list[Foreign]]:
    """What is not as the release left it, by object."""
    there = [manifest for manifest in recorded.objects if manifest.identity in live]
    if not there:
        return {}
    answer = asked.dry_run(strict_yaml.dump(manifest.body for manifest in there), force=True)
    if answer.code:
        fix = "let your account `patch` these objects (nothing is kept of a dry run)"
        raise kubectl.refusal(answer, "the cluster does not say what it would make of the record", fix)
    foreign: dict[Identity, list[Foreign]] = {}
    for would in of_cluster(kubectl.listed(answer.stdout)):
        now = live[would.identity].body
        hidden = would.kind == "Secret"
        changes = []
        for difference in diff.between(now, would.body):
            owners = [owner for owner in diff.owners(now, difference.path) if owner.manager != FIELD_MANAGER]
            # A value gone from the cluster has no owner there any more.
            owner = ", ".join(map(str, owners)) or "somebody who removed it"
            shown = "(hidden)" if hidden else f"{diff.brief(difference.before)} instead of {diff.brief(difference.after)}"
            changes.append(Foreign(f"{difference.shown} is {shown}", owner))
        changes += _added(now, would.body)
        if changes:
            foreign[would.identity] = changes
    return foreign


def _added(now: Mapping[str, Any], would: Mapping[str, Any]) -> list[Foreign]:
    """Fields that others put into an object of ours where the record says nothing.

    Args:
        now: the live object.
        would: what it would be if every field of the record were ours again.
    """
    ours = set()
    for entry in would.get("metadata", {}).get("managedFields", ()):
        if entry.get("manager") == FIELD_MANAGER:
            ours |= set(diff.fields(entry))
    result = []
    for entry in now.get("metadata", {}).get("managedFields", ()):
        manager = str(entry.get("manager", ""))
        # A subresource is the status, or the scale that an autoscaler sets.
        if manager == FIELD_MANAGER or entry.get("subresource") or manager.startswith(_CONTROLLERS):
            continue
        owner = str(diff.Owner(manager, str(entry.get("time", ""))))
        for path in diff.fields(entry):
            # What we own too was compared by value already, and so was what lies in a list or map that is ours as a whole.
            if path and path[0] != "status" and not any(path[: len(mine)] == mine for mine in ours):
                result.append(Foreign(f"{'.'.join(map(str, path))} was added", owner))
    return result
