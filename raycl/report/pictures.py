"""The figures as PNG or PDF files for a paper, through matplotlib, in the light theme.

Guarantees: the data are those of the page; no display, no global state of matplotlib is
touched, and no text is read as a formula. matplotlib is imported on the first picture.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from raycl.report.boards import Board
from raycl.report.clouds import MEAN, REAL_WORDS, SAMPLED_WORDS, bounds, known, shares
from raycl.report.figures import (
    Bars,
    Figure,
    HeatMap,
    Latents,
    LineChart,
    Matrix,
    Name,
    Panel,
    Point,
    Scatter,
    Stack,
    figures,
)
from raycl.report.leaderboard import Cell
from raycl.report.palette import DASHES, LEVELS, LIGHT, MARKERS, has_high_text, level_of
from raycl.report.scales import fitted, short
from raycl.report.sections import slug
from raycl.report.writing import report_unwritable, write_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Picture

Format = Literal["png", "pdf"]

_WIDTH, _DPI = 5.4, 220
_TITLE = 320
"""Points that a title may take."""
_ABREAST = 5
"""Panels of a row."""
_SHAPES = {"circle": "o", "square": "s", "triangle": "^", "diamond": "D"}


def write_pictures(found: Iterable[Board], folder: Path, kind: Format = "png") -> list[Path]:
    """One file per figure, named by board and figure; the folder is made if need be."""
    with report_unwritable(folder):
        folder.mkdir(parents=True, exist_ok=True)
    written = []
    for number, board in enumerate(found, start=1):
        for figure in figures(board):
            words = slug(figure.title) if isinstance(figure, HeatMap | Latents) else ""
            parts = (f"{number}-{slug(board.name)}", figure.key, words)
            written.append(folder / f"{'-'.join(p for p in parts if p)}.{kind}")
            write_picture(figure, written[-1], kind)
    return written


def write_picture(figure: Figure, path: Path, kind: Format = "png") -> None:
    """One figure as a file."""
    write_whole(path, drawn(figure, kind))


def drawn(figure: Figure, kind: Format = "png") -> bytes:
    """One figure as the bytes of a file."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Picture
    from matplotlib.text import Text

    with rc_context(_STYLE), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a glyph that no installed font has
        picture = Picture(figsize=(_WIDTH, _height(figure)), layout="constrained")
        FigureCanvasAgg(picture)
        _draw(picture, figure)
        for text in picture.findobj(Text):
            text.set_parse_math(False)
        out = io.BytesIO()
        day: dict[str, Any] = {"CreationDate": None} if kind == "pdf" else {}
        picture.savefig(out, format=kind, dpi=_DPI, metadata=day)
    return out.getvalue()


_STYLE: Any = {
    "font.family": "sans-serif",
    "font.size": 8.5,
    "axes.edgecolor": LIGHT.strong,
    "axes.labelcolor": LIGHT.muted,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "grid.color": LIGHT.hair,
    "xtick.color": LIGHT.muted,
    "ytick.color": LIGHT.muted,
    "ytick.left": False,
    "text.color": LIGHT.ink,
    "legend.frameon": False,
    "legend.fontsize": 7.5,
    "hatch.linewidth": 0.4,
    "pdf.fonttype": 42,
}


def _height(figure: Figure) -> float:
    match figure:
        case Bars() | Stack():
            return 0.9 + 0.3 * len(figure.names)
        case HeatMap():
            return 2.0 if len(figure.matrices[0].columns) < 4 else 2.7
        case Latents():
            return 0.5 + 1.5 * math.ceil(len(figure.panels) / _ABREAST)
        case LineChart():
            return 3.0 + 0.16 * math.ceil(len(figure.lines) / 3)
        case Scatter():
            return 3.0 + 0.16 * math.ceil(len(figure.names) / 3)


def _draw(picture: Picture, figure: Figure) -> None:
    match figure:
        case LineChart():
            _lines(picture, figure)
        case Scatter():
            _points(picture, figure)
        case Bars():
            _bars(picture, figure)
        case Stack():
            _stack(picture, figure)
        case HeatMap():
            _maps(picture, figure)
        case Latents():
            _clouds(picture, figure)


def _look(name: Name) -> tuple[str, Any, str]:
    """Colour, dash pattern and marker, as on the page."""
    colour = LIGHT.muted if name.reference else LIGHT.hues[name.place % len(LIGHT.hues)]
    dash = DASHES[1 if name.reference else name.place // len(LIGHT.hues) % len(DASHES)]
    style = (0, tuple(part / 1.6 for part in dash)) if dash else "solid"
    return colour, style, _SHAPES[MARKERS[name.place % len(MARKERS)]]


def _numbers(cells: Sequence[Cell], of: Callable[[Cell], float | None]) -> list[float]:
    return [math.nan if (value := of(cell)) is None else value for cell in cells]


def _lines(picture: Picture, figure: LineChart) -> None:
    from matplotlib.ticker import MaxNLocator

    axes = picture.add_subplot()
    for line in figure.lines:
        colour, style, shape = _look(line.name)
        x = list(range(figure.first, figure.first + len(line.cells)))
        mean = _numbers(line.cells, lambda cell: cell.mean)
        sd = [cell.sd or 0.0 for cell in line.cells]
        size = 2.6 if len(x) <= 25 else 0
        order = len(figure.lines) - line.name.place + 2
        axes.plot(
            x, mean, color=colour, ls=style, marker=shape, ms=size, lw=1.3,
            label=_label(line.name), zorder=order,
        )  # fmt: skip
        if any(sd) and len(figure.lines) <= 12:
            low = [m - s for m, s in zip(mean, sd, strict=True)]
            high = [m + s for m, s in zip(mean, sd, strict=True)]
            axes.fill_between(x, low, high, color=colour, alpha=0.13, lw=0)
    axes.set_xlabel(figure.x_label)
    axes.set_ylabel(figure.y_label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _legend(picture, axes)


def _label(name: Name) -> str:
    # A leading underscore hides a label from matplotlib's legends.
    return "\u200b" + name.label if name.label.startswith("_") else name.label


def _legend(picture: Picture, axes: Axes) -> None:
    picture.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3)


def _points(picture: Picture, figure: Scatter) -> None:
    axes = picture.add_subplot()
    positive = [x for x in figure.x if x > 0] or [1.0]
    axes.set_xscale("symlog", linthresh=min(positive) / 2, linscale=0.35)
    for name, x, cell in zip(figure.names, figure.x, figure.y, strict=True):
        colour, _, shape = _look(name)
        axes.errorbar(
            [x], [math.nan if cell.mean is None else cell.mean], yerr=cell.sd, fmt=shape, ms=5,
            color=colour, ecolor=LIGHT.muted, elinewidth=0.8, label=_label(name),
        )  # fmt: skip
    axes.set_xlim(left=-min(positive) / 8)
    axes.set_xlabel(f"{figure.x_label} (logarithmic; 0 apart)")
    axes.set_ylabel("accuracy, %")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    _legend(picture, axes)


def _named_rows(axes: Axes, names: Sequence[Name]) -> None:
    axes.set_yticks(range(len(names)), [name.label for name in names], color=LIGHT.ink)
    axes.invert_yaxis()
    axes.grid(axis="x")
    axes.grid(visible=False, axis="y")


def _bars(picture: Picture, figure: Bars) -> None:
    axes = picture.add_subplot()
    for s, _ in enumerate(figure.series):
        for i, name in enumerate(figure.names):
            cell, at = figure.cells[i][s], i - 0.2 + 0.4 * s
            colour = _look(name)[0]
            if cell.mean is None:
                axes.text(0, at, " –", va="center", color=LIGHT.muted)
                continue
            axes.barh(
                at, cell.mean, 0.38, color=colour, alpha=0.45 if s else 1.0, xerr=cell.sd,
                error_kw={"elinewidth": 0.8, "ecolor": LIGHT.ink},
            )  # fmt: skip
            if name.reference and cell.mean:
                axes.axvline(cell.mean, color=LIGHT.muted, ls=(0, (3, 3)), lw=0.9)
    _named_rows(axes, figure.names)
    axes.set_xlabel(f"{figure.unit} (full: {figure.series[0]}; pale: {figure.series[-1]})")


def _stack(picture: Picture, figure: Stack) -> None:
    axes = picture.add_subplot()
    left = [0.0] * len(figure.names)
    for p, part in enumerate(figure.parts):
        values = [row[p] for row in figure.values]
        hue = LIGHT.hues[p % len(LIGHT.hues)]
        axes.barh(range(len(values)), values, 0.55, left=left, color=hue, label=part)
        left = [a + b for a, b in zip(left, values, strict=True)]
    for i, total in enumerate(left):
        axes.text(total, i, f" {short(total)}", va="center", color=LIGHT.muted, fontsize=7)
    _named_rows(axes, figure.names)
    axes.set_xlabel(figure.unit)
    _legend(picture, axes)


def _maps(picture: Picture, figure: HeatMap) -> None:
    picture.suptitle(fitted(figure.title, _TITLE, 9), fontsize=9)
    for axes, one in zip(picture.subplots(1, len(figure.matrices), squeeze=False)[0],
                         figure.matrices, strict=True):  # fmt: skip
        _map(axes, one, figure)


def _map(axes: Axes, one: Matrix, figure: HeatMap) -> None:
    from matplotlib.colors import BoundaryNorm, ListedColormap

    table = [[math.nan if v is None else v for v in row] for row in one.values]
    steps = [i * 100 / LEVELS for i in range(LEVELS + 1)]
    axes.grid(visible=False)
    axes.spines["bottom"].set_visible(False)
    axes.patch.set(hatch="/////", edgecolor=LIGHT.hair, facecolor="white")
    axes.imshow(
        table, cmap=ListedColormap(list(LIGHT.ramp)), norm=BoundaryNorm(steps, LEVELS),
        interpolation="nearest",
    )  # fmt: skip
    every = max(1, math.ceil(len(one.columns) / 10))
    axes.set_xticks(range(0, len(one.columns), every), one.columns[::every])
    axes.set_yticks(range(0, len(one.rows), every), one.rows[::every])
    axes.tick_params(length=0)
    if one.rows[0] == "0":
        axes.axhline(0.5, color="white", lw=2)
    axes.set_title(one.space, fontsize=8, color=LIGHT.muted)
    axes.set_xlabel(figure.column_label)
    axes.set_ylabel(figure.row_label)
    if len(one.columns) <= 12:
        for i, row in enumerate(one.values):
            for j, v in enumerate(row):
                if v is not None:
                    high = has_high_text(level_of(v))
                    axes.text(j, i, f"{v:.0f}", ha="center", va="center", fontsize=6.5,
                              color=LIGHT.on_high if high else LIGHT.on_low)  # fmt: skip


def _clouds(picture: Picture, figure: Latents) -> None:
    picture.suptitle(fitted(figure.title, _TITLE, 9), fontsize=9)
    rows = math.ceil(len(figure.panels) / _ABREAST)
    grid = picture.subplots(rows, _ABREAST, squeeze=False).flatten()
    for axes, shown in zip(grid, figure.panels, strict=False):
        _cloud(axes, shown, _look(figure.name)[0])
    for axes in grid[len(figure.panels) :]:
        axes.set_axis_off()
    handles = grid[0].get_legend_handles_labels()
    picture.legend(*handles, loc="outside lower center", ncols=2)


def _cloud(axes: Axes, shown: Panel, colour: str) -> None:
    (x, y), half = bounds(shown)
    reach = 1.1 * half or 1.0
    for along in (axes.axvline, axes.axhline):
        along(MEAN[0], color=LIGHT.hair, lw=0.6, zorder=0)
    looks: list[tuple[list[Point], str, dict[str, Any]]] = [
        (shown.sampled, SAMPLED_WORDS, {"ms": 1.7, "mew": 0, "color": colour}),
        (shown.real, REAL_WORDS, {"ms": 2.5, "mew": 0.45, "mfc": "none", "mec": LIGHT.ink}),
    ]
    for points, words, look in looks:
        xs, ys = [x for x, _ in points], [y for _, y in points]
        axes.plot(xs, ys, "o", label=words, **look)
    axes.set(xlim=(x - reach, x + reach), ylim=(y - reach, y + reach), xticks=[], yticks=[])
    axes.set_box_aspect(1)
    for spine in axes.spines.values():
        spine.set(visible=True, color=LIGHT.hair)
    axes.set_title(f"{fitted(shown.name, 70, 7)}\n{known(shown)}", fontsize=4.8, loc="left", pad=3)
    axes.set_xlabel(shares(shown), fontsize=4.8, labelpad=2)
