"""The rules that our workflows keep beyond what linters know."""

from __future__ import annotations

import importlib.util
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml
from invoke.collection import Collection
from invoke.exceptions import ParseError
from invoke.parser import Parser
from invoke.program import Program

import tasks
from common import paths

FOLDER = paths.ROOT / ".github" / "workflows"
NIGHT = paths.ROOT / ".github" / "night.py"

# Every other program in a `run`, and why it is there. What follows it is read by its own parser where it is ours.
OTHERS = {
    "python3 .github/night.py": "ours: Python's standard library and `gh`, for machines that need no environment made first",
    "tee": "a relock is shown in the log and in the summary",
}
# A token may only read, but for these: (file, job) to what it may write.
WRITES = {
    ("nightly.yml", "verdict"): {"issues"},
    ("nightwatch.yml", "watch"): {"issues"},
}
_PINNED = re.compile(r"uses: [\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$")
# A runner of GitHub's own, new for each job.
_HOSTED = re.compile(r"ubuntu-\d\d\.\d\d")
# In any of its forms: `secrets.NAME`, `secrets['NAME']`, `toJSON(secrets)`, `secrets: inherit`.
_SECRET = re.compile(r"\$\{\{[^}]*\bsecrets\b|'secrets':")
_REDIRECTION = re.compile(r"\s\d?>>?(&\d|\s*\S+)")


@dataclass(frozen=True, slots=True)
class Workflow:
    """A workflow: its file's name, its text, and what that says. Everything in `body` is text, `on` and `true` included."""

    name: str
    text: str
    body: Mapping[str, Any]

    def jobs(self) -> Mapping[str, Any]:
        return dict(self.body["jobs"])

    def steps(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        for name, job in self.jobs().items():
            yield from ((name, step) for step in job["steps"])


def of(name: str, text: str) -> Workflow:
    # The loader that makes nothing of `on`, `true` and numbers.
    return Workflow(name, text, yaml.load(text, Loader=yaml.BaseLoader))


def ours() -> list[Workflow]:
    return [of(file.name, file.read_text()) for file in sorted(FOLDER.glob("*.y*ml"))]


def commands(workflow: Workflow) -> Iterator[str]:
    """Every command that a workflow runs, without what its output goes to."""
    for _, step in workflow.steps():
        for line in step.get("run", "").splitlines():
            if line.strip() and not line.lstrip().startswith("#"):
                yield from (part.strip() for part in re.split(r"\|\||&&|[|;]", _REDIRECTION.sub("", line)))


def problems(workflow: Workflow) -> list[str]:
    """What is wrong with a workflow, a line each."""
    return [
        f"{workflow.name}: {problem}"
        for rule in (_actions, _permissions, _bounds, _runners, _secrets, _runs)
        for problem in rule(workflow)
    ]


def _actions(workflow: Workflow) -> Iterator[str]:
    for line in workflow.text.splitlines():
        if "uses:" in line and not _PINNED.search(line):
            yield f"not pinned by commit, with its version beside: {line.strip()}"
    for name, step in workflow.steps():
        if "actions/checkout@" in step.get("uses", "") and step.get("with", {}).get("persist-credentials") != "false":
            yield f"{name}: the token stays in the checkout"


def _permissions(workflow: Workflow) -> Iterator[str]:
    if workflow.body.get("permissions") != {}:
        yield "a token has permissions that no job asked for"
    for name, job in workflow.jobs().items():
        granted = job.get("permissions")
        if not isinstance(granted, dict):
            yield f"{name}: does not say what its token may do"
            continue
        writes = {what for what, how in granted.items() if how != "read"}
        if writes != WRITES.get((workflow.name, name), set()):
            yield f"{name}: its token may write {sorted(writes)}"


def _bounds(workflow: Workflow) -> Iterator[str]:
    if "group" not in workflow.body.get("concurrency", {}):
        yield "two runs may be under way at once"
    for name, job in workflow.jobs().items():
        if not job.get("timeout-minutes", "").isdecimal():
            yield f"{name}: no time limit"


def _runners(workflow: Workflow) -> Iterator[str]:
    events = workflow.body["on"]
    if "pull_request_target" in events or "workflow_run" in events:
        yield "runs with secrets for what strangers sent"
    for name, job in workflow.jobs().items():
        guarded = job.get("if") == "github.event_name != 'pull_request'"
        # By name: an expression, a group or a label of ours may be any machine.
        hosted = isinstance(job["runs-on"], str) and _HOSTED.fullmatch(job["runs-on"])
        if "pull_request" in events and not hosted and not guarded:
            yield f"{name}: runs strangers' code on a machine of ours"


def _secrets(workflow: Workflow) -> Iterator[str]:
    for name, job in workflow.jobs().items():
        steps = [{**step, "env": {}} for step in job["steps"]]
        if _SECRET.search(str({**job, "steps": steps})) or _SECRET.search(str(workflow.body.get("env", ""))):
            yield f"{name}: a secret reaches more than the environment of one step"
        if _SECRET.search(str(job)) and "environment" not in job:
            yield f"{name}: takes a secret without an environment that guards it"
        if "pull_request" in workflow.body["on"] and (_SECRET.search(str(job)) or "environment" in job):
            yield f"{name}: shows a secret to what strangers sent"


def _runs(workflow: Workflow) -> Iterator[str]:
    for _, step in workflow.steps():
        if "${{" in step.get("run", ""):
            yield f"text is put into a shell: {step['run'].strip()}"
    for command in commands(workflow):
        words = shlex.split(command)
        if words[0] == "./invokew":
            yield from _invoke(words[1:])
        elif words[:2] == ["python3", ".github/night.py"]:
            yield from _night(words[2:])
        elif words[0] not in OTHERS:
            yield f"neither ours nor explained: {command}"


def _invoke(words: list[str]) -> Iterator[str]:
    """Invoke's own parser reads it."""
    contexts = Collection.from_module(tasks).to_contexts()
    try:
        parsed = Parser(contexts=contexts, initial=Program().initial_context).parse_argv(words)
    except ParseError as problem:
        yield f"invoke {shlex.join(words)}: {problem}"
        return
    if len(parsed) < 2:
        yield f"invoke {shlex.join(words)}: no command"


def _night(words: list[str]) -> Iterator[str]:
    try:
        night().parser().parse_args(words)
    except SystemExit:
        yield f"night.py does not know: {shlex.join(words)}"


def night() -> ModuleType:
    """`.github/night.py`, which lies where no package can."""
    spec = importlib.util.spec_from_file_location("night", NIGHT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def names(workflow: Workflow) -> set[str]:
    """What somebody has to set up for a workflow: secrets, variables, environments, labels of runners."""
    found = set(re.findall(r"\b(?:secrets|vars)\.(\w+)", workflow.text))
    for job in workflow.jobs().values():
        found |= {job["environment"]} if "environment" in job else set()
        found |= set(job["runs-on"]) if isinstance(job["runs-on"], list) else set()
    return found


def path(name: str) -> Path:
    """A bad workflow."""
    return Path(__file__).with_name("bad") / f"{name}.yml"
