"""The whole set as rules between objects see it: who selects whom, and how many pods a workload may have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from k8s.envs.environment import Environment
from k8s.objects import pods
from k8s.objects.lookup import Place
from k8s.objects.manifests import Manifest
from k8s.objects.pods import Template, items, mapping
from k8s.objects.schema import Walk
from k8s.pipeline.model_annotation import PREFLIGHT_OF


@dataclass(frozen=True, slots=True)
class WholeSet:
    """All objects, and the pod templates among them.

    Attributes:
        env: the environment they are for.
        objects: of Kubernetes' own kinds and Argo's, in the order of their files.
        templates: of all objects.
        others: the namespaces with objects of other people's kinds: nobody here knows which pods those make, with which labels.
        made: the Secrets that controllers make out of objects of this set.
    """

    env: Environment
    objects: Sequence[Manifest]
    templates: Sequence[Template]
    others: frozenset[str] = frozenset()
    made: frozenset[Place] = frozenset()

    @classmethod
    def of_walks(cls, walks: Sequence[Walk], env: Environment) -> WholeSet:
        """The set that these walks went through."""
        return cls(
            env,
            [walk.manifest for walk in walks if not walk.custom],
            [one for walk in walks for one in pods.templates(walk.manifest)],
            frozenset(walk.manifest.namespace for walk in walks if walk.custom),
            frozenset(place for walk in walks for place in _made(walk.manifest)),
        )

    def of(self, kind: str, namespace: str) -> list[Manifest]:
        """The objects of a kind in a namespace."""
        return [manifest for manifest in self.objects if manifest.kind == kind and manifest.namespace == namespace]

    def selected(self, namespace: str, selector: Mapping[str, Any]) -> list[Template]:
        """The pod templates that a label selector selects."""
        return [
            one for one in self.templates if one.manifest.namespace == namespace and matches(selector, one.labels, one.added)
        ]

    def replicas(self, manifest: Manifest) -> tuple[int, int]:
        """The fewest and the most pods that a workload has."""
        spec = mapping(manifest.body.get("spec"))
        if PREFLIGHT_OF in mapping(manifest.metadata.get("annotations")):
            return 0, 1
        if manifest.kind == "CronJob":
            spec = mapping(mapping(spec.get("jobTemplate")).get("spec"))
        low = high = spec.get("replicas", 1)
        if manifest.kind in {"Job", "CronJob"}:
            parallel, completions = spec.get("parallelism", 1), spec.get("completions")
            low = high = min(parallel, completions) if isinstance(completions, int) and isinstance(parallel, int) else parallel
        for hpa in self.of("HorizontalPodAutoscaler", manifest.namespace):
            if target(hpa) == (manifest.kind, manifest.name):
                bounds = mapping(hpa.body.get("spec"))
                low, high = bounds.get("minReplicas", 1), bounds.get("maxReplicas", 1)
        return (low, high) if isinstance(low, int) and isinstance(high, int) else (1, 1)


def _made(manifest: Manifest) -> Iterator[Place]:
    """The Secret that cert-manager, the External Secrets Operator or Sealed Secrets makes out of an object."""
    spec = mapping(manifest.body.get("spec"))
    name: Any = ""
    match manifest.identity.group, manifest.kind:
        case "cert-manager.io", "Certificate":
            name = spec.get("secretName")
        case "external-secrets.io", "ExternalSecret":
            name = mapping(spec.get("target")).get("name") or manifest.name
        case "bitnami.com", "SealedSecret":
            name = manifest.name
    if name:
        yield "Secret", manifest.namespace, str(name)


def target(hpa: Manifest) -> tuple[str, str]:
    """Kind and name of what an autoscaler scales."""
    reference = mapping(mapping(hpa.body.get("spec")).get("scaleTargetRef"))
    return str(reference.get("kind", "")), str(reference.get("name", ""))


def port_names(template: Template) -> frozenset[str]:
    """The names of the ports of a pod: what others may call its ports by. Numbers need not be declared."""
    return frozenset(str(port["name"]) for _, one in template.containers() for port in items(one, "ports") if port.get("name"))


def words(value: Any) -> list[str]:
    """The strings of a list; none where there is no list."""
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []


def matches(selector: Mapping[str, Any], labels: Mapping[str, Any], added: frozenset[str] = frozenset()) -> bool:
    """Whether a label selector selects these labels; an empty one selects everything.

    Args:
        selector: `matchLabels` and `matchExpressions`.
        labels: of the pods.
        added: labels that the cluster adds; what it writes there may be what is asked for.
    """
    for one in items(selector, "matchExpressions"):
        held, values = labels.get(str(one.get("key"))), words(one.get("values"))
        if str(one.get("key")) in added and one.get("operator") != "DoesNotExist":
            continue
        match one.get("operator"):
            case "In" if held not in values:
                return False
            case "NotIn" if held in values:
                return False
            case "Exists" if held is None:
                return False
            case "DoesNotExist" if held is not None:
                return False
    return all(labels.get(key) == value or key in added for key, value in mapping(selector.get("matchLabels")).items())
