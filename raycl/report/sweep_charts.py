"""The figures of a sweep as SVG: parallel coordinates, slices, curves, front, importance.

Guarantees: every mark tells its sample and its numbers when pointed at; what was pruned is
dashed, the best is in the accent colour; nothing is drawn where nothing is known.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from raycl.report.canvas import Canvas, n
from raycl.report.scales import fitted, linear_ticks, log_ticks, short, width_of

Told = Mapping[str, Any]
"""What `raycl.search.telling` gives."""

_LEFT, _RIGHT, _TOP, _BOTTOM = 52.0, 16.0, 12.0, 40.0
_MOST_LINES = 250
PLAIN = {"seconds": "seconds", "state_mib": "state, MiB"}


def words_of(metric: str) -> str:
    """A metric as an axis names it."""
    return PLAIN.get(metric, f"{metric.replace('_', ' ')}, %")


@dataclass(frozen=True)
class _Scale:
    """Values along a line of the picture."""

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False

    def at(self, value: float) -> float:
        low, high, value = (
            (math.log(max(v, 1e-300)) for v in (self.low, self.high, value))
            if self.logarithmic
            else (self.low, self.high, value)
        )
        share = (value - low) / (high - low) if high > low else 0.5
        return self.start + share * (self.end - self.start)

    def ticks(self, about: int = 5) -> list[float]:
        if not self.logarithmic or self.low <= 0:
            found = linear_ticks(self.low, self.high, about)
        else:
            found = log_ticks(self.low, self.high)
        slack = 1e-9 * (abs(self.high) + 1)
        return [t for t in found if self.low - slack <= t <= self.high + slack]


def _state(told: Told, sample: Mapping[str, Any]) -> str:
    """The classes that say what became of a sample."""
    if sample["number"] == told["best_sample"]:
        return "trial best"
    if sample["state"] != "complete":
        return "trial lost"
    if sample["number"] in told["front"] and len(goals(told)) > 1:
        return "trial front"
    return "trial"


def goals(told: Told) -> list[Mapping[str, Any]]:
    """The objectives that are no constraints."""
    return [one for one in told["objectives"] if one["constraint"] is None]


def _tip(told: Told, sample: Mapping[str, Any]) -> str:
    values = ", ".join(
        f"{one['metric']} {_short(sample['values'].get(one['metric']))}" for one in goals(told)
    )
    params = ", ".join(f"{p.rsplit('.', 1)[-1]} {_word(v)}" for p, v in sample["params"].items())
    return f"sample {sample['number']}, {sample['state']}: {values}; {params}"


def _short(value: float | None) -> str:
    return "–" if value is None else short(value)


def _word(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    return value if isinstance(value, str) else json.dumps(value)


def _drawn(told: Told) -> list[Mapping[str, Any]]:
    """Samples in drawing order, the best last and so on top."""
    rank = {"trial lost": 0, "trial": 1, "trial front": 2, "trial best": 3}
    return sorted(told["all"], key=lambda s: (rank[_state(told, s)], s["number"]))


def _extent(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    pad = (high - low) * 0.05 or abs(high) * 0.1 or 0.5
    return (max(0.0, low - pad) if low >= 0 else low - pad), high + pad


def curves(told: Told, width: float) -> str | None:
    """The first objective after each task, one line per sample."""
    lines = [(s, sorted((int(d), v) for d, v in s["curve"].items())) for s in _drawn(told)]
    lines = [(s, points) for s, points in lines if points][-_MOST_LINES:]
    tasks = max((points[-1][0] for _, points in lines), default=0)
    if tasks < 2:
        return None
    goal = goals(told)[0]["metric"]
    height = 0.58 * width
    x = _Scale(1, tasks, _LEFT, width - _RIGHT)
    y = _Scale(*_extent([v for _, p in lines for _, v in p]), height - _BOTTOM, _TOP)
    canvas = Canvas(width, height, f"{goal} after each task")
    _y_axis(canvas, y, width, words_of(goal))
    for task in range(1, tasks + 1):
        canvas.text(x.at(task), height - _BOTTOM + 16, str(task), "tick", anchor="middle")
    middle = (_LEFT + width - _RIGHT) / 2
    canvas.text(middle, height - 7, "tasks learnt", "name", anchor="middle")
    for sample, points in lines:
        places = [(x.at(done), y.at(value)) for done, value in points]
        canvas.open(f"series {_state(told, sample)} p{sample['number']}")
        if len(places) > 1:
            canvas.path(_through(places), "line", tip=_tip(told, sample))
        canvas.marker(*places[-1], 2.6, 0, "dot", _tip(told, sample))
        canvas.close()
    return canvas.svg("sweep")


def _y_axis(canvas: Canvas, y: _Scale, width: float, name: str) -> None:
    for tick in y.ticks():
        canvas.line(_LEFT, y.at(tick), width - _RIGHT, y.at(tick), "grid")
        canvas.text(_LEFT - 6, y.at(tick) + 4, short(tick), "tick", anchor="end")
    canvas.line(_LEFT, y.start, width - _RIGHT, y.start, "axis")
    canvas.text(11, (y.start + y.end) / 2, name, "name", anchor="middle", turn=-90)


def _through(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{n(x)} {n(y)}" for x, y in points)


def front(told: Told, against: str, width: float) -> str | None:
    """The first objective over a cost, and the line of what nothing dominates."""
    goal = goals(told)[0]
    samples = [
        s for s in _drawn(told)
        if s["state"] == "complete"
        and None not in (s["values"].get(against), s["values"].get(goal["metric"]))
    ]  # fmt: skip
    if len(samples) < 2 or goal["metric"] == against:
        return None
    costs = [s["values"][against] for s in samples]
    values = [s["values"][goal["metric"]] for s in samples]
    height = 0.58 * width
    wide = min(costs) > 0 and max(costs) / min(costs) > 8
    low, high = (min(costs) * 0.9, max(costs) * 1.1) if wide else _extent(costs)
    x = _Scale(low, high, _LEFT, width - _RIGHT, wide)
    y = _Scale(*_extent(values), height - _BOTTOM, _TOP)
    canvas = Canvas(width, height, f"{goal['metric']} against {against}")
    _y_axis(canvas, y, width, words_of(goal["metric"]))
    for tick in x.ticks():
        canvas.text(x.at(tick), height - _BOTTOM + 16, short(tick), "tick", anchor="middle")
    middle = (_LEFT + width - _RIGHT) / 2
    canvas.text(middle, height - 7, PLAIN.get(against, against), "name", anchor="middle")
    edge = _edge(list(zip(costs, values, strict=True)), bool(goal["maximises"]))
    steps = [(x.at(cost), y.at(value)) for cost, value in edge]
    if len(steps) > 1:
        canvas.path(_stairs(steps), "axis front")
    for sample, cost, value in zip(samples, costs, values, strict=True):
        canvas.open(f"series {_state(told, sample)} p{sample['number']}")
        tip = f"{_tip(told, sample)}; {against} {short(cost)}"
        canvas.marker(x.at(cost), y.at(value), 4, 0, "dot", tip)
        canvas.close()
    return canvas.svg("sweep")


def _edge(points: list[tuple[float, float]], maximises: bool) -> list[tuple[float, float]]:
    """What no cheaper point reaches."""
    found: list[tuple[float, float]] = []
    for cost, value in sorted(points, key=lambda p: (p[0], -p[1] if maximises else p[1])):
        if not found or (value > found[-1][1] if maximises else value < found[-1][1]):
            found.append((cost, value))
    return found


def _stairs(points: Sequence[tuple[float, float]]) -> str:
    parts = [f"M{n(points[0][0])} {n(points[0][1])}"]
    for (_, before), (x, y) in pairwise(points):
        parts.append(f"L{n(x)} {n(before)}L{n(x)} {n(y)}")
    return "".join(parts)


def parallel(told: Told, width: float) -> str | None:
    """Every axis side by side, the first objective at the right, a line per sample. One that
    has no value for all tasks ends before the objective."""
    goal = goals(told)[0]["metric"]
    axes = list(told["axes"])
    samples = _drawn(told)[-_MOST_LINES:]
    values = [v for s in samples if (v := s["values"].get(goal)) is not None]
    if not axes or not values:
        return None
    names = [axis["path"] for axis in axes] + [goal]
    height = max(0.42 * width, 230.0)
    top, bottom, left, right = 34.0, height - 16, 74.0, width - 60
    places = [left + i * (right - left) / (len(names) - 1) for i in range(len(names))]
    scales = [_axis_scale(axis, bottom, top) for axis in axes]
    last = _Scale(*_extent(values), bottom, top)
    canvas = Canvas(width, height, "every axis of the space and the objective")
    for sample in samples:
        points = [
            (places[i], _axis_place(axis, scales[i], sample["params"][axis["path"]]))
            for i, axis in enumerate(axes)
            if axis["path"] in sample["params"]
        ]
        if sample["values"].get(goal) is not None:
            points.append((places[-1], last.at(sample["values"][goal])))
        canvas.open(f"series {_state(told, sample)} p{sample['number']}")
        canvas.path(_through(points), "line", tip=_tip(told, sample))
        canvas.close()
    room = (right - left) / max(1, len(names) - 1) - 8
    for i, name in enumerate(names):
        anchor = "start" if i == 0 else "end" if i == len(names) - 1 else "middle"
        at = places[i] + (-60 if i == 0 else 44 if i == len(names) - 1 else 0)
        canvas.text(at, 14, fitted(name.removeprefix("method."), room, 11.5), "name",
                    anchor=anchor, tip=name)  # fmt: skip
        canvas.line(places[i], top, places[i], bottom, "axis")
        ticks = _axis_ticks(axes[i], scales[i]) if i < len(axes) else [
            (last.at(t), short(t)) for t in last.ticks(6)]  # fmt: skip
        side = -6 if i < len(names) - 1 else 7
        for y, word in ticks:
            canvas.text(places[i] + side, y + 4, fitted(word, 64, 11), "tick",
                        anchor="end" if side < 0 else "start", tip=word)  # fmt: skip
    return canvas.svg("sweep")


def _axis_scale(axis: Mapping[str, Any], bottom: float, top: float) -> _Scale:
    if axis["options"] is not None:
        return _Scale(-0.5, len(axis["options"]) - 0.5, bottom, top)
    low, high = axis["ends"]
    return _Scale(low, high, bottom, top, axis["logarithmic"])


def _axis_place(axis: Mapping[str, Any], scale: _Scale, value: Any) -> float:
    if axis["options"] is None:
        return scale.at(float(value))
    words = [json.dumps(option, sort_keys=True) for option in axis["options"]]
    return scale.at(words.index(json.dumps(value, sort_keys=True)))


def _axis_ticks(axis: Mapping[str, Any], scale: _Scale) -> list[tuple[float, str]]:
    if axis["options"] is not None:
        return [(scale.at(i), _word(option)) for i, option in enumerate(axis["options"])]
    ends = [(scale.at(v), f"{v:.3g}") for v in axis["ends"]]
    inner = [(scale.at(t), f"{t:g}") for t in scale.ticks(4)]
    free = [(y, w) for y, w in inner if all(abs(y - at) > 15 for at, _ in ends)]
    return ends + free


def slice_of(told: Told, axis: Mapping[str, Any], width: float) -> str | None:
    """The first objective over one axis."""
    goal = goals(told)[0]["metric"]
    samples = [
        s for s in _drawn(told)
        if axis["path"] in s["params"] and s["values"].get(goal) is not None
    ]  # fmt: skip
    if len(samples) < 2:
        return None
    height = 0.62 * width
    options = axis["options"]
    low, high = (-0.6, len(options) - 0.4) if options is not None else axis["ends"]
    x = _Scale(low, high, _LEFT + 8, width - _RIGHT - 4, axis["logarithmic"])
    y = _Scale(*_extent([s["values"][goal] for s in samples]), height - _BOTTOM, _TOP)
    canvas = Canvas(width, height, f"{goal} over {axis['path']}")
    _y_axis(canvas, y, width, words_of(goal))
    _x_words(canvas, axis, x, height - _BOTTOM + 16)
    middle = (_LEFT + width - _RIGHT) / 2
    canvas.text(middle, height - 7, axis["path"], "name", anchor="middle")
    for sample in samples:
        here = _axis_place(axis, x, sample["params"][axis["path"]])
        canvas.open(f"series {_state(told, sample)} p{sample['number']}")
        canvas.marker(here, y.at(sample["values"][goal]), 3.4, 0, "dot", _tip(told, sample))
        canvas.close()
    return canvas.svg("sweep")


def _x_words(canvas: Canvas, axis: Mapping[str, Any], x: _Scale, y: float) -> None:
    if axis["options"] is None:
        ticks = [(x.at(t), f"{t:g}") for t in x.ticks(4)]
    else:
        room = (x.end - x.start) / len(axis["options"]) - 6
        ticks = [(x.at(i), fitted(_word(o), room, 11)) for i, o in enumerate(axis["options"])]
    for place, word in ticks:
        canvas.text(place, y, word, "tick", anchor="middle")


def importance(told: Told, width: float) -> str | None:
    """How much of the variance each axis explains, as bars."""
    shares: Mapping[str, float] = told["importance"]
    if not shares:
        return None
    names = sorted(shares, key=lambda path: -shares[path])
    left = min(max(width_of(name, 11.5) for name in names) + 14, 0.5 * width)
    canvas = Canvas(width, 26 * len(names) + 16, "importance of each axis")
    x = _Scale(0, max(shares.values()), left, width - 52)
    for i, name in enumerate(names):
        y = 8 + 26 * i
        canvas.text(
            left - 8, y + 13, fitted(name, left - 12, 11.5), "label", anchor="end", tip=name
        )
        tip = f"{name}: {100 * shares[name]:.0f} % of the variance"
        wide = max(x.at(shares[name]) - left, 0.8)
        canvas.rect(left, y + 2, wide, 15, "bar k0", radius=2, tip=tip)
        canvas.text(left + wide + 6, y + 13.5, f"{100 * shares[name]:.0f} %", "value")
    return canvas.svg("sweep")
