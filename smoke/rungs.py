"""The pytest plugin of the ladder: names the rungs, keeps their order of need, says what happens, and books the outcome.

A test is a rung by `@pytest.mark.rung("name")`; `{server}` in a name is filled from the test's parameters. With
`needs=("other rung",)` it is not run when that one did not pass: a failure is then told once, where it happened.
"""

from __future__ import annotations

import time
from collections.abc import Generator

import pytest
from rich.markup import escape

from common import console
from common.errors import SmokeError
from smoke.bench import Bench
from smoke.receipt import Rung

_NAME = "pinwheel-smoke"
_NOTE = pytest.StashKey[str]()


class Ladder:
    """Collects the rungs of one pytest session.

    Attributes:
        rungs: by name, in the order they run; all `not run` until they are.
        trouble: what went wrong outside of any rung; empty when nothing did.
    """

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.rungs: dict[str, Rung] = {}
        self.trouble = ""

    @property
    def passed(self) -> bool:
        """Whether there were rungs and each one passed."""
        return bool(self.rungs) and not self.trouble and all(rung.outcome == "passed" for rung in self.rungs.values())

    def register(self, config: pytest.Config) -> None:
        """Make it known to the fixtures, and its marker to pytest."""
        config.addinivalue_line("markers", "rung(name, needs=()): a rung of the ladder, and those it stands on")
        config.pluginmanager.register(self, _NAME)

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Every test has to be a rung, and every need one that comes before."""
        for item in items:
            try:
                name = _name(item)
                unknown = [need for need in _needs(item) if need not in self.rungs]
                if name in self.rungs or unknown:
                    raise pytest.UsageError(f"rung {name!r} exists twice, or needs what is not before it: {unknown}")
            except pytest.UsageError as problem:
                self.trouble = f"{item.nodeid}: {problem}"
                raise
            self.rungs[name] = Rung(name, "not run", 0.0, "the run ended before it")

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """Time the rung and say how it went; fixtures made for it count as its time."""
        name = _name(item)
        self.rungs[name] = Rung(name, "failed", 0.0, "interrupted")
        item.stash[_NOTE] = ""
        started = time.monotonic()
        try:
            return (yield)
        finally:
            seconds = round(time.monotonic() - started, 3)
            rung = self.rungs[name]
            message = rung.message or item.stash[_NOTE]
            self.rungs[name] = Rung(name, rung.outcome, seconds, message)
            self._say(self.rungs[name])

    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Leave out what cannot work any more."""
        for need in _needs(item):
            if self.rungs[need].outcome != "passed":
                pytest.skip(f"needs {need!r}, which did not pass")

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Book setup, test and teardown; the first thing that goes wrong is the message."""
        report = yield
        name = _name(item)
        rung = self.rungs[name]
        if report.skipped and call.excinfo is not None:
            self.rungs[name] = Rung(name, "not run", 0.0, str(call.excinfo.value))
        elif report.failed and call.excinfo is not None and (rung.outcome == "passed" or rung.message == "interrupted"):
            self.rungs[name] = Rung(name, "failed", 0.0, _line(call.excinfo.value))
        elif report.passed and call.when == "call":
            self.rungs[name] = Rung(name, "passed", 0.0, "")
        return report

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """A suite that cannot be read is not a suite that passed."""
        if report.failed:
            self.trouble = f"the suite cannot be collected: {report.longreprtext.splitlines()[-1]}"

    def pytest_internalerror(self, excrepr: object) -> None:
        """Nor is one that broke down."""
        self.trouble = f"the suite broke down: {str(excrepr).splitlines()[-1]}"

    def _say(self, rung: Rung) -> None:
        tail = f": {rung.message}" if rung.message else ""
        match rung.outcome:
            case "passed":
                console.done(f"{rung.name}{tail}  ({console.seconds(rung.seconds)})")
            case "failed":
                # Among its fellows on standard output; the error that ends the run goes to standard error.
                console.out.print(f"  [bold red]✗[/] {escape(rung.name + tail)}  ({console.seconds(rung.seconds)})")
            case "not run":
                console.info(f"- {rung.name} not run{tail}")


def bench_of(config: pytest.Config) -> Bench:
    """The bench of the session.

    Raises:
        pytest.UsageError: pytest was started by hand.
    """
    ladder = config.pluginmanager.get_plugin(_NAME)
    if not isinstance(ladder, Ladder):
        raise pytest.UsageError("the smoke suite is run by `invoke smoke`")
    return ladder.bench


def note(item: pytest.Item, text: str) -> None:
    """What the rung measured, for its line and the receipt."""
    item.stash[_NOTE] = text


def _mark(item: pytest.Item) -> pytest.Mark:
    mark = item.get_closest_marker("rung")
    if mark is None:
        raise pytest.UsageError("is no rung")
    return mark


def _params(item: pytest.Item) -> dict[str, str]:
    spec = getattr(item, "callspec", None)
    return {} if spec is None else {name: str(value) for name, value in spec.params.items()}


def _name(item: pytest.Item) -> str:
    return str(_mark(item).args[0]).format(**_params(item))


def _needs(item: pytest.Item) -> list[str]:
    return [str(need).format(**_params(item)) for need in _mark(item).kwargs.get("needs", ())]


def _line(problem: BaseException) -> str:
    if isinstance(problem, SmokeError):
        return problem.line()
    # pytest explains an assertion at length after its first line.
    return " ".join((str(problem).splitlines() or [""])[0].removeprefix("AssertionError:").split()) or type(problem).__name__
