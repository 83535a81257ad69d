"""A whole run: preflight, images, rungs, receipt. The engine is simulated, the suite is a small one of the test's own."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import cast
from xml.etree import ElementTree as ET

import pytest

from common import host, paths
from common.errors import BuildError, ExitCode, SmokeError
from images import receipt as built
from images.receipt import BuildReceipt
from smoke import ladder, receipt
from smoke.bench import Bench
from smoke.rungs import Ladder
from smoke.servers import FACTORY, VLLM
from smoke.session import LABEL, Session
from tests.smoke import layouts
from tests.smoke.simulator import SimulatedEngine

pytestmark = pytest.mark.slow

CONFTEST = "from smoke.conftest import bench, say\n"
HEAD = "import pytest\nfrom common.errors import SmokeError\nfrom smoke.receipt import Answer, Training\n"
Run = Callable[[str], SimulatedEngine]


def rung(name: str, body: str, needs: str = "()") -> str:
    return f"@pytest.mark.rung({name!r}, needs={needs})\ndef test_{name}(bench, say):\n    {body}\n"


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
def run(images: BuildReceipt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    suite = tmp_path / f"suite{tmp_path.name}"
    suite.mkdir()
    # A package of its own name: pytest imports the suites of several tests into one process.
    (suite / "__init__.py").touch()
    (suite / "conftest.py").write_text(CONFTEST)
    monkeypatch.setattr(ladder, "_HERE", suite)
    monkeypatch.setattr(ladder, "SUITES", ("test_it.py",))
    monkeypatch.syspath_prepend(tmp_path)

    def start(tests: str) -> SimulatedEngine:
        (suite / "test_it.py").write_text(HEAD + tests)
        simulated = SimulatedEngine()
        monkeypatch.setattr(host, "engine", lambda: simulated)
        try:
            ladder.run_smoke(gpu=False)
        finally:
            assert not simulated.containers.all
            assert not simulated.volumes.all
        return simulated

    return start


def outcomes() -> dict[str, str]:
    return {rung.name: rung.outcome for rung in receipt.read().rungs}


def test_passes(run: Run, images: BuildReceipt, capsys: pytest.CaptureFixture[str]) -> None:
    simulated = run(
        rung("one", "bench.figures.training = Training((8.0, 0.01), 1.0, 5); say('it works')")
        + rung("two", "bench.figures.answers.append(Answer('s', 'tuned', 'q', 'a', 'a', 'a'))", "('one',)")
    )
    assert len(simulated.images.received) == 2
    result = receipt.read()
    assert (result.passed, result.gpu, result.source, result.engine) == (True, False, "abc-dirty", "26.1.5")
    assert [image.digest for image in result.images] == [image.digest for image in images.images]
    assert [(rung.name, rung.outcome, rung.message) for rung in result.rungs] == [
        ("one", "passed", "it works"),
        ("two", "passed", ""),
    ]
    assert result.training is not None
    assert result.training.losses == (8.0, 0.01)
    assert (receipt.directory() / "loss.png").read_bytes().startswith(b"\x89PNG")
    suite = ET.parse(receipt.directory() / "junit.xml").getroot().find("testsuite")
    assert suite is not None
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("2", "0", "0")
    said = capsys.readouterr().out
    assert "✓ one: it works" in said
    assert "1 of 1 trained answers exact" in said


def test_a_failed_rung_is_told_once_and_what_needs_it_is_not_run(run: Run) -> None:
    with pytest.raises(
        SmokeError, match=r"1 of 4 rungs failed; one: the loss is \[8\.0\] \(.*dist/smoke/receipt\.json\)"
    ) as caught:
        run(
            rung("one", "losses = [8.0]; assert losses == [], f'the loss is {losses}'")
            + rung("two", "raise AssertionError", "('one',)")
            + rung("three", "raise AssertionError", "('two',)")
            + rung("four", "pass")
        )
    assert caught.value.exit_code == ExitCode.SMOKE
    assert outcomes() == {"one": "failed", "two": "not run", "three": "not run", "four": "passed"}
    rungs = receipt.read().rungs
    assert rungs[0].message == "the loss is [8.0]"
    assert rungs[1].message == "needs 'one', which did not pass"
    assert not receipt.read().passed


def test_error_of_ours_is_its_line(run: Run) -> None:
    with pytest.raises(SmokeError, match=r"vllm serve was not ready within 5 s \(its log\)"):
        run(rung("ready", "raise SmokeError('vllm serve was not ready within 5 s', where='its log')"))
    assert receipt.read().rungs[0].outcome == "failed"


def test_a_rung_whose_cleaning_up_fails_has_failed(run: Run) -> None:
    tests = "@pytest.fixture\ndef broken():\n    yield\n    raise RuntimeError('the container stays')\n"
    with pytest.raises(SmokeError, match="one: the container stays"):
        run(tests + rung("one", "pass").replace("(bench, say)", "(broken)"))
    assert outcomes() == {"one": "failed"}


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_interrupted(run: Run, sent: signal.Signals) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        run(rung("one", "pass") + rung("two", f"import os; os.kill({os.getpid()}, {int(sent)})") + rung("three", "pass"))
    assert outcomes() == {"one": "passed", "two": "failed", "three": "not run"}
    assert receipt.read().rungs[1].message == "interrupted"
    assert not receipt.read().passed
    assert signal.getsignal(signal.SIGTERM) is before


def test_interrupted_while_an_image_is_loaded(images: BuildReceipt, monkeypatch: pytest.MonkeyPatch) -> None:
    simulated = SimulatedEngine()
    monkeypatch.setattr(host, "engine", lambda: simulated)

    def interrupt(*_: object, **__: object) -> None:
        simulated.containers.create("of this run", labels={LABEL: simulated_run[0]})
        raise KeyboardInterrupt

    simulated_run = [Session(simulated).id]  # type: ignore[arg-type]
    monkeypatch.setattr("smoke.engine.load", interrupt)
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
        ("", "no rung failed"),
    ],
)
def test_a_broken_suite_never_passes(run: Run, tests: str, said: str) -> None:
    with pytest.raises(SmokeError, match=said):
        run(tests)
    assert not receipt.read().passed


def test_the_receipt_of_an_earlier_run_does_not_outlive_a_broken_one(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run(rung("one", "pass"))
    assert receipt.read().passed

    def refuse(*_: object, **__: object) -> None:
        raise SmokeError("refused")

    monkeypatch.setattr("smoke.engine.load", refuse)
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


def test_the_real_suite() -> None:
    folder = Path(ladder.__file__).parent
    assert set(ladder.SUITES) == {file.name for file in folder.glob("test_*.py")}
    collected = Ladder(cast("Bench", None))
    arguments = ["--collect-only", "-p", "no:terminal", "-p", "no:cacheprovider", "-o", "addopts=", "--strict-markers"]
    config = ["-c", str(paths.ROOT / "pyproject.toml"), *(str(folder / suite) for suite in ladder.SUITES)]
    assert pytest.main([*arguments, *config], plugins=[ladder._Registered(collected)]) == 0
    assert not collected.trouble
    servers = [f"{server}: {rung}" for server in (VLLM, FACTORY) for rung in ("ready", "answers", "streaming", "stop")]
    first = ["contract of train", "contract of api", "tiny model", "train", "export"]
    assert list(collected.rungs) == [*first, *servers, "the base model does not know"]
    # Nothing ran, so nothing passed.
    assert not collected.passed


def test_the_suite_run_by_hand_says_how_to_run_it() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "smoke/test_contract.py", "-o", "addopts="],
        cwd=paths.ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "the smoke suite is run by `invoke smoke`" in done.stderr


def test_a_rung_that_skips_itself_has_not_passed(run: Run) -> None:
    with pytest.raises(SmokeError, match="no rung failed"):
        run(rung("one", "pass") + rung("two", "pytest.skip('not today')"))
    assert outcomes() == {"one": "passed", "two": "not run"}
    assert not receipt.read().passed
