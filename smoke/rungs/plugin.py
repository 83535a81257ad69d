"""The pytest plugin of the ladder: names the rungs, keeps their order of need, says what happens, and books the outcome.

A test is a rung by `@pytest.mark.rung("name")`, the name being one of `table.KNOWN`; `{server}` in it is filled from the test's
parameters. Further arguments of the mark:

    needs=("other rung",)  not run when that one did not pass: a failure is then told once, where it happened
    gpu=True               there is such a rung only with --gpu
    contained=True         there is such a rung only where the images run
    last=True              after all others, whatever file it stands in
"""

from __future__ import annotations

import time
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path

import pytest
from rich.markup import escape

from common import console
from common.errors import SmokeError
from common.signals import TerminatedError
from smoke.receipt import Rung
from smoke.rungs import table
from smoke.rungs.run import Run
from smoke.rungs.watch import Watch

_NAME = "pinwheel-smoke"
_ARGUMENTS = {"needs", "gpu", "contained", "last"}
_NOTE = pytest.StashKey[str]()
_BEGAN = pytest.StashKey[float]()
_TOOK = pytest.StashKey[float]()
_INTERRUPTED = "interrupted"


class Ladder:
    """Collects the rungs of one pytest session.

    Args:
        run: what the rungs share.
        watch: knows which boxes were opened for what.

    Attributes:
        rungs: by name, in the order they run; all `not run` until they are.
        trouble: what went wrong outside of any rung; empty when nothing did.
        interrupted: by what, if it was.
    """

    def __init__(self, run: Run, watch: Watch) -> None:
        self.run = run
        self.rungs: dict[str, Rung] = {}
        self.trouble = ""
        self.interrupted: KeyboardInterrupt | None = None
        self._watch = watch
        self._left_out: set[str] = set()

    @property
    def passed(self) -> bool:
        """Whether there were rungs and each one passed."""
        return bool(self.rungs) and not self.trouble and all(rung.outcome == "passed" for rung in self.rungs.values())

    def book(self, name: str, seconds: float, message: str) -> None:
        """Take in a rung that passed before there was a ladder."""
        self.rungs[name] = replace(_unrun(name), outcome="passed", seconds=round(seconds, 3), message=message)
        self._say(self.rungs[name])

    def result(self, directory: Path) -> tuple[Rung, ...]:
        """The rungs, in order, with the logs there are.

        Args:
            directory: of the receipt.
        """
        found = []
        for rung in self.rungs.values():
            logs = [log for log in self._watch.logs(rung.name) if log.exists() and rung.outcome != "not run"]
            found.append(replace(rung, logs=tuple(str(log.relative_to(directory)) for log in logs)))
        return tuple(found)

    def register(self, config: pytest.Config) -> None:
        """Make it known to the fixtures, and its marker to pytest."""
        config.addinivalue_line("markers", "rung(name, needs=(), gpu=False, contained=False, last=False): a rung of the ladder")
        config.pluginmanager.register(self, _NAME)

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Every test has to be a rung that is known, and every need one that comes before."""
        for item in items:
            try:
                _check(item)
            except pytest.UsageError as problem:
                self.trouble = f"{item.nodeid}: {problem}"
                raise
        items.sort(key=lambda item: bool(_mark(item).kwargs.get("last")))
        # Those that there are not on this kind of run: nothing waits for them, and nobody misses them.
        absent = [item for item in items if not self._there_is(item)]
        self._left_out = {_name(item) for item in absent}
        items[:] = [item for item in items if item not in absent]
        for item in items:
            name = _name(item)
            unknown = [need for need in self._needs(item) if need not in self.rungs]
            if name in self.rungs or unknown:
                self.trouble = f"{item.nodeid}: rung {name!r} exists twice, or needs what is not before it: {unknown}"
                raise pytest.UsageError(self.trouble)
            self.rungs[name] = _unrun(name)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """Time the rung and say how it went; fixtures made for it count as its time, unless it books its work's."""
        name = _name(item)
        self._set(name, "failed", _INTERRUPTED)
        item.stash[_NOTE] = ""
        item.stash[_BEGAN] = time.monotonic()
        try:
            with self._watch.work(name):
                return (yield)
        finally:
            rung = self.rungs[name]
            seconds = 0.0 if rung.outcome == "not run" else round(_seconds(item), 3)
            self.rungs[name] = replace(rung, seconds=seconds, message=rung.message or item.stash[_NOTE])
            self._say(self.rungs[name])

    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Leave out what cannot work any more."""
        for need in self._needs(item):
            if self.rungs[need].outcome != "passed":
                pytest.skip(f"needs {need!r}, which did not pass")

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, object, object]:
        """What works, but takes longer than it may, has failed."""
        result = yield
        known = table.KNOWN[_name(item)]
        if (seconds := _seconds(item)) > known.limit:
            raise SmokeError(
                f"it took {seconds:.0f} s, which is more than {known.limit:.0f} s; {item.stash[_NOTE]}".rstrip("; ")
            )
        return result

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Book setup, test and teardown; the first thing that goes wrong is the message."""
        report = yield
        name = _name(item)
        rung = self.rungs[name]
        if report.skipped and call.excinfo is not None:
            self._set(name, "not run", str(call.excinfo.value))
        elif report.failed and call.excinfo is not None and (rung.outcome == "passed" or rung.message == _INTERRUPTED):
            late = f"it was ended after {rung.limit:.0f} s, its limit: " if self._watch.overdue(name) else ""
            self._set(name, "failed", late + _line(call.excinfo.value))
        elif report.passed and call.when == "call":
            self._set(name, "passed", "")
        return report

    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        """By Ctrl-C or by SIGTERM: the exit code tells them apart."""
        self.interrupted = TerminatedError() if isinstance(excinfo.value, TerminatedError) else KeyboardInterrupt()

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """A suite that cannot be read is not a suite that passed."""
        if report.failed:
            self.trouble = f"the suite cannot be collected: {report.longreprtext.splitlines()[-1]}"

    def pytest_internalerror(self, excrepr: object) -> None:
        """Nor is one that broke down."""
        self.trouble = f"the suite broke down: {str(excrepr).splitlines()[-1]}"

    def _there_is(self, item: pytest.Item) -> bool:
        kwargs = _mark(item).kwargs
        return (self.run.gpu or not kwargs.get("gpu")) and (self.run.contained or not kwargs.get("contained"))

    def _needs(self, item: pytest.Item) -> list[str]:
        found = [str(need).format(**_params(item)) for need in _mark(item).kwargs.get("needs", ())]
        return [need for need in found if need not in self._left_out]

    def _set(self, name: str, outcome: str, message: str) -> None:
        known = table.KNOWN[name]
        match outcome:
            case "failed":
                self.rungs[name] = replace(_unrun(name), outcome="failed", code=known.code, message=message, fix=known.fix)
            case "passed":
                self.rungs[name] = replace(_unrun(name), outcome="passed", message=message)
            case _:
                self.rungs[name] = replace(_unrun(name), message=message)

    def _say(self, rung: Rung) -> None:
        tail = f": {rung.message}" if rung.message else ""
        match rung.outcome:
            case "passed":
                console.done(f"{rung.name}{tail}  ({console.seconds(rung.seconds)})")
            case "failed":
                # Among its fellows on standard output; the error that ends the run goes to standard error.
                console.out.print(f"  [bold red]✗[/] {escape(rung.name + tail)}  ({console.seconds(rung.seconds)})")
                console.info(f"  {rung.fix}")
            case "not run":
                console.info(f"- {rung.name} not run{tail}")


def run_of(config: pytest.Config) -> Run:
    """The run of the session.

    Raises:
        pytest.UsageError: pytest was started by hand.
    """
    ladder = config.pluginmanager.get_plugin(_NAME)
    if not isinstance(ladder, Ladder):
        raise pytest.UsageError("the smoke suite is run by `invoke smoke`")
    return ladder.run


def note(item: pytest.Item, text: str) -> None:
    """What the rung measured, for its line and the receipt."""
    item.stash[_NOTE] = text


def took(item: pytest.Item, seconds: float) -> None:
    """How long the rung's own work took, which went on before anybody waited for it."""
    item.stash[_TOOK] = seconds


def _seconds(item: pytest.Item) -> float:
    return item.stash.get(_TOOK, time.monotonic() - item.stash[_BEGAN])


def _unrun(name: str) -> Rung:
    return Rung(name, 0, "not run", 0.0, table.KNOWN[name].limit, "the run ended before it", "", ())


def _check(item: pytest.Item) -> None:
    mark = _mark(item)
    if unknown := sorted(mark.kwargs.keys() - _ARGUMENTS):
        raise pytest.UsageError(f"the mark has unknown arguments: {', '.join(unknown)}")
    if _name(item) not in table.KNOWN:
        raise pytest.UsageError(f"rung {_name(item)!r} is not in smoke/rungs/table.py")


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


def _line(problem: BaseException) -> str:
    if isinstance(problem, SmokeError):
        return problem.line()
    # pytest explains an assertion at length after its first line.
    return " ".join((str(problem).splitlines() or [""])[0].removeprefix("AssertionError:").split()) or type(problem).__name__
