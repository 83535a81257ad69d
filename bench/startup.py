"""`invoke bench startup`: how long an image takes until it answers, and what its bytecode saves of that.

On a read-only root Python cannot keep what it compiles, so an image without bytecode compiles at every start. Such is an image
that was filled by a plain `uv pip install`. Ours is made to behave like it: a module that Python imports at its start
(`sitecustomize`) hides the bytecode of what wheels brought; the standard library's, which Debian compiled, stays.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bench import shared
from common import console
from common.errors import SmokeError
from images import receipt as built
from images import spec
from lockfiles import lockfile
from smoke import receipt
from smoke.boxes.box import Box
from smoke.boxes.opener import Opener
from smoke.boxes.session import RUN, Session
from smoke.ladder import choose
from smoke.machine import engine
from smoke.rungs.jobs import Jobs
from smoke.rungs.run import Run
from smoke.rungs.servers import BASE, PORTS, SHM, command, environment
from smoke.rungs.table import VLLM

_ROUNDS = 3
_LIMIT_S = 600.0
_COMMAND = "invoke bench startup"
_URL = f"http://127.0.0.1:{PORTS[VLLM]}"
_WITH, _WITHOUT = "with bytecode, as built", "without, as `uv pip install` leaves it"
# An environment for each: the image's own, and one in which the bytecode of wheels is not found.
_HIDING = f"{RUN}/hiding"
_WAYS: dict[str, dict[str, str]] = {_WITH: {}, _WITHOUT: {"PYTHONPATH": _HIDING}}
# What the import system asks for a file's bytecode; "there is none" is said by this exception (PEP 3147).
_HOOK = """
import importlib._bootstrap_external as system
asked = system.cache_from_source
def answer(path, *rest, **more):
    if path.startswith("/opt/venv/"):
        raise NotImplementedError
    return asked(path, *rest, **more)
system.cache_from_source = answer
"""
_STACK = ("torch", "transformers", "llamafactory", "vllm")
_IMPORT = """
import json, os, sys, time
started = time.monotonic()
import {stack}
seconds = time.monotonic() - started
modules = [m for m in list(sys.modules.values()) if str(getattr(m, "__file__", "")).startswith("/opt/venv/")]
modules = [m for m in modules if m.__file__.endswith(".py")]
found = sum(os.path.exists(getattr(m, "__cached__", None) or "") for m in modules)
print(json.dumps({{"seconds": seconds, "modules": len(modules), "bytecode": found}}))
"""
_DROP = Path("/proc/sys/vm/drop_caches")


@dataclass(frozen=True, slots=True)
class Start:
    """One thing that starts, both ways.

    Attributes:
        what: in words.
        ours: median seconds with bytecode.
        plain: the same without.
    """

    what: str
    ours: float
    plain: float

    def row(self) -> tuple[str, ...]:
        """For a table."""
        return self.what, f"{self.ours:.1f} s", f"{self.plain:.1f} s", f"{self.plain / self.ours:.2f} ×"


def run_bench() -> str:
    """Measure, print, and write the table into docs/performance.md; returns the outcome in a few words.

    Raises:
        BuildError: train and api-cpu were not built.
        MissingEnvironmentError: no engine.
        SmokeError: something does not start.
    """
    fit = engine.connect(gpu=False)
    images = choose(built.read(), gpu=False)
    # What is measured runs alone: no jobs.
    with Session(fit.client) as session, Jobs(1) as jobs:
        for number, image in enumerate(images):
            engine.load(fit, image, built.layout(), present=images[:number])
        session.prepare(images[0].digest)
        tasks = dict(zip(("train", "api"), images, strict=True))
        opener = Opener(session, tasks, None, receipt.directory() / "logs")
        run = Run(session, gpu=False, jobs=jobs, contained=True, open=opener, images=tasks)
        _hide(run)
        starts = [*_imports(run), _first_token(run)]
    head, cells = ("start of api-cpu", _WITH, _WITHOUT, "ratio"), [one.row() for one in starts]
    console.table(head, cells, right=(1, 2, 3))
    table = shared.markdown(head, cells, right=(1, 2, 3))
    shared.publish(_COMMAND, f"Medians of {_ROUNDS} rounds in turn, on a read-only root.", table)
    return f"{len(starts)} starts, written to docs/performance.md"


def _hide(run: Run) -> None:
    script = f"import os; os.mkdir({_HIDING!r}); open({_HIDING + '/sitecustomize.py'!r}, 'w').write({_HOOK!r})"
    with run.box("hiding bytecode", "train", ["python", "-c", script]) as box:
        box.finish(_LIMIT_S)


def _imports(run: Run) -> list[Start]:
    caches = {"files in memory": False}
    if os.access(_DROP, os.W_OK):
        caches = {"files on disk": True, **caches}
    starts = []
    for name, cold in caches.items():
        if not cold:
            _import(run, {})
        times: dict[str, list[float]] = {way: [] for way in _WAYS}
        for _ in range(_ROUNDS):
            for way, env in _WAYS.items():
                if cold:
                    _forget_files()
                times[way].append(_import(run, env))
        starts.append(_start(f"import {', '.join(_STACK)}; {name}", times))
    return starts


def _import(run: Run, env: Mapping[str, str]) -> float:
    script = _IMPORT.format(stack=", ".join(_STACK))
    variables = {**environment(gpu=False), **env}
    with run.box("import", "api", ["python", "-c", script], environment=variables, shm=SHM) as box:
        box.finish(_LIMIT_S)
        said = json.loads(box.stdout().splitlines()[-1])
    # What is compared must be what it is called: nearly every module from bytecode, or none.
    # (Some few are imported before anything can be hidden.)
    share = said["bytecode"] / said["modules"]
    expected = share < 0.05 if env else share > 0.95
    if not expected:
        raise SmokeError(f"{said['bytecode']} of {said['modules']} modules have bytecode with {dict(env)}")
    return float(said["seconds"])


def _first_token(run: Run) -> Start:
    for name, argv in (
        ("tiny model", ["python", run.payload("tiny.py"), "."]),
        ("train", ["llamafactory-cli", "train", "train.yaml"]),
    ):
        with console.step(name), run.box(name, "train", argv) as box:
            box.finish(_LIMIT_S)
    held = lockfile.read_set(spec.read(run.images["api"].role).set).wheels
    (vllm,) = (wheel.version for wheel in held if wheel.name == "vllm")
    times: dict[str, list[float]] = {way: [] for way in _WAYS}
    for _ in range(_ROUNDS):
        for way, env in _WAYS.items():
            argv = command(VLLM, gpu=False, vllm=vllm)
            variables = {**environment(gpu=False), **env}
            with console.step(f"{VLLM} {way}") as notes:
                started = time.monotonic()
                with run.box(VLLM, "api", argv, environment=variables, shm=SHM) as box:
                    _await_token(box)
                    times[way].append(time.monotonic() - started)
                notes.append(f"first token after {console.seconds(times[way][-1])}")
    return _start("`docker run` of vllm serve to the first token; files in memory", times)


def _await_token(box: Box) -> None:
    box.await_http(f"{_URL}/health", _LIMIT_S)
    body = json.dumps({"model": BASE, "prompt": "a", "max_tokens": 1, "temperature": 0})
    argv = ["curl", "-fs", "--max-time", "60", "-H", "Content-Type: application/json", "-d", body]
    answer = box.run([*argv, f"{_URL}/v1/completions"], _LIMIT_S)
    if answer.code != 0:
        raise SmokeError("vllm serve gives no token", where=box.tail())


def _start(what: str, times: Mapping[str, list[float]]) -> Start:
    ours, plain = (statistics.median(times[way]) for way in (_WITH, _WITHOUT))
    return Start(what, ours, plain)


def _forget_files() -> None:
    """Let the kernel drop what it keeps of files (Documentation/admin-guide/sysctl/vm.rst, "drop_caches")."""
    os.sync()
    _DROP.write_text("3")
