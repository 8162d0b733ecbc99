"""Draws matrices as heat maps in SVG: a colour per five points, numbers where they fit.

Guarantees: an undefined entry is hatched, never coloured; the scale is always 0 to 100, so
that two maps may be compared; a map of 50 tasks takes a few kilobytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from raycl.report.canvas import Canvas, n
from raycl.report.figures import Matrix
from raycl.report.palette import has_high_text, level_of
from raycl.report.scales import thinned

SIZE = 246
_LEFT, _TOP, _BOTTOM = 36, 4, 34
_SMALLEST_WITH_NUMBERS = 15.5
_NONE = "none"


def matrix(shown: Matrix, name: str, row_label: str, column_label: str, size: float = SIZE) -> str:
    """One matrix; a row named 0 stands apart, above the others."""
    rows, columns = len(shown.rows), len(shown.columns)
    cell = min(46.0, (size - _LEFT - 2) / columns)
    gap = 5.0 if shown.rows[0] == "0" else 0.0
    wide, high = cell * columns, cell * rows + gap
    title = f"{name}, percent: {shown.space}"
    canvas = Canvas(size, _TOP + high + _BOTTOM, title)
    left = _LEFT + (size - _LEFT - 2 - wide) / 2
    tops = [_TOP + i * cell + (gap if i else 0) for i in range(rows)]
    _cells(canvas, shown, left, tops, cell)
    if cell >= _SMALLEST_WITH_NUMBERS:
        _numbers(canvas, shown, left, tops, cell)
    for i in thinned(rows, max(2, int(high / 15)), int(shown.rows[0])):
        canvas.text(left - 5, tops[i] + cell / 2 + 4, shown.rows[i], "tick", anchor="end")
    for j in thinned(columns, max(2, int(wide / 17))):
        x = left + (j + 0.5) * cell
        canvas.text(x, _TOP + high + 13, shown.columns[j], "tick", anchor="middle")
    canvas.text(left + wide / 2, _TOP + high + 29, column_label, "name", anchor="middle")
    middle = _TOP + high / 2
    canvas.text(left - 26, middle, row_label, "name", anchor="middle", turn=-90)
    frame = f'data-grid="{n(left)} {n(cell)} {n(gap)} {n(_TOP)}"'
    return canvas.svg("heat").replace("<svg ", f"<svg {frame} ", 1)


def _cells(canvas: Canvas, shown: Matrix, left: float, tops: list[float], cell: float) -> None:
    """In units of cells, all cells of a colour are one path, equal neighbours one piece."""
    apart = 1 if shown.rows[0] == "0" else 0
    for first, last in ((0, apart), (apart, len(tops))):
        if first == last:
            continue
        paths: dict[str, list[str]] = {}
        for i, row in enumerate(shown.values[first:last]):
            for j, count, level in _pieces(row):
                paths.setdefault(level, []).append(f"M{j} {i}h{count}v1h-{count}z")
        place = f"translate({n(left)} {n(tops[first])}) scale({cell:.4f})"
        for level in sorted(paths.keys() - {_NONE}):
            canvas.path("".join(paths[level]), level, more=f' transform="{place}"')
    # In pixels, because a pattern would be scaled too.
    gaps = [
        f"M{n(left + j * cell)} {n(top)}h{n(count * cell)}v{n(cell)}h{n(-count * cell)}z"
        for top, row in zip(tops, shown.values, strict=True)
        for j, count, level in _pieces(row)
        if level == _NONE
    ]
    if gaps:
        canvas.path("".join(gaps), _NONE)
    right = left + len(shown.columns) * cell
    width = "fine" if cell < 9 else "lines"
    bottom = tops[-1] + cell
    d = "".join(f"M{n(left)} {n(y)}H{n(right)}" for y in tops[1:])
    d += "".join(
        f"M{n(left + j * cell)} {n(tops[0])}V{n(bottom)}" for j in range(1, len(shown.columns))
    )
    if d:
        canvas.path(d, width)


def _pieces(row: Sequence[float | None]) -> Iterator[tuple[int, int, str]]:
    """Where equal neighbours begin, how many they are, and their class."""
    j = 0
    for level, group in groupby(row, key=_level):
        count = len(list(group))
        yield j, count, level
        j += count


def _level(value: float | None) -> str:
    return _NONE if value is None else f"h{level_of(value)}"


def _numbers(canvas: Canvas, shown: Matrix, left: float, tops: list[float], cell: float) -> None:
    size = "n3" if cell >= 30 else "n2" if cell >= 20 else "n1"
    digits = 1 if cell >= 30 else 0
    for i, row in enumerate(shown.values):
        for j, value in enumerate(row):
            if value is not None:
                high = has_high_text(level_of(value))
                canvas.text(
                    left + (j + 0.5) * cell,
                    tops[i] + cell / 2 + (4 if cell >= 20 else 3),
                    f"{value:.{digits}f}",
                    f"{size} {'on-high' if high else 'on-low'}",
                    anchor="middle",
                )
