"""How far a mean over runs may be off: its interval by Student's t, in place of the deviation.

Guarantees: two runs or more, else no interval; a run is a seed, so it speaks of seeds and not of
which test samples there are (`raycl compare` does, paired).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from raycl.report.leaderboard import COSTS, Cell, Row

LEVEL = 95
"""Percent."""

Spread = Literal["sd", "interval"]
"""What stands beside a mean."""


def with_spread(rows: Sequence[Row], spread: Spread) -> list[Row]:
    """The rows with the spread that was asked for."""
    return list(rows) if spread == "sd" else [_with_intervals(row) for row in rows]


def _with_intervals(row: Row) -> Row:
    cells = {
        name: cell if name in COSTS else _with_interval(cell, row.n)
        for name, cell in row.cells.items()
    }
    return replace(row, cells=cells)


def _with_interval(cell: Cell, n: int) -> Cell:
    if cell.mean is None or cell.sd is None:
        return cell
    half = quantile(n - 1) * cell.sd / math.sqrt(n)
    return replace(cell, interval=(cell.mean - half, cell.mean + half))


def quantile(freedom: int) -> float:
    """Of Student's t, so that `LEVEL` percent lie between it and its negative."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, 0.5 + LEVEL / 200))
