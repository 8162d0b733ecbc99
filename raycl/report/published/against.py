"""Our runs held against a paper's figures, each beside the row whose protocol is nearest.

Guarantees: a difference is given only where data, classes, tasks and label space are the same;
whatever else differs stands beside it in words. Theirs and ours are never sorted into one
ranking: rows keep the paper's order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from raycl.report.leaderboard import Cell, Result, Setting, metric_of, settings
from raycl.report.published.mismatch import Mismatch, mismatches
from raycl.report.published.table import Figure, Protocol, Row, published


@dataclass(frozen=True)
class Held:
    """One setting of ours beside a row of theirs."""

    label: str
    n: int
    row: Row
    cells: dict[str, Cell]
    """Ours, by the metrics of the row."""
    mismatches: list[Mismatch]
    whose: str = "ours"
    """`imported` where somebody else measured it."""

    @property
    def is_comparable(self) -> bool:
        """Whether a difference means anything."""
        return not any(one.decisive for one in self.mismatches)

    def difference(self, figure: Figure) -> float | None:
        """Ours minus theirs, where both are there and comparable."""
        ours = self.cells[figure.metric].mean
        return None if ours is None or not self.is_comparable else ours - figure.value


@dataclass(frozen=True)
class Block:
    """The rows of one protocol, and ours beside them."""

    protocol: Protocol
    rows: list[Row]
    held: list[Held]

    @property
    def metrics(self) -> list[str]:
        """The columns: every metric that a row has."""
        return list(dict.fromkeys(f.metric for row in self.rows for f in row.figures))

    def beside(self, row: Row) -> list[Held]:
        """Ours beside a row, and what was imported."""
        return [held for held in self.held if held.row is row]

    def is_run(self, row: Row) -> bool:
        """Whether it was run here."""
        return any(held.whose == "ours" for held in self.beside(row))


@dataclass(frozen=True)
class Against:
    """A paper, block by block."""

    paper: str
    blocks: list[Block]
    claims: list[tuple[Row, Figure]]
    """What no single run can be held against."""
    others: list[str]
    """Settings of ours that the paper says nothing of."""


def against(paper: str, results: Iterable[Result]) -> Against:
    """The runs beside the paper's rows."""
    rows = published(paper)
    held: list[Held] = []
    others: list[str] = []
    for setting in settings(results):
        nearest = _nearest(setting, [row for row in rows if row.is_comparable])
        if nearest is None:
            others.append(f"{setting.label} on {setting.stream}")
        else:
            held.append(nearest)
    return Against(paper, _blocks(rows, held), _claims(rows), others)


def _blocks(rows: Sequence[Row], held: Sequence[Held]) -> list[Block]:
    groups: dict[Protocol, list[Row]] = {}
    for row in rows:
        if row.is_comparable:
            groups.setdefault(row.protocol, []).append(row)
    return [
        Block(protocol, group, [one for one in held if one.row.protocol == protocol])
        for protocol, group in groups.items()
    ]


def _claims(rows: Sequence[Row]) -> list[tuple[Row, Figure]]:
    return [(row, figure) for row in rows if not row.is_comparable for figure in row.figures]


def _nearest(setting: Setting, rows: Sequence[Row]) -> Held | None:
    """Beside the row of the same method from which the fewest parts differ, decisive ones
    counted first."""
    run = setting.runs[0]
    found = [_held(setting, row) for row in rows if _is_of(run, row)]
    return min(found, key=_distance, default=None)


def _distance(held: Held) -> tuple[int, int]:
    decisive = sum(one.decisive for one in held.mismatches)
    return decisive, len(held.mismatches)


def _held(setting: Setting, row: Row) -> Held:
    cells = {f.metric: metric_of(setting.runs, f.metric) for f in row.figures}
    found = mismatches(setting.runs, row)
    whose = "imported" if setting.runs[0].get("imported") else "ours"
    return Held(setting.label, len(setting.runs), row, cells, found, whose)


def _is_of(run: Result, row: Row) -> bool:
    """Whether a run is of the method that the row is about."""
    method: Mapping[str, Any] = (run.get("experiment") or {}).get("method") or {}
    same = _plain(str(run["method"])) in (_plain(row.method), _plain(row.label))
    known = {name: str(method[name]) for name, _ in row.options if name in method}
    return same and all(known.get(name, value) == value for name, value in row.options)


def _plain(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "").replace(" ", "")
