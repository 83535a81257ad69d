"""A whole run: preflight, images, rungs, receipt. The engine is simulated, the suite is a small one of the test's own."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Protocol, cast
from xml.etree import ElementTree as ET

import pytest

from common import host, paths
from common.errors import BuildError, ExitCode, SmokeError
from common.signals import TerminatedError
from images import receipt as built
from images.receipt import BuildReceipt
from smoke import ladder, receipt
from smoke.boxes.box import Place
from smoke.boxes.session import LABEL, Session
from smoke.rungs import table
from smoke.rungs.jobs import Jobs
from smoke.rungs.plugin import Ladder
from smoke.rungs.run import Run
from smoke.rungs.table import KNOWN, Known
from smoke.rungs.watch import Opening, Watch
from tests.smoke import layouts
from tests.smoke.simulator import SimulatedEngine

pytestmark = pytest.mark.slow

CONFTEST = "from smoke.suite.conftest import run, say, took\n"
HEAD = "import pytest, time\nfrom common.errors import SmokeError\nfrom smoke.receipt import Answer, Training\n"
# The rungs that the small suites of these tests may have.
NAMES = ("one", "two", "three", "four", "ready")


class RunLadder(Protocol):
    """Runs a ladder of these rungs."""

    def __call__(self, tests: str, *, container: bool = True) -> SimulatedEngine: ...


def rung(name: str, body: str, needs: str = "()", more: str = "") -> str:
    return f"@pytest.mark.rung({name!r}, needs={needs}{more})\ndef test_{name}(run, say, took):\n    {body}\n"


@pytest.fixture
def images(own_folders: Path) -> BuildReceipt:
    layout = built.layout()
    shared = layouts.layer({"shared": b"s"})
    made = BuildReceipt(
        "abc-dirty",
        (layouts.add(layout, "train", [shared]), layouts.add(layout, "api-cpu", [shared, layouts.layer({"own": b"o"})])),
    )
    built.write(made)
    return made


@pytest.fixture
def run(images: BuildReceipt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunLadder:
    suite = tmp_path / f"suite{tmp_path.name}"
    suite.mkdir()
    # A package of its own name: pytest imports the suites of several tests into one process.
    (suite / "__init__.py").touch()
    (suite / "conftest.py").write_text(CONFTEST)
    monkeypatch.setattr(ladder, "_HERE", suite)
    monkeypatch.setattr(ladder, "SUITES", ("test_it.py",))
    monkeypatch.syspath_prepend(tmp_path)
    for number, name in enumerate(NAMES):
        monkeypatch.setitem(table.KNOWN, name, Known(100 + number, 50, f"mend {name}"))

    # Each run reads its own suite, not the one that this process knows by the name.
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def start(tests: str, *, container: bool = True) -> SimulatedEngine:
        for name in [name for name in sys.modules if name.startswith(suite.name)]:
            del sys.modules[name]
        (suite / "test_it.py").write_text(HEAD + tests)
        simulated = SimulatedEngine()
        # Without containers nobody asks for an engine; this one would break down.
        monkeypatch.setattr(host, "engine", lambda: simulated if container else None)
        try:
            ladder.run_smoke(gpu=False, container=container)
        finally:
            assert not simulated.containers.all
            assert not simulated.volumes.all
        return simulated

    return start


def outcomes() -> dict[str, str]:
    """Of the suite's own rungs; the ladder's own first one passed, or there would be no receipt."""
    preflight, *others = receipt.read().rungs
    assert (preflight.name, preflight.outcome, preflight.code) == ("preflight", "passed", 0)
    assert preflight.message.startswith("engine 26.1.5, ")
    return {rung.name: rung.outcome for rung in others}


def test_passes(run: RunLadder, images: BuildReceipt, capsys: pytest.CaptureFixture[str]) -> None:
    simulated = run(
        rung("one", "run.figures.training = Training((8.0, 0.01), 1.0, 5); say('it works')")
        + rung("two", "run.figures.answers.append(Answer('s', 'tuned', 'q', 'a', 'a', 'a'))", "('one',)")
    )
    assert len(simulated.images.received) == 2
    result = receipt.read()
    assert (result.passed, result.gpu, result.source, result.engine) == (True, False, "abc-dirty", "26.1.5")
    assert [image.digest for image in result.images] == [image.digest for image in images.images]
    assert outcomes() == {"one": "passed", "two": "passed"}
    assert [(rung.code, rung.limit, rung.message, rung.fix) for rung in result.rungs[1:]] == [
        (0, 50, "it works", ""),
        (0, 50, "", ""),
    ]
    assert result.container
    assert result.training is not None
    assert result.training.losses == (8.0, 0.01)
    assert "PASSED" in (receipt.directory() / "report.html").read_text()
    suite = ET.parse(receipt.directory() / "junit.xml").getroot().find("testsuite")
    assert suite is not None
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("2", "0", "0")
    said = capsys.readouterr().out
    assert "✓ one: it works" in said
    assert "1 of 1 trained answers exact" in said


def test_a_failed_rung_is_told_once_and_what_needs_it_is_not_run(run: RunLadder) -> None:
    with pytest.raises(
        SmokeError, match=r"1 of 5 rungs failed; one: the loss is \[8\.0\] \(.*dist/smoke/receipt\.json\)"
    ) as caught:
        run(
            rung("one", "losses = [8.0]; assert losses == [], f'the loss is {losses}'")
            + rung("two", "raise AssertionError", "('one',)")
            + rung("three", "raise AssertionError", "('two',)")
            + rung("four", "pass")
        )
    assert caught.value.exit_code == ExitCode.SMOKE
    assert outcomes() == {"one": "failed", "two": "not run", "three": "not run", "four": "passed"}
    rungs = receipt.read().rungs[1:]
    assert (rungs[0].message, rungs[0].code, rungs[0].fix) == ("the loss is [8.0]", 100, "mend one")
    assert [(rung.code, rung.fix) for rung in rungs[1:]] == [(0, "")] * 3
    assert rungs[1].message == "needs 'one', which did not pass"
    assert not receipt.read().passed


def test_what_functions_were_called_with_is_in_no_traceback(run: RunLadder) -> None:
    tests = "def ask(key):\n    raise OSError('nobody listens')\n\n"
    with pytest.raises(SmokeError, match="one: nobody listens"):
        run(tests + rung("one", "ask('open' + '-' + 'sesame')"))
    told = (receipt.directory() / "junit.xml").read_text()
    assert "nobody listens" in told
    assert "open-sesame" not in told


def test_a_report_that_cannot_be_written_takes_nothing_along(
    run: RunLadder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> None:
        raise KeyError("a fault in the page")

    monkeypatch.setattr("smoke.report.write", broken)
    run(rung("one", "pass"))
    assert receipt.read().passed
    said = capsys.readouterr()
    assert "report.html could not be written: KeyError: 'a fault in the page'" in said.out + said.err
    assert "0 of 0 trained answers exact" in said.out


def test_error_of_ours_is_its_line(run: RunLadder) -> None:
    with pytest.raises(SmokeError, match=r"vllm serve was not ready within 5 s \(its log\)"):
        run(rung("ready", "raise SmokeError('vllm serve was not ready within 5 s', where='its log')"))
    assert outcomes() == {"ready": "failed"}


def test_a_rung_whose_cleaning_up_fails_has_failed(run: RunLadder) -> None:
    tests = "@pytest.fixture\ndef broken():\n    yield\n    raise RuntimeError('the container stays')\n"
    with pytest.raises(SmokeError, match="one: the container stays"):
        run(tests + rung("one", "pass").replace("(run, say, took)", "(broken)"))
    assert outcomes() == {"one": "failed"}


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_interrupted(run: RunLadder, sent: signal.Signals) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt) as caught:
        run(rung("one", "pass") + rung("two", f"import os; os.kill({os.getpid()}, {int(sent)})") + rung("three", "pass"))
    assert outcomes() == {"one": "passed", "two": "failed", "three": "not run"}
    # The exit code tells the two apart.
    assert isinstance(caught.value, TerminatedError) is (sent is signal.SIGTERM)
    assert receipt.read().rungs[2].message == "interrupted"
    assert not receipt.read().passed
    assert signal.getsignal(signal.SIGTERM) is before


def test_interrupted_while_an_image_is_loaded(images: BuildReceipt, monkeypatch: pytest.MonkeyPatch) -> None:
    simulated = SimulatedEngine()
    monkeypatch.setattr(host, "engine", lambda: simulated)

    def interrupt(*_: object, **__: object) -> None:
        simulated.containers.create("of this run", labels={LABEL: simulated_run[0]})
        raise KeyboardInterrupt

    simulated_run = [Session(simulated).id]  # type: ignore[arg-type]
    monkeypatch.setattr("smoke.machine.engine.load", interrupt)
    with pytest.raises(KeyboardInterrupt):
        ladder.run_smoke(gpu=False)
    assert not simulated.containers.all
    assert not receipt.path().exists()


@pytest.mark.parametrize(
    ("tests", "said"),
    [
        ("import no_such_module\n", "No module named 'no_such_module'"),
        ("def test_plain():\n    pass\n", "is no rung"),
        (rung("two", "pass", "('one',)"), "exists twice, or needs what is not before it"),
        (rung("one", "pass").replace("'one'", "'unheard of'"), "rung 'unheard of' is not in smoke/rungs/table.py"),
        (rung("one", "pass", more=", gpus=True"), "unknown arguments: gpus"),
        ("", "no rung failed"),
    ],
)
def test_a_broken_suite_never_passes(run: RunLadder, tests: str, said: str) -> None:
    with pytest.raises(SmokeError, match=said):
        run(tests)
    assert not receipt.read().passed


def test_the_receipt_of_an_earlier_run_does_not_outlive_a_broken_one(run: RunLadder, monkeypatch: pytest.MonkeyPatch) -> None:
    run(rung("one", "pass"))
    assert receipt.read().passed

    def refuse(*_: object, **__: object) -> None:
        raise SmokeError("refused")

    monkeypatch.setattr("smoke.machine.engine.load", refuse)
    with pytest.raises(SmokeError, match="refused"):
        ladder.run_smoke(gpu=False)
    assert not receipt.path().exists()


def test_choose(images: BuildReceipt) -> None:
    assert [image.role for image in ladder.choose(images, gpu=False)] == ["train", "api-cpu"]
    with pytest.raises(BuildError, match="the image 'api' was not built .*run `invoke build` first"):
        ladder.choose(images, gpu=True)
    with pytest.raises(BuildError, match="the image 'api-cpu' was not built .*run `invoke build --cpu` first"):
        ladder.choose(dataclasses.replace(images, images=images.images[:1]), gpu=False)


def test_nothing_built(own_folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "engine", SimulatedEngine)
    with pytest.raises(BuildError, match="nothing was built yet"):
        ladder.run_smoke(gpu=False)


def collected(*, gpu: bool, contained: bool) -> list[str]:
    """The rungs of the real suite on such a run."""
    run = Run(cast("Place", None), gpu, cast("Jobs", None), contained, cast("Opening", None))
    found = Ladder(run, Watch())
    arguments = ["--collect-only", "-p", "no:terminal", "-p", "no:cacheprovider", "-o", "addopts=", "--strict-markers"]
    folder = Path(ladder.__file__).parent / "suite"
    config = ["-c", str(paths.ROOT / "pyproject.toml"), *(str(folder / suite) for suite in ladder.SUITES)]
    assert pytest.main([*arguments, *config], plugins=[ladder._Registered(found)]) == 0
    assert not found.trouble
    # Nothing ran, so nothing passed.
    assert not found.passed
    return list(found.rungs)


def test_the_real_suite_has_every_rung_that_is_known_in_the_order_of_the_table() -> None:
    assert set(ladder.SUITES) == {file.name for file in (Path(ladder.__file__).parent / "suite").glob("test_*.py")}
    everything = [name for name in KNOWN if name != "preflight"]
    contract = {"contract of train", "contract of api"}
    assert collected(gpu=True, contained=True) == everything
    assert collected(gpu=False, contained=True) == [name for name in everything if name != "GPU memory given back"]
    assert collected(gpu=True, contained=False) == [name for name in everything if name not in contract]


def test_the_suite_run_by_hand_says_how_to_run_it() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "smoke/suite/test_contract.py", "-o", "addopts="],
        cwd=paths.ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "the smoke suite is run by `invoke smoke`" in done.stderr


def test_a_rung_that_skips_itself_has_not_passed(run: RunLadder) -> None:
    with pytest.raises(SmokeError, match="no rung failed"):
        run(rung("one", "pass") + rung("two", "pytest.skip('not today')"))
    assert outcomes() == {"one": "passed", "two": "not run"}
    assert not receipt.read().passed


def test_what_there_is_not_on_such_a_run_is_left_out_and_not_waited_for(run: RunLadder) -> None:
    run(
        rung("one", "raise AssertionError", more=", gpu=True")
        + rung("two", "pass", "('one',)", more=", contained=True")
        + rung("three", "pass", "('four',)", more=", last=True")
        + rung("four", "pass")
    )
    assert outcomes() == {"two": "passed", "four": "passed", "three": "passed"}
    assert list(outcomes()) == ["two", "four", "three"]


def test_a_rung_that_works_but_takes_too_long_has_failed(run: RunLadder) -> None:
    with pytest.raises(SmokeError, match="one: it took 51 s, which is more than 50 s; it works"):
        run(rung("one", "took(50.7); say('it works')") + rung("two", "took(49.0)"))
    assert outcomes() == {"one": "failed", "two": "passed"}
    assert [rung.seconds for rung in receipt.read().rungs[1:]] == [50.7, 49.0]


def test_what_was_measured_is_in_the_receipt_sorted(run: RunLadder) -> None:
    run(
        rung(
            "one",
            "run.figures.measure('b', 1.00001, 's'); run.figures.measure('a', 5, 'bytes'); "
            "run.figures.measure('b', 2, 's'); run.figures.versions['train'] = {'torch': '2', 'llamafactory': '0.9'}",
        )
    )
    result = receipt.read()
    assert [(figure.name, figure.value, figure.unit) for figure in result.figures] == [("a", 5.0, "bytes"), ("b", 2.0, "s")]
    assert [(one.image, one.package, one.version) for one in result.versions] == [
        ("train", "llamafactory", "0.9"),
        ("train", "torch", "2"),
    ]


def test_figures_of_a_passed_run_are_beside_those_of_the_next(run: RunLadder) -> None:
    suite = rung("one", "run.figures.measure('a', {}, 's')")
    run(suite.format(1))
    run(suite.format(2))
    with pytest.raises(SmokeError):
        run(suite.format(3) + rung("two", "raise AssertionError"))
    assert [figure.last for figure in receipt.read().figures] == [2.0]
    # A run that failed is nothing to compare with.
    run(suite.format(4))
    assert [figure.last for figure in receipt.read().figures] == [2.0]


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host on whose PATH the programs of both images are, as far as a ladder looks for them."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("llamafactory-cli", "vllm", "python"):
        (folder / name).write_text("#!/bin/sh\necho it is $0\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def test_without_containers_plain_processes_run_and_prove_nothing_of_an_image(run: RunLadder, programs: None) -> None:
    simulated = run(
        rung(
            "one",
            "box = run.box('one', 'api', ['vllm', 'serve']); box.__enter__(); box.finish(20); box.stop(); "
            "say(box.stdout().strip().rpartition('/')[2])",
        )
        + rung("two", "raise AssertionError", more=", contained=True"),
        container=False,
    )
    assert not simulated.images.received
    result = receipt.read()
    assert (result.passed, result.container, result.images, result.engine, result.source) == (True, False, (), "", "")
    preflight, one = result.rungs
    assert preflight.message.startswith("no containers, ")
    assert (one.message, one.logs) == ("vllm", ("logs/one.log",))
    assert receipt.proven_digests() == frozenset()
    assert "not proof" in (receipt.directory() / "report.html").read_text().lower()


WORK = """
import os, threading

class Box:
    def __init__(self): self.ended = threading.Event()
    def stop(self): self.ended.set()

def work(place):
    box = Box()
    place.admit(box)
    assert box.ended.wait(600)
    # Too late for another one.
    place.admit(Box())

"""


@pytest.mark.parametrize("how", ["raise SmokeError('not today')", f"import os; os.kill(os.getpid(), {int(signal.SIGTERM)})"])
def test_jobs_that_nobody_waits_for_any_more_are_ended(run: RunLadder, how: str) -> None:
    started = time.monotonic()
    jobs = "[run.jobs.start(name, lambda: work(run.place)) for name in ('two', 'three', 'four')]"
    with pytest.raises((SmokeError, TerminatedError)):
        run(WORK + rung("one", f"{jobs}; time.sleep(0.2); {how}"))
    assert time.monotonic() - started < 300
    assert outcomes() == {"one": "failed"}


def test_one_that_hangs_loses_its_boxes_and_fails(run: RunLadder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(table.KNOWN, "one", Known(100, 1, "mend it"))
    monkeypatch.setattr(Watch.__init__, "__defaults__", (0.0,))
    # What opens boxes is replaced by one that opens those of this test; the watch knows of them all the same.
    monkeypatch.setattr(ladder, "Opener", lambda *_: hanging)
    with pytest.raises(SmokeError, match="one: it was ended after 1 s, its limit: the box was stopped"):
        run(rung("one", "box = run.box('one', 'train', []); box.hang(); raise SmokeError('the box was stopped')"))
    (log,) = receipt.read().rungs[1].logs
    assert log == "logs/one.log"


class Hanging:
    """A box that hangs until it is stopped."""

    def __init__(self, name: str) -> None:
        self._stopped = threading.Event()
        self.log = receipt.directory() / f"logs/{name}.log"

    def stop(self) -> None:
        self.log.parent.mkdir(exist_ok=True)
        self.log.write_text("it hung")
        self._stopped.set()

    def hang(self) -> None:
        assert self._stopped.wait(30)


def hanging(name: str, *_: object) -> Hanging:
    return Hanging(name)
