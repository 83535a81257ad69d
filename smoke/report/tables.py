"""The tables of the report: answers expected and got, figures beside the last ones, versions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from difflib import SequenceMatcher
from xml.etree.ElementTree import Element

from smoke import history
from smoke.receipt import Answer, Figure, SmokeReceipt
from smoke.report.markup import Child, cut, element
from smoke.rungs.servers import BASE

# What moves less than this since the last run has not moved.
_NOISE = 0.02


def answers(receipt: SmokeReceipt) -> Element:
    """Every question, what it should be answered with, and what each model of each server said; the base model last."""
    asked = dict.fromkeys((answer.server, answer.model) for answer in receipt.answers)
    # A stable sort: the servers stay in the order they were asked in.
    columns = sorted(asked, key=lambda column: column[1] == BASE)
    questions = dict.fromkeys((answer.question, answer.expected) for answer in receipt.answers)
    by_cell: dict[tuple[str, ...], list[Answer]] = {}
    for answer in receipt.answers:
        by_cell.setdefault((answer.question, answer.expected, answer.server, answer.model), []).append(answer)
    heads = [f"{server}, base model (control)" if model == BASE else f"{server}, {model}" for server, model in columns]
    rows = [
        [
            element("bdi", question),
            element("bdi", expected),
            *(_cell(by_cell.get((question, expected, *at), [])) for at in columns),
        ]
        for question, expected in questions
    ]
    return table(["question", "expected", *heads], rows, class_="answers")


def exact(answers: Iterable[Answer]) -> int:
    """How many are word for word what was expected."""
    return sum(answer.got == answer.expected for answer in answers)


def figures(found: Sequence[Figure]) -> Element:
    """Every figure, with that of the last passed run on a host of the same class."""
    rows: list[list[Child]] = [
        [
            figure.name,
            history.shown(figure.value, figure.unit),
            "–" if figure.last is None else history.shown(figure.last, figure.unit),
            _change(figure),
        ]
        for figure in found
    ]
    return table(["figure", "now", "last passed run", "change"], rows, class_="figures")


def versions(receipt: SmokeReceipt) -> Element:
    """The packages that matter, a column for each image."""
    images = list(dict.fromkeys(version.image for version in receipt.versions))
    packages = sorted({version.package for version in receipt.versions})
    known = {(version.package, version.image): version.version for version in receipt.versions}
    rows: list[list[Child]] = [[package, *(known.get((package, image), "–") for image in images)] for package in packages]
    return table(["package", *images], rows, class_="versions")


def table(heads: Sequence[str], rows: Sequence[Sequence[Child]], *, class_: str) -> Element:
    """A table whose first column names its rows. On a narrow screen each row becomes a block, its cells named by the heads."""
    # A table laid out as blocks is no table to a screen reader unless its roles are said.
    return element(
        "table",
        element(
            "thead",
            element("tr", *(element("th", head, scope="col", role="columnheader") for head in heads), role="row"),
            role="rowgroup",
        ),
        element("tbody", *(_row(heads, row) for row in rows), role="rowgroup"),
        class_=class_,
        role="table",
    )


def _row(heads: Sequence[str], row: Sequence[Child]) -> Element:
    first, *others = row
    return element(
        "tr",
        element("th", first, scope="row", role="rowheader"),
        # The layout of a narrow screen needs one box around what a cell holds.
        *(
            element("td", element("div", cell), role="cell", data_label=head)
            for head, cell in zip(heads[1:], others, strict=True)
        ),
        role="row",
    )


def _cell(found: Sequence[Answer]) -> Element:
    if not found:
        return element("span", "not asked", class_="muted")
    return element("div", *(_answer(answer) for answer in found))


def _answer(answer: Answer) -> Element:
    same = answer.got == answer.expected
    stream = None
    # Not every server is asked for streams.
    if answer.streamed and answer.streamed != answer.got:
        stream = element("p", _verdict(good=False, words="streamed otherwise: "), element("bdi", answer.streamed))
    if answer.model == BASE:
        said = element(
            "p", _verdict(good=not same, words="known" if same else "unknown"), ": ", element("bdi", answer.got or "(nothing)")
        )
    elif same:
        said = element("p", _verdict(good=True, words="exact"))
    else:
        said = element("p", _verdict(good=False, words="differs: "), difference(answer.expected, answer.got))
    return element("div", said, stream)


def difference(expected: str, got: str) -> Element:
    """What was got, with what is missing struck out and what is too much underlined."""
    if not got:
        return element("bdi", "(nothing)")
    left, right = (re.findall(r"\s+|\w+|[^\w\s]", cut(text)) for text in (expected, got))
    parts: list[Child] = []
    for kind, start, end, first, last in SequenceMatcher(None, left, right).get_opcodes():
        if kind == "equal":
            parts.append("".join(right[first:last]))
            continue
        if end > start:
            parts.append(element("del", "".join(left[start:end])))
        if last > first:
            parts.append(element("ins", "".join(right[first:last])))
    return element("bdi", *parts)


def _verdict(*, good: bool, words: str) -> Element:
    return element("span", f"{'✓' if good else '✗'} {words}", class_="good" if good else "bad")


def _change(figure: Figure) -> Element:
    moved = history.change(figure)
    if moved is None:
        return element("span", "–", class_="muted")
    if abs(moved.share) < _NOISE or moved.better is None:
        return element("span", f"{moved.share:+.0%}", class_="muted")
    sign = "▲" if moved.share > 0 else "▼"
    return element(
        "span", f"{sign} {moved.share:+.0%} {'better' if moved.better else 'worse'}", class_="good" if moved.better else "bad"
    )
