"""Texts that Argo fills in and reads again, as manifest, patch or command line: what they become is checked, or refused.

Argo puts the value of each `{{…}}` into the JSON of a template, escaped once. In `podSpecPatch`, `resource.manifest` and
`resource.flags` the text is read again afterwards, so a value with a quote in it would write fields of its own: another image,
a volume of the node. So every value must stand in the set, or be of a kind that Argo makes itself (a uid, a name), and hold
nothing but letters, digits and `. _ : / @ + -`. What comes out is then judged like any manifest.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from k8s.objects import embedded, manifests
from k8s.objects.findings import Finding, Path
from k8s.objects.manifests import Manifest
from k8s.objects.pods import mapping, tasks
from k8s.objects.workflows import Flow, Flows, Step

_TAG = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)
_SAFE = re.compile(r"(?:-?[A-Za-z0-9](?:[A-Za-z0-9._:/@+-]*[A-Za-z0-9])?)?")
# What Argo or Kubernetes makes: numbers, and names, uids, times and labels, in which no quote can stand.
_NUMBERS = {"retries", "workflow.priority"}
_MADE = re.compile(
    r"workflow\.(?:uid|name|namespace|serviceAccountName|mainEntrypoint|status|scheduledTime|duration"
    r"|creationTimestamp(?:\.\w+)?|labels\.[\w./-]+)|pod\.name|node\.name|cronworkflow\.(?:name|namespace)"
    r"|(?:steps|tasks)\.[\w-]+\.(?:id|ip|status|startedAt|finishedAt|exitCode|hostNodeName)"
)
_PARAMETER = re.compile(r"(inputs|workflow)\.parameters\.([\w-]+)")
_ITEM = re.compile(r"item(?:\.([\w-]+))?")


class _UnknownError(Exception):
    """A value that is known only when it runs."""


@dataclass(frozen=True, slots=True)
class Filled:
    """The objects as Argo will read them.

    Attributes:
        rounds: the set with every text filled in, as often as it takes for each value to stand there once.
        refused: texts that cannot be filled in here, and keys that are made of a value.
    """

    rounds: tuple[tuple[Manifest, ...], ...]
    refused: tuple[Finding, ...]


def fill(objects: Sequence[Manifest]) -> Filled:
    """Fill in the texts that are read again.

    Args:
        objects: the whole set.
    """
    flows = Flows.of_manifests(objects)
    values = _Values(flows)
    refused: list[Finding] = []
    chosen: list[tuple[Flow, Path, str, dict[str, tuple[str, ...]]]] = []
    for flow in flows.flows:
        for path, text in _texts(flow.manifest.body.get("spec"), ("spec",)):
            known: dict[str, tuple[str, ...]] = {}
            for tag in dict.fromkeys(match[0] for match in _TAG.finditer(text)):
                try:
                    known[tag] = values.of(flow, path, tag[2:-2].strip())
                    what = _unsafe(tag, known[tag])
                except _UnknownError:
                    what = f"the value of {_brief(tag)} is known only when it runs, and could rewrite the text"
                if what:
                    fix = "write it out, or take a parameter whose values stand in this set: letters, digits and ._:/@+-"
                    refused.append(flow.manifest.finding(path, what, fix))
                    known.pop(tag, None)
            if what := "" if "flags" in path else _unreadable(text):
                fix = "let each {{…}} stand where one value stands, not for a key or a part of the structure"
                refused.append(flow.manifest.finding(path, what, fix))
            chosen.append((flow, path, text, known))
    most = max((len(values) for *_, known in chosen for values in known.values()), default=1)
    rounds = []
    for number in range(max(most, 1)):
        made = list(objects)
        for flow, path, text, known in chosen:
            new = _TAG.sub(lambda match, held=known, nth=number: _nth(held.get(match[0]), nth, match[0]), text)  # type: ignore[misc]
            if new != text:
                made[flow.number] = manifests.with_value(made[flow.number], path, new)
        rounds.append(tuple(made))
    return Filled(tuple(rounds), tuple(dict.fromkeys(refused)))


def _nth(values: tuple[str, ...] | None, number: int, written: str) -> str:
    return values[number % len(values)] if values else written


def _unsafe(tag: str, values: Sequence[str]) -> str:
    wrong = next((value for value in values if not _SAFE.fullmatch(value)), None)
    return "" if wrong is None else f"{_brief(tag)} can be {_brief(repr(wrong))}, which could write fields of its own"


def _unreadable(text: str) -> str:
    """What of a text only Argo's values would make readable: then its images cannot be found before."""
    bodies, problem = embedded.read(text)
    if problem:
        return f"cannot be read before Argo fills it in: {problem}"
    return "a key is made of a value" if any(map(_made_keys, bodies)) else ""


def _made_keys(value: Any) -> bool:
    if isinstance(value, dict):
        return any("{{" in key or _made_keys(item) for key, item in value.items())
    return isinstance(value, list) and any(map(_made_keys, value))


def _brief(text: str) -> str:
    return " ".join(text.split())[:80]


def _texts(value: Any, path: Path) -> Iterator[tuple[Path, str]]:
    """The texts below a value that Argo reads again, and where they stand."""
    if isinstance(value, dict):
        for key, item in value.items():
            below = (*path, key)
            if key == "podSpecPatch" or (key == "manifest" and path[-1] == "resource"):
                if isinstance(item, str) and "{{" in item:
                    yield below, item
            elif key == "flags" and path[-1] == "resource" and isinstance(item, list):
                yield from (((*below, number), one) for number, one in enumerate(item) if isinstance(one, str) and "{{" in one)
            else:
                yield from _texts(item, below)
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _texts(item, (*path, number))


class _Values:
    """What the variables of a set can be."""

    def __init__(self, flows: Flows) -> None:
        self._flows = flows

    def of(self, flow: Flow, path: Path, tag: str, seen: frozenset[tuple[int, Path, str]] = frozenset()) -> tuple[str, ...]:
        """The values that a variable can have at a place; none where it needs no value to be checked.

        Raises:
            _UnknownError: one is known only when it runs.
        """
        if _MADE.fullmatch(tag):
            return ()
        if tag in _NUMBERS:
            return ("0",)
        if match := _ITEM.fullmatch(tag):
            return self._items(flow, path, match[1])
        match = _PARAMETER.fullmatch(tag)
        step = flow.around(path)
        key = (flow.number, step.path if step and match and match[1] == "inputs" else (), tag)
        if not match or key in seen:
            if match:
                return ()
            raise _UnknownError
        seen |= {key}
        found: list[str] = []
        for other, at, one in self._given(flow, step, match[1], match[2]):
            found += self._declared(other, at, one, seen)
        if not found:
            raise _UnknownError
        return tuple(dict.fromkeys(found))

    def _given(self, flow: Flow, step: Step | None, kind: str, name: str) -> Iterator[tuple[Flow, Path, Mapping[str, Any]]]:
        """Every place that gives a parameter its value."""
        if kind == "workflow":
            for other in self._flows.flows:
                if other is flow or self._flows.base(other) is flow or any(flow is one for one in self._flows.used(other)):
                    yield from ((other, at, one) for at, one in other.arguments() if one.get("name") == name)
            return
        if step is None:
            return
        handed = []
        for other in self._flows.flows:
            for call in other.calls():
                target = self._flows.target(other, call)
                if target and target[0] is flow and target[1] is step:
                    given = call.arguments("parameters") if call.caller else [*call.arguments("parameters"), *other.arguments()]
                    found = [(other, at, one) for at, one in given if one.get("name") == name]
                    handed += found
        yield from handed
        for at, one in step.inputs("parameters"):
            if one.get("name") == name and (not handed or any(key in one for key in ("value", "default", "valueFrom"))):
                yield flow, at, one

    def _declared(
        self, flow: Flow, path: Path, one: Mapping[str, Any], seen: frozenset[tuple[int, Path, str]]
    ) -> Iterator[str]:
        """The values of a declaration or an argument.

        Raises:
            _UnknownError: it has none here, or one is known only when it runs.
        """
        held = [(key, one[key]) for key in ("value", "default") if one.get(key) is not None]
        if one.get("valueFrom") or not held:
            raise _UnknownError
        for key, value in held:
            if isinstance(value, bool):
                yield str(value).lower()
                continue
            text = str(value)
            tags = list(_TAG.finditer(text))
            if not tags:
                yield text
                continue
            if len(tags) > 1 or tags[0][0] != text.strip():
                raise _UnknownError
            yield from self.of(flow, (*path, key), tags[0][1].strip(), seen)

    def _items(self, flow: Flow, path: Path, key: str | None) -> tuple[str, ...]:
        """What a loop goes through."""
        for step in (one for one in flow.steps if path[: len(one.path)] == one.path):
            for below, task in tasks(step.body):
                at = (*step.path, *below)
                listed = task.get("withItems")
                if path[: len(at)] != at:
                    continue
                if isinstance(listed, list) and listed:
                    values = [mapping(item).get(key) if key else item for item in listed]
                    if all(isinstance(value, (str, int, float)) for value in values):
                        return tuple(str(value).lower() if isinstance(value, bool) else str(value) for value in values)
                if mapping(task.get("withSequence")) and not mapping(task["withSequence"]).get("format"):
                    return ("0",)
        raise _UnknownError
