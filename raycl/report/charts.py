"""Draws the figures as SVG: lines, points, bars. Heat maps are in `heat`.

Guarantees: the same figure at any width; labels do not overlap, a legend takes over where
they would; every mark tells its number when pointed at.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from raycl.report.canvas import Canvas, dash, hue, n
from raycl.report.figures import Bars, LineChart, Name, Scatter, Stack
from raycl.report.leaderboard import Cell
from raycl.report.scales import (
    fitted,
    linear_ticks,
    log_ticks,
    percent_ticks,
    short,
    spread,
    thinned,
    width_of,
)

WIDE, NARROW = 520, 330
_LABEL = 11.5
_LEFT = 44
"""Where plots begin: room for the numbers and the name of the y axis."""
_MOST_MARKS = 1000
"""Beyond so many points, lines have no marks: they would hide each other."""
_ZERO = _LEFT + 18
"""Where a true zero stands before a logarithmic axis."""
_ROOMY = 430
"""From this width on, labels stand beside the marks."""


@dataclass(frozen=True)
class _Plot:
    """The rectangle between the axes, and the ranges that it spans."""

    left: float
    top: float
    right: float
    bottom: float
    x_range: tuple[float, float]
    y_range: tuple[float, float]

    def x(self, value: float) -> float:
        low, high = self.x_range
        share = (value - low) / (high - low) if high > low else 0.5
        return self.left + share * (self.right - self.left)

    def y(self, value: float) -> float:
        low, high = self.y_range
        return self.bottom - (value - low) / (high - low) * (self.bottom - self.top)


def _number(value: float) -> str:
    """For the eye: with a minus sign as wide as a plus."""
    return f"{value:g}".replace("-", "−")


def _series(name: Name) -> str:
    """The classes of all that belongs to a setting."""
    return f"series {hue(name.place, reference=name.reference)} p{name.place}"


def line_chart(chart: LineChart, width: float = WIDE) -> str:
    """One line per setting over the tasks, with its deviation as a band."""
    counts = max(len(line.cells) for line in chart.lines)
    first = chart.first
    values = [v for line in chart.lines for v in _extent(line.cells)]
    ticks = percent_ticks(values)
    names = [line.name for line in chart.lines]
    height, direct = 0.58 * width + (40 if width < _ROOMY else 0), width >= _ROOMY
    labels = [fitted(name.label, 138, _LABEL) for name in names]
    room = max(width_of(label, _LABEL) for label in labels) + 20 if direct else 12
    ends = [_last(line.cells) for line in chart.lines]
    y_range = (ticks[0], ticks[-1])
    plot = _Plot(_LEFT, 12, width - room, height - 40, (first, first + counts - 1), y_range)
    places = spread([plot.y(value) for _, value in ends], 14, plot.top + 2, plot.bottom - 2)
    if direct and places is None:
        plot = _Plot(_LEFT, 12, width - 12, height - 40, plot.x_range, y_range)
    legend = None if direct and places is not None else _Legend(names, width)
    canvas = Canvas(width, height + (legend.height if legend else 0), chart.title, chart.note)
    _axes(canvas, plot, ticks, chart.x_label, chart.y_label)
    stages = [first + i for i in range(counts)]
    for i in thinned(counts, max(2, int((plot.right - plot.left) / 26)), first):
        canvas.text(plot.x(stages[i]), plot.bottom + 16, str(stages[i]), "tick", anchor="middle")
    for i in reversed(range(len(chart.lines))):  # the best on top
        end = (labels[i], places[i]) if legend is None and places is not None else None
        _draw_line(canvas, plot, chart, i, stages, end)
    if legend:
        legend.draw(canvas, height + 4)
    return canvas.svg("many" if len(names) > 12 else "few")


def _extent(cells: Sequence[Cell]) -> list[float]:
    found = []
    for cell in cells:
        if cell.mean is not None:
            found += [max(0.0, cell.mean - (cell.sd or 0)), min(100.0, cell.mean + (cell.sd or 0))]
    return found


def _last(cells: Sequence[Cell]) -> tuple[int, float]:
    return [(i, cell.mean) for i, cell in enumerate(cells) if cell.mean is not None][-1]


def _axes(canvas: Canvas, plot: _Plot, ticks: Sequence[float], x_label: str, y_label: str) -> None:
    for tick in ticks:
        y = plot.y(tick)
        canvas.line(plot.left, y, plot.right, y, "grid")
        canvas.text(plot.left - 7, y + 4, _number(tick), "tick", anchor="end")
    canvas.line(plot.left, plot.bottom, plot.right, plot.bottom, "axis")
    canvas.text((plot.left + plot.right) / 2, plot.bottom + 33, x_label, "name", anchor="middle")
    middle = (plot.top + plot.bottom) / 2
    canvas.text(9, middle, y_label, "name", anchor="middle", turn=-90)


def _draw_line(
    canvas: Canvas,
    plot: _Plot,
    chart: LineChart,
    which: int,
    stages: Sequence[int],
    end: tuple[str, float] | None,
) -> None:
    name, cells = chart.lines[which].name, chart.lines[which].cells
    canvas.open(_series(name))
    for part in _pieces(cells):
        xs = [plot.x(stages[i]) for i in part]
        mean = [cells[i].mean or 0.0 for i in part]
        sd = [cells[i].sd for i in part]
        if len(part) > 1 and any(sd):
            high = [plot.y(min(100, m + (s or 0))) for m, s in zip(mean, sd, strict=True)]
            low = [plot.y(max(0, m - (s or 0))) for m, s in zip(mean, sd, strict=True)]
            around = [*zip(xs, high, strict=True), *reversed(list(zip(xs, low, strict=True)))]
            canvas.path(_through(around) + "z", "band")
        points = [(x, plot.y(m)) for x, m in zip(xs, mean, strict=True)]
        pattern = dash(name.place, reference=name.reference)
        canvas.path(_through(points), f"line {pattern}", tip=name.label)
    size = 2.7 if len(stages) <= 25 else 1.6
    crowded = len(chart.lines) * len(stages) > _MOST_MARKS
    for i, cell in enumerate(cells):
        alone = crowded and sum(c.mean is not None for c in cells) == 1
        if cell.mean is not None and (alone or not crowded):
            tip = f"{name.label}, {_where(chart, stages[i])}: {cell} %"
            where = (plot.x(stages[i]), plot.y(cell.mean))
            canvas.marker(*where, size, name.place, "dot", tip)
    if end is not None:
        label, y = end
        x, value = _last(cells)
        here = (plot.x(stages[x]), plot.y(value))
        canvas.path(f"M{n(here[0] + 5)} {n(here[1])}L{n(plot.right + 10)} {n(y)}", "leader")
        canvas.text(plot.right + 13, y + 4, label, "label", tip=name.label)
    canvas.close()


def _where(chart: LineChart, stage: int) -> str:
    return f"{chart.place} {stage}" if stage else "before any task"


def _pieces(cells: Sequence[Cell]) -> list[list[int]]:
    """Runs of places without a null: a line never bridges what is undefined."""
    pieces: list[list[int]] = [[]]
    for i, cell in enumerate(cells):
        if cell.mean is None:
            pieces.append([])
        else:
            pieces[-1].append(i)
    return [piece for piece in pieces if piece]


def _through(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{n(x)} {n(y)}" for x, y in points)


class _Legend:
    """The names in even columns below a plot."""

    def __init__(self, names: Sequence[Name], width: float) -> None:
        self.names, self.left = names, 14
        widest = min(max(width_of(name.label, _LABEL) for name in names), 190) + 38
        self.columns = max(1, min(len(names), int((width - self.left) / widest)))
        self.pitch = (width - self.left) / self.columns
        self.rows = math.ceil(len(names) / self.columns)

    @property
    def height(self) -> float:
        return self.rows * 18 + 10

    def draw(self, canvas: Canvas, top: float) -> None:
        for i, name in enumerate(self.names):
            column, row = divmod(i, self.rows)
            x, y = self.left + column * self.pitch, top + row * 18 + 8
            canvas.open(_series(name), name.label)
            pattern = dash(name.place, reference=name.reference)
            canvas.line(x, y, x + 20, y, f"line {pattern}")
            canvas.marker(x + 10, y, 2.7, name.place, "dot")
            room = self.pitch - 38
            canvas.text(x + 26, y + 4, fitted(name.label, room, _LABEL), "label")
            canvas.close()


def scatter(chart: Scatter, width: float = WIDE) -> str:
    """Points over a logarithmic axis; a state of zero stands on the left, before the axis."""
    positive = [x for x in chart.x if x > 0]
    powers = log_ticks(min(positive), max(positive)) if positive else [0.1, 1.0]
    has_zero = any(x <= 0 for x in chart.x)
    ticks = percent_ticks(_extent(chart.y))
    height = 0.58 * width + (40 if width < _ROOMY else 0)
    logs = (math.log10(powers[0]), math.log10(powers[-1]))
    plot = _Plot(_LEFT + (58 if has_zero else 8), 12, width - 16, height - 40, logs,
                 (ticks[0], ticks[-1]))  # fmt: skip
    points = [
        (plot.x(math.log10(x)) if x > 0 else _ZERO, plot.y(cell.mean or 0.0))
        for x, cell in zip(chart.x, chart.y, strict=True)
    ]
    placed = _place_labels(chart.names, points, width - 4, plot) if width >= _ROOMY else {}
    legend = None if len(placed) == len(points) else _Legend(chart.names, width)
    canvas = Canvas(width, height + (legend.height if legend else 0), chart.title, chart.note)
    _axes(canvas, _Plot(_LEFT, 12, plot.right, plot.bottom, logs, plot.y_range), ticks,
          chart.x_label, "accuracy, %")  # fmt: skip
    if has_zero:
        canvas.text(_ZERO, plot.bottom + 16, "0", "tick", anchor="middle")
        canvas.path(f"M{n(_ZERO + 18)} {n(plot.bottom + 5)}l4 -10m3 10l4 -10", "axis")
    for power in powers:
        canvas.line(plot.x(math.log10(power)), plot.bottom, plot.x(math.log10(power)),
                    plot.bottom + 4, "axis")  # fmt: skip
        canvas.text(plot.x(math.log10(power)), plot.bottom + 16, f"{power:g}", "tick",
                    anchor="middle")  # fmt: skip
    for i, (name, (x, y)) in enumerate(zip(chart.names, points, strict=True)):
        cell = chart.y[i]
        canvas.open(_series(name))
        if cell.sd:
            top, low = plot.y(min(100, cell.mean + cell.sd)), plot.y(max(0, cell.mean - cell.sd))  # type: ignore[operator]
            canvas.line(x, top, x, low, "whisker")
        tip = f"{name.label}: {cell} % with {short(chart.x[i])} MiB"
        canvas.marker(x, y, 4.6, name.place, "dot", tip)
        if i in placed and legend is None:
            tx, ty, anchor, label = placed[i]
            canvas.text(tx, ty, label, "label", anchor=anchor, tip=name.label)
        canvas.close()
    if legend:
        legend.draw(canvas, height + 4)
    return canvas.svg("many" if len(points) > 12 else "few")


_Box = tuple[float, float, float, float]


def _place_labels(
    names: Sequence[Name], points: Sequence[tuple[float, float]], right: float, plot: _Plot
) -> dict[int, tuple[float, float, str, str]]:
    """A label beside each point where it covers nothing, as far as there is room."""
    taken: list[_Box] = [(x - 6, y - 6, x + 6, y + 6) for x, y in points]
    placed = {}
    for i, ((x, y), name) in enumerate(zip(points, names, strict=True)):
        label = fitted(name.label, 150, _LABEL)
        wide = width_of(label, _LABEL)
        tries = [
            (x + 9, y + 4, "start", x + 9),
            (x - 9, y + 4, "end", x - 9 - wide),
            (x, y - 11, "middle", x - wide / 2),
            (x, y + 19, "middle", x - wide / 2),
            (x + 9, y - 8, "start", x + 9),
            (x + 9, y + 16, "start", x + 9),
            (x - 9, y - 8, "end", x - 9 - wide),
            (x - 9, y + 16, "end", x - 9 - wide),
        ]
        for tx, ty, anchor, left in tries:
            box = (left - 2, ty - 11, left + wide + 2, ty + 4)
            inside = box[0] > _LEFT and box[2] < right and box[1] > 0 and box[3] < plot.bottom
            if inside and not any(_overlap(box, other) for other in taken):
                placed[i] = (tx, ty, anchor, label)
                taken.append(box)
                break
    return placed


def _overlap(a: _Box, b: _Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


@dataclass(frozen=True)
class _Rows:
    """Where the rows of a bar chart stand: names to the left, or above where it is narrow."""

    names: Sequence[Name]
    width: float
    thick: float
    """The height of a row's bars together."""

    @property
    def beside(self) -> bool:
        return self.width >= _ROOMY

    @property
    def left(self) -> float:
        if not self.beside:
            return 12
        return 14 + min(150, max(width_of(name.label, _LABEL) for name in self.names))

    @property
    def pitch(self) -> float:
        return self.thick + (10 if self.beside else 26)

    @property
    def height(self) -> float:
        return len(self.names) * self.pitch

    def top(self, i: int) -> float:
        """The top of row i's bars, below the top of the plot."""
        return i * self.pitch + (5 if self.beside else 20)

    def label(self, canvas: Canvas, i: int, plot_top: float) -> None:
        y = plot_top + self.top(i)
        name = self.names[i]
        if self.beside:
            words = fitted(name.label, 150, _LABEL)
            place = y + self.thick / 2 + 4
            canvas.text(self.left - 8, place, words, "label", anchor="end", tip=name.label)
        else:
            words = fitted(name.label, self.width - 24, _LABEL)
            canvas.text(self.left, y - 5, words, "label", tip=name.label)


def bars(chart: Bars, width: float = WIDE) -> str:
    """Two bars per setting; the reference's as dashed lines through all rows."""
    rows = _Rows(chart.names, width, 20)
    values = [c.mean for row in chart.cells for c in row if c.mean is not None]
    below = [
        c.mean - (c.sd or 0)
        for row in chart.cells
        for c in row
        if c.mean is not None and c.mean < 0
    ]
    low, high = min([0.0, *below]), max(0.0, 1.0, *values)
    ticks = linear_ticks(low, high)
    room = 42 / (width - 40 - rows.left)  # for a number left of the bar
    start = low - room / (1 - room) * (ticks[-1] - low) if low < 0 else 0.0
    ticks = [tick for tick in ticks if tick >= start]
    top = 30.0
    height = top + rows.height + 44
    plot = _Plot(rows.left, top, width - 40, top + rows.height + 4, (start, ticks[-1]), (0, 1))
    canvas = Canvas(width, height, chart.title, chart.note)
    x = 12.0
    for s, words in enumerate(chart.series):
        canvas.rect(x, 6, 11, 11, f"bar s{s}", radius=2)
        canvas.text(x + 16, 15.5, words, "label")
        x += width_of(words, _LABEL) + 36
    _value_axis(canvas, plot, ticks, chart.unit)
    for i, name in enumerate(chart.names):
        if name.reference:
            for cell in chart.cells[i]:
                if cell.mean:
                    at = plot.x(cell.mean)
                    canvas.line(at, plot.top, at, plot.bottom, "reference")
    for i, name in enumerate(chart.names):
        rows.label(canvas, i, top)
        canvas.open(_series(name))
        for s, cell in enumerate(chart.cells[i]):
            y = top + rows.top(i) + s * 10
            _bar(canvas, plot, y, cell, f"{name.label}, {chart.series[s]}", s)
        canvas.close()
    return canvas.svg()


def _value_axis(canvas: Canvas, plot: _Plot, ticks: Sequence[float], unit: str) -> None:
    for tick in ticks:
        x = plot.x(tick)
        canvas.line(x, plot.top, x, plot.bottom, "axis" if tick == 0 else "grid")
        canvas.text(x, plot.bottom + 15, _number(tick), "tick", anchor="middle")
    canvas.text((plot.left + plot.right) / 2, plot.bottom + 32, unit, "name", anchor="middle")


def _bar(canvas: Canvas, plot: _Plot, y: float, cell: Cell, tip: str, series: int) -> None:
    zero = plot.x(0)
    if cell.mean is None:
        canvas.text(zero + 4, y + 8, "–", "null", tip=f"{tip}: {cell.why}")
        return
    end = plot.x(cell.mean)
    canvas.rect(min(zero, end), y, max(abs(end - zero), 0.8), 9, f"bar s{series}", radius=1.5,
                tip=f"{tip}: {cell} points")  # fmt: skip
    if cell.sd:
        low, high = plot.x(cell.mean - cell.sd), plot.x(cell.mean + cell.sd)
        canvas.line(max(low, plot.left), y + 4.5, high, y + 4.5, "whisker")
        end = max(end, high) if end > zero else max(min(end, low), plot.left)
    words, beyond = _number(round(cell.mean, 1)), end < zero
    place = end - 5 if beyond else end + 5
    canvas.text(place, y + 8, words, "value", anchor="end" if beyond else "start")


def stack(chart: Stack, width: float = WIDE) -> str:
    """One bar per setting, cut into its parts, with the total at its end."""
    rows = _Rows(chart.names, width, 13)
    totals = [sum(values) for values in chart.values]
    ticks = linear_ticks(0.0, max(totals) or 1.0)
    legend = _PartLegend(chart.parts, width)
    top = 8 + legend.height
    plot = _Plot(rows.left, top, width - 44, top + rows.height + 4, (0, ticks[-1]), (0, 1))
    canvas = Canvas(width, top + rows.height + 44, chart.title, chart.note)
    legend.draw(canvas)
    _value_axis(canvas, plot, ticks, chart.unit)
    for i, name in enumerate(chart.names):
        rows.label(canvas, i, top)
        y, x = top + rows.top(i), plot.x(0)
        for p, seconds in enumerate(chart.values[i]):
            wide = plot.x(seconds) - plot.x(0)
            if seconds > 0:
                tip = f"{name.label}, {chart.parts[p]}: {short(seconds)} {chart.unit}"
                canvas.rect(x, y, max(wide, 0.4), 13, f"bar k{p % 8}", tip=tip)
            x += wide
        canvas.text(x + 5, y + 10.5, short(totals[i]), "value")
    return canvas.svg()


class _PartLegend:
    """Swatches of the parts, flowing over as many lines as they need."""

    def __init__(self, parts: Sequence[str], width: float) -> None:
        self.places, x, row = [], 12.0, 0
        for part in parts:
            words = fitted(part, width - 50, _LABEL)
            wide = width_of(words, _LABEL) + 34
            if x + wide > width and x > 12:
                x, row = 12.0, row + 1
            self.places.append((x, row, words))
            x += wide
        self.height = (row + 1) * 18 + 4

    def draw(self, canvas: Canvas) -> None:
        for p, (x, row, words) in enumerate(self.places):
            canvas.rect(x, 6 + row * 18, 11, 11, f"bar k{p % 8}", radius=2)
            canvas.text(x + 16, 15.5 + row * 18, words, "label")
