"""Rules about `{{…}}` in workflows: each means something where it stands (Argo Workflows, Workflow Variables).

The controller leaves what it cannot resolve as it is, or fails the run at that step, hours after it began.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from k8s.objects.findings import Finding, Path, rule
from k8s.objects.pods import items, mapping, tasks
from k8s.objects.schema import Walk
from k8s.objects.workflows import Call, Flow, Flows, Step
from k8s.rules.workflow import dependencies, reached

_TAG = re.compile(r"\{\{(.*?)(\}\}|\Z)", re.DOTALL)
# In an expression: a name that begins with one of these, its parts after dots or in brackets.
_NAMES = re.compile(r"\b(?:inputs|workflow|steps|tasks|item)(?:\.[A-Za-z_]\w*|\[\s*(?:'[^']*'|\"[^\"]*\")\s*\])+")
_PARTS = re.compile(r"[A-Za-z_]\w*|'[^']*'|\"[^\"]*\"")
_OF_THE_RUN = {"annotations", "creationTimestamp", "labels", "mainEntrypoint", "name", "namespace", "outputs", "parameters"}
_OF_THE_RUN |= {"duration", "priority", "scheduledTime", "serviceAccountName", "uid"}
_AT_THE_END = {"failures", "status"}
_OF_A_STEP = {"exitCode", "finishedAt", "hostNodeName", "id", "ip", "message", "name", "outputs", "startedAt", "status"}
# Of the pod, the try, the metric or the schedule.
_ELSE = {"cronworkflow", "duration", "exitCode", "lastRetry", "node", "pod", "resourcesDuration", "retries", "status"}
_LOOPS = ("withItems", "withParam", "withSequence")


class _UnknownError(Exception):
    def __init__(self, what: str, fix: str) -> None:
        self.what, self.fix = what, fix


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a `{{…}}` stands: the workflow, the template, and the step or task of it."""

    flows: Flows
    flow: Flow
    path: Path
    step: Step | None
    task: tuple[Path, Mapping[str, Any]] | None


@rule("workflow-value")
def check(walks: Sequence[Walk]) -> Iterator[Finding]:
    """Each `{{…}}` in the workflows of a set that means nothing.

    Args:
        walks: of the whole set.
    """
    flows = Flows.of(walks)
    for flow in flows.flows:
        for text in walks[flow.number].texts:
            if "{{" not in text.value:
                continue
            place = _place(flows, flow, text.path)
            for match in _TAG.finditer(text.value):
                try:
                    if not match[2]:
                        raise _UnknownError("is never closed", "write }}")
                    _tag(place, match[1].strip())
                except _UnknownError as problem:
                    brief = " ".join(match[0].split())
                    yield flow.manifest.finding(text.path, f"{brief[:80]} {problem.what}", problem.fix)


def _place(flows: Flows, flow: Flow, path: Path) -> _Place:
    step = flow.around(path)
    task = None
    for below, body in tasks(step.body) if step else ():
        at = (*step.path, *below) if step else ()
        if path[: len(at)] == at:
            task = (at, body)
    return _Place(flows, flow, path, step, task)


def _tag(place: _Place, tag: str) -> None:
    if not tag.startswith("="):
        _name(place, tag.split("."))
        return
    for match in _NAMES.finditer(tag):
        _name(place, [part.strip("'\"") for part in _PARTS.findall(match[0])])


def _name(place: _Place, parts: list[str]) -> None:
    match parts[0]:
        case "workflow":
            _of_the_run(place, parts)
        case "inputs":
            _input(place, parts)
        case "steps" | "tasks":
            _sibling(place, parts)
        case "outputs":
            _output(place, parts)
        case "item":
            _item(place)
        case other if other not in _ELSE:
            raise _UnknownError("means nothing", "write workflow.…, inputs.…, steps.…, tasks.… or item")


def _of_the_run(place: _Place, parts: list[str]) -> None:
    flow = place.flow
    what = parts[1] if len(parts) > 1 else ""
    # A workflow's metrics are written at its end.
    in_metrics = place.path[: len(flow.path) + 1] == (*flow.path, "metrics")
    if what in _AT_THE_END and not (flow.spec.get("onExit") or flow.spec.get("hooks") or in_metrics):
        raise _UnknownError("is known only at the end", "use it in a template that onExit or a hook calls")
    if what not in _OF_THE_RUN | _AT_THE_END:
        raise _UnknownError("means nothing", f"of a workflow there is: {', '.join(sorted(_OF_THE_RUN | _AT_THE_END))}")
    if what == "parameters" and len(parts) > 2 and parts[2] != "json":
        base = place.flows.base(flow)
        known = [str(one.get("name")) for holder in (flow, base) if holder for _, one in holder.arguments()]
        if parts[2] not in known and base is not None:
            fix = f"the workflow's are: {', '.join(dict.fromkeys(known)) or 'none'}"
            raise _UnknownError(f"is no parameter of the workflow ({parts[2]})", fix)
    if what == "outputs" and len(parts) > 3:
        outputs = [mapping(step.body.get("outputs")) for step in flow.steps]
        known = [str(one.get("globalName")) for holder in outputs for one in items(holder, parts[2])]
        if parts[3] not in known:
            raise _UnknownError(f"is no output of the workflow ({parts[3]})", "give the output a globalName")


def _input(place: _Place, parts: list[str]) -> None:
    if "templateDefaults" in place.path:
        return  # Each template has its own.
    if place.step is None:
        raise _UnknownError("stands outside of a template, where there are no inputs", "write workflow.parameters.…")
    kind = parts[1] if len(parts) > 1 else ""
    if kind not in {"parameters", "artifacts"}:
        raise _UnknownError("means nothing", "write inputs.parameters.… or inputs.artifacts.…")
    known = [str(one.get("name")) for _, one in place.step.inputs(kind)]
    if len(parts) > 2 and parts[2] not in known:
        raise _UnknownError(f"is no input of its template ({parts[2]})", f"its inputs are: {', '.join(known) or 'none'}")


def _output(place: _Place, parts: list[str]) -> None:
    if len(parts) < 3 or place.step is None:
        return
    known = [str(one.get("name")) for one in items(mapping(place.step.body.get("outputs")), parts[1])]
    if parts[2] not in known:
        raise _UnknownError(f"is no output of its template ({parts[2]})", f"its outputs are: {', '.join(known) or 'none'}")


def _item(place: _Place) -> None:
    around = [step for step in place.flow.steps if place.path[: len(step.path)] == step.path]
    for step in around:
        for below, body in tasks(step.body):
            at = (*step.path, *below)
            if place.path[: len(at)] == at and any(body.get(key) is not None for key in _LOOPS):
                return
    raise _UnknownError("stands in no step with a loop", f"write {', '.join(_LOOPS)}, or hand it over as an argument")


def _sibling(place: _Place, parts: list[str]) -> None:
    """A step or task beside this one: it exists, it is done by then, and it has that output."""
    if parts[1:] == ["name"] or "templateDefaults" in place.path:
        return
    what = "step" if parts[0] == "steps" else "task"
    if place.step is None:
        raise _UnknownError(f"stands outside of a template, where there are no {parts[0]}", "write workflow.…")
    known = {
        str(body.get("name")): ((*place.step.path, *below), body)
        for below, body in tasks(place.step.body)
        if below[0] == ("steps" if what == "step" else "dag")
    }
    name = parts[1] if len(parts) > 1 else ""
    if name not in known:
        fix = f"its {parts[0]} are: {', '.join(known) or 'none'}; hand it over as an argument from the template that has it"
        raise _UnknownError(f"is no {what} of its template ({name})", fix)
    path, body = known[name]
    if place.task and not _before(place, place.task, what, name, path, known):
        fix = "write it as an earlier step" if what == "step" else f"write depends: {name}"
        raise _UnknownError(f"is not done by then: the {what} {name} does not come before this one", fix)
    if len(parts) < 3 or parts[2] not in _OF_A_STEP:
        raise _UnknownError("means nothing", f"of a {what} there is: {', '.join(sorted(_OF_A_STEP))}")
    if parts[2] == "outputs" and len(parts) > 3:
        if parts[3] not in {"artifacts", "exitCode", "parameters", "result"}:
            raise _UnknownError("means nothing", "of outputs there is: parameters, artifacts, result, exitCode")
        target = place.flows.target(place.flow, Call(path, body, place.step))
        if target and len(parts) > 4:
            outputs = [str(one.get("name")) for one in items(mapping(target[1].body.get("outputs")), parts[3])]
            if parts[4] not in outputs:
                fix = f"its outputs are: {', '.join(outputs) or 'none'}"
                raise _UnknownError(f"is no output of the {what} {name} ({parts[4]})", fix)


def _before(
    place: _Place,
    here: tuple[Path, Mapping[str, Any]],
    what: str,
    name: str,
    path: Path,
    known: Mapping[str, tuple[Path, Mapping[str, Any]]],
) -> bool:
    """Whether a step or task is done when the one here begins; a hook of its own sees it as well."""
    at, body = here
    if at == path:
        return "hooks" in place.path or "onExit" in place.path
    if what == "step":
        return int(path[-2]) < int(at[-2])
    return name in reached({one: dependencies(task) for one, (_, task) in known.items()}, str(body.get("name")))
