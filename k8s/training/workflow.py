"""The two objects of a run: the ConfigMap that its pods read and the Workflow that starts them, checked like every manifest."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import paths
from common.errors import PolicyError
from k8s.envs.environment import Environment
from k8s.objects import schema, strict_yaml
from k8s.objects.findings import Finding
from k8s.objects.findings import Path as FieldPath
from k8s.objects.lookup import by_place
from k8s.objects.manifests import Manifest
from k8s.prepare import checked as checked_sets
from k8s.prepare.rendered import RenderedSet
from k8s.rollouts.kubectl import CONFIG_MAP_ROOM
from k8s.rules import objects as rules_object
from k8s.training import lengths
from k8s.training.names import NAMESPACE, TEMPLATE
from k8s.training.runs import Run
from lockfiles.images_lock import PinnedImage
from oci.reference import ImageRef

TRAIN_IMAGE, API_IMAGE = "llama-factory-train", "llama-factory-api"


@dataclass(frozen=True, slots=True)
class Objects:
    """What is sent, and what has to be in the cluster before it.

    Attributes:
        config: the run's ConfigMap.
        workflow: the Workflow.
        template: the WorkflowTemplate that the run uses, as this checkout would deploy it.
        images: every image in that template, by the path in it.
        serves: the tokens that the set serves with; None where the model is not to be served, or the set does not say it.
    """

    config: Mapping[str, Any]
    workflow: Mapping[str, Any]
    template: Manifest
    images: Mapping[FieldPath, str]
    serves: int | None

    def files(self) -> dict[str, Mapping[str, Any]]:
        """The objects by the name of their file."""
        return {"configmap.yaml": self.config, "workflow.yaml": self.workflow}


def pinned(name: str, env: Environment, locked: Mapping[str, PinnedImage]) -> ImageRef:
    """An image of ours in the environment's registry, by digest.

    Raises:
        PolicyError: nothing of this name was pushed.
    """
    name = env.image_for(name)
    if name not in locked:
        known = ", ".join(sorted(locked)) or "nothing"
        fix = f"`invoke push` it; the lock holds {known}"
        raise PolicyError(f"no digest is known for {name}", where="lockfiles/images.lock", fix=fix)
    return ImageRef.parse(f"{env.registry}/{name}").pin(locked[name].digest)


def of_run(run: Run, *, deploy: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """The ConfigMap and the Workflow of a run.

    Args:
        run: the run.
        deploy: whether the last step serves the model.
    """
    labels = {
        "app.kubernetes.io/name": TEMPLATE,
        "app.kubernetes.io/component": "training",
        "app.kubernetes.io/part-of": "pinwheel",
        "app.kubernetes.io/managed-by": "pinwheel",
        "pinwheel.io/version": run.version,
    }
    annotations = {"pinwheel.io/experiment": run.experiment, "pinwheel.io/source": run.source}

    def meta(name: str) -> dict[str, Any]:
        return {"name": name, "namespace": NAMESPACE, "labels": dict(labels), "annotations": dict(annotations)}

    config = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": meta(f"experiment-{run.version}"),
        "data": run.files(),
    }
    values = {"version": run.version, "deploy": "true" if deploy else "false", "gpus": str(run.gpus)}
    parameters = [{"name": name, "value": value} for name, value in values.items()]
    workflow = {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Workflow",
        # A name of its own, not `generateName`: one content, one workflow, however often it is submitted.
        "metadata": meta(run.version),
        "spec": {"workflowTemplateRef": {"name": TEMPLATE}, "arguments": {"parameters": parameters}},
    }
    return config, workflow


def checked(run: Run, env: Environment, locked: Mapping[str, PinnedImage], *, deploy: bool) -> Objects:
    """The objects of a run, checked together with the set that they run in.

    Raises:
        PolicyError: they do not fit, this checkout's own manifests are wrong, or there is no WorkflowTemplate among them.
    """
    config, workflow = of_run(run, deploy=deploy)
    size = len(strict_yaml.dump([config]).encode())
    if size > CONFIG_MAP_ROOM:
        fix = f"a ConfigMap takes {CONFIG_MAP_ROOM}: shorten the experiment, or pin fewer files of the base model"
        raise PolicyError(f"the run's ConfigMap would have {size} bytes", where=run.experiment, fix=fix)
    with tempfile.TemporaryDirectory(prefix="pinwheel-") as folder:
        file = Path(folder) / f"{run.version}.yaml"
        file.write_text(strict_yaml.dump([workflow]))
        rendered, findings = checked_sets.check([paths.K8S / "manifests", file], env, locked)
    checked_sets.refuse(sorted({*findings, *_fits(config, env)}))
    template = _template(rendered)
    images = {path: image for (identity, path), image in rendered.images().items() if identity == template.identity}
    return Objects(config, workflow, template, images, lengths.served(rendered.objects) if deploy else None)


def _fits(config: dict[str, Any], env: Environment) -> tuple[Finding, ...]:
    """What is wrong with the ConfigMap itself. It names images, as a record and not to run them, so it is pinned by nobody."""
    walk = schema.schema(env.kubernetes).walk(Manifest("the run's ConfigMap", config, {}))
    return (*walk.findings, *rules_object.check([walk]))


def _template(rendered: RenderedSet) -> Manifest:
    if template := by_place(rendered.objects).get(("WorkflowTemplate", NAMESPACE, TEMPLATE)):
        return template
    what = f"there is no WorkflowTemplate {NAMESPACE}/{TEMPLATE} to run in"
    raise PolicyError(what, where="k8s/manifests/training", fix="restore it from git")
