"""The smoke stage: from a build receipt to a smoke receipt."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import docker.errors
import pytest
import requests

from common import console, git, paths
from common.errors import BuildError, MissingEnvironmentError, SmokeError
from common.signals import terminable
from images import receipt as built
from images import spec
from images.receipt import BuildReceipt, BuiltImage
from oci.layout import Layout
from smoke import history, preflight, receipt, report
from smoke.boxes.local import Workshop
from smoke.boxes.opener import Opener
from smoke.boxes.session import Session
from smoke.machine import engine, host
from smoke.machine.engine import Engine
from smoke.pulled import Pulled
from smoke.receipt import ProvenImage, Rung, SmokeReceipt, Version
from smoke.rungs.jobs import Jobs
from smoke.rungs.plugin import Ladder
from smoke.rungs.run import Run
from smoke.rungs.servers import TUNED
from smoke.rungs.watch import Watch

_HERE = Path(__file__).resolve().parent / "suite"
# In the order they stand on each other.
SUITES = ("test_contract.py", "test_device.py", "test_train.py", "test_serve.py")
# Written by a run, in the order they are worth a look.
_RESULTS = (report.NAME, "receipt.json", "junit.xml", "logs")


def run_smoke(*, gpu: bool, container: bool = True, pulled: Pulled | None = None) -> SmokeReceipt:
    """Run the ladder against what was built or pulled, and write the receipt, whether it passes or not.

    Args:
        gpu: on a GPU, with the pair that was built for one; otherwise on the CPU.
        container: run the images. Otherwise the programs on PATH run as plain processes, which proves nothing of an image.
        pulled: images of a registry, in the place of what was built.

    Raises:
        MissingEnvironmentError: this machine cannot run it, and nothing was touched; or the engine broke off.
        BuildError: nothing was built, or not the pair that runs here.
        RegistryError, LockError: an image cannot be pulled.
        SmokeError: a rung did not pass; the receipt says which.
        KeyboardInterrupt: interrupted, by SIGINT or SIGTERM; everything is cleaned up and the receipt says so.
    """
    started, clock = datetime.now(UTC), time.monotonic()
    directory = receipt.directory()
    source = ""
    images: tuple[BuiltImage, ...] = ()
    version = ""
    ground: AbstractContextManager[tuple[Run, Watch]]
    if container:
        connected = engine.connect(gpu=gpu)
        version = connected.version
        if pulled:
            images, source = pulled.images, git.revision()
        else:
            build = built.read()
            images, source = choose(build, gpu=gpu), build.source
        connected, fit = preflight.contained(connected, images, gpu=gpu)
        ground = _containers(connected, images, directory / "logs", fit.at_once, gpu=gpu, pulled=pulled)
    else:
        fit = preflight.plain(gpu=gpu)
        ground = _processes(Workshop(directory, gpu=fit.device), fit.at_once, gpu=gpu)
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    with terminable(), ground as (run, watch):
        ladder = Ladder(run, watch)
        ladder.book("preflight", fit.seconds, fit.message)
        code = _pytest(ladder, directory)
    figures = run.figures
    result = SmokeReceipt(
        passed=ladder.passed and code == pytest.ExitCode.OK,
        gpu=gpu,
        container=container,
        started=started.isoformat(timespec="seconds"),
        seconds=round(time.monotonic() - clock, 3),
        source=source,
        engine=version,
        host=host.describe(),
        images=tuple(ProvenImage(image.name, image.role, image.version, image.digest, image.config_digest) for image in images),
        rungs=ladder.result(directory),
        training=figures.training,
        servings=tuple(figures.servings),
        answers=tuple(figures.answers),
        versions=tuple(
            Version(image, package, version)
            for image, packages in sorted(figures.versions.items())
            for package, version in sorted(packages.items())
        ),
        figures=tuple(figure for _, figure in sorted(figures.measured.items())),
    )
    result = history.compare(result)
    receipt.write(result)
    try:
        report.write(result, directory)
    except Exception as problem:  # noqa: BLE001 - a fault in the page must not take the verdict along
        console.warn(f"{report.NAME} could not be written: {type(problem).__name__}: {problem}")
    if ladder.interrupted and not ladder.trouble:
        raise ladder.interrupted
    _summary(result)
    if not result.passed:
        raise SmokeError(_verdict(result.rungs, ladder.trouble, code), where=paths.shown(receipt.path()))
    history.keep(result)
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
    images = tuple(by_role[role] for role in whole[0])
    layout = Layout(built.layout())
    for image in images:
        for one in image.layers:
            if one.source and not layout.has(one.digest, one.size):
                what = f"a thin build left the layer {one.what!r} of {image.name} in {one.source}"
                fix = "push, and run `invoke smoke --registry REF`; or run `invoke build` without --from"
                raise BuildError(what, where=paths.shown(built.layout()), fix=fix)
    return images


def _how_to_build(pair: tuple[str, str]) -> str:
    if pair == spec.pair():
        return "run `invoke build` first"
    family = pair[1].partition("-")[2]
    return f"run `invoke build {'--cpu' if family == spec.CPU else f'--family {family}'}` first"


@contextmanager
def _containers(
    fit: Engine, images: tuple[BuiltImage, ...], logs: Path, at_once: int, *, gpu: bool, pulled: Pulled | None
) -> Iterator[tuple[Run, Watch]]:
    """Load the images, for a ladder that runs them; what it makes in the engine is gone afterwards."""
    try:
        # The order counts: no box is opened any more, then the jobs end, then nothing is left that a label names.
        with Session(fit.client) as session, Watch() as watch, Jobs(at_once, watch.work) as jobs:
            try:
                for number, image in enumerate(images):
                    fetched = pulled and not engine.holds(fit.client, image)
                    layout = pulled.bring(image) if pulled and fetched else built.layout()
                    engine.load(fit, image, layout, present=images[:number])
                if pulled:
                    pulled.drop()
                session.prepare(images[0].digest)
                tasks = dict(zip(("train", "api"), images, strict=True))
                opener = Opener(session, tasks, fit.gpu, logs, fit.every)
                yield Run(session, gpu, jobs, contained=True, open=watch.booked(opener), images=tasks), watch
            finally:
                session.stop()
    except (requests.RequestException, docker.errors.APIError) as problem:
        raise MissingEnvironmentError(
            f"the engine broke off: {problem}", fix="look at the engine's log; `invoke engine` says whether it answers"
        ) from problem


@contextmanager
def _processes(workshop: Workshop, at_once: int, *, gpu: bool) -> Iterator[tuple[Run, Watch]]:
    """The same ladder with plain processes; they are gone afterwards, too."""
    with workshop, Watch() as watch, Jobs(at_once, watch.work) as jobs:
        try:
            yield Run(workshop, gpu, jobs, contained=False, open=watch.booked(workshop.open)), watch
        finally:
            workshop.stop()


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
        # Longer tracebacks, which go to junit.xml, show what functions were called with: the servers' API keys among it.
        config.option.tbstyle = "short"


def _summary(result: SmokeReceipt) -> None:
    for image in result.images:
        console.info(f"{image.name}@{image.digest}")
    exact = sum(answer.got == answer.expected for answer in result.answers if answer.model == TUNED)
    asked = sum(answer.model == TUNED for answer in result.answers)
    console.info(f"{exact} of {asked} trained answers exact, on {_where(result)}, in {console.seconds(result.seconds)}")
    for name in _RESULTS:
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
