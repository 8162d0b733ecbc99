"""What the figures show, as plain data: one layer that every renderer draws from.

Guarantees: numbers are those of the results, averaged over runs and never rounded, null
where any run is null; nothing here knows of pixels, colours or files. A figure without
anything to show is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from raycl.report.boards import Board, is_reference, mean_list, mean_table
from raycl.report.labels import shortened
from raycl.report.leaderboard import NOT_RECORDED, Cell, Result, Setting, metric_of, summary

SEEN, UNION = "classes seen so far", "all classes"
MOST_PANELS = 10
"""Classes whose latents are shown."""
_LATER = "a task not learnt yet"

Point = tuple[float, float]


@dataclass(frozen=True)
class Name:
    """A setting as figures tell it apart: its label, and its place in the leaderboard."""

    label: str
    place: int
    reference: bool = False
    """The frozen zero-shot model, drawn in grey."""


@dataclass(frozen=True)
class Line:
    """A setting's values along x, each with its deviation over runs."""

    name: Name
    cells: list[Cell]


@dataclass(frozen=True)
class LineChart:
    """Values after each task, or of each task."""

    key: str
    title: str
    note: str
    x_label: str
    lines: list[Line]
    first: int = 1
    """The number of the first place; 0 stands before any task."""
    place: str = "after task"
    """What a place is called when it is pointed at."""
    y_label: str = "accuracy, %"


@dataclass(frozen=True)
class Matrix:
    """Accuracy on task j (column) after task i (row)."""

    space: str
    rows: list[str]
    columns: list[str]
    values: list[list[float | None]]
    why: str | None = None
    """Why an entry is null that could be a number."""


@dataclass(frozen=True)
class HeatMap:
    """The matrices of one setting."""

    key: str
    title: str
    note: str
    matrices: list[Matrix]
    row_label: str = "after task"
    column_label: str = "task"


@dataclass(frozen=True)
class Bars:
    """Groups of bars beside each other, one group per name."""

    key: str
    title: str
    note: str
    names: list[Name]
    series: list[str]
    cells: list[list[Cell]]
    """By name, then by series."""
    unit: str = "points"


@dataclass(frozen=True)
class Scatter:
    """One point per setting; x is logarithmic, and a true zero has a place of its own."""

    key: str
    title: str
    note: str
    x_label: str
    names: list[Name]
    x: list[float]
    y: list[Cell]


@dataclass(frozen=True)
class Stack:
    """One bar per setting, made of parts."""

    key: str
    title: str
    note: str
    names: list[Name]
    parts: list[str]
    values: list[list[float]]
    """By name, then by part."""
    unit: str = "seconds"


@dataclass(frozen=True)
class Panel:
    """One class: its real vectors and what its generator draws, in two principal axes."""

    name: str
    task: int
    vectors: int
    """All of the class, of which `real` shows some."""
    dispersion: float | None
    """Deviation of samples over that of vectors; null where the class does not vary."""
    real: list[Point]
    sampled: list[Point]
    share: Point
    """Of the real vectors' variance, along each axis."""


@dataclass(frozen=True)
class Latents:
    """Panels side by side, each with a scale of its own that both its axes share."""

    key: str
    title: str
    note: str
    name: Name
    panels: list[Panel]


Figure = LineChart | HeatMap | Bars | Scatter | Stack | Latents


def figures(board: Board) -> list[Figure]:
    """Every figure of a board that has something to show."""
    found: list[Figure | None] = [
        accuracy_over_tasks(board),
        accuracy_on_all_classes(board),
        accuracy_by_task(board),
        accuracy_against_state(board),
        forgetting(board),
        seconds_per_stage(board),
        *(latents(board, setting, name) for setting, name in named(board)),
        *(heat_map(board, setting, name) for setting, name in named(board)),
    ]
    return [figure for figure in found if figure is not None]


def named(board: Board) -> list[tuple[Setting, Name]]:
    """The settings with their names, in the order of the leaderboard."""
    names = shortened([setting.label for setting in board.settings])
    return [
        (setting, Name(names[place], place, is_reference(setting)))
        for place, setting in enumerate(board.settings)
    ]


def _runs(setting: Setting, what: str) -> list[Any]:
    return [run.get(what) for run in setting.runs]


def _stages(setting: Setting, tasks: int) -> list[Cell]:
    return mean_list([run["metrics"].get("stage_pooled") for run in setting.runs], tasks)


def _lines(rows: list[tuple[Name, list[Cell]]]) -> list[Line]:
    return [
        Line(name, cells) for name, cells in rows if any(cell.mean is not None for cell in cells)
    ]


def accuracy_over_tasks(board: Board) -> LineChart | None:
    """`stage_pooled` of every setting."""
    lines = _lines([(name, _stages(s, board.tasks)) for s, name in named(board)])
    note = "Test samples of all tasks so far, pooled, among the classes seen so far."
    return (
        LineChart("accuracy", "Accuracy over tasks", note, "tasks learnt", lines) if lines else None
    )


def accuracy_on_all_classes(board: Board) -> LineChart | None:
    """Row means of the union matrix, zero-shot's row first; whole rows only."""
    if board.tasks < 2:
        return None
    rows = []
    for setting, name in named(board):
        before = _row_means([[run.get("zero_shot")] for run in setting.runs], board.tasks, 1)
        after = _row_means(_runs(setting, "r_union"), board.tasks, board.tasks)
        rows.append((name, [*before, *after]))
    lines = _lines([row for row in rows if any(c.mean is not None for c in row[1][1:-1])])
    note = (
        "Mean over all tasks, learnt or not; 0 is the zero-shot backbone. "
        "No line: no rule for unseen classes."
    )
    return (
        LineChart("all-classes", "Accuracy on all classes", note, "tasks learnt", lines, first=0)
        if lines
        else None
    )


def _row_means(tables: list[Any], size: int, rows: int) -> list[Cell]:
    return [summary([_mean_of(table, i, size) for table in tables], "") for i in range(rows)]


def _mean_of(table: Any, row: int, size: int) -> float | None:
    cells = table[row] if isinstance(table, list) and row < len(table) else None
    if not cells or len(cells) != size or any(cell is None for cell in cells):
        return None
    return float(sum(cells)) / size


def accuracy_by_task(board: Board) -> LineChart | None:
    """The last row of the matrix over seen classes, which are all of them by then."""
    tasks = board.tasks
    if tasks < 2:
        return None
    rows = []
    for setting, name in named(board):
        last = [
            table[-1] if isinstance(table, list) and len(table) == tasks else None
            for table in _runs(setting, "r_seen")
        ]
        rows.append((name, mean_list(last, tasks)))
    lines = _lines(rows)
    note = "After the last task. A line that rises to the right favours what was learnt last."
    title = "Accuracy by task, at the end"
    return LineChart("by-task", title, note, "task", lines, place="task") if lines else None


def forgetting(board: Board) -> Bars | None:
    """Both label spaces; zero-shot's own beside every method's."""
    if board.tasks < 2:
        return None
    pairs = ("forgetting", "forgetting_union")
    cells = [[metric_of(setting.runs, name) for name in pairs] for setting in board.settings]
    if all(cell.mean is None for row in cells for cell in row):
        return None
    note = (
        "Dashed: what a growing label space alone costs zero-shot."
        if board.reference
        else "A growing label space costs a frozen model too: `raycl run zero_shot` shows how much."
    )
    names = [name for _, name in named(board)]
    return Bars("forgetting", "Forgetting", note, names, [SEEN, UNION], cells)


def accuracy_against_state(board: Board) -> Scatter | None:
    """`last_pooled` over what a method keeps between tasks."""
    points = []
    for setting, name in named(board):
        size = summary(_runs(setting, "state_mib"), NOT_RECORDED).mean
        score = metric_of(setting.runs, "last_pooled")
        if size is not None and score.mean is not None:
            points.append((name, size, score))
    if not points:
        return None
    note = "After the last task, over the bytes that a method keeps between tasks."
    return Scatter(
        "state",
        "Accuracy against memory",
        note,
        "state, MiB",
        names=[name for name, _, _ in points],
        x=[size for _, size, _ in points],
        y=[score for _, _, score in points],
    )


def seconds_per_stage(board: Board) -> Stack | None:
    """Mean seconds of each stage, over runs that record them."""
    rows = [(name, _seconds(setting.runs)) for setting, name in named(board)]
    rows = [(name, seconds) for name, seconds in rows if seconds]
    if not rows:
        return None
    totals: dict[str, float] = {}
    for _, seconds in rows:
        for part, spent in seconds.items():
            totals[part] = totals.get(part, 0.0) + spent
    parts = sorted(totals, key=lambda part: -totals[part])
    values = [[seconds.get(part, 0.0) for part in parts] for _, seconds in rows]
    note = "Wall-clock seconds of a run, all tasks together, mean over seeds."
    return Stack("seconds", "Time by stage", note, [name for name, _ in rows], parts, values)


def _seconds(runs: Sequence[Result]) -> dict[str, float]:
    recorded = [run["seconds"] for run in runs if run.get("seconds")]
    parts = dict.fromkeys(part for seconds in recorded for part in seconds)
    return {p: sum(float(s.get(p, 0.0)) for s in recorded) / len(recorded) for p in parts}


def latents(board: Board, setting: Setting, name: Name) -> Latents | None:
    """The pictures that the generators of one run left, classes in the order of learning."""
    run = next((run for run in setting.runs if run.get("latents")), None)
    if run is None:
        return None
    panels = [_panel(one) for one in run["latents"][:MOST_PANELS]]
    classes = sum(len(task["classes"]) for task in run.get("tasks") or [])
    which = f"{len(panels)} of {classes:,} classes" if classes > len(panels) else "all classes"
    seed = (run.get("seeds") or {}).get("order")
    note = f"{which} in the order of learning" + (f", seed {seed}" if seed is not None else "")
    return Latents(f"latents-{name.place + 1}", setting.label, note, name, panels)


def _panel(one: dict[str, Any]) -> Panel:
    points = {what: [(x, y) for x, y in one[what]] for what in ("real", "sampled")}
    first, second = one["share"]
    return Panel(
        str(one["name"]), one["task"], one["vectors"], one["dispersion"], **points,
        share=(first, second),
    )  # fmt: skip


def heat_map(board: Board, setting: Setting, name: Name) -> HeatMap | None:
    """Both accuracy matrices of a setting, zero-shot's row above the one of all classes."""
    tasks = board.tasks
    seen, union = (mean_table(_runs(setting, what), tasks) for what in ("r_seen", "r_union"))
    zero_shot = mean_list(_runs(setting, "zero_shot"), tasks)
    if not tasks or all(value is None for row in (*seen, *union) for value in row):
        return None
    labels = [str(t + 1) for t in range(tasks)]
    why = next((run.get("why_null", {}).get("average") for run in setting.runs), None)
    matrices = [
        Matrix(SEEN, labels, labels, seen, _LATER),
        Matrix(
            UNION,
            ["0", *labels],
            labels,
            [[c.mean for c in zero_shot], *union],
            why,
        ),
    ]
    n = len(setting.runs)
    note = "one run" if n == 1 else f"mean of {n} runs"
    return HeatMap(f"matrix-{name.place + 1}", setting.label, note, matrices)
