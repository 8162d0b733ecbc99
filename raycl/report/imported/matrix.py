"""An accuracy matrix from elsewhere, checked: rows are stages, columns tasks, both as learnt.

Guarantees: percent between 0 and 100; every task has an accuracy from when it was learnt on;
accuracies before that are all there or none is. It cannot know what the figures mean beyond that.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from raycl.errors import DataError

Unit = Literal["percent", "fraction"]
Value = float | None


@dataclass(frozen=True)
class ForeignMatrix:
    """What a file says of one run."""

    cells: tuple[tuple[Value, ...], ...]
    """Percent; none above the diagonal where tasks were not tested before they were learnt."""
    tasks: tuple[str, ...]
    zero_shot: tuple[Value, ...] | None = None
    method: str | None = None
    stream: str | None = None
    backbone: str | None = None
    seed: int | None = None
    options: Mapping[str, object] = field(default_factory=dict)
    """Of the run, as its file gives them: they tell settings apart."""
    warnings: tuple[str, ...] = ()

    @property
    def is_whole(self) -> bool:
        """Whether tasks were tested before they were learnt, among all classes."""
        return all(cell is not None for row in self.cells for cell in row)


def checked(found: ForeignMatrix, where: str, unit: Unit | None) -> ForeignMatrix:
    """The matrix in percent, or a `DataError` that says which cell cannot be meant."""
    _refuse_gaps(found, where)
    rows = [*found.cells, *([found.zero_shot] if found.zero_shot else [])]
    factor = _factor([cell for row in rows for cell in row if cell is not None], where, unit)
    zero_shot = None if found.zero_shot is None else _scaled(found.zero_shot, factor)
    cells = tuple(_scaled(row, factor) for row in found.cells)
    return ForeignMatrix(**{**vars(found), "cells": cells, "zero_shot": zero_shot})


def _scaled(row: Sequence[Value], factor: float) -> tuple[Value, ...]:
    return tuple(None if cell is None else cell * factor for cell in row)


def _refuse_gaps(found: ForeignMatrix, where: str) -> None:
    tasks = len(found.tasks)
    above = 0
    for i, row in enumerate(found.cells):
        for j, cell in enumerate(row):
            if cell is None and j <= i:
                raise DataError(
                    f"{where}: task {j + 1} has no accuracy after task {i + 1}",
                    do="each row needs the accuracy on all tasks learnt so far",
                )
            above += cell is not None and j > i
    if 0 < above < tasks * (tasks - 1) // 2:
        raise DataError(
            f"{where}: only some tasks have an accuracy before they are learnt",
            got=f"{above} of {tasks * (tasks - 1) // 2} cells above the diagonal",
            do="fill all of them (accuracy among all classes) or leave all empty",
        )


def _factor(values: Sequence[float], where: str, unit: Unit | None) -> float:
    """What makes percent of the values."""
    if bad := [v for v in values if not math.isfinite(v) or v < 0 or v > 100]:
        raise DataError(
            f"{where}: an accuracy is a number from 0 to 100", got=bad[0], do="leave a gap empty"
        )
    highest = max(values)
    if unit is None and highest <= 1:
        raise DataError(
            f"{where}: no accuracy is above 1, so these look like fractions",
            got=f"{highest:g} at most",
            do="say --unit fraction, or --unit percent if they are as low as that",
        )
    if unit == "fraction" and highest > 1:
        raise DataError(
            f"{where}: a fraction is 1 at most", got=highest, do="leave --unit fraction out"
        )
    return 100.0 if unit == "fraction" else 1.0
