"""Rules about workflows: every template that is named exists, gets what it asks for, and the whole ends and is tidied up."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from k8s.objects.findings import Finding, Path, rule
from k8s.objects.manifests import Manifest
from k8s.objects.pods import items, mapping, tasks
from k8s.objects.schema import Walk
from k8s.objects.workflows import Call, Flow, Flows, Step
from k8s.rules.whole_set import words

_TYPES = ("container", "containerSet", "dag", "data", "http", "plugin", "resource", "script", "steps", "suspend")
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,126}[A-Za-z0-9])?")
_DEPENDS = re.compile(r"([A-Za-z0-9][A-Za-z0-9_-]*)(?:\.[A-Za-z]+)?")
_SETTINGS = {
    "activeDeadlineSeconds": ("no deadline: a step that hangs keeps its GPU for ever", "write the seconds a run may take"),
    "ttlStrategy": ("finished runs are never removed", "write ttlStrategy: {secondsAfterSuccess: …, secondsAfterFailure: …}"),
    "podGC": ("the pods of finished runs are never removed", "write podGC: {strategy: OnWorkflowSuccess}"),
    "serviceAccountName": (
        "the pods run as the namespace's default ServiceAccount, with whatever others gave it",
        "write a ServiceAccount that may do what the workflow needs and nothing else",
    ),
}


def check(walks: Sequence[Walk]) -> Iterator[Finding]:
    """What is wrong within and between the workflows of a set.

    Args:
        walks: of the whole set.
    """
    flows = Flows.of(walks)
    yield from _sent_and_applied(walks)
    for flow in flows.flows:
        if not flow.spec:
            continue
        yield from _settings(flow)
        yield from _templates(flow)
        for call in flow.calls():
            yield from _call(flow, call, flows)
        yield from _arguments(flow, flows)


@rule("sent-and-applied")
def _sent_and_applied(walks: Sequence[Walk]) -> Iterator[Finding]:
    """What a workflow sends though the set has it as well: each would undo the other."""
    known = {walk.manifest.identity: walk.manifest for walk in walks}
    for walk in walks:
        for inner in walk.inner:
            first = known.get(inner.manifest.identity)
            if first and inner.manifest.name:
                what = f"the workflow sends {inner.manifest.title}, which {first.file}:{first.line()} has as well"
                yield inner.manifest.finding(
                    (), what, "keep it in the set, and let the workflow patch the one field it is about"
                )


@rule("workflow-settings")
def _settings(flow: Flow) -> Iterator[Finding]:
    """What a run needs to end. A workflow made of a template has it from there."""
    if flow.referenced:
        return
    for name, (what, fix) in _SETTINGS.items():
        if not flow.spec.get(name):
            yield flow.manifest.finding((*flow.path, name), what, fix)


@rule("workflow-template")
def _templates(flow: Flow) -> Iterator[Finding]:
    manifest = flow.manifest
    seen: list[str] = []
    if manifest.kind in {"Workflow", "CronWorkflow"} and not flow.referenced and not flow.spec.get("entrypoint"):
        yield manifest.finding((*flow.path, "entrypoint"), "no entrypoint: nothing says where to begin", "name a template")
    for step in flow.steps:
        inline = step.path[-1] == "inline"
        if not step.name and not inline:
            yield manifest.finding((*step.path, "name"), "a template without a name can be called by nothing", "give it one")
        if step.name and step.name in seen:
            yield manifest.finding((*step.path, "name"), f"the template {step.name} stands twice", "give one another name")
        if step.name and not _NAME.fullmatch(step.name):
            fix = "use letters, digits and -, at most 128"
            yield manifest.finding((*step.path, "name"), f"{step.name!r} is no name of a template", fix)
        seen.append(step.name)
        kinds = [kind for kind in _TYPES if step.body.get(kind) is not None]
        if len(kinds) != 1:
            what = f"a template that is {' and '.join(kinds) or 'nothing'}"
            yield manifest.finding(step.path, what, f"write exactly one of {', '.join(_TYPES)}")
        for kind in ("parameters", "artifacts"):
            yield from _twice(manifest, [(path, str(given.get("name"))) for path, given in step.inputs(kind)], "input")
        written = [((*step.path, *below), str(task.get("name") or "")) for below, task in tasks(step.body)]
        yield from _twice(manifest, written, "step" if "steps" in kinds else "task")
        for path, name in written:
            if not _NAME.fullmatch(name):
                yield manifest.finding(
                    (*path, "name"), f"{name!r} is no name of a step", "use letters, digits and -, at most 128"
                )
        yield from _dag(flow, step)


@rule("workflow-twice")
def _twice(manifest: Manifest, named: Sequence[tuple[Path, str]], what: str) -> Iterator[Finding]:
    seen: list[str] = []
    for path, name in named:
        if name and name in seen:
            yield manifest.finding((*path, "name"), f"the {what} {name} stands twice", "give one another name")
        seen.append(name)


@rule("workflow-dag")
def _dag(flow: Flow, step: Step) -> Iterator[Finding]:
    """Dependencies exist, and none depends on itself."""
    graph: dict[str, list[str]] = {}
    found = items(mapping(step.body.get("dag")), "tasks")
    names = [str(task.get("name")) for task in found]
    for number, task in enumerate(found):
        path: Path = (*step.path, "dag", "tasks", number)
        if task.get("depends") and task.get("dependencies"):
            fix = "keep depends"
            yield flow.manifest.finding((*path, "dependencies"), "both depends and dependencies", fix)
        graph[names[number]] = wanted = dependencies(task)
        for name in wanted:
            if name not in names:
                what = f"depends on {name}, which is no task here"
                field = "depends" if task.get("depends") else "dependencies"
                yield flow.manifest.finding((*path, field), what, f"tasks are: {', '.join(names)}")
    for name in names:
        if name in reached(graph, name):
            path = (*step.path, "dag", "tasks", names.index(name))
            yield flow.manifest.finding(path, f"the task {name} waits for itself", "break the circle of dependencies")
            return


def dependencies(task: Mapping[str, object]) -> list[str]:
    """The tasks that a task of a dag waits for."""
    said = task.get("depends")
    return _DEPENDS.findall(said) if isinstance(said, str) else words(task.get("dependencies"))


def reached(graph: Mapping[str, Sequence[str]], start: str) -> frozenset[str]:
    """Everything that is before a task, directly or not."""
    found: set[str] = set()
    waiting = list(graph.get(start, ()))
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += graph.get(name, ())
    return frozenset(found)


@rule("workflow-call")
def _call(flow: Flow, call: Call, flows: Flows) -> Iterator[Finding]:
    manifest = flow.manifest
    target = flows.target(flow, call)
    how = [key for key in ("template", "templateRef", "inline") if call.body.get(key)]
    if len(how) != 1:
        what = f"calls {' and '.join(how) or 'nothing'}"
        yield manifest.finding(call.path, what, "write exactly one of template, templateRef, inline")
        return
    if target is None:
        if how == ["template"] and flow.referenced and flows.base(flow) is None:
            return  # Its templates are deployed elsewhere, and checked there.
        name = call.body["template"] if how == ["template"] else "/".join(map(str, _reference(call)))
        known = sorted({step.name for step in (flows.base(flow) or flow).steps if step.name})
        fix = f"templates are: {', '.join(known) or 'none'}" if how == ["template"] else "add it to the set, or mend the name"
        at = call.path if call.path[-1] in {"entrypoint", "onExit"} else (*call.path, how[0])
        yield manifest.finding(at, f"no template {name}", fix)
        return
    step = target[1]
    for kind in ("parameters", "artifacts"):
        singular = kind.removesuffix("s")
        given = call.arguments(kind)
        names = [str(argument.get("name")) for _, argument in given]
        declared = {str(declared.get("name")): declared for _, declared in step.inputs(kind)}
        for path, argument in given:
            if argument.get("name") not in declared and call.caller is not None:
                what = f"hands over the {singular} {argument.get('name')}, which {_named(step)} does not take"
                yield manifest.finding((*path, "name"), what, f"its inputs are: {', '.join(declared) or 'none'}")
        if call.caller is None:  # It gets the workflow's arguments; a template's may still be given when it is submitted.
            holders = (flows.base(flow) or flow, flow)
            names += [str(argument.get("name")) for holder in holders for _, argument in holder.arguments(kind)]
        for name, wanted in declared.items():
            if name not in names and not _has_value(wanted):
                what = f"{_named(step)} takes the {singular} {name}, and gets none"
                fix = f"hand it over: arguments: {{{kind}: [{{name: {name}, …}}]}}"
                yield manifest.finding(call.path, what, fix)


def _reference(call: Call) -> tuple[object, object]:
    body = mapping(call.body.get("templateRef"))
    return body.get("name"), body.get("template")


def _named(step: Step) -> str:
    return f"the template {step.name}" if step.name else "the template inside"


def _has_value(declared: Mapping[str, object]) -> bool:
    """Whether an input has a value that nobody needs to hand over; an artifact may come from a storage of its own."""
    sources = set(declared) - {"name", "path", "mode", "description", "enum", "globalName", "archive", "recurseMode"}
    return bool(sources) and declared.get("optional") is not False


@rule("workflow-arguments")
def _arguments(flow: Flow, flows: Flows) -> Iterator[Finding]:
    """A workflow's own arguments: one that runs has values for all, and only for what its template takes."""
    yield from _twice(flow.manifest, [(path, str(one.get("name"))) for path, one in flow.arguments()], "argument")
    if flow.manifest.kind not in {"Workflow", "CronWorkflow"}:
        return
    base = flows.base(flow)
    given = {str(one.get("name")) for _, one in flow.arguments()}
    for path, one in flow.arguments():
        if one.get("value") is None and not one.get("valueFrom"):
            yield flow.manifest.finding(path, f"the argument {one.get('name')} has no value", "write it")
    if base is None or base is flow:
        return
    taken = {str(one.get("name")): one for _, one in base.arguments()}
    for path, one in flow.arguments():
        if str(one.get("name")) not in taken:
            what = f"hands over the parameter {one.get('name')}, which {base.manifest.title} does not take"
            yield flow.manifest.finding((*path, "name"), what, f"its parameters are: {', '.join(taken) or 'none'}")
    for name, one in taken.items():
        if name not in given and one.get("value") is None and not one.get("valueFrom"):
            what = f"{base.manifest.title} takes the parameter {name}, and gets none"
            yield flow.manifest.finding((*flow.path, "arguments"), what, "write it with its value")
