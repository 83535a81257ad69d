"""`invoke runs`: what training runs left in a cluster, and deleting what is old and not served.

A run leaves its Workflow, which Argo deletes after its time to live, and its ConfigMap `experiment-<version>`, which nobody
deletes. Its folder on the volume is seen by pods alone, and stays.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from common import console
from common.errors import PinwheelError, UsageError
from k8s.envs import environment
from k8s.envs.environment import ClusterTarget, Environment
from k8s.objects import strict_yaml
from k8s.objects.pods import mapping
from k8s.pipeline.model_annotation import ANNOTATION
from k8s.rollouts import consent
from k8s.rollouts.kubectl import Kubectl, Patience, listed, refusal
from k8s.training import artifact, watch
from k8s.training.names import NAMESPACE, SERVING_NAMESPACE, WORKFLOWS
from oci.reference import ImageRef

# Days after its end in which a run is left alone.
OLD_DAYS = 7
_VERSION = "pinwheel.io/version"
_API = {"Workflow": "argoproj.io/v1alpha1", "ConfigMap": "v1"}


@dataclass(frozen=True, slots=True)
class Left:
    """What one run left.

    Attributes:
        version: of the run.
        experiment: its file in git.
        state: Argo's word; empty where the Workflow is gone.
        ended: when; of a run whose Workflow is gone, when its ConfigMap was made; None where it has not ended.
        objects: kind and name of what is there.
        model: the registered model by digest, where the Workflow tells it.
        repository: where its model goes; empty where nothing tells it.
        served: why it counts as served; empty where it does not.
    """

    version: str
    experiment: str
    state: str
    ended: datetime.datetime | None
    objects: tuple[tuple[str, str], ...]
    model: str
    repository: str
    served: str = ""

    def is_old(self, now: datetime.datetime) -> bool:
        """Whether it ended long enough ago to be deleted."""
        return self.ended is not None and now - self.ended >= datetime.timedelta(days=OLD_DAYS)

    def age(self, now: datetime.datetime) -> str:
        """How long ago it ended, for people."""
        if self.ended is None:
            return "-"
        hours = int((now - self.ended).total_seconds()) // 3600
        return f"{hours // 24} days ago" if hours >= 48 else f"{hours} h ago"


@dataclass(frozen=True, slots=True)
class Served:
    """What is served.

    Attributes:
        models: by digest.
        versions: of the runs they are of.
        unknown: repositories of those whose run nobody tells.
    """

    models: frozenset[str]
    versions: frozenset[str]
    unknown: frozenset[str]

    def why(self, one: Left) -> str:
        """Why a run counts as served; empty where it does not."""
        if one.model in self.models or one.version in self.versions:
            return "yes"
        return "nobody can tell" if one.repository in self.unknown else ""


def runs(
    env_name: str,
    *,
    prune: bool = False,
    yes: bool = False,
    patience: Patience | None = None,
    now: datetime.datetime | None = None,
) -> str:
    """List what runs left; delete what is old and not served, when that is asked for.

    Args:
        env_name: one of `k8s/envs/`.
        prune: delete.
        yes: agreed to beforehand.
        patience: how long to wait for the cluster.
        now: the time.

    Returns:
        The outcome in a few words.

    Raises:
        UsageError: the environment is unknown or no cluster, or nobody agreed.
        MissingEnvironmentError: no kubectl, no such context, no answer from the cluster.
        PolicyError: the cluster does not show what is there, or does not delete it.
    """
    env = environment.load(env_name)
    if not isinstance(env.target, ClusterTarget):
        what = f"{env.name} is rendered into a directory: nothing runs there"
        raise UsageError(what, where=env.file, fix="ask where the directory is applied")
    kubectl = Kubectl(env.target, patience or Patience())
    kubectl.preflight(env.kubernetes)
    moment = now or datetime.datetime.now(datetime.UTC)
    found = look(kubectl, env)
    if not found:
        return f"no run left anything in {env.where}"
    rows = [
        (
            one.version,
            one.state or "gone",
            one.age(moment),
            ", ".join(kind for kind, _ in one.objects),
            one.served,
            one.experiment,
        )
        for one in found
    ]
    console.table(("run", "workflow", "ended", "is there", "served", "experiment"), rows)
    console.info(f"folders      /work/runs/<run> on the claim {NAMESPACE}/training-work: only pods see them; they stay")
    old = _deletable(found, moment)
    if not prune or not old:
        hint = f"; ended {OLD_DAYS} days ago or more and not served: {len(old)}, which --prune deletes" if old else ""
        return f"runs that left something in {env.where}: {len(found)}{hint}"
    for one in old:
        console.info(f"delete       {', '.join(f'{kind} {NAMESPACE}/{name}' for kind, name in one.objects)}")
    consent.ask(f"delete that in {env.where}", yes=yes or env.target.of_this_machine)
    # While somebody thought about it, one of them may have been begun again, or served.
    agreed = {one.version for one in old}
    return _delete(kubectl, [one for one in _deletable(look(kubectl, env), moment) if one.version in agreed])


def look(kubectl: Kubectl, env: Environment) -> list[Left]:
    """What runs left, the newest first.

    Args:
        kubectl: of the cluster.
        env: whose registry says which run a served model is of.

    Raises:
        MissingEnvironmentError: no answer from the cluster.
        PolicyError: it does not show what is there.
    """
    served = _served(kubectl, env)
    found = left(_objects(kubectl, WORKFLOWS), _objects(kubectl, "configmaps"))
    return [replace(one, served=served.why(one)) for one in found]


def left(workflows: Sequence[Mapping[str, Any]], config_maps: Sequence[Mapping[str, Any]]) -> list[Left]:
    """What is there, by run, the newest first; objects that only look like a run's are left out.

    Args:
        workflows: with the label of a version.
        config_maps: likewise.
    """
    flows = {_version(one): one for one in workflows if _name(one) == _version(one)}
    configs = {_version(one): one for one in config_maps if _name(one) == f"experiment-{_version(one)}"}
    found = []
    for version in sorted({*flows, *configs}):
        flow, config = flows.get(version), configs.get(version)
        state = watch.phase(flow) if flow else ""
        ended = _end(flow) if flow else _time(mapping((config or {}).get("metadata")).get("creationTimestamp"))
        objects = tuple((kind, _name(body)) for kind, body in (("Workflow", flow), ("ConfigMap", config)) if body is not None)
        annotations = mapping(mapping((flow or config or {}).get("metadata")).get("annotations"))
        experiment = str(annotations.get("pinwheel.io/experiment", ""))
        model = watch.model(flow) if flow else ""
        found.append(Left(version, experiment, state, ended, objects, model, _repository(config)))
    latest = datetime.datetime.max.replace(tzinfo=datetime.UTC)
    return sorted(found, key=lambda one: one.ended or latest, reverse=True)


def _deletable(found: Sequence[Left], now: datetime.datetime) -> list[Left]:
    return [one for one in found if one.is_old(now) and not one.served]


def _delete(kubectl: Kubectl, old: Sequence[Left]) -> str:
    # Workflows first: pods of theirs may still mount the ConfigMap.
    objects = sorted((item for one in old for item in one.objects), key=lambda item: (item[0] != "Workflow", item[1]))
    bodies = [
        {"apiVersion": _API[kind], "kind": kind, "metadata": {"name": name, "namespace": NAMESPACE}} for kind, name in objects
    ]
    if bodies:
        answer = kubectl.delete(strict_yaml.dump(bodies))
        if answer.code:
            fix = f"let your account `delete` workflows and ConfigMaps in {NAMESPACE}; run it again"
            raise refusal(answer, "the cluster does not delete all of it", fix)
    return f"objects deleted: {len(bodies)}, of runs: {len(old)}"


def _served(kubectl: Kubectl, env: Environment) -> Served:
    """The models that Deployments name, and the runs they are of, as the registry tells."""
    models, versions, unknown = set[str](), set[str](), set[str]()
    for body in _all(kubectl, "deployments.apps", SERVING_NAMESPACE):
        template = mapping(mapping(mapping(body.get("spec")).get("template")).get("metadata"))
        models.add(str(mapping(template.get("annotations")).get(ANNOTATION, "")))
    for model in sorted(models - {""}):
        try:
            versions.add(artifact.version_of(ImageRef.in_registry(model, pinned=True), env.network.access()))
        except (PinwheelError, ValueError) as problem:
            console.warn(f"the registry does not tell which run {model} is of: {problem}")
            unknown.add(model.partition("@")[0])
    return Served(frozenset(models - {""}), frozenset(versions - {""}), frozenset(unknown))


def _objects(kubectl: Kubectl, resource: str) -> list[dict[str, Any]]:
    return _all(kubectl, resource, NAMESPACE, "-l", _VERSION)


def _all(kubectl: Kubectl, resource: str, namespace: str, *options: str) -> list[dict[str, Any]]:
    answer = kubectl.request(["get", resource, "-n", namespace, *options, "-o", "json"])
    if answer.code and "the server doesn't have a resource type" in answer.stderr:
        return []  # A cluster without Argo ran no workflows.
    if answer.code:
        fix = f"let your account `list` {resource} in {namespace}"
        raise refusal(answer, f"the cluster does not show the {resource} of {namespace}", fix)
    return listed(answer.stdout)


def _name(body: Mapping[str, Any]) -> str:
    return str(mapping(body.get("metadata")).get("name", ""))


def _version(body: Mapping[str, Any]) -> str:
    return str(mapping(mapping(body.get("metadata")).get("labels")).get(_VERSION, ""))


def _end(flow: Mapping[str, Any]) -> datetime.datetime | None:
    return _time(mapping(flow.get("status")).get("finishedAt")) if watch.phase(flow) in watch.ENDED else None


def _time(text: object) -> datetime.datetime | None:
    try:
        return datetime.datetime.fromisoformat(str(text))
    except ValueError:
        return None


def _repository(config: Mapping[str, Any] | None) -> str:
    """Where the model of a run goes, from its `run.json`."""
    try:
        return str(json.loads(mapping((config or {}).get("data"))["run.json"])["model"])
    except (ValueError, KeyError, TypeError):
        return ""
