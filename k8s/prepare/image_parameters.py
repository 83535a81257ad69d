"""Where the image of a workflow's container comes from when a parameter names it.

`image: "{{inputs.parameters.image}}"` is pinned by pinning every value the parameter can get: the input's own, those that
steps, tasks and hooks hand over, and the workflow's arguments. What cannot be followed to values that stand in the set is
refused: what it would be is known only when it runs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from k8s.objects.findings import Finding, Path
from k8s.objects.pods import mapping, tasks
from k8s.objects.schema import Walk
from k8s.objects.workflows import Call, Flow, Flows, Step
from k8s.prepare.image_texts import IMAGE_FIELDS, Mention

_PARAMETER = re.compile(r"\{\{\s*(inputs|workflow)\.parameters\.([A-Za-z0-9_-]+)\s*\}\}")
_ITEM = re.compile(r"\{\{\s*item(?:\.([A-Za-z0-9_-]+))?\s*\}\}")
_FIX = "write the image itself, or a parameter whose values stand in this set"
# A value by the number of its walk and its path.
Place = tuple[int, Path]


class Followed:
    """What the images that are parameters can be.

    Attributes:
        values: of each image field that names a parameter, the places of its values.
        places: of all of these values.
        refused: what cannot be followed.
    """

    def __init__(self, walks: Sequence[Walk], mentioned: Mapping[Place, Sequence[Mention]] = MappingProxyType({})) -> None:
        """Follow every image of these objects that is a parameter.

        Args:
            walks: of the whole set.
            mentioned: what their texts name beside the fields in which Kubernetes looks for images.
        """
        self._flows = Flows.of(walks)
        self._seen: set[tuple[Place, str]] = set()
        self.values: dict[Place, tuple[Place, ...]] = {}
        self.refused: list[Finding] = []
        for flow in self._flows.flows:
            for text in walks[flow.number].texts:
                place, named = (flow.number, text.path), [text.value] if (text.owner, text.field) in IMAGE_FIELDS else []
                named += [one.reference for one in mentioned.get(place, ())]
                for value in (one for one in named if "{{" in one):
                    self._seen.clear()
                    found = tuple(dict.fromkeys(self._follow(flow, text.path, value)))
                    self.values[place] = (*self.values.get(place, ()), *found)
        self.places = frozenset(place for places in self.values.values() for place in places)

    def _refuse(self, flow: Flow, path: Path, what: str) -> None:
        finding = flow.manifest.finding(path, what, _FIX)
        if finding not in self.refused:
            self.refused.append(finding)

    def _follow(self, flow: Flow, path: Path, value: Any) -> Iterator[Place]:
        """The places of the values that a text can have."""
        if not isinstance(value, str):
            self._refuse(flow, path, "an image comes from here, and it is no text")
            return
        if "{{" not in value:
            yield flow.number, path
            return
        if item := _ITEM.fullmatch(value.strip()):
            yield from self._items(flow, path, value, item[1] or "")
            return
        match = _PARAMETER.fullmatch(value.strip())
        if not match:
            self._refuse(flow, path, f"the image {value!r} cannot be followed: only a whole parameter can")
            return
        step = flow.around(path)
        key: Place = (flow.number, step.path if step and match[1] == "inputs" else flow.path)
        if (key, match[2]) in self._seen:
            return
        self._seen.add((key, match[2]))
        before = len(self.refused)
        found = list(self._input(flow, step, match[2]) if match[1] == "inputs" else self._argument(flow, match[2]))
        if not found and len(self.refused) == before:
            self._refuse(flow, path, f"the image {value!r} cannot be followed: nothing in this set gives it a value")
        yield from found

    def _items(self, flow: Flow, path: Path, value: str, key: str) -> Iterator[Place]:
        """The values of a loop's item, or of one key of it, where they are written out."""
        for step in flow.steps:
            for below, task in tasks(step.body):
                at: Path = (*step.path, *below)
                written = task.get("withItems")
                if path[: len(at)] == at and isinstance(written, list):
                    for number, one in enumerate(written):
                        held = mapping(one).get(key) if key else one
                        yield from self._follow(flow, (*at, "withItems", number, *([key] if key else [])), held)
                    return
        self._refuse(flow, path, f"the image {value!r} cannot be followed: no withItems around it says what it is")

    def _declared(self, flow: Flow, path: Path, parameter: Mapping[str, Any]) -> Iterator[Place]:
        """The values that stand in a declaration, or in an argument."""
        if parameter.get("valueFrom"):
            self._refuse(flow, (*path, "valueFrom"), "an image comes from here, and its value is known only when it runs")
        for key in ("default", "value"):
            if parameter.get(key) is not None:
                yield from self._follow(flow, (*path, key), parameter[key])
        choices = parameter.get("enum")
        for number, choice in enumerate(choices if isinstance(choices, list) else ()):
            yield from self._follow(flow, (*path, "enum", number), choice)

    def _input(self, flow: Flow, step: Step | None, name: str) -> Iterator[Place]:
        """The values of an input of a template: its own, and those of all who call it."""
        for path, one in step.inputs("parameters") if step else ():
            if one.get("name") == name:
                yield from self._declared(flow, path, one)
        for other in self._flows.flows:
            for call in other.calls():
                target = self._flows.target(other, call)
                if target and target[0] is flow and target[1] is step:
                    yield from self._handed(other, call, name)

    def _handed(self, flow: Flow, call: Call, name: str) -> Iterator[Place]:
        given = call.arguments("parameters")
        if call.caller is None:  # What belongs to no template gets the workflow's arguments.
            yield from self._argument(flow, name)
        for path, one in given:
            if one.get("name") == name:
                yield from self._declared(flow, path, one)

    def _argument(self, flow: Flow, name: str) -> Iterator[Place]:
        """The values of an argument: those of the workflow itself, of those made of it, and of those that use its templates.

        A template that another workflow refers to sees that workflow's arguments as `workflow.parameters`.
        """
        for other in self._flows.flows:
            if other is flow or self._flows.base(other) is flow or any(flow is one for one in self._flows.used(other)):
                for path, one in other.arguments():
                    if one.get("name") == name:
                        yield from self._declared(other, path, one)
