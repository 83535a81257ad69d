"""The model that a cluster serves now, for a set whose environment names none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from k8s.envs.environment import ClusterTarget, Environment
from k8s.objects import strict_yaml
from k8s.objects.manifests import Identity, Manifest
from k8s.prepare import checked, served_model
from k8s.prepare.rendered import RenderedSet
from k8s.rollouts.kubectl import Kubectl, Patience, of_cluster
from lockfiles.images_lock import PinnedImage


def set_from_git(env: Environment, locked: Mapping[str, PinnedImage], patience: Patience) -> RenderedSet:
    """The set that this checkout says, ready to be sent, with the model that is to be served.

    Args:
        env: where it would go; its cluster is asked for the model where it names none.
        locked: `lockfiles/images.lock`, by image name.
        patience: how long to wait for the cluster.

    Raises:
        PolicyError: something is wrong with the manifests, or an image cannot be pinned, or the cluster is too old for the set.
        MissingEnvironmentError: no kubectl, no such context, no answer from the cluster.
    """

    def ask(target: ClusterTarget, readers: Sequence[Manifest]) -> dict[Identity, str]:
        kubectl = Kubectl(target, patience)
        kubectl.preflight(env.kubernetes)
        return served(kubectl, readers)

    return checked.from_git(env, locked, ask)


def served(kubectl: Kubectl, objects: Sequence[Manifest]) -> dict[Identity, str]:
    """The models that the cluster's own pod templates name.

    Args:
        kubectl: of the cluster.
        objects: of a set; those whose pods read their model from the annotation are asked for.

    Raises:
        PolicyError: the cluster does not let us look.
        MissingEnvironmentError: no answer from the cluster.
    """
    # No more than their names: what else is wrong with them the rules say.
    asked = [
        {
            "apiVersion": manifest.api_version,
            "kind": manifest.kind,
            "metadata": {"name": manifest.name, "namespace": manifest.namespace},
        }
        for manifest in objects
        if manifest.name and served_model.reads(manifest)
    ]
    return served_model.named_by(of_cluster(kubectl.live(strict_yaml.dump(asked)))) if asked else {}
