"""Work that goes on meanwhile, and the watch over what it opens."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from smoke.boxes.box import Box, Ended, Place
from smoke.rungs import serving, table, training, watch
from smoke.rungs.jobs import Job, Jobs
from smoke.rungs.run import Run
from smoke.rungs.table import MERGED, Known
from smoke.rungs.watch import Watch, limit
from tests.waiting import LIMIT_S


class Held:
    """A box that only knows whether it was stopped."""

    def __init__(self, name: str) -> None:
        self.log = Path("/logs") / f"{name}.log"
        self.stopped = threading.Event()

    def stop(self) -> None:
        self.stopped.set()


def opening(name: str, *_: object) -> Box:
    return cast("Box", Held(name))


def test_two_go_on_together_and_a_third_waits() -> None:
    together = threading.Barrier(2, timeout=LIMIT_S)
    with Jobs(2) as jobs:
        first, second = (jobs.start(name, together.wait) for name in ("a", "b"))
        third = jobs.start("c", lambda: "done")
        assert sorted([first.result(), second.result()]) == [0, 1]
        assert third.result() == "done"
    assert third.seconds > 0


def test_a_job_is_begun_once() -> None:
    begun: list[int] = []
    with Jobs(1) as jobs:
        job = jobs.start("a", lambda: begun.append(1))
        assert jobs.start("a", lambda: begun.append(2)) is job
    assert begun == [1]


def test_what_a_job_raises_is_raised_to_who_waits_and_it_took_its_time() -> None:
    def work() -> None:
        time.sleep(0.05)
        raise ValueError("no")

    with Jobs(1) as jobs:
        job = jobs.start("a", work)
        with pytest.raises(ValueError, match="no"):
            job.result()
    assert job.seconds >= 0.05


def test_what_was_not_begun_when_the_run_ends_never_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    begun = threading.Event()
    go = threading.Event()
    with Jobs(1) as jobs:
        shut_down = jobs._pool.shutdown

        def end(*, cancel_futures: bool) -> None:
            # The first job ends when the run has, and no sooner.
            shut_down(wait=False, cancel_futures=cancel_futures)
            go.set()
            shut_down()

        monkeypatch.setattr(jobs._pool, "shutdown", end)
        jobs.start("a", lambda: go.wait(LIMIT_S))
        jobs.start("b", begun.set)
    assert not begun.is_set()


def test_logs_are_found_by_the_rung_by_its_job_and_by_its_server() -> None:
    book = Watch()
    open_box = book.booked(opening)
    with Jobs(2, book.work) as jobs:
        jobs.start("contract of api", lambda: open_box("contents", "api", [], {}, 0)).result()
        jobs.start("vllm serve", lambda: open_box("vllm serve", "api", [], {}, 0)).result()
        jobs.start("vllm serve merged", lambda: open_box("vllm serve merged", "api", [], {}, 0)).result()
    with book.work("train"):
        open_box("train", "train", [], {}, 0)
    open_box("tiny model", "train", [], {}, 0)
    logs = {name: [log.name for log in book.logs(name)] for name in table.KNOWN if book.logs(name)}
    assert logs["contract of api"] == ["contents.log"]
    assert logs["train"] == ["train.log"]
    assert logs["tiny model"] == ["tiny model.log"]
    assert logs["vllm serve: stop"] == ["vllm serve.log"]
    assert logs["vllm serve merged: stop"] == ["vllm serve merged.log"]
    assert "train again" not in logs


def test_only_work_that_takes_too_long_loses_its_boxes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "_LOOK_S", 0.01)
    monkeypatch.setitem(table.KNOWN, "quick", Known(1, 0.05, ""))
    monkeypatch.setitem(table.KNOWN, "slow", Known(2, 60, ""))
    with Watch(grace=0.05) as book, Jobs(2, book.work) as jobs:
        open_box = book.booked(opening)

        def work(name: str, seconds: float) -> bool:
            return cast("Held", open_box(name, "train", [], {}, 0)).stopped.wait(seconds)

        late, on_time = jobs.start("quick", lambda: work("a", LIMIT_S)), jobs.start("slow", lambda: work("b", 0.3))
        assert late.result()
        assert not on_time.result()
        assert late.seconds >= 0.1
    assert book.overdue("quick")
    assert not book.overdue("slow")


def test_a_box_that_cannot_be_ended_keeps_neither_the_others_nor_the_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "_LOOK_S", 0.01)
    for name in ("first", "second"):
        monkeypatch.setitem(table.KNOWN, name, Known(1, 0.05, ""))

    def refuse() -> None:
        raise ConnectionError("the engine is gone")

    with Watch(grace=0.0) as book:
        open_box = book.booked(opening)
        with book.work("first"):
            stuck, other = (cast("Held", open_box(name, "train", [], {}, 0)) for name in ("a", "b"))
            stuck.stop = refuse  # type: ignore[method-assign]
            assert other.stopped.wait(LIMIT_S)
        with book.work("second"):
            assert cast("Held", open_box("c", "train", [], {}, 0)).stopped.wait(LIMIT_S)


def test_time_begins_with_the_first_box(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "_LOOK_S", 0.01)
    monkeypatch.setitem(table.KNOWN, "waits", Known(1, 20, ""))
    clock = [0.0]
    monkeypatch.setattr(watch, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    with Watch(grace=0.0) as book, book.work("waits"):
        # For another job, say.
        clock[0] += 30
        box = cast("Held", book.booked(opening)("a", "train", [], {}, 0))
        clock[0] += 19
        assert not box.stopped.wait(0.1)
        clock[0] += 2
        assert box.stopped.wait(LIMIT_S)


@pytest.mark.parametrize("begin", [training.begin_agree, lambda run: serving.begin(run, MERGED)])
def test_what_waits_for_the_export_puts_it_in_line_first(
    monkeypatch: pytest.MonkeyPatch, begin: Callable[[Run], Job[object]]
) -> None:
    def no_box(name: str, *_: object) -> Box:
        raise ValueError(f"{name} was opened")

    monkeypatch.setattr(training, "_export", lambda _: Ended(0, 1.0, 1))
    with Jobs(1) as jobs:
        run = Run(cast("Place", SimpleNamespace(payload="")), gpu=False, jobs=jobs, contained=True, open=no_box)
        run.figures.versions["api"] = {"vllm": "0.28.0"}
        # With one place alone it would wait for ever for what is behind it.
        with pytest.raises(ValueError, match="was opened"):
            begin(run)._future.result(timeout=LIMIT_S)


def test_a_job_that_several_rungs_are_about_has_the_time_of_all() -> None:
    assert limit("train") == table.KNOWN["train"].limit
    assert limit("vllm serve merged") == sum(
        table.KNOWN[f"vllm serve merged: {rung}"].limit for rung in ("ready", "answers", "stop")
    )
    with pytest.raises(ValueError, match="no rung of smoke/rungs/table.py is about .hiding bytecode"):
        limit("hiding bytecode")
