"""`invoke bench smoke`: what the smoke suite costs on top of the programs that it runs.

LLaMA-Factory's training and vLLM's start, each in a container of the same image with the same options: once bare, by the docker
command line with nothing of ours in between, timed by the engine's own clock (a container's start and finish), and once as a
rung does it, timed from before the container is made until everything about it is known.
"""

from __future__ import annotations

import json
import shlex
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from bench import shared
from common import console
from common.errors import PinwheelError, SmokeError
from common.run import run
from images import receipt as built
from images import spec
from lockfiles import lockfile
from smoke import receipt
from smoke.boxes.container import Sandbox
from smoke.boxes.held import Spec, options
from smoke.boxes.opener import Opener
from smoke.boxes.session import PAYLOAD, WORKSPACE, Session
from smoke.ladder import choose
from smoke.machine import engine
from smoke.rungs.run import ENVIRONMENT
from smoke.rungs.servers import PORTS, PROMISES, SHM, command, environment
from smoke.rungs.table import VLLM

_ROUNDS = 3
_LIMIT_S = 600.0
_COMMAND = "invoke bench smoke"
# What the project promises to stay within.
_GOAL = 1.10
_URL = f"http://127.0.0.1:{PORTS[VLLM]}{PROMISES[VLLM].health}"
# Asks fifty times a second, in one process, and says when the first good answer came.
_POLL = f"""
import time, urllib.request
while True:
    try:
        with urllib.request.urlopen({_URL!r}, timeout=5):
            print(time.time())
            break
    except OSError:
        time.sleep(0.02)
"""
# What makes two containers the same, in the engine's words.
_HELD = ("ReadonlyRootfs", "NetworkMode", "CapDrop", "SecurityOpt", "Memory", "MemorySwap", "PidsLimit", "ShmSize", "Tmpfs")
_RUNS = ("Cmd", "Env", "User", "WorkingDir")


@dataclass(frozen=True, slots=True)
class Cost:
    """One thing that the suite waits for.

    Attributes:
        what: in words.
        bare: median seconds by itself.
        ours: median seconds as a rung has it.
    """

    what: str
    bare: float
    ours: float

    @property
    def ratio(self) -> float:
        """How many times as long it takes with us."""
        return self.ours / self.bare

    def row(self) -> tuple[str, ...]:
        """For a table."""
        met = "yes" if self.ratio <= _GOAL else "**no**"
        return self.what, f"{self.bare:.2f} s", f"{self.ours:.2f} s", f"{self.ratio:.3f} ×", f"≤ {_GOAL:.2f} ×", met


def run_bench(*, rounds: int = _ROUNDS) -> str:
    """Measure, print, and write the table into docs/performance.md; returns the outcome in a few words.

    Args:
        rounds: of each, in turn.

    Raises:
        BuildError: train and api-cpu were not built.
        MissingEnvironmentError: no engine.
        SmokeError: something does not start, or the two ways differ in more than who starts them.
    """
    costs = measure(rounds)
    head, right = ("in a container, on the CPU", "bare", "as a rung", "ratio", "goal", "met"), (1, 2, 3, 4)
    rows = [cost.row() for cost in costs]
    console.table(head, rows, right=right)
    table = shared.markdown(head, rows, right=right)
    shared.publish(_COMMAND, f"Medians of {rounds} rounds in turn.", table, *_ladder())
    return f"{max(cost.ratio for cost in costs):.3f} × at the most, written to docs/performance.md"


def measure(rounds: int) -> tuple[Cost, ...]:
    """Both ways in turn; raises as `run_bench`."""
    fit = engine.connect(gpu=False)
    images = choose(built.read(), gpu=False)
    with tempfile.TemporaryDirectory(prefix="pinwheel-bench-") as logs, Session(fit.client) as session:
        for number, image in enumerate(images):
            engine.load(fit, image, built.layout(), present=images[:number])
        session.prepare(images[0].digest)
        tasks = dict(zip(("train", "api"), images, strict=True))
        opener = Opener(session, tasks, None, Path(logs))

        def box(name: str, task: str, argv: list[str], *, serves: bool = False) -> Sandbox:
            variables = {**ENVIRONMENT, **(environment(gpu=False) if serves else {})}
            return opener(name, task, argv, variables, SHM if serves else 64 << 20)

        def training() -> Sandbox:
            return box("train", "train", ["llamafactory-cli", "train", "train.yaml"])

        def serving() -> Sandbox:
            return box(VLLM, "api", command(VLLM, gpu=False, vllm=_vllm(tasks["api"].role)), serves=True)

        with console.step("tiny model"), box("tiny model", "train", ["python", f"{PAYLOAD}/tiny.py", "."]) as made:
            made.finish(_LIMIT_S)
        return (
            _cost("`llamafactory-cli train`, to its end", training, _bare_end, _our_end, rounds),
            _cost("`vllm serve` with the adapter, until /health answers", serving, _bare_ready, _our_ready, rounds),
        )


def _cost(
    what: str, make: Callable[[], Sandbox], bare: Callable[[Sandbox], float], ours: Callable[[Sandbox], float], rounds: int
) -> Cost:
    times: dict[str, list[float]] = {"bare": [], "ours": []}
    with make() as box:
        _check_alike(box)
    for number in range(rounds + 1):
        for name, way in (("bare", bare), ("ours", ours)):
            with console.step(f"{what}: {name}") as notes:
                seconds = way(make())
                notes.append(console.seconds(seconds) if number else "to warm up")
            # The first of each brings the files into memory.
            times[name] += [seconds] if number else []
    return Cost(what, statistics.median(times["bare"]), statistics.median(times["ours"]))


def _our_end(box: Sandbox) -> float:
    began = time.monotonic()
    with box:
        box.finish(_LIMIT_S)
    return time.monotonic() - began


def _our_ready(box: Sandbox) -> float:
    began = time.monotonic()
    with box:
        box.await_http(_URL, _LIMIT_S)
        return time.monotonic() - began


def _bare_end(box: Sandbox) -> float:
    container = _start(box.spec)
    try:
        _docker("wait", container)
        state = _inspect(container)["State"]
        if state["ExitCode"] != 0:
            raise SmokeError(f"{box.spec.name} ended with code {state['ExitCode']}", where=_docker("logs", container)[-400:])
        return _seconds(state["FinishedAt"]) - _seconds(state["StartedAt"])
    finally:
        _docker("rm", "--force", container)


def _bare_ready(box: Sandbox) -> float:
    container = _start(box.spec)
    try:
        answered = float(_docker("exec", container, "timeout", f"{_LIMIT_S:.0f}", "python", "-S", "-c", _POLL))
        return answered - _seconds(_inspect(container)["State"]["StartedAt"])
    finally:
        _docker("rm", "--force", container)


def _start(spec: Spec) -> str:
    """Start a container by the command line; its id."""
    return _docker("run", "--detach", *flags(spec), spec.image, *spec.command).strip()


def flags(spec: Spec) -> list[str]:
    """What the command line is given for the same container that `Sandbox` makes; `_check_alike` sees to that."""
    asked = options(spec)
    labels = [f"--label={name}={value}" for name, value in asked["labels"].items()]
    variables = [f"--env={name}={value}" for name, value in spec.environment.items()]
    return [
        *labels,
        *variables,
        f"--volume={spec.volume}:{WORKSPACE}:rw",
        "--tmpfs=/tmp:rw,exec,nosuid,nodev,size=2g,mode=1777",
        f"--workdir={asked['working_dir']}",
        f"--entrypoint={shlex.join(asked['entrypoint'])}",
        "--read-only",
        f"--network={asked['network']}",
        *(f"--cap-drop={name}" for name in asked["cap_drop"]),
        *(f"--security-opt={name}" for name in asked["security_opt"]),
        f"--memory={asked['mem_limit']}",
        f"--memory-swap={asked['memswap_limit']}",
        f"--pids-limit={asked['pids_limit']}",
        f"--shm-size={asked['shm_size']}",
    ]


def _check_alike(box: Sandbox) -> None:
    """What is compared has to be the same container: one more is made by the command line, and looked at beside ours."""
    ours = _inspect(str(box.get_wrapped_container().id))
    container = _docker("create", *flags(box.spec), box.spec.image, *box.spec.command).strip()
    try:
        bare = _inspect(container)
    finally:
        _docker("rm", "--force", container)
    pairs = [(name, ours["HostConfig"][name], bare["HostConfig"][name]) for name in _HELD]
    pairs += [(name, _sorted(ours["Config"][name]), _sorted(bare["Config"][name])) for name in _RUNS]
    differ = [f"{name}: {one} and {other}" for name, one, other in pairs if one != other]
    if differ:
        raise SmokeError(f"the containers are not held alike: {'; '.join(differ)}", where=box.spec.name)


def _sorted(value: Any) -> Any:
    """Variables in one order; the order of everything else counts."""
    return sorted(value) if isinstance(value, list) and all("=" in str(one) for one in value) else value


def _inspect(container: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(_docker("inspect", container))[0]
    return found


def _docker(*arguments: str) -> str:
    return run(["docker", *arguments], error=SmokeError, what=f"docker {arguments[0]}").stdout


def _seconds(told: str) -> float:
    """A time of the engine's, `2026-11-23T20:16:22.123456789Z`, in seconds; Python knows microseconds at the most."""
    whole, _, fraction = told.removesuffix("Z").partition(".")
    return datetime.fromisoformat(f"{whole}+00:00").timestamp() + float(f"0.{fraction or 0}")


def _vllm(role: str) -> str:
    (version,) = (wheel.version for wheel in lockfile.read_set(spec.read(role).set).wheels if wheel.name == "vllm")
    return version


def _ladder() -> list[str]:
    """The whole ladder beside its rungs, from the receipt of the last run; nothing where none passed."""
    try:
        last = receipt.read()
    except PinwheelError:
        return []
    if not (last.passed and last.container):
        return []
    work = sum(rung.seconds for rung in last.rungs)
    return [
        f"The last whole ladder, of {last.started[:10]} on {last.host.cores} cores, took {console.seconds(last.seconds)}; "
        f"the work of its {len(last.rungs)} rungs adds up to {console.seconds(work)}, some of it done at the same time."
    ]
