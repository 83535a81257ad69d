"""The smoke stage: from a build receipt to a smoke receipt."""

from __future__ import annotations

import shutil
import time
from datetime import UTC, datetime
from pathlib import Path

import docker.errors
import pytest
import requests

from common import console, paths
from common.errors import BuildError, MissingEnvironmentError, SmokeError
from common.signals import terminable
from images import receipt as built
from images import spec
from images.receipt import BuildReceipt, BuiltImage
from smoke import curve, engine, host, preflight, receipt
from smoke.bench import Bench
from smoke.engine import Engine
from smoke.receipt import ProvenImage, Rung, SmokeReceipt
from smoke.rungs import Ladder
from smoke.servers import TUNED
from smoke.session import Session

_HERE = Path(__file__).resolve().parent
# In the order they stand on each other.
SUITES = ("test_contract.py", "test_train.py", "test_serve.py")


def run_smoke(*, gpu: bool) -> SmokeReceipt:
    """Run the ladder against what was built, and write the receipt, whether it passes or not.

    Args:
        gpu: on a GPU, with the pair that was built for one; otherwise on the CPU.

    Raises:
        MissingEnvironmentError: this machine cannot run it; nothing was touched.
        BuildError: nothing was built, or not the pair that runs here.
        SmokeError: a rung did not pass; the receipt says which.
        KeyboardInterrupt: interrupted, by SIGINT or SIGTERM; everything is cleaned up and the receipt says so.
    """
    started, clock = datetime.now(UTC), time.monotonic()
    fit = engine.connect(gpu=gpu)
    build = built.read()
    images = choose(build, gpu=gpu)
    if gpu:
        fit = preflight.choose(fit, images)
    directory = receipt.directory()
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    with terminable():
        ladder, code = _climb(fit, images, directory)
    figures = ladder.bench.figures
    result = SmokeReceipt(
        passed=ladder.passed and code == pytest.ExitCode.OK,
        gpu=gpu,
        started=started.isoformat(timespec="seconds"),
        seconds=round(time.monotonic() - clock, 3),
        source=build.source,
        engine=fit.version,
        host=host.describe(),
        images=tuple(ProvenImage(image.name, image.role, image.version, image.digest) for image in images),
        rungs=tuple(ladder.rungs.values()),
        training=figures.training,
        servings=tuple(figures.servings),
        answers=tuple(figures.answers),
    )
    receipt.write(result)
    if result.training:
        curve.draw(result.training.losses, directory / "loss.png")
    if code == pytest.ExitCode.INTERRUPTED and not ladder.trouble:
        raise KeyboardInterrupt
    _summary(result)
    if not result.passed:
        raise SmokeError(_verdict(result.rungs, ladder.trouble, code), where=paths.shown(receipt.path()))
    return result


def choose(build: BuildReceipt, *, gpu: bool) -> tuple[BuiltImage, ...]:
    """The images of a run: the one that trains, the one that serves, of the family that was built.

    Raises:
        BuildError: no pair for this run was built, or several were.
    """
    by_role = {image.role: image for image in build.images}
    pairs = [spec.pair(family) for family in spec.families() if (family == spec.CPU) is not gpu]
    whole = [pair for pair in pairs if by_role.keys() >= set(pair)]
    if len(whole) > 1:
        what = "; ".join(" and ".join(pair) for pair in whole)
        raise BuildError(f"several pairs were built: {what}", where=paths.shown(built.path()), fix="build one pair at a time")
    if not whole:
        # The pair that was meant is the one that was begun; the plain one, which stands first, where none was.
        pair = max(pairs, key=lambda pair: len(by_role.keys() & set(pair)))
        missing = next(role for role in pair if role not in by_role)
        raise BuildError(f"the image {missing!r} was not built", where=paths.shown(built.path()), fix=_how_to_build(pair))
    return tuple(by_role[role] for role in whole[0])


def _how_to_build(pair: tuple[str, str]) -> str:
    if pair == spec.pair():
        return "run `invoke build` first"
    family = pair[1].partition("-")[2]
    return f"run `invoke build {'--cpu' if family == spec.CPU else f'--family {family}'}` first"


def _climb(fit: Engine, images: tuple[BuiltImage, ...], directory: Path) -> tuple[Ladder, int]:
    """Load the images and run the suite; what it made in the engine is gone afterwards."""
    try:
        with Session(fit.client) as session:
            for number, image in enumerate(images):
                engine.load(fit, image, built.layout(), present=images[:number])
            session.prepare(images[0].digest)
            tasks = dict(zip(("train", "api"), images, strict=True))
            ladder = Ladder(Bench(session, tasks, fit.gpu, directory / "logs"))
            return ladder, _pytest(ladder, directory)
    except (requests.ConnectionError, docker.errors.APIError) as problem:
        raise MissingEnvironmentError(
            f"the engine broke off: {problem}", fix="look at the engine's log; `invoke engine` says whether it answers"
        ) from problem


def _pytest(ladder: Ladder, directory: Path) -> int:
    arguments = [
        *(str(_HERE / suite) for suite in SUITES),
        *("--rootdir", str(paths.ROOT), "-c", str(paths.ROOT / "pyproject.toml"), "-o", "addopts="),
        *("--strict-markers", "--strict-config", "--junitxml", str(directory / "junit.xml")),
        # The ladder speaks for itself; and nothing is written beside the sources.
        *("-p", "no:terminal", "-p", "no:cacheprovider", "-s"),
    ]
    return int(pytest.main(arguments, plugins=[_Registered(ladder)]))


class _Registered:
    """Puts the ladder in before the suite's own conftest asks for it."""

    def __init__(self, ladder: Ladder) -> None:
        self._ladder = ladder

    def pytest_configure(self, config: pytest.Config) -> None:
        """Called by pytest."""
        self._ladder.register(config)


def _summary(result: SmokeReceipt) -> None:
    for image in result.images:
        console.info(f"{image.name}@{image.digest}")
    exact = sum(answer.got == answer.expected for answer in result.answers if answer.model == TUNED)
    asked = sum(answer.model == TUNED for answer in result.answers)
    console.info(f"{exact} of {asked} trained answers exact, on {_where(result)}, in {console.seconds(result.seconds)}")
    for name in ("receipt.json", "junit.xml", "loss.png", "logs"):
        if (receipt.directory() / name).exists():
            console.info(paths.shown(receipt.directory() / name))


def _where(result: SmokeReceipt) -> str:
    machine = result.host
    device = ", ".join(gpu.name for gpu in machine.gpus) if result.gpu else ""
    return device or f"{machine.cores} cores of {machine.cpu}"


def _verdict(rungs: tuple[Rung, ...], trouble: str, code: int) -> str:
    failed = [rung for rung in rungs if rung.outcome == "failed"]
    if failed:
        return f"{len(failed)} of {len(rungs)} rungs failed; {failed[0].name}: {failed[0].message}"
    return trouble or f"pytest ended with code {code} and no rung failed"
