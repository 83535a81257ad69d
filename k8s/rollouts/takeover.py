"""Taking the served model's annotation back from the pipeline, where a set of the release record goes in again.

A recorded set names the model of its time, and what the pipeline promoted since belongs to the pipeline's field manager: an
apply of ours would be refused for it, at a put-back in the worst moment there is. So this one field is set by force, in the
pipeline's own name and in an apply that holds nothing else; the set's apply shares it then, and the pipeline lets go of it.

Forcing the set itself would take whatever else somebody owns by then, and an apply of the annotation alone as `pinwheel` would
give up every other field of ours (Kubernetes, Server-Side Apply: a field left out of an apply is no longer owned).
"""

from __future__ import annotations

from collections.abc import Sequence

from common import console
from common.errors import PinwheelError
from common.run import Result
from k8s.objects import manifests, pods, strict_yaml
from k8s.objects.findings import Path
from k8s.objects.manifests import Manifest
from k8s.pipeline.model_annotation import ANNOTATION
from k8s.pipeline.model_annotation import MANAGER as PIPELINE
from k8s.prepare import served_model
from k8s.rollouts import diff
from k8s.rollouts.kubectl import FIELD_MANAGER, Kubectl, brief, of_cluster


def take(kubectl: Kubectl, objects: Sequence[Manifest]) -> tuple[Manifest, ...]:
    """Set the model that a recorded set names wherever the pipeline has set another since.

    What cannot be taken is left to the apply of the set, which says who owns it.

    Args:
        kubectl: of the cluster.
        objects: of the set.

    Returns:
        Those in which it was taken, for `let_go`.
    """
    ours = {manifest.identity: manifest for manifest in objects if served_model.named_in(manifest)}
    if not ours:
        return ()
    try:
        live = of_cluster(kubectl.live(strict_yaml.dump(manifest.body for manifest in ours.values()), owners=True))
    except PinwheelError:
        return ()
    taken = []
    for there in live:
        recorded, served = served_model.named_in(ours[there.identity]), served_model.named_in(there)
        path = _path(there)
        managers = {owner.manager for owner in diff.owners(there.body, path)}
        if recorded == served or PIPELINE not in managers or managers - {PIPELINE, FIELD_MANAGER}:
            continue
        answer = _apply(kubectl, manifests.with_value(_bare(there), path, recorded), "--force-conflicts")
        if answer.code:
            console.warn(f"the model of {there.title} cannot be taken back from the pipeline: {brief(answer)}")
            continue
        console.info(f"model        {there.title}: {served} → {recorded}, as the release record has it")
        taken.append(there)
    return tuple(taken)


def let_go(kubectl: Kubectl, taken: Sequence[Manifest]) -> None:
    """Have the pipeline let go of what was taken; the set's own apply holds it by now.

    Args:
        kubectl: of the cluster.
        taken: by `take`.
    """
    for manifest in taken:
        answer = _apply(kubectl, _bare(manifest))
        if answer.code:
            # What runs is right; the next deploy that names another model would be told of the pipeline's claim.
            console.warn(f"{PIPELINE} still owns the model of {manifest.title}: {brief(answer)}")


def _path(manifest: Manifest) -> Path:
    """Where the annotation stands."""
    return (*next(iter(pods.templates(manifest))).path, "metadata", "annotations", ANNOTATION)


def _bare(manifest: Manifest) -> Manifest:
    place = {"name": manifest.name, "namespace": manifest.namespace}
    return Manifest(manifest.file, {"apiVersion": manifest.api_version, "kind": manifest.kind, "metadata": place}, {})


def _apply(kubectl: Kubectl, manifest: Manifest, *extra: str) -> Result:
    head = ["apply", "--server-side", f"--field-manager={PIPELINE}", *extra]
    return kubectl.request([*head, "-f", "-"], stdin=strict_yaml.dump([manifest.body]))
