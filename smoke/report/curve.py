"""The loss curve, as SVG for the report."""

from __future__ import annotations

import math
from collections.abc import Sequence
from xml.etree.ElementTree import Element

from smoke.report.markup import element

_WIDTH, _HEIGHT = 680, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 14, 14, 46
# A loss of nothing has no logarithm.
_LEAST = 1e-9
# Points that tell their value under the pointer; of more, every nth.
_TOLD = 250


def draw(losses: Sequence[float]) -> Element:
    """Draw the losses of every step on a logarithmic scale; the same losses give the same picture.

    Args:
        losses: at least one.
    """
    values = [max(loss, _LEAST) for loss in losses]
    low, high = min(values) / 1.3, max(values) * 1.3
    points = [(_x(number, len(values)), _y(value, low, high)) for number, value in enumerate(values, 1)]
    every = math.ceil(len(values) / _TOLD)
    told = [number for number in range(len(values)) if number % every == 0 or number == len(values) - 1]
    return element(
        "svg",
        *(_level(tick, _y(tick, low, high)) for tick in levels(low, high)),
        *(_step(step, _x(step, len(values))) for step in steps(len(values))),
        _text("step", (_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 6, "middle"),
        element(
            "polyline",
            points=" ".join(f"{x:.1f},{y:.1f}" for x, y in points),
            class_="line",
            fill="none",
            stroke="currentColor",
            stroke_width="2",
        ),
        *(_told(number + 1, losses[number], *points[number], every / len(values)) for number in told),
        *(_end(*points[number]) for number in (0, -1)),
        class_="curve",
        viewBox=f"0 0 {_WIDTH} {_HEIGHT}",
        role="img",
        aria_label=f"Training loss on a logarithmic scale, {told_as(losses)}",
    )


def told_as(losses: Sequence[float]) -> str:
    """The curve in a few words."""
    return f"from {losses[0]:.4g} at step 1 to {losses[-1]:.4g} at step {len(losses)}"


def levels(low: float, high: float) -> list[float]:
    """Where the vertical axis has its lines: powers of ten, or finer where the range holds few."""
    tens = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    # Many powers of ten would crowd the axis.
    some = [10.0**power for power in tens if power % math.ceil(len(tens) / 6) == 0]
    every = [10.0**power for power in tens]
    finer = [part * 10.0**power for power in tens for part in (1, 2, 5)]
    return next((marks for one in (some, every, finer) if len(marks := _within(one, low, high)) > 2), [low, high])


def steps(count: int) -> list[int]:
    """Where the horizontal axis has its marks: the first step, and some round ones."""
    distance = next(part * 10**power for power in range(20) for part in (1, 2, 5) if part * 10**power * 6 >= count)
    return [1, *(step for step in range(distance, count + 1, distance) if step > 1 + distance / 4)]


def _within(marks: list[float], low: float, high: float) -> list[float]:
    return [mark for mark in marks if low <= mark <= high]


def _x(number: int, count: int) -> float:
    return _LEFT + (_WIDTH - _LEFT - _RIGHT) * (number - 1) / max(count - 1, 1)


def _y(value: float, low: float, high: float) -> float:
    return _TOP + (_HEIGHT - _TOP - _BOTTOM) * (math.log10(high) - math.log10(value)) / (math.log10(high) - math.log10(low))


def _level(value: float, y: float) -> Element:
    line = element(
        "line",
        x1=f"{_LEFT}",
        x2=f"{_WIDTH - _RIGHT}",
        y1=f"{y:.1f}",
        y2=f"{y:.1f}",
        stroke="currentColor",
        stroke_opacity="0.2",
    )
    return element("g", line, _text(f"{value:.3g}", _LEFT - 8, y + 5, "end"))


def _step(number: int, x: float) -> Element:
    bottom = _HEIGHT - _BOTTOM
    tick = element(
        "line", x1=f"{x:.1f}", x2=f"{x:.1f}", y1=f"{bottom}", y2=f"{bottom + 5}", stroke="currentColor", stroke_opacity="0.5"
    )
    return element("g", tick, _text(str(number), x, bottom + 20, "middle"))


def _text(words: str, x: float, y: float, anchor: str) -> Element:
    return element("text", words, x=f"{x:.1f}", y=f"{y:.1f}", text_anchor=anchor, fill="currentColor")


def _told(step: int, loss: float, x: float, y: float, share: float) -> Element:
    """A strip of the picture that says under the pointer which loss it stands for, and marks the point."""
    width = max((_WIDTH - _LEFT - _RIGHT) * share, 2)
    strip = element(
        "rect",
        x=f"{x - width / 2:.1f}",
        y=f"{_TOP}",
        width=f"{width:.1f}",
        height=f"{_HEIGHT - _TOP - _BOTTOM}",
        fill="currentColor",
        fill_opacity="0",
    )
    dot = element("circle", cx=f"{x:.1f}", cy=f"{y:.1f}", r="4", fill="currentColor", class_="dot", opacity="0")
    return element("g", element("title", f"step {step}: {loss:.4g}"), strip, dot, class_="told")


def _end(x: float, y: float) -> Element:
    return element("circle", cx=f"{x:.1f}", cy=f"{y:.1f}", r="4", fill="currentColor", class_="end")
