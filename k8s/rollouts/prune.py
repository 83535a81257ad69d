"""What earlier releases left in the cluster and this set no longer has: listed always, deleted only when it is asked for.

Ours is what the release record has, what carries our label, and what the server's own book says our field manager applied; all
three. What holds data or other objects (claims, Namespaces, CustomResourceDefinitions, Secrets) is named and left: deleting one
of them deletes what nobody can put back. A ConfigMap that a live pod or a workflow which has not ended uses is left too, until
it is used no more: pods of a run mount what the release had with which the run began.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from common import console
from common.errors import PinwheelError
from k8s.objects import strict_yaml
from k8s.objects.manifests import Identity, Manifest
from k8s.prepare.rendered import RenderedSet
from k8s.rollouts import recorded, release
from k8s.rollouts.in_use import InUse
from k8s.rollouts.kubectl import FIELD_MANAGER, Kubectl, brief, of_cluster
from k8s.rollouts.release import History

_NEVER = {
    "PersistentVolumeClaim": "holds data",
    "PersistentVolume": "holds data",
    "Namespace": "holds whatever is in it",
    "CustomResourceDefinition": "takes all its objects with it",
    "Secret": "is nowhere else",
}
_LABEL = "app.kubernetes.io/part-of"


@dataclass(frozen=True, slots=True)
class Leftovers:
    """What earlier releases left.

    Attributes:
        prunable: may be deleted, sorted by title.
        kept: stays whatever is asked, and why.
    """

    prunable: tuple[Manifest, ...] = ()
    kept: tuple[tuple[Manifest, str], ...] = ()

    def show(self, *, asked: bool) -> None:
        """Print them.

        Args:
            asked: whether they are to be deleted.
        """
        kept = ", ".join(f"{one.title} ({why})" for one, why in self.kept)
        if asked:
            for one in self.prunable:
                console.info(f"delete       {one.title}: not in this set")
            if kept:
                console.info(f"left         {kept}: not in this set, not deleted here")
            return
        titles = ", ".join(one.title for one in self.prunable)
        parts = [f"{titles}; --prune deletes that" if titles else "", f"{kept}; not deleted here" if kept else ""]
        if any(parts):
            console.info(f"left         of earlier releases, not in this set: {'; '.join(part for part in parts if part)}")


def leftovers(kubectl: Kubectl, rendered: RenderedSet, history: History) -> Leftovers:
    """Objects of recorded sets that are still there and not in this set. Changes nothing.

    Args:
        kubectl: of the cluster.
        rendered: this set; what it leaves out only because no model is named is none.
        history: the release record.
    """
    ours = {one.identity for one in rendered.objects}
    old: dict[Identity, Manifest] = {}
    try:
        for text in history.sets.values():
            for manifest in recorded.objects_in(text, f"ConfigMap {history.namespace}/{release.NAME}"):
                if manifest.identity not in ours:
                    old[manifest.identity] = manifest
        if not old:
            return Leftovers()
        bodies = kubectl.live(strict_yaml.dump(one.body for one in old.values()), owners=True)
    except PinwheelError as problem:  # An edited record, or a kind that the cluster no longer has: nothing that this set needs.
        console.warn(f"what earlier releases left there cannot be told: {problem.line()}")
        return Leftovers()
    found = sorted(of_cluster(bodies), key=lambda one: one.title)
    # An object that is on its way out already needs nobody.
    found = [one for one in found if not one.metadata.get("deletionTimestamp")]
    in_use = InUse(kubectl, before_rollout=True)
    reasons = {manifest.identity: _kept(manifest) or in_use.why(manifest) for manifest in found}
    kept = tuple((manifest, why) for manifest in found if (why := reasons[manifest.identity]))
    return Leftovers(tuple(manifest for manifest in found if not reasons[manifest.identity]), kept)


def _kept(manifest: Manifest) -> str:
    if why := _NEVER.get(manifest.kind):
        return why
    managers = {entry.get("manager") for entry in manifest.metadata.get("managedFields") or ()}
    if FIELD_MANAGER not in managers or (manifest.metadata.get("labels") or {}).get(_LABEL) != "pinwheel":
        return "is no longer ours"
    return ""


def delete(kubectl: Kubectl, objects: Sequence[Manifest], lost: Callable[[], str]) -> tuple[tuple[str, ...], str]:
    """Delete objects, one after the other, and see that they are gone.

    Args:
        kubectl: of the cluster.
        objects: of `Leftovers.prunable`.
        lost: says why somebody else writes now; empty while nobody does.

    Returns:
        The titles of those that are gone, and why the next one is not; empty where all are gone or still used.
    """
    gone: list[str] = []
    # Asked again: the plan counted on the rollout to end the pods of before.
    in_use = InUse(kubectl, before_rollout=False)
    try:
        for manifest in objects:
            if use := in_use.why(manifest):
                console.info(f"left         {manifest.title}: {use}; a later deploy with --prune deletes it")
                continue
            if why := lost() or _deleted(kubectl, manifest):
                return tuple(gone), f"{manifest.title}: {why}"
            gone.append(manifest.title)
            console.done(f"deleted      {manifest.title}")
    except KeyboardInterrupt:
        return tuple(gone), "interrupted from the keyboard"
    except PinwheelError as problem:
        return tuple(gone), problem.line()
    return tuple(gone), ""


def _deleted(kubectl: Kubectl, manifest: Manifest) -> str:
    """Delete one object; why it is still there, or nothing."""
    text = strict_yaml.dump([{"apiVersion": manifest.api_version, "kind": manifest.kind, "metadata": _place(manifest)}])
    answer = kubectl.delete(text)
    if answer.code:
        return brief(answer)
    deadline = time.monotonic() + kubectl.patience.settle
    while kubectl.live(text):
        if time.monotonic() > deadline:
            return "it is still there, a finalizer may hold it"
        time.sleep(kubectl.patience.pause)
    return ""


def _place(manifest: Manifest) -> dict[str, str]:
    return {"name": manifest.name, **({"namespace": manifest.namespace} if manifest.namespace else {})}
