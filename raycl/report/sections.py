"""The parts of the page: the leaderboard, the figures and the runs of one board."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from raycl.report.boards import Board
from raycl.report.canvas import attribute, hue, safe
from raycl.report.charts import NARROW, WIDE, bars, line_chart, scatter, stack
from raycl.report.clouds import legend, panel
from raycl.report.figures import (
    Bars,
    Figure,
    HeatMap,
    Latents,
    LineChart,
    Matrix,
    Name,
    Scatter,
    Stack,
    figures,
    named,
)
from raycl.report.heat import SIZE, matrix
from raycl.report.labels import options_of
from raycl.report.leaderboard import NULL, Cell, Row, Setting, row_of, shown
from raycl.report.palette import LEVELS


@dataclass(frozen=True)
class Column:
    """A column of the leaderboard: its metric, its words, what it means."""

    metric: str
    words: str
    about: str
    higher_is_better: bool | None = True


COLUMNS = (
    Column("last_pooled", "last", "accuracy after the last task, all test samples pooled"),
    Column("last_task_mean", "last, task mean", "accuracy after the last task, mean over tasks"),
    Column("avg_inc_pooled", "average", "mean over tasks of the pooled accuracy so far"),
    Column("forgetting", "forgetting", "best earlier accuracy minus the last, among classes seen "
           "so far: a growing label space counts", higher_is_better=False),
    Column("forgetting_union", "forgetting, all", "the same among all classes: the label space "
           "does not grow", higher_is_better=False),
    Column("transfer", "transfer", "accuracy on tasks before they are learnt"),
    Column("average", "average, all", "mean of the whole matrix among all classes"),
    Column("last_union", "last, all", "after the last task among all classes, mean over tasks"),
    Column("state_mib", "MiB", "what the method keeps between tasks", higher_is_better=None),
    Column("seconds", "seconds", "wall-clock time of a run, all stages", higher_is_better=None),
)  # fmt: skip


@dataclass
class Section:
    """A part of the page, and what its heat maps tell when pointed at."""

    html: str
    matrices: dict[str, Any] = field(default_factory=dict)


def slug(words: str) -> str:
    """A name that is safe in anchors and file names."""
    return re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")[:60] or "x"


def breakable(words: str) -> str:
    """Escaped text that may break after the signs which join long names."""
    return re.sub(r"([+_/,])", r"\1<wbr>", safe(words))


def board_section(board: Board, anchor: str) -> Section:
    """Everything about one label space."""
    drawn = figures(board)
    matrices: dict[str, Any] = {}
    charts: list[str] = []
    clouds: list[str] = []
    heat: list[str] = []
    for figure in drawn:
        match figure:
            case HeatMap():
                kind = heat
            case Latents():
                kind = clouds
            case _:
                kind = charts
        kind.append(figure_card(figure, f"{anchor}-{figure.key}", matrices))
    facts = "".join(f"<li>{fact}</li>" for fact in _board_facts(board))
    return Section(
        f'<section class="board" id="{anchor}" aria-labelledby="{anchor}-h">'
        f'<h2 id="{anchor}-h">{breakable(board.name)}</h2><ul class="facts">{facts}</ul>'
        f'<p class="lead">{_lead(board)}</p>'
        f"{leaderboard_table(board, f'{anchor}-table')}"
        f'<div class="grid level">{"".join(charts)}</div>'
        + (f"{_part(LATENTS)}{ABOUT_LATENTS}{''.join(clouds)}" if clouds else "")
        + (f"{_part('Accuracy matrices')}{SCALE}{_grid(heat)}" if heat else "")
        + f"{_part('Runs')}{_tasks(board)}{''.join(map(_runs, board.settings))}</section>",
        matrices,
    )


LATENTS = "Real and sampled latents"
ABOUT_LATENTS = (
    '<p class="about">CGIL fits a generator to the vectors of each class as it arrives, keeps it '
    "in their place, and aligns its prompts on what all generators draw. A panel is a class, in "
    "the two principal axes of its real vectors: the more alike both clouds, the less is lost.</p>"
)


def _grid(cards: Sequence[str]) -> str:
    return f'<div class="grid">{"".join(cards)}</div>'


def _part(words: str) -> str:
    return f'<div class="part"><h3>{words}</h3></div>'


def _board_facts(board: Board) -> list[str]:
    run = board.runs[0]
    tasks = run.get("tasks") or []
    facts = [f"backbone <b>{safe(board.first.backbone)}</b>", safe(board.first.protocol)]
    if board.tasks:
        facts.append(f"<b>{board.tasks}</b> task{'s' * (board.tasks > 1)}")
    if tasks and isinstance(tasks[0], Mapping):
        facts.append(f"<b>{sum(len(task['classes']) for task in tasks):,}</b> classes")
        facts.append(f"<b>{sum(task['test'] for task in tasks):,}</b> test samples")
    seeds = sorted({int(run["seeds"]["order"]) for run in board.runs if "order" in _seeds(run)})
    if seeds:
        facts.append(f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}")
    return facts


def _seeds(run: Mapping[str, Any]) -> Mapping[str, Any]:
    return run.get("seeds") or {}


def _lead(board: Board) -> str:
    """One sentence that a hurried reader takes along."""
    scored = [(s, row_of(s, ("last_pooled",)).cells["last_pooled"]) for s in board.settings]
    best = max((c.mean, -i) for i, (_, c) in enumerate(scored)) if all(
        c.mean is not None for _, c in scored
    ) else None  # fmt: skip
    if best is None or best[0] is None:
        return "Some methods have no accuracy after the last task, so none is named the best."
    top = scored[-best[1]][0]
    text = f"<b>{safe(top.label)}</b> ends highest, at <b>{best[0]:.1f} %</b> after the last task"
    reference = next((c.mean for s, c in scored if s is board.reference), None)
    if reference is None or top is board.reference:
        return text + "."
    return f"{text}: {best[0] - reference:+.1f} points against the frozen zero-shot model."


def leaderboard_table(board: Board, name: str) -> str:
    """The sortable table: numbers, and for every null its reason."""
    rows = [row_of(setting, [c.metric for c in COLUMNS[:-2]]) for setting in board.settings]
    best = {c.metric: _best([row.cells[c.metric] for row in rows], c) for c in COLUMNS}
    head = _head("method", "as named by its options", text=True, first="ascending")
    head += _head("n", "runs")
    for column in COLUMNS:
        first = "descending" if column.higher_is_better else "ascending"
        sort = "descending" if column.metric == "last_pooled" else None
        head += _head(column.words, column.about, first=first, sort=sort)
    names = (setting_name for _, setting_name in named(board))
    body = "".join(_row(row, own, best) for row, own in zip(rows, names, strict=True))
    return (
        f'<div class="part"><h3>Leaderboard</h3><button class="quiet" type="button" '
        f'data-copy="{name}">Copy table</button></div>'
        f'<div class="scroll" tabindex="0" role="region" aria-label="Leaderboard">'
        f'<table class="sortable" id="{name}"><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
        '<p class="note">A column’s best is bold. Click a heading to sort by it. '
        "“All” means among all classes of the stream, learnt or not.</p>"
    )


def _head(
    words: str,
    about: str,
    *,
    text: bool = False,
    first: str = "descending",
    sort: str | None = None,
) -> str:
    marks = (" data-text" if text else "") + (f' aria-sort="{sort}"' if sort else "")
    return (
        f'<th scope="col" data-first="{first}"{marks}>'
        f'<button type="button" title="{attribute(about)}">{safe(words)}</button></th>'
    )


def _best(cells: Sequence[Cell], column: Column) -> float | None:
    values = [cell.mean for cell in cells if cell.mean is not None]
    if column.higher_is_better is None or len(values) < 2:
        return None
    return max(values) if column.higher_is_better else min(values)


def _row(row: Row, name: Name, best: Mapping[str, float | None]) -> str:
    css = hue(name.place, reference=name.reference)
    label = attribute(row.label)
    options = options_of(row.label) if name.label != row.label else ""
    small = f'<small class="options">{safe(options)}</small>' if options else ""
    cells = "".join(
        _cell(c.metric, row.cells[c.metric], best[c.metric] == row.cells[c.metric].mean)
        for c in COLUMNS
    )
    return (
        f'<tr><th scope="row" data-v="{label}" title="{label}"><span class="key {css}"></span>'
        f'{safe(name.label)}{small}</th><td data-v="{row.n}">{row.n}</td>{cells}</tr>'
    )


def _cell(metric: str, cell: Cell, is_best: bool) -> str:
    if cell.mean is None:
        why = attribute(cell.why or "undefined")
        return (
            f'<td class="null" data-v="" title="{why}"><abbr title="{why}" '
            f'aria-label="undefined: {why}">{NULL}</abbr></td>'
        )
    mean, _, sd = shown(metric, cell).partition(" ± ")
    deviation = f" <small>± {sd}</small>" if sd else ""
    css = ' class="best"' if is_best else ""
    return f'<td{css} data-v="{cell.mean!r}">{mean}{deviation}</td>'


def figure_card(figure: Figure, name: str, matrices: dict[str, Any]) -> str:
    """A figure with its caption and a button that saves it."""
    match figure:
        case LineChart():
            body = _both(lambda width: line_chart(figure, width))
        case Scatter():
            body = _both(lambda width: scatter(figure, width))
        case Bars():
            body = _both(lambda width: bars(figure, width))
        case Stack():
            body = _both(lambda width: stack(figure, width))
        case HeatMap():
            body = _pair(figure, name, matrices)
        case Latents():
            each = "".join(panel(one, figure.name) for one in figure.panels)
            body = f'<div class="panels">{legend(figure.name)}{each}</div>'
    note = f'<p class="note">{safe(figure.note)}</p>' if figure.note else ""
    return (
        f'<figure id="{name}"><figcaption><h3>{safe(figure.title)}</h3>{note}</figcaption>'
        f'<button class="quiet" type="button" data-save="{name}" '
        f'aria-label="Save {attribute(figure.title)} as SVG" title="Save as SVG">SVG</button>'
        f"{body}</figure>"
    )


def _both(draw: Any) -> str:
    """The same figure for wide and for narrow screens: text keeps its size on both."""
    return f'<div class="wide">{draw(WIDE)}</div><div class="narrow">{draw(NARROW)}</div>'


def _pair(figure: HeatMap, name: str, matrices: dict[str, Any]) -> str:
    shown_maps = []
    for i, one in enumerate(figure.matrices):
        key = f"{name}-{i}"
        matrices[key] = _told(one, figure)
        size = SIZE if len(figure.matrices) > 1 else 1.7 * SIZE
        svg = matrix(one, figure.title, figure.row_label, figure.column_label, size)
        svg = svg.replace("<svg ", f'<svg data-matrix="{key}" ', 1)
        shown_maps.append(f"<div><h4>{safe(one.space)}</h4>{svg}</div>")
    return f'<div class="pair">{"".join(shown_maps)}</div>'


def _told(one: Matrix, figure: HeatMap) -> dict[str, Any]:
    return {
        "row": figure.row_label,
        "column": figure.column_label,
        "rows": one.rows,
        "columns": one.columns,
        "values": [[None if v is None else round(v, 1) for v in row] for row in one.values],
        "why": one.why,
    }


def scale(words: str, note: str = "") -> str:
    """The scale of heat maps, with what it measures."""
    steps = "".join(
        f'<rect x="{i * 9}" width="9.2" height="11" class="h{i}"/>' for i in range(LEVELS)
    )
    return (
        f'<p class="scale">{words} <span>0</span><svg width="180" height="11" aria-hidden="true">'
        f'{steps}</svg><span>100 %</span><span class="pairing"><svg class="heat" width="22" '
        'height="11" aria-hidden="true"><rect width="22" height="11" class="none"/></svg>'
        f"undefined</span><span>{note}</span></p>"
    )


SCALE = scale("accuracy", "Row 0 is the zero-shot backbone, before any task.")


def _tasks(board: Board) -> str:
    """What each task holds, in the first run's order."""
    run = board.runs[0]
    tasks, names = run.get("tasks") or [], run.get("class_names") or []
    if not tasks or not isinstance(tasks[0], Mapping):
        return ""
    items = "".join(f"<li>{_task(task, names)}</li>" for task in tasks)
    order = _seeds(run).get("order")
    words = "Tasks and classes" + (f", in the order of seed {order}" if order is not None else "")
    return _folded(safe(words), f'<ol class="tasks">{items}</ol>')


def _task(task: Mapping[str, Any], names: Sequence[str]) -> str:
    classes = ", ".join(names[c] if c < len(names) else str(c) for c in task["classes"])
    return (
        f"{len(task['classes'])} classes, {task['train']:,} training and {task['test']:,} "
        f"test samples: {safe(classes)}"
    )


def _runs(setting: Setting) -> str:
    n = len(setting.runs)
    inner = "".join(_run(run) for run in setting.runs)
    warned = any(run.get("warnings") for run in setting.runs)
    mark = ' <span class="warnings">with warnings</span>' if warned else ""
    count = f'<span class="note">{n} run{"s" * (n > 1)}</span>'
    return _folded(f"{safe(setting.label)}{count}{mark}", inner)


def _folded(head: str, body: str) -> str:
    return f"<details><summary>{head}</summary><div>{body}</div></details>"


def _run(run: Mapping[str, Any]) -> str:
    seeds = ", ".join(f"{name} {seed}" for name, seed in _seeds(run).items())
    versions = ", ".join(f"{name} {what}" for name, what in (run.get("versions") or {}).items())
    pairs = [
        ("key", run["key"]),
        ("imported", _origin(run)),
        ("finished", run.get("created")),
        ("seeds", seeds),
        ("device", run.get("device")),
        ("versions", versions),
        ("trainable", _count(run.get("trainable_parameters"))),
    ]
    rows = "".join(f"<dt>{name}</dt><dd>{safe(str(v))}</dd>" for name, v in pairs if v)
    for warning in run.get("warnings") or []:
        rows += f'<dt class="warnings">warning</dt><dd>{safe(str(warning))}</dd>'
    for metric, why in (run.get("why_null") or {}).items():
        rows += f"<dt>no {safe(metric)}</dt><dd>{safe(str(why))}</dd>"
    spec = json.dumps(run.get("experiment"), indent=1) if run.get("experiment") else ""
    block = _folded("Resolved experiment", f"<pre>{safe_lines(spec)}</pre>") if spec else ""
    head = f"seed {_seeds(run)['order']}" if "order" in _seeds(run) else str(run["key"])
    return _folded(safe(head), f"<dl>{rows}</dl>{block}")


def _origin(run: Mapping[str, Any]) -> str | None:
    origin = run.get("imported")
    return f"from {origin['file']}, measured elsewhere" if origin else None


def _count(parameters: int | None) -> str | None:
    return None if parameters is None else f"{parameters:,} parameters at most"


def safe_lines(text: str) -> str:
    """Escaped text that keeps its lines."""
    return "\n".join(safe(line) for line in text.splitlines())
