"""The leaderboard: results of many runs as rows of means, in four renderings.

Guarantees: a row holds runs of one method setting, stream, backbone and protocol, never a
mixture; a result that comes twice counts once; one run shows no deviation; a metric that
is null in any run of a row is null in the row, with the reason. Tables show one decimal,
files keep full precision. It computes no metric and reads no store.
"""

from __future__ import annotations

import csv
import difflib
import io
import json
import math
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from raycl.errors import ConfigError, DataError
from raycl.printable import plain

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Group

Result = Mapping[str, Any]
"""The JSON object that `raycl run --json` prints."""

DEFAULT_METRICS = (
    "last_pooled",
    "avg_inc_pooled",
    "forgetting",
    "transfer",
    "average",
    "last_union",
)

_NAMES = ("label", "stream", "backbone", "protocol")
COSTS = ("state_mib", "seconds")
EMBEDDING = "embed"
"""The stage in which images become vectors."""
NULL = "–"
NOT_RECORDED = "not recorded"


@dataclass(frozen=True)
class Cell:
    """Mean and sample standard deviation of a number over runs, or why it is null."""

    mean: float | None
    sd: float | None = None
    why: str | None = None
    interval: tuple[float, float] | None = None
    """Of the mean; where there is one, it is shown in place of the deviation."""

    def __str__(self) -> str:
        if self.mean is None:
            return NULL
        if self.interval is not None:
            low, high = self.interval
            return f"{self.mean:.1f} [{low:.1f}, {high:.1f}]"
        return f"{self.mean:.1f}" if self.sd is None else f"{self.mean:.1f} ± {self.sd:.1f}"


@dataclass(frozen=True)
class Row:
    """The runs of one method setting on one stream, backbone and protocol."""

    label: str
    stream: str
    backbone: str
    protocol: str
    n: int
    cells: dict[str, Cell]
    """By metric, then `state_mib` and `seconds` (all stages but the shared embedding)."""


@dataclass(frozen=True)
class Setting:
    """One method setting on one stream, backbone and protocol, and its runs."""

    label: str
    stream: str
    backbone: str
    protocol: str
    runs: list[Result]


def leaderboard(results: Iterable[Result], metrics: Sequence[str] = DEFAULT_METRICS) -> list[Row]:
    """Rows by stream, the best `last_pooled` first."""
    found = settings(results)
    _check_names(metrics, [run for setting in found for run in setting.runs])
    return [row_of(setting, metrics) for setting in found]


def settings(results: Iterable[Result]) -> list[Setting]:
    """The results by method setting, in the order of the leaderboard."""
    groups: dict[tuple[str, ...], list[Result]] = {}
    for run in _newest(results):
        groups.setdefault(_group(run), []).append(run)
    spaces: dict[tuple[str, ...], set[str]] = {}
    for names, runs in groups.items():
        spaces.setdefault(names[1:-1], set()).add(label_space(runs[0]))
    named = {}
    for (label, *words, digest), runs in groups.items():
        if len(spaces[tuple(words)]) > 1:  # the same words for two streams: they never mix
            words[0] += f" #{label_space(runs[0])[:4]}"
        named[(label, *words, digest)] = runs
    shown = Counter(names[:-1] for names in named)
    found = []
    for names, runs in sorted(named.items(), key=lambda item: _place(*item)):
        label, stream, backbone, protocol, digest = names
        if shown[names[:-1]] > 1:  # the same words for two settings: other options, other code
            label += f" #{digest[:4]}"
        found.append(Setting(label, stream, backbone, protocol, runs))
    return found


def label_space(run: Result) -> str:
    """A digest of what must be equal for two accuracies to be comparable, seeds aside."""
    experiment = run.get("experiment") or {}
    stream = dict(experiment.get("stream") or {})
    for seed in ("order_seed", "shot_seed"):
        stream.pop(seed, None)
    judge = (experiment.get("validation") or {}).get("judge", "test")
    parts = [
        stream if judge == "test" else {**stream, "judge": judge},
        experiment.get("backbone"),
        run.get("contents"),
        run.get("weights"),
        sorted(run.get("class_names") or ()),
        task_count(run),
    ]
    return sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def task_count(run: Result) -> int:
    """The number of tasks of a result."""
    return len(run.get("tasks") or run.get("r_seen") or ())


def _key(run: Result) -> str:
    needed = ("key", "method", *_NAMES[1:], "metrics")
    if missing := [name for name in needed if name not in run]:
        raise DataError(
            "this is not the result of a run",
            got=f"no {', '.join(missing)}",
            do="pass what `raycl run --json` prints",
        )
    return str(run["key"])


def _newest(results: Iterable[Result]) -> list[Result]:
    """One run per setting and seeds, the last given; and of each setting only those of its
    newest revision, since older ones were computed by another definition."""
    last = {_identity(run): run for run in results}
    newest: dict[str, list[int]] = {}
    for setting, _ in last:
        newest.setdefault(setting, [])
    for (setting, _), run in last.items():
        newest[setting] = max(newest[setting], list(run.get("revisions", [])))
    return [
        run
        for (setting, _), run in last.items()
        if list(run.get("revisions", [])) == newest[setting]
    ]


def _identity(run: Result) -> tuple[str, str]:
    """What makes two results the same measurement: the setting and the seeds."""
    key = _key(run)
    if "setting" not in run:
        return key, ""
    return str(run["setting"]), str(sorted(run["seeds"].items()))


def _group(run: Result) -> tuple[str, ...]:
    """What a row may hold: the names it shows, and all that was set beside the seeds."""
    shown = {**run, "label": run.get("label") or run["method"]}
    shown["stream"] = run.get("stream_label") or run["stream"]
    return (*(str(shown[name]) for name in _NAMES), str(run.get("setting", "")))


def _place(names: tuple[str, ...], runs: list[Result]) -> tuple[Any, ...]:
    label, stream, backbone, protocol, _ = names
    score = metric_of(runs, "last_pooled").mean
    return stream, -(score if score is not None else -math.inf), protocol, backbone, label


def row_of(setting: Setting, metrics: Sequence[str]) -> Row:
    """Means over the runs of a setting."""
    runs = setting.runs
    cells = {name: metric_of(runs, name) for name in metrics}
    cells["state_mib"] = summary([run.get("state_mib") for run in runs], NOT_RECORDED)
    cells["seconds"] = summary([_total(run.get("seconds")) for run in runs], NOT_RECORDED)
    names = (setting.label, setting.stream, setting.backbone, setting.protocol)
    return Row(*names, len(runs), cells)


def _total(seconds: Mapping[str, float] | None) -> float | None:
    """Embedding left out: it is shared, and charged to whichever run came first."""
    if seconds is None:
        return None
    return math.fsum(spent for stage, spent in seconds.items() if stage != EMBEDDING)


def metric_of(runs: list[Result], name: str) -> Cell:
    """A metric over runs; null if it is null in one of them."""
    values = [run["metrics"].get(name) for run in runs]
    whys = (
        run.get("why_null", {}).get(name, "not in the result")
        for run, value in zip(runs, values, strict=True)
        if value is None
    )
    return summary(values, next(whys, ""))


def summary(values: Sequence[float | None], why: str) -> Cell:
    """Mean and deviation; null, with the reason, if a value is."""
    numbers = [float(v) for v in values if v is not None]
    if len(numbers) < len(values):
        some = f" (in {len(values) - len(numbers)} of {len(values)} runs)" if numbers else ""
        return Cell(None, why=why + some)
    sd = statistics.stdev(numbers) if len(numbers) > 1 else None
    return Cell(statistics.fmean(numbers), sd)


def _check_names(metrics: Sequence[str], runs: list[Result]) -> None:
    known = {name for run in runs for name in run["metrics"]} | {*DEFAULT_METRICS}
    for name in metrics:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            do = f"did you mean {close[0]}?" if close else f"use one of {', '.join(sorted(known))}"
            raise ConfigError("no result has this metric", got=name, do=do)
        if any(isinstance(run["metrics"].get(name), list) for run in runs):
            raise ConfigError("a table has no column for a metric of every stage", got=name)


def to_markdown(rows: Sequence[Row]) -> str:
    """An aligned table; each null has its reason in a footnote."""
    notes: list[str] = []
    head, *body = _grid(rows)
    lines = [[_escaped(text) for text in head]]
    for row, texts in zip(rows, body, strict=True):
        whys = [None] * (len(texts) - len(row.cells)) + [cell.why for cell in row.cells.values()]
        pairs = zip(texts, whys, strict=True)
        lines.append([_escaped(text) + _footnote(why, notes) for text, why in pairs])
    widths = [max(3, *map(len, column)) for column in zip(*lines, strict=True)]
    rule = [_rule(width, left=i < len(_NAMES)) for i, width in enumerate(widths)]
    table = "\n".join(_line(line, widths) for line in [lines[0], rule, *lines[1:]])
    foot = "\n".join(f"[^{i}]: {_escaped(why)}" for i, why in enumerate(notes, start=1))
    return f"{table}\n\n{foot}\n" if notes else f"{table}\n"


def _grid(rows: Sequence[Row]) -> list[list[str]]:
    """The header and every row as text."""
    grid = [[*_NAMES, "n", *_columns(rows)]]
    for row in rows:
        names = [row.label, row.stream, row.backbone, row.protocol]
        cells = [shown(name, cell) for name, cell in row.cells.items()]
        grid.append([*names, str(row.n), *cells])
    return grid


def _columns(rows: Sequence[Row]) -> list[str]:
    columns = list(rows[0].cells) if rows else [*DEFAULT_METRICS, *COSTS]
    if any(list(row.cells) != columns for row in rows):
        raise DataError("the rows of one table must show the same metrics")
    return columns


def _escaped(text: str) -> str:
    text = plain(text)
    for sign, safe in (("\\", "\\\\"), ("|", "\\|"), ("<", "&lt;")):
        text = text.replace(sign, safe)
    return text


def _footnote(why: str | None, notes: list[str]) -> str:
    if why is None:
        return ""
    if why not in notes:
        notes.append(why)
    return f"[^{notes.index(why) + 1}]"


def _rule(width: int, *, left: bool) -> str:
    return "-" * width if left else "-" * (width - 1) + ":"


def _line(texts: list[str], widths: list[int]) -> str:
    padded = [
        text.ljust(width) if i < len(_NAMES) else text.rjust(width)
        for i, (text, width) in enumerate(zip(texts, widths, strict=True))
    ]
    return f"| {' | '.join(padded)} |"


def to_csv(rows: Sequence[Row]) -> str:
    """Full precision, a column for each mean and one for its deviation; null is empty."""
    columns = _table(rows)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    return out.getvalue()


def write_parquet(rows: Sequence[Row], path: Path) -> None:
    """The columns of the CSV, typed."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = dict.fromkeys(_NAMES, pa.string()) | {"n": pa.int64()}
    arrays = {
        name: pa.array(values, type=kinds.get(name, pa.float64()))
        for name, values in _table(rows).items()
    }
    pq.write_table(pa.table(arrays), path)


def _table(rows: Sequence[Row]) -> dict[str, list[Any]]:
    table: dict[str, list[Any]] = {name: [getattr(row, name) for row in rows] for name in _NAMES}
    table["n"] = [row.n for row in rows]
    for name in _columns(rows):
        table[name] = [row.cells[name].mean for row in rows]
        table[f"{name}_sd"] = [row.cells[name].sd for row in rows]
    return table


def to_rich(rows: Sequence[Row]) -> list[Group]:
    """A table for a terminal per stream, backbone and protocol."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        title = f"{row.stream} · backbone {row.backbone} · {row.protocol}"
        groups.setdefault(title, []).append(row)
    return [_terminal_table(title, group) for title, group in groups.items()]


_REPORTED = {
    "class-incremental": ("last_pooled", "avg_inc_pooled", "forgetting", "transfer"),
    "x-tail": ("transfer", "average", "last_union"),
}

_SHORT = {
    "last_pooled": "last",
    "last_task_mean": "last, task mean",
    "avg_inc_pooled": "avg inc",
    "state_mib": "MiB",
    "seconds": "s",
    "last_union": "last union",
    "forgetting": "forget",
}


def _terminal_table(title: str, rows: Sequence[Row]) -> Group:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    wanted = _terminal_columns(rows)
    null = [n for n in wanted if all(row.cells[n].mean is None for row in rows)]
    names = [name for name in wanted if name not in null]
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold underline")
    table.add_column("method", overflow="fold")
    for name in ("n", *names):
        table.add_column(_SHORT.get(name, name), justify="right", no_wrap=True)
    for row in rows:
        # Text, because a label may hold [brackets].
        cells = [shown(name, row.cells[name]) for name in names]
        table.add_row(Text(row.label), str(row.n), *cells)
    caption = f"null in every row: {', '.join(null)}\n" if null else ""
    return Group(Text(title, style="bold"), table, Text(caption, style="dim"))


def _terminal_columns(rows: Sequence[Row]) -> list[str]:
    """Of the default metrics, those that papers with this protocol report."""
    columns = _columns(rows)
    if columns != [*DEFAULT_METRICS, *COSTS]:
        return columns
    return [*_REPORTED.get(rows[0].protocol, DEFAULT_METRICS), *COSTS]


def shown(name: str, cell: Cell) -> str:
    """A cell as a table shows it: percent with one decimal, costs with two digits."""
    if name in COSTS and cell.mean is not None:
        return f"{cell.mean:.2g}" if cell.mean < 10 else f"{cell.mean:.0f}"
    return str(cell)
