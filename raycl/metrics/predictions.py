"""What a method predicted after one task, for every test sample: the evidence of a result.

Guarantees: the columns have one shape and type each, a ranking is deterministic (ties go
to the class that comes first), and NaN never ranks. It stores the five best classes with
their scores and the log of the summed exponentials of all scores, so that accuracies,
gates, calibration and paired tests need no training. It does not store all the scores.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from raycl.errors import DataError, MethodError

TOP = 5
"""How many classes of each ranking are kept."""

NO_CLASS = -1
"""The class id where nothing is ranked."""

ZERO_SHOT_STAGE = -1
"""The stage of the zero-shot backbone, before any task."""

_BLOCK = 8192
"""Rows ranked at once, to bound the memory of the copies."""

Ints = NDArray[np.int32]
Floats = NDArray[np.float32]


class Ranking(NamedTuple):
    """The best classes of each sample, their scores, and logsumexp over all its scores."""

    top: Ints
    score: Floats
    lse: Floats

    def only(self, rows: NDArray[np.bool_]) -> Ranking:
        """The same ranking with the other rows emptied, as for tasks not learnt yet."""
        empty = no_ranking(len(self.top))
        wide = rows[:, None]
        return Ranking(
            np.where(wide, self.top, empty.top),
            np.where(wide, self.score, empty.score),
            np.where(rows, self.lse, empty.lse),
        )


def no_ranking(n: int) -> Ranking:
    """The ranking of `n` samples under a label space for which there is no rule."""
    return Ranking(
        np.full((n, TOP), NO_CLASS, np.int32),
        np.full((n, TOP), np.nan, np.float32),
        np.full(n, np.nan, np.float32),
    )


def rank(scores: ArrayLike, classes: ArrayLike) -> Ranking:
    """Rank the `classes` (m,) of each sample by its `scores` (n, m), best first.

    Ties go to the lower class position. A score of -inf means that the class cannot be
    predicted: it is never ranked. With fewer than five classes left, -1 and nan fill up.
    The scores are meant as logits: a confidence is exp(score - lse).
    """
    table, ids = np.asarray(scores), np.asarray(classes, dtype=np.int32)
    if table.ndim != 2 or ids.shape != table.shape[1:]:
        raise MethodError(
            "scores must be one row per sample with one column per class",
            got=f"scores {table.shape}, classes {ids.shape}",
        )
    if np.isnan(table).any() or np.isposinf(table).any():
        raise MethodError(
            "a method's scores hold NaN or +inf",
            got=f"{int((np.isnan(table) | np.isposinf(table)).sum())} of {table.size} scores",
            do="lower the learning rate, or look at the features of these samples",
        )
    starts = range(0, max(1, len(table)), _BLOCK)
    blocks = [_ranked(table[start : start + _BLOCK], ids) for start in starts]
    return Ranking(*(np.concatenate(parts) for parts in zip(*blocks, strict=True)))


def _ranked(table: NDArray[Any], ids: Ints) -> Ranking:
    return Ranking(*_best(table, ids), _logsumexp(table))


def _best(table: NDArray[Any], ids: Ints) -> tuple[Ints, Floats]:
    top, score, _ = no_ranking(len(table))
    left = np.array(table, dtype=np.result_type(table.dtype, np.float32))
    rows = np.arange(len(left))
    # Five passes of argmax beat a sort of 1,100 columns, and argmax takes the first of equals.
    for place in range(min(TOP, left.shape[1])):
        position = left.argmax(axis=1)
        value = left[rows, position]
        ranked = value > -np.inf
        top[:, place] = np.where(ranked, ids[position], NO_CLASS)
        score[:, place] = np.where(ranked, value, np.nan)
        left[rows, position] = -np.inf
    return top, score


def _logsumexp(table: NDArray[Any]) -> Floats:
    if table.shape[1] == 0:
        return np.full(len(table), np.nan, np.float32)
    peak = table.max(axis=1).astype(np.float64)
    scored = np.isfinite(peak)
    shifted = table[scored] - peak[scored, None]
    lse = np.full(len(table), np.nan)
    lse[scored] = peak[scored] + np.log(np.exp(shifted).sum(axis=1))
    return lse.astype(np.float32)


@dataclass(frozen=True, eq=False)
class StagePredictions:
    """Every test sample as predicted after task `stage` (-1: zero-shot, before any task)."""

    stage: int
    sample: Ints
    """Index of the test sample within its source: the same one in every class order."""
    task: Ints
    """The task that the sample belongs to."""
    label: Ints
    """The class id of the source, not permuted by the class order."""
    seen_top: Ints
    """Ranking over the classes seen after `stage`; -1 where the sample's task is later."""
    seen_score: Floats
    seen_lse: Floats
    union_top: Ints
    """Ranking over all classes of the stream; -1 where the method has no rule."""
    union_score: Floats
    union_lse: Floats

    def __post_init__(self) -> None:
        n = len(self.sample)
        for name, (dtype, width) in _COLUMNS.items():
            column = getattr(self, name)
            shape = (n, width) if width else (n,)
            if column.shape != shape or column.dtype != dtype:
                raise DataError(
                    f"the predictions' column {name!r} must be {np.dtype(dtype)} {shape}",
                    got=f"{column.dtype} {column.shape}",
                )

    @classmethod
    def of(
        cls,
        stage: int,
        *,
        sample: ArrayLike,
        task: ArrayLike,
        label: ArrayLike,
        seen: Ranking,
        union: Ranking,
    ) -> StagePredictions:
        """Predictions from two rankings; entries of later tasks leave the seen ranking."""
        tasks = np.asarray(task, dtype=np.int32)
        return cls(
            stage,
            np.asarray(sample, dtype=np.int32),
            tasks,
            np.asarray(label, dtype=np.int32),
            *seen.only(tasks <= stage),
            *union,
        )

    @property
    def seen(self) -> Ranking:
        """The ranking over the classes seen so far."""
        return Ranking(self.seen_top, self.seen_score, self.seen_lse)

    @property
    def union(self) -> Ranking:
        """The ranking over all classes of the stream."""
        return Ranking(self.union_top, self.union_score, self.union_lse)

    def sorted(self) -> StagePredictions:
        """The same predictions in the order of the sample indices."""
        order = np.argsort(self.sample, kind="stable")
        columns = {name: getattr(self, name)[order] for name in _COLUMNS}
        return StagePredictions(self.stage, **columns)

    def to_columns(self) -> dict[str, NDArray[Any]]:
        """One array per column with one row per sample; rankings are (n, 5)."""
        stage = np.full(len(self.sample), self.stage, dtype=np.int32)
        return {"stage": stage, **{name: getattr(self, name) for name in _COLUMNS}}

    @classmethod
    def from_columns(cls, columns: Mapping[str, ArrayLike]) -> StagePredictions:
        """The inverse of `to_columns`; a ranking may come flat, as a list column does."""
        names = [f.name for f in fields(cls)]
        if missing := [name for name in names if name not in columns]:
            raise DataError(f"stored predictions lack the columns {', '.join(missing)}")
        stages = np.unique(np.asarray(columns["stage"]))
        if len(stages) != 1:
            raise DataError("stored predictions must be of one stage", got=stages.tolist())
        arrays = {name: _column(columns[name], width) for name, (_, width) in _COLUMNS.items()}
        return cls(int(stages[0]), **arrays)


_COLUMNS: dict[str, tuple[type[np.generic], int]] = {
    "sample": (np.int32, 0),
    "task": (np.int32, 0),
    "label": (np.int32, 0),
    "seen_top": (np.int32, TOP),
    "seen_score": (np.float32, TOP),
    "seen_lse": (np.float32, 0),
    "union_top": (np.int32, TOP),
    "union_score": (np.float32, TOP),
    "union_lse": (np.float32, 0),
}


def _column(values: ArrayLike, width: int) -> NDArray[Any]:
    array = np.asarray(values)
    if width and array.ndim == 1 and array.size % width == 0:
        return array.reshape(-1, width)
    return array
