"""Figures beside those of the last run: what they are compared with, what is kept, and that neither ever stops a run."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smoke import history, receipt
from smoke.receipt import Figure, SmokeReceipt
from tests.smoke import receipts

NUMBERS = st.floats(allow_nan=False, allow_infinity=False)


def run(*figures: Figure, **changes: Any) -> SmokeReceipt:
    return replace(receipts.passed(), figures=figures, **changes)


def kept(folder: Path) -> list[Path]:
    return sorted((folder / "cache" / "receipts").glob("*"))


@pytest.fixture
def one(own_folders: Path) -> Path:
    """The file of a run that was kept."""
    history.keep(run(Figure("a", 10.0, "s")))
    (path,) = kept(own_folders)
    return path


def test_the_first_run_has_nothing_to_compare_with(own_folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = receipts.passed()
    assert history.compare(first) == first
    assert capsys.readouterr() == ("", "")
    assert not kept(own_folders)


def test_figures_get_the_last_value_by_name_and_unit(one: Path) -> None:
    now = run(Figure("a", 11.0, "s"), Figure("a", 12.0, "bytes"), Figure("new", 1.0, "s"))
    compared = history.compare(now)
    assert [figure.last for figure in compared.figures] == [10.0, None, None]
    assert replace(compared, figures=now.figures) == now


def test_one_receipt_is_kept_for_each_class_the_last(one: Path, own_folders: Path) -> None:
    history.keep(history.compare(run(Figure("a", 20.0, "s"), started="later")))
    assert kept(own_folders) == [one]
    assert history.compare(run(Figure("a", 1.0, "s"))).figures[0].last == 20.0


def test_a_failed_run_is_compared_but_not_kept(one: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = one.read_bytes()
    failed = run(Figure("a", 20.0, "s"), passed=False)
    assert history.compare(failed).figures[0].last == 10.0
    # It has more to say than that.
    assert "worse" not in capsys.readouterr().out
    history.keep(failed)
    assert one.read_bytes() == before


def test_versions_and_digests_are_what_is_compared_not_part_of_the_class(one: Path) -> None:
    other = receipts.passed(digest="sha256:" + "0" * 64, seconds=1.0, started="2027-01-01T00:00:00+00:00")
    images = tuple(replace(image, version="9") for image in other.images)
    now = replace(other, images=images, versions=(), source="", engine="27", figures=(Figure("a", 1.0, "s"),))
    assert history.compare(now).figures[0].last == 10.0


@pytest.mark.parametrize(
    "change",
    [
        lambda run: replace(run, gpu=not run.gpu),
        lambda run: replace(run, container=False),
        lambda run: replace(run, host=replace(run.host, cpu="another")),
        lambda run: replace(run, host=replace(run.host, cores=run.host.cores + 1)),
        lambda run: replace(run, host=replace(run.host, gpus=())),
        lambda run: replace(run, host=replace(run.host, gpus=run.host.gpus * 2)),
        lambda run: replace(run, host=replace(run.host, gpus=(replace(run.host.gpus[0], driver="590.1"),))),
        lambda run: replace(run, host=replace(run.host, gpus=(replace(run.host.gpus[0], name="another"),))),
        lambda run: replace(run, images=run.images[:1]),
        lambda run: replace(run, images=tuple(replace(image, name=f"my-{image.name}") for image in run.images)),
    ],
)
def test_another_class_of_host_is_not_compared_with(own_folders: Path, change: Any) -> None:
    was = replace(receipts.passed(gpu=True), figures=(Figure("a", 10.0, "s"),))
    history.keep(was)
    other = change(was)
    assert history.compare(other) == other
    history.keep(other)
    assert len(kept(own_folders)) == 2


def test_a_patch_of_the_driver_and_gpus_that_are_not_used_do_not_matter(own_folders: Path) -> None:
    figures = (Figure("a", 10.0, "s"),)
    was = replace(receipts.passed(gpu=True), figures=figures)
    history.keep(was)
    gpu = replace(was.host.gpus[0], driver="580.99")
    assert history.compare(replace(was, host=replace(was.host, gpus=(gpu,)))).figures[0].last == 10.0
    cpu = replace(receipts.passed(), figures=figures)
    history.keep(cpu)
    assert history.compare(replace(cpu, host=was.host)).figures[0].last == 10.0


@pytest.mark.parametrize(
    "text", ["", "{", "null", "[]", "[" * 100_000, '{"format": 1}', "\x00", "NaN", "9" * 5000], ids=lambda text: ascii(text[:6])
)
def test_a_damaged_file_is_ignored(one: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    one.write_text(text)
    now = run(Figure("a", 1.0, "s"))
    assert history.compare(now) == now
    assert capsys.readouterr() == ("", "")
    # And the next passed run puts a sound one in its place.
    history.keep(now)
    assert history.compare(now).figures[0].last == 1.0


def test_a_damaged_file_is_told_of_to_who_asks(
    one: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("common.console._VERBOSE", True)
    one.write_bytes(b"\xff\xfe")
    history.compare(run())
    assert f"{one} is ignored" in capsys.readouterr().err.replace("\n", "")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("format", receipt.FORMAT - 1),
        ("passed", False),
        ("gpu", True),
        ("figures", [{"name": "a", "value": math.inf, "unit": "s", "last": None}]),
        ("figures", [{"name": "a", "value": math.nan, "unit": "s", "last": None}]),
        ("figures", [{"name": "a", "value": 10**400, "unit": "s", "last": None}]),
        ("figures", [{"name": "a", "unit": "s"}]),
    ],
)
def test_a_file_that_was_not_written_here_is_ignored(one: Path, field: str, value: Any) -> None:
    one.write_text(json.dumps({**json.loads(one.read_text()), field: value}))
    now = run(Figure("a", 1.0, "s"))
    assert history.compare(now) == now


def test_a_folder_in_place_of_the_file_is_ignored_and_warned_of(one: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one.unlink()
    (one / "x").mkdir(parents=True)
    now = run(Figure("a", 1.0, "s"))
    assert history.compare(now) == now
    history.keep(now)
    assert "nothing to compare its figures with" in capsys.readouterr().err


def test_a_cache_that_cannot_be_written_is_a_warning(own_folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (own_folders / "cache").write_text("no folder")
    history.keep(receipts.passed())
    assert "nothing to compare its figures with: Not a directory" in capsys.readouterr().err
    assert history.compare(receipts.passed()) == receipts.passed()


@pytest.mark.parametrize(
    ("value", "unit", "told"),
    [
        (12.6, "s", "+26%"),
        (12.4, "s", ""),
        (1.0, "s", ""),
        (12.6, "bytes", "+26%"),
        (7.4, "tokens/s", "-26%"),
        (7.6, "tokens/s", ""),
        (99.0, "tokens/s", ""),
        (99.0, "parrots", ""),
    ],
)
def test_what_got_much_worse_is_told_once_and_fails_nothing(
    own_folders: Path, capsys: pytest.CaptureFixture[str], value: float, unit: str, told: str
) -> None:
    history.keep(run(Figure("it", 10.0, unit), Figure("same", 1.0, "s")))
    history.compare(run(Figure("it", value, unit), Figure("same", 1.0, "s")))
    printed = capsys.readouterr().out
    assert (told in printed) and ("it " in printed) if told else not printed
    assert "same" not in printed


@given(NUMBERS, NUMBERS, st.sampled_from(["s", "bytes", "tokens/s", "parrots"]))
@settings(max_examples=100, deadline=None, database=None)
def test_a_change_is_a_number_or_nothing(value: float, last: float, unit: str) -> None:
    moved = history.change(Figure("a", value, unit, last))
    assert moved is None or math.isfinite(moved.share)
    assert (moved is None or moved.better is None) if unit == "parrots" else moved is None or moved.better is not None


@given(NUMBERS, st.sampled_from(["s", "bytes", "tokens/s", "parrots"]))
@settings(max_examples=100, deadline=None, database=None)
def test_every_figure_can_be_shown(value: float, unit: str) -> None:
    assert history.shown(value, unit)
