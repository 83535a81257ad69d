"""Workflows of Argo's as rules see them: templates, what calls which, and what is handed to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from k8s.objects import pods
from k8s.objects.findings import Path
from k8s.objects.manifests import Manifest
from k8s.objects.pods import items, mapping
from k8s.objects.schema import Walk


@dataclass(frozen=True, slots=True)
class Step:
    """A template as written in a workflow.

    Attributes:
        path: where it stands in the object.
        name: empty for one that stands inside the task which calls it.
        body: as written, with what the workflow gives all templates.
    """

    path: Path
    name: str
    body: Mapping[str, Any]

    def inputs(self, kind: str) -> list[tuple[Path, Mapping[str, Any]]]:
        """The declared `parameters` or `artifacts`, and where they stand."""
        declared = items(mapping(self.body.get("inputs")), kind)
        return [((*self.path, "inputs", kind, number), one) for number, one in enumerate(declared)]


@dataclass(frozen=True, slots=True)
class Call:
    """A place that names a template: a step, a task, a hook, an entrypoint.

    Attributes:
        path: where it stands; for one that is only a name, of that name.
        body: `template`, `templateRef`, `inline`, `arguments`.
        caller: the template it is part of; None for one of the workflow as a whole, which gets the workflow's arguments.
    """

    path: Path
    body: Mapping[str, Any]
    caller: Step | None

    def arguments(self, kind: str) -> list[tuple[Path, Mapping[str, Any]]]:
        """The `parameters` or `artifacts` that are handed over, and where they stand."""
        handed = items(mapping(self.body.get("arguments")), kind)
        return [((*self.path, "arguments", kind, number), one) for number, one in enumerate(handed)]


@dataclass(frozen=True, slots=True)
class Flow:
    """One of Argo's objects.

    Attributes:
        number: of its walk.
        manifest: the object.
        path: where the workflow's spec lies in it.
        spec: of the workflow.
        steps: its templates, those inside of tasks included.
    """

    number: int
    manifest: Manifest
    path: Path
    spec: Mapping[str, Any]
    steps: Sequence[Step] = field(default=())

    @classmethod
    def of(cls, number: int, manifest: Manifest) -> Flow:
        """The flow of one of Argo's objects."""
        path, spec = pods.workflow_spec(manifest)
        defaults = mapping(spec.get("templateDefaults"))
        found = [
            Step(at, str(body.get("name") or "") if at[-1] != "inline" else "", pods.merged(defaults, body))
            for at, body in pods.workflow_templates(manifest)
        ]
        return cls(number, manifest, path, spec, found)

    @property
    def referenced(self) -> Mapping[str, Any]:
        """The WorkflowTemplate that a workflow consists of, where it has none of its own."""
        return mapping(self.spec.get("workflowTemplateRef"))

    def step(self, name: Any) -> Step | None:
        """The template of this name."""
        return next((one for one in self.steps if one.name and one.name == name), None)

    def around(self, path: Path) -> Step | None:
        """The innermost template that a path is in."""
        holding = [one for one in self.steps if path[: len(one.path)] == one.path]
        return max(holding, key=lambda one: len(one.path), default=None)

    def arguments(self, kind: str = "parameters") -> list[tuple[Path, Mapping[str, Any]]]:
        """The `parameters` or `artifacts` that the workflow as a whole is given."""
        declared = items(mapping(self.spec.get("arguments")), kind)
        return [((*self.path, "arguments", kind, number), one) for number, one in enumerate(declared)]

    def calls(self) -> Iterator[Call]:
        """Every place in it that names a template."""
        for key in ("entrypoint", "onExit"):
            if self.spec.get(key):
                yield Call((*self.path, key), {"template": self.spec[key]}, None)
        yield from _hooks(self.path, self.spec, None)
        for step in self.steps:
            for below, body in pods.tasks(step.body):
                path = (*step.path, *below)
                yield Call(path, body, step)
                if body.get("onExit"):
                    yield Call((*path, "onExit"), {"template": body["onExit"]}, step)
                yield from _hooks(path, body, step)


def _hooks(path: Path, body: Mapping[str, Any], step: Step | None) -> Iterator[Call]:
    for name, hook in mapping(body.get("hooks")).items():
        yield Call((*path, "hooks", name), mapping(hook), step)


@dataclass(frozen=True, slots=True)
class Flows:
    """All of Argo's objects in a set, those in embedded manifests included."""

    flows: Sequence[Flow]

    @classmethod
    def of(cls, walks: Sequence[Walk]) -> Flows:
        """The flows among these objects."""
        return cls.of_manifests([walk.manifest for walk in walks])

    @classmethod
    def of_manifests(cls, objects: Sequence[Manifest]) -> Flows:
        """The flows among these objects."""
        found = [Flow.of(number, manifest) for number, manifest in enumerate(objects)]
        return cls([one for one in found if one.path])

    def named(self, namespace: str, name: Any, *, cluster: bool) -> Flow | None:
        """The WorkflowTemplate of a name, or the one of the whole cluster."""
        kind, namespace = ("ClusterWorkflowTemplate", "") if cluster else ("WorkflowTemplate", namespace)
        for one in self.flows:
            if (one.manifest.kind, one.manifest.namespace, one.manifest.name) == (kind, namespace, name):
                return one
        return None

    def base(self, flow: Flow) -> Flow | None:
        """The object whose templates a workflow uses: itself, or the one it refers to if that is in the set."""
        if not flow.referenced:
            return flow
        cluster = bool(flow.referenced.get("clusterScope"))
        return self.named(flow.manifest.namespace, flow.referenced.get("name"), cluster=cluster)

    def used(self, flow: Flow) -> list[Flow]:
        """The objects whose templates a workflow calls, directly or through others."""
        found: list[Flow] = []
        waiting = [self.base(flow) or flow]
        while waiting:
            here = waiting.pop()
            if any(here is one for one in found):
                continue
            found.append(here)
            targets = (self.target(here, call) for call in here.calls())
            waiting += [target[0] for target in targets if target]
        return found

    def target(self, flow: Flow, call: Call) -> tuple[Flow, Step] | None:
        """The template that a call means; None when it is not in the set."""
        if isinstance(call.body.get("inline"), dict):
            step = next((one for one in flow.steps if one.path == (*call.path, "inline")), None)
            return (flow, step) if step else None
        elsewhere = mapping(call.body.get("templateRef"))
        if elsewhere:
            cluster = bool(elsewhere.get("clusterScope"))
            holder = self.named(flow.manifest.namespace, elsewhere.get("name"), cluster=cluster)
            name = elsewhere.get("template")
        else:
            name = call.body.get("template")
            holder = flow if flow.step(name) else self.base(flow)
        step = holder.step(name) if holder else None
        return (holder, step) if holder and step else None
