"""The ladder in the report."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote
from xml.etree.ElementTree import Element

from common import console
from smoke.receipt import Rung, SmokeReceipt
from smoke.report.markup import Child, add, element, visible
from smoke.rungs.table import FACTORY, KNOWN, MERGED, VLLM

# By the tens of a rung's code.
THEMES = {
    1: "Host",
    2: "Contract",
    3: "Device",
    4: "Train",
    5: "Export",
    6: f"Serve: {VLLM}",
    7: f"Serve: {MERGED}",
    8: f"Serve: {FACTORY}",
    9: "At the end",
}
MARKS = {"passed": "✓", "failed": "✗", "not run": "–"}


def ladder(receipt: SmokeReceipt) -> Element:
    """The rungs by theme: how each went, how long it took, and of those that failed what to do and where to look."""
    groups: dict[str, list[tuple[int, Rung]]] = {}
    for number, rung in enumerate(receipt.rungs):
        groups.setdefault(_theme(rung.name), []).append((number, rung))
    longest = max((rung.seconds for rung in receipt.rungs), default=0.0)
    worked = sum(rung.seconds for rung in receipt.rungs)
    together = f"The rungs worked {console.seconds(worked)} in all; the run took {console.seconds(receipt.seconds)}"
    if worked > receipt.seconds:
        together += ", because rungs that do not stand on each other run together"
    return element(
        "section",
        element("h2", "The ladder"),
        element("p", f"{together}.", class_="muted"),
        *(_group(theme, rungs, longest) for theme, rungs in groups.items()),
    )


def _theme(name: str) -> str:
    known = KNOWN.get(name)
    return THEMES.get(known.code // 10, "Others") if known else "Others"


def _group(theme: str, rungs: Sequence[tuple[int, Rung]], longest: float) -> Element:
    good = sum(rung.outcome == "passed" for _, rung in rungs)
    return element(
        "section",
        element("h3", theme, element("span", f" {good} of {len(rungs)}", class_="muted")),
        element("ol", *(_rung(number, rung, longest) for number, rung in rungs), class_="rungs"),
        class_="theme",
    )


def _rung(number: int, rung: Rung, longest: float) -> Element:
    state = f"failed, code {rung.code}" if rung.outcome == "failed" else rung.outcome
    what = element(
        "div",
        element("strong", rung.name),
        " ",
        element("span", state, class_="unseen" if rung.outcome == "passed" else "state"),
        element("p", rung.message) if rung.message else None,
        class_="what",
    )
    if rung.outcome == "failed":
        add(what, element("p", element("strong", "What to do: "), rung.fix, class_="fix") if rung.fix else None, _logs(rung))
    return element(
        "li",
        element("span", MARKS[rung.outcome], class_="mark", aria_hidden="true"),
        what,
        _time(rung, longest) if rung.outcome != "not run" else None,
        id=f"rung-{number}",
        class_=f"rung {rung.outcome.replace(' ', '-')}",
    )


def _time(rung: Rung, longest: float) -> Element:
    limit = element("span", f" of {console.seconds(rung.limit)}", class_="muted")
    bar = _bar(rung.seconds / longest if longest > 0 else 0.0)
    return element("div", element("span", console.seconds(rung.seconds), limit), bar, class_="time")


def _logs(rung: Rung) -> Element | None:
    if not rung.logs:
        return None
    links: list[Child] = ["Log: " if len(rung.logs) == 1 else "Logs: "]
    for number, log in enumerate(rung.logs):
        links += [", " if number else None, _link(log)]
    return element("p", *links, class_="logs")


def _link(log: str) -> Child:
    """A link to a file below this directory; a name that leads elsewhere, or hides where, is shown and leads nowhere."""
    plain = visible(log) == log and not {"", ".", ".."} & set(log.split("/"))
    return element("a", log, href=f"./{quote(log)}") if plain else log


def _bar(share: float) -> Element:
    bar = element("rect", width=f"{100 * min(max(share, 0.0), 1.0):.2f}", height="4", fill="currentColor")
    return element("svg", bar, viewBox="0 0 100 4", preserveAspectRatio="none", class_="bar", aria_hidden="true")
