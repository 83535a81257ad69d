"""The whole set as rules between objects see it: who selects whom, and how many pods a workload may have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from k8s.envs.environment import Environment
from k8s.objects import pods
from k8s.objects.manifests import Manifest
from k8s.objects.pods import Template, items, mapping
from k8s.objects.schema import Walk
from k8s.pipeline.model_annotation import PREFLIGHT_OF


@dataclass(frozen=True, slots=True)
class WholeSet:
    """All objects, and the pod templates among them.

    Attributes:
        env: the environment they are for.
        objects: in the order of their files.
        templates: of all objects.
    """

    env: Environment
    objects: Sequence[Manifest]
    templates: Sequence[Template]

    @classmethod
    def of_walks(cls, walks: Sequence[Walk], env: Environment) -> WholeSet:
        """The set that these walks went through."""
        objects = [walk.manifest for walk in walks]
        return cls(env, objects, [one for manifest in objects for one in pods.templates(manifest)])

    def of(self, kind: str, namespace: str) -> list[Manifest]:
        """The objects of a kind in a namespace."""
        return [manifest for manifest in self.objects if manifest.kind == kind and manifest.namespace == namespace]

    def selected(self, namespace: str, selector: Mapping[str, Any]) -> list[Template]:
        """The pod templates that a label selector selects."""
        return [one for one in self.templates if one.manifest.namespace == namespace and matches(selector, one.labels)]

    def replicas(self, manifest: Manifest) -> tuple[int, int]:
        """The fewest and the most pods that a workload has."""
        spec = mapping(manifest.body.get("spec"))
        low = high = spec.get("parallelism" if manifest.kind == "Job" else "replicas", 1)
        if PREFLIGHT_OF in mapping(manifest.metadata.get("annotations")):
            return 0, 1
        for hpa in self.of("HorizontalPodAutoscaler", manifest.namespace):
            if target(hpa) == (manifest.kind, manifest.name):
                bounds = mapping(hpa.body.get("spec"))
                low, high = bounds.get("minReplicas", 1), bounds.get("maxReplicas", 1)
        return (low, high) if isinstance(low, int) and isinstance(high, int) else (1, 1)


def target(hpa: Manifest) -> tuple[str, str]:
    """Kind and name of what an autoscaler scales."""
    reference = mapping(mapping(hpa.body.get("spec")).get("scaleTargetRef"))
    return str(reference.get("kind", "")), str(reference.get("name", ""))


def words(value: Any) -> list[str]:
    """The strings of a list; none where there is no list."""
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []


def matches(selector: Mapping[str, Any], labels: Mapping[str, Any]) -> bool:
    """Whether a label selector selects these labels; an empty one selects everything."""
    for one in items(selector, "matchExpressions"):
        held, values = labels.get(str(one.get("key"))), words(one.get("values"))
        match one.get("operator"):
            case "In" if held not in values:
                return False
            case "NotIn" if held in values:
                return False
            case "Exists" if held is None:
                return False
            case "DoesNotExist" if held is not None:
                return False
    return all(labels.get(key) == value for key, value in mapping(selector.get("matchLabels")).items())
