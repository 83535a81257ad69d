"""The report: what it shows, that it needs nothing else, and that nothing in a receipt can break out of it."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import itertools
import re
from collections import Counter
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from smoke import report
from smoke.receipt import Answer, Figure, Rung, SmokeReceipt, Training
from smoke.report import curve, ladder, markup, tables
from smoke.report.page import page
from smoke.rungs.table import FACTORY, KNOWN, MERGED, VLLM
from tests.smoke import receipts

T = TypeVar("T")
VOID = {"meta"}
# All that a page is made of; no script, no form, nothing that loads.
TAGS = """
    html head meta title style body main header section footer h1 h2 h3 p span strong dl div dt dd ul ol li code a
    table thead tbody tr th td bdi ins del figure figcaption svg g line polyline rect circle text
"""
ATTRIBUTES = """
    lang charset name content http-equiv class id href role scope data-label aria-label aria-hidden
    viewbox points fill stroke stroke-width stroke-opacity fill-opacity opacity x y x1 x2 y1 y2 cx cy r width height
    text-anchor preserveaspectratio
"""
HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</style></title></svg><iframe src='https://example.com/'>",
    "<!-- & &lt; &#x3c;b> ]]>",
    "abc\u202edcba\u202c \u2066x\u2069 \u200b",
    "\x00\x07\x1b[31mred\x1b[0m\x7f\x9b\r\n\t",
    "\ud800 half",
    "x" * 10_240,
    "a " * 5_120,
]


@dataclass
class Page(HTMLParser):
    """What a browser would make of a page, as far as these tests ask."""

    tags: Counter[str] = field(default_factory=Counter)
    attributes: list[tuple[str, str]] = field(default_factory=list)
    text: str = ""
    open: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text += data

    def values(self, name: str) -> list[str]:
        return [value for key, value in self.attributes if key == name]


def parsed(receipt: SmokeReceipt) -> Page:
    found = Page()
    found.feed(markup.document(page(receipt)))
    assert not found.open
    return found


def rung(name: str, **changes: object) -> Rung:
    return replace(Rung(name, 0, "passed", 1.0, 10.0, "", "", ()), **changes)  # type: ignore[arg-type]


def compared(*figures: Figure) -> str:
    return parsed(replace(receipts.passed(), figures=figures)).text


class TestWhatItShows:
    def test_the_file_lies_in_the_directory_and_is_the_same_for_the_same_receipt(self, tmp_path: Path) -> None:
        one = report.write(receipts.failed(), tmp_path)
        assert one == tmp_path / "report.html"
        before = one.read_bytes()
        assert report.write(receipts.failed(), tmp_path).read_bytes() == before
        assert report.write(receipts.passed(), tmp_path).read_bytes() != before

    def test_a_passed_run(self) -> None:
        run = receipts.passed()
        text = parsed(run).text
        assert "✓ PASSED smoke test on CPU" in text
        assert "2 cores of AMD EPYC, 25.28 GB of memory" in text
        assert "2026-11-23 17:27:22 UTC" in text
        assert "5 min 12 s" in text
        assert "What failed" not in text
        assert "Not proof for a digest" not in text
        for image in run.images:
            assert f"{image.name}@{image.digest}" in text
        for one in run.rungs:
            assert one.name in text
            assert one.message in text
        assert "24 of 24 trained answers are exact" in text
        assert "knows 0 of 8" in text

    def test_a_failed_run_says_what_failed_why_and_what_to_do(self) -> None:
        run = receipts.failed()
        found = parsed(run)
        assert "✗ FAILED smoke test on CPU" in found.text
        for number, one in enumerate(run.rungs):
            if one.outcome == "failed":
                assert f"failed, code {one.code}" in found.text
                assert f"What to do: {one.fix}" in found.text
                assert f"#rung-{number}" in found.values("href")
                assert f"rung-{number}" in found.values("id")
                assert found.values("href").count(f"./{one.logs[0]}") == 1
        assert "7 rungs were not run" in found.text
        # Links to logs are for those that failed.
        assert sum(link.startswith("./") for link in found.values("href")) == 2

    def test_an_interrupted_run_is_not_blamed_on_a_rung(self) -> None:
        rungs = tuple(rung(name, outcome="not run") for name in ("train", "export"))
        text = parsed(replace(receipts.passed(), passed=False, rungs=rungs, training=None)).text
        assert "FAILED" in text
        assert "No rung failed: the run was interrupted" in text

    def test_a_run_without_containers_is_marked_as_no_proof(self) -> None:
        text = parsed(receipts.passed(gpu=True, container=False)).text
        assert "Not proof for a digest" in text
        assert "smoke test on GPU" in text
        assert "NVIDIA H100 80GB HBM3" in text
        assert "sha256:" not in text

    def test_rungs_stand_under_their_theme_in_order(self) -> None:
        text = parsed(receipts.passed(gpu=True)).text
        places = [text.index(f"{theme} ", text.index("The ladder")) for theme in ladder.THEMES.values()]
        assert places == sorted(places)

    def test_every_rung_there_is_has_a_theme(self) -> None:
        assert {known.code // 10 for known in KNOWN.values()} == set(ladder.THEMES)
        assert "Others" in parsed(replace(receipts.passed(), rungs=(rung("unheard of"),))).text

    def test_bars_are_in_proportion_to_the_longest_rung(self) -> None:
        rungs = tuple(rung(name, seconds=seconds) for name, seconds in (("train", 10.0), ("resume", 2.5), ("export", 0.0)))
        found = parsed(replace(receipts.passed(), rungs=rungs, training=None))
        assert found.values("width") == ["100.00", "25.00", "0.00"]

    def test_what_was_not_run_took_no_time(self) -> None:
        found = parsed(replace(receipts.passed(), rungs=(rung("train", outcome="not run", seconds=0.0),), training=None))
        assert not found.values("width")
        assert "of 10.0 s" not in found.text

    def test_a_receipt_with_nothing_in_it(self) -> None:
        empty = replace(
            receipts.passed(),
            passed=False,
            images=(),
            rungs=(),
            training=None,
            servings=(),
            answers=(),
            versions=(),
            figures=(),
        )
        assert "0 of 0 rungs passed" in parsed(empty).text


class TestAnswers:
    def test_what_differs_is_marked_word_by_word(self) -> None:
        bdi = tables.difference("A tar of files.", "A tar of many file.")
        assert [(child.tag, child.text) for child in bdi] == [("ins", "many "), ("del", "files"), ("ins", "file")] or [
            (child.tag, child.text) for child in bdi
        ] == [("del", "files"), ("ins", "many file")]
        assert "".join(bdi.itertext()).endswith(".")

    @given(st.text("ab .\n", max_size=60), st.text("ab .\n", min_size=1, max_size=60))
    @settings(max_examples=60, deadline=None, database=None)
    def test_a_difference_holds_both_texts(self, expected: str, got: str) -> None:
        bdi = tables.difference(expected, got)
        parts = [("", bdi.text or ""), *itertools.chain(*([(one.tag, one.text or ""), ("", one.tail or "")] for one in bdi))]
        assert "".join(text for tag, text in parts if tag != "del") == markup.visible(got)
        assert "".join(text for tag, text in parts if tag != "ins") == markup.visible(expected)

    def test_a_base_model_that_knows_is_marked_bad(self) -> None:
        run = receipts.passed()
        knowing = replace(run, answers=tuple(replace(answer, got=answer.expected) for answer in run.answers))
        assert "unknown" in parsed(run).text
        text = parsed(knowing).text
        assert "✗ known" in text
        assert "knows 8 of 8" in text

    def test_a_stream_that_differs_is_shown(self) -> None:
        answer = Answer(VLLM, "tuned", "Q?", "A.", "A.", "B.")
        assert "✗ streamed otherwise: B." in parsed(replace(receipts.passed(), answers=(answer,))).text

    def test_each_server_has_a_column_and_the_control_is_last(self) -> None:
        text = parsed(receipts.passed()).text
        heads = [f"{VLLM}, tuned", f"{MERGED}, tuned", f"{FACTORY}, tuned", f"{VLLM}, base model (control)"]
        places = [text.index(head) for head in heads]
        assert places == sorted(places)

    def test_a_question_that_a_server_was_not_asked(self) -> None:
        asked = (Answer(VLLM, "tuned", "Q?", "A.", "A.", "A."), Answer(MERGED, "tuned", "R?", "B.", "B.", "B."))
        assert parsed(replace(receipts.passed(), answers=asked)).text.count("not asked") == 2


class TestFigures:
    @pytest.mark.parametrize(
        ("value", "last", "unit", "said"),
        [
            (13.0, 10.0, "s", "▲ +30% worse"),
            (7.0, 10.0, "s", "▼ -30% better"),
            (13.0, 10.0, "bytes", "▲ +30% worse"),
            (13.0, 10.0, "tokens/s", "▲ +30% better"),
            (7.0, 10.0, "tokens/s", "▼ -30% worse"),
            (10.1, 10.0, "s", "+1%"),
            (13.0, 10.0, "parrots", "+30%"),
        ],
    )
    def test_a_change_has_a_direction(self, value: float, last: float, unit: str, said: str) -> None:
        text = compared(Figure("it", value, unit, last))
        assert said in text
        assert ("worse" in text, "better" in text) == ("worse" in said, "better" in said)
        assert "Compared with the last passed run" in text

    @pytest.mark.parametrize("last", [None, 0.0, -1.0])
    def test_nothing_to_compare_with(self, last: float | None) -> None:
        text = compared(Figure("it", 5.0, "s", last))
        assert "worse" not in text
        assert "better" not in text
        assert ("There is no earlier passed run" in text) is (last is None)

    def test_units_are_for_people(self) -> None:
        text = compared(Figure("a", 0.0421, "s"), Figure("b", 3.4e9, "bytes"), Figure("c", 1412.71, "tokens/s"))
        assert "42 ms" in text
        assert "3.40 GB" in text
        assert "1,412.7 tokens/s" in text


class TestCurve:
    @pytest.mark.parametrize(
        "losses",
        [(1.0,), (2.0, 2.0), (0.0, 0.0), (-1.0, 1.0), (1e-300, 1e300), (8.9, 0.0083), (5.0, 4.9)],
        ids=str,
    )
    def test_it_stays_in_its_frame(self, losses: tuple[float, ...]) -> None:
        svg = curve.draw(losses)
        _, _, width, height = map(float, svg.get("viewBox", "").split())
        line = svg.find("polyline")
        assert line is not None
        points = [tuple(map(float, point.split(","))) for point in line.get("points", "").split()]
        assert len(points) == len(losses)
        assert all(0 <= x <= width and 0 <= y <= height for x, y in points)

    def test_less_loss_is_lower_and_later_is_further_right(self) -> None:
        line = curve.draw((10.0, 1.0, 0.1)).find("polyline")
        assert line is not None
        (x1, y1), (x2, y2), (x3, y3) = [tuple(map(float, point.split(","))) for point in line.get("points", "").split()]
        assert x1 < x2 < x3
        # Equal steps on the logarithmic scale.
        assert y2 - y1 == pytest.approx(y3 - y2, abs=0.2)
        assert y1 < y2 < y3

    def test_a_long_training_stays_a_small_picture(self) -> None:
        run = replace(receipts.passed(), training=Training(tuple(1.0 + 1 / step for step in range(1, 20_001)), 1.0, 1))
        found = parsed(run)
        assert found.tags["circle"] < 300
        assert "step 20000" in found.text

    @given(st.floats(1e-9, 1e9), st.floats(1.01, 1e12))
    @example(631392848.0, 15843.0)  # Two of every second power of ten, and thirteen finer ones.
    @settings(max_examples=100, deadline=None, database=None)
    def test_the_vertical_axis_has_a_few_lines(self, low: float, ratio: float) -> None:
        marks = curve.levels(low, low * ratio)
        assert 2 <= len(marks) <= 12
        assert marks == sorted(set(marks))
        assert low <= marks[0]
        assert marks[-1] <= low * ratio

    @given(st.integers(1, 10**7))
    @settings(max_examples=100, deadline=None, database=None)
    def test_the_horizontal_axis_has_a_few_marks(self, count: int) -> None:
        marks = curve.steps(count)
        assert marks[0] == 1
        assert marks[-1] <= count
        assert len(marks) <= 7


class TestNothingGetsOut:
    def test_it_loads_nothing_and_runs_nothing(self) -> None:
        text = markup.document(page(receipts.failed()))
        assert not re.search(r"https?:|url\(|@import|<script|javascript:|\son\w+=|\sstyle=|\ssrc=", text)

    def test_its_policy_allows_its_own_style_alone(self) -> None:
        text = markup.document(page(receipts.passed()))
        style = re.search(r"<style>(.*)</style>", text, re.DOTALL)
        assert style
        checksum = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
        assert f"default-src 'none'; style-src 'sha256-{checksum}'; base-uri 'none'; form-action 'none'" in text
        assert style[1].count("{") > 50

    @pytest.mark.parametrize("hostile", HOSTILE, ids=lambda text: ascii(text[:12]))
    def test_hostile_text_in_every_field(self, hostile: str, tmp_path: Path) -> None:
        for run in (receipts.failed(), receipts.passed(gpu=True)):
            spoilt = _spoil(run, hostile)
            found = parsed(spoilt)
            assert found.tags.keys() <= set(TAGS.split())
            assert {name for name, _ in found.attributes} <= set(ATTRIBUTES.split())
            assert all(
                link.startswith(("#rung-", "./")) or link in {"receipt.json", "junit.xml", "logs/"}
                for link in found.values("href")
            )
            assert not set(found.text) & set("\u202e\u202c\u2066\u2069\u200b\x00\x07\x1b\x7f\x9b\r\t\ud800")
            # It can be written, and stays of a size that a browser shows at once.
            assert report.write(spoilt, tmp_path).stat().st_size < 1_500_000
            shown = markup.visible(hostile if len(hostile) <= markup.LONGEST else hostile[: markup.LONGEST])
            assert shown in found.text
            assert ("more characters, which the receipt has" in found.text) is (len(hostile) > markup.LONGEST)

    @pytest.mark.parametrize("number", [0.0, -1.0, 1e300, 5e-324])
    def test_numbers_that_no_run_gives(self, number: float) -> None:
        assert parsed(_spoil(receipts.failed(), number)).tags.keys() <= set(TAGS.split())

    @pytest.mark.parametrize(
        "name",
        [
            "../../etc/passwd",
            "/etc/passwd",
            "//example.com/x",
            "logs/../../x",
            "logs//x",
            "",
            ".",
            "logs/\u202egol.exe",
            "a\nb",
        ],
    )
    def test_a_log_that_would_lead_elsewhere_is_no_link(self, name: str) -> None:
        one = rung("train", outcome="failed", code=41, logs=(name,))
        assert parsed(replace(receipts.failed(), rungs=(one,))).values("href") == [
            "#rung-0",
            "receipt.json",
            "junit.xml",
            "logs/",
        ]

    @pytest.mark.parametrize(
        ("name", "link"),
        [
            ("javascript:alert(1)", "./javascript%3Aalert%281%29"),
            ("https:x?y#z", "./https%3Ax%3Fy%23z"),
            ("logs/é 1.log", "./logs/%C3%A9%201.log"),
        ],
    )
    def test_a_link_to_a_log_is_quoted(self, name: str, link: str) -> None:
        one = rung("train", outcome="failed", code=41, logs=(name,))
        assert link in parsed(replace(receipts.failed(), rungs=(one,))).values("href")

    def test_scripts_of_the_world_stay_as_they_are(self) -> None:
        for text in ("Zażółć gęślą jaźń", "日本語", "שלום", "🎡 ✓", "a → b × c"):
            assert markup.visible(text) == text


class TestAccessible:
    def test_headings_go_down_by_one(self) -> None:
        text = markup.document(page(receipts.failed()))
        levels = [int(level) for level in re.findall(r"<h(\d)", text)]
        assert levels[0] == 1
        assert levels.count(1) == 1
        assert all(after - before <= 1 for before, after in itertools.pairwise(levels))

    def test_ids_are_unique_and_links_into_the_page_lead_somewhere(self) -> None:
        found = parsed(receipts.failed())
        assert max(Counter(found.values("id")).values()) == 1
        assert {link[1:] for link in found.values("href") if link.startswith("#")} <= set(found.values("id"))

    def test_colours_can_be_told_apart_in_both_schemes_and_on_paper(self) -> None:
        style = (Path(report.__file__).with_name("report.css")).read_text()
        schemes = [
            dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", block))
            for block in re.findall(r":root \{(.*?)\}", style, re.DOTALL)
        ]
        assert len(schemes) == 3
        pairs = [(front, back) for front in ("text", "muted", "link", "good", "bad") for back in ("page", "card")]
        pairs += [("note", "note-back"), ("bad", "bad-back"), ("text", "bad-back"), ("muted", "bad-back"), ("link", "bad-back")]
        for scheme in schemes:
            for front, back in pairs:
                assert _contrast(scheme[front], scheme[back]) >= 4.5, (front, back, scheme)
            for shape in ("bar", "line"):
                assert _contrast(scheme[shape], scheme["card"]) >= 3, (shape, scheme)


def _spoil(value: T, spoilt: str | float) -> T:
    """The same with every text, or every number, replaced."""
    if isinstance(value, tuple):
        return tuple(_spoil(one, spoilt) for one in value)  # type: ignore[return-value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        changes = {
            one.name: _spoil(getattr(value, one.name), spoilt) for one in dataclasses.fields(value) if one.name != "outcome"
        }
        return replace(value, **changes)
    return spoilt if type(value) is type(spoilt) else value


def _contrast(one: str, other: str) -> float:
    """As WCAG 2 defines it."""
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
