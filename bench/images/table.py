"""The tables of `invoke bench build`: figures, ratios against the goals, and where the time goes."""

from __future__ import annotations

from dataclasses import dataclass

from bench.images import limit
from bench.images.race import BUMP, COLD, SAME, Figure, Results
from common import console

# A table: its head, and its rows.
Table = tuple[tuple[str, ...], list[tuple[str, ...]]]
_PRODUCT, _ORDINARY, _REFERENCE = "(c)", "(a)", "(b)"
_ISAL, _ZLIB, _BYTECODE = (f"(d) {way}" for way in (limit.ISAL, limit.ZLIB, limit.BYTECODE))


@dataclass(frozen=True, slots=True)
class Goal:
    """What was to be reached, and what was.

    Attributes:
        what: in words.
        least: whether `limit` is the least that was to be reached, instead of the most.
        limit: the goal.
        reached: what was measured.
        unit: of both; `×`, `s` or `B`.
    """

    what: str
    limit: float
    reached: float
    unit: str
    least: bool = False

    @property
    def met(self) -> bool:
        """Whether it was reached."""
        return self.reached >= self.limit if self.least else self.reached <= self.limit

    def row(self) -> tuple[str, ...]:
        """For a table."""
        sign = "≥" if self.least else "≤"
        return self.what, f"{sign} {self._text(self.limit)}", self._text(self.reached), "yes" if self.met else "**no**"

    def _text(self, value: float) -> str:
        return console.size(value) if self.unit == "B" else f"{value:.2f} {self.unit}"


def blocks(results: Results) -> list[Table]:
    """All tables, in the order they are shown."""
    return [
        *(_figures(results, name) for name in dict.fromkeys(figure.set for figure in results.figures)),
        (("goal", "to reach", "reached", "met"), [goal.row() for goal in goals(results)]),
        _ratios(results),
        _shares(results),
        _kinds(results),
        (
            ("pull and unpack into an empty engine", "bytes", "seconds", "MB/s"),
            [
                (f"{name}: {what}", console.size(size), f"{seconds:.1f} s", f"{size / seconds / 1e6:.0f}")
                for name, what, size, seconds in results.pulls
            ],
        ),
    ]


def goals(results: Results) -> list[Goal]:
    """The goals that this run can judge."""
    judged: list[Goal] = []
    for name in dict.fromkeys(figure.set for figure in results.figures):
        cold = _of(results, name, _PRODUCT, COLD)
        same, bump = _of(results, name, _PRODUCT, SAME), _of(results, name, _PRODUCT, BUMP)
        if cold and (limits := [(way, _of(results, name, way, COLD)) for way in (_ISAL, _ZLIB, _BYTECODE)]):
            judged += [
                Goal(f"{name}: cold, of {way}", 1.3, cold.usage.wall / least.usage.wall, "×") for way, least in limits if least
            ]
        if cold and (other := _of(results, name, _REFERENCE, COLD)):
            judged.append(Goal(f"{name}: cold, faster than (b)", 3, other.usage.wall / cold.usage.wall, "×", least=True))
        if bump:
            judged.append(Goal(f"{name}: one package bumped", 3, bump.usage.wall, "s"))
            judged.append(Goal(f"{name}: upload of a bump, of its changed layers", 1.05, bump.upload / bump.base, "×"))
        if same:
            judged.append(Goal(f"{name}: nothing changed", 1, same.usage.wall, "s"))
        if cold:
            judged.append(Goal(f"{name}: peak memory", 1e9, cold.usage.memory, "B"))
            judged.append(Goal(f"{name}: scratch, of the layout", 1.1, cold.usage.disk / cold.base, "×"))
    return judged


def _figures(results: Results, name: str) -> Table:
    head = (f"{name} set", "wall", "processor", "cores busy", "peak memory", "scratch disk", "a registry receives", "runs")
    rows: list[tuple[str, ...]] = []
    for figure in sorted((f for f in results.figures if f.set == name), key=lambda f: (_order(f.case), f.who)):
        use = figure.usage
        busy = f"{100 * use.utilisation():.0f} %"
        upload = "" if figure.who.startswith("(d)") else console.size(figure.upload)
        cells = (f"{use.wall:.2f} s", f"{use.cpu:.1f} s", busy, console.size(use.memory), console.size(use.disk), upload)
        rows.append((f"{figure.case}: {figure.who}", *cells, str(figure.rounds)))
    return head, rows


def _ratios(results: Results) -> Table:
    rows = []
    for name in dict.fromkeys(figure.set for figure in results.figures):
        for case in (COLD, SAME, BUMP):
            ours = _of(results, name, _PRODUCT, case)
            for who in (_ORDINARY, _REFERENCE):
                if ours and (theirs := _of(results, name, who, case)):
                    values = [
                        (theirs.usage.wall, ours.usage.wall),
                        (theirs.usage.cpu, ours.usage.cpu),
                        (theirs.usage.memory, ours.usage.memory),
                        (theirs.usage.disk, ours.usage.disk),
                        (theirs.upload, ours.upload),
                    ]
                    cells = [f"{value / mine:.1f} ×" if mine > 0 and value > 0 else "" for value, mine in values]
                    rows.append((f"{name}, {case}: {theirs.who} takes", *cells, "of (c)"))
    return ("beside (c)", "wall", "processor", "memory", "scratch", "upload", ""), rows


def _shares(results: Results) -> Table:
    rows: list[tuple[str, ...]] = [
        (name, f"{100 * share:.0f} %", what) for name, shares in results.shares.items() for what, share in shares.items()
    ]
    return ("where the processor time of (c) goes, cold", "share", "kind"), rows


def _kinds(results: Results) -> Table:
    rows: list[tuple[str, ...]] = [
        (name, f"{seconds:.1f} s", what) for name, kinds in results.kinds.items() for what, seconds in kinds.items()
    ]
    return ("processor time at the limit, with bytecode", "seconds", "kind"), rows


def _of(results: Results, name: str, who: str, case: str) -> Figure | None:
    figures = [figure for figure in results.figures if figure.set == name and figure.case == case]
    return next((figure for figure in figures if figure.who == who or figure.who.startswith(f"{who} ")), None)


def _order(case: str) -> int:
    return (COLD, SAME, BUMP).index(case)
