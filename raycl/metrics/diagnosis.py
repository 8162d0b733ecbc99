"""What needs single predictions: per-class accuracy, calibration, recency, confusions.

Guarantees as in `definitions`: percent, or None with the reason. A calibration error reads
the scores as logits, so it means little for a method whose scores are distances.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from raycl.metrics.definitions import ONE_TASK, Metric
from raycl.metrics.matrices import Matrices, Table, Tasks, check, hits, task_of_class
from raycl.metrics.predictions import (
    NO_CLASS,
    ZERO_SHOT_STAGE,
    Ints,
    Ranking,
    StagePredictions,
)

BINS = 15
"""Bins of equal width for the expected calibration error."""

EXACT_UP_TO = 1000
"""Samples that differ, up to which a sign test is summed; beyond, a normal curve does."""

NO_LAST = "the last stage was not evaluated"
MISSING_STAGE = "a stage was not evaluated"
NO_SCORES = "a stage has no scored test sample"


def empty_test_classes(stages: Sequence[StagePredictions], tasks: Tasks) -> list[int]:
    """Classes of the stream without any test sample."""
    return sorted({c for classes in tasks for c in classes} - set(stages[0].label.tolist()))


def last_macro(stages: Sequence[StagePredictions], tasks: Tasks) -> Metric:
    """After the last task, the unweighted mean over the classes that have test samples."""
    p = _last(stages, tasks)
    if p is None:
        return Metric(None, NO_LAST)
    _, index, counts = np.unique(p.label, return_inverse=True, return_counts=True)
    right = np.bincount(index[hits(p.seen_top, p.label)], minlength=len(counts))
    return Metric(float((100.0 * right / counts).mean()))


def predicted_recent(stages: Sequence[StagePredictions], tasks: Tasks) -> Metric:
    """After the last task, the share of samples predicted as classes of the newest task."""
    p = _last(stages, tasks)
    if p is None:
        return Metric(None, NO_LAST)
    return Metric(100.0 * float(np.isin(p.seen_top[:, 0], list(tasks[-1])).mean()))


def predicted_recent_fair(m: Matrices) -> Metric:
    """The newest task's share of the test samples."""
    return Metric(100.0 * float(m.counts[-1] / m.counts.sum()))


def ece_seen(stages: Sequence[StagePredictions], tasks: Tasks) -> Metric:
    """Mean over stages of the calibration error on the tasks learnt so far, among seen classes."""
    learnt = [p for p in stages if p.stage >= 0]
    if len(learnt) < len(tasks):
        return Metric(None, MISSING_STAGE)
    return _mean([_error(p.seen, p.label, p.task <= p.stage) for p in learnt])


def ece_unseen(stages: Sequence[StagePredictions], tasks: Tasks, no_union: str | None) -> Metric:
    """Mean over stages of the calibration error on tasks not learnt yet, among all classes."""
    if len(tasks) == 1 or no_union:
        return Metric(None, no_union if len(tasks) > 1 else ONE_TASK)
    early = [p for p in stages if 0 <= p.stage < len(tasks) - 1]
    if len(early) < len(tasks) - 1:
        return Metric(None, MISSING_STAGE)
    return _mean([_error(p.union, p.label, p.task > p.stage) for p in early])


@dataclass(frozen=True)
class Pair:
    """Samples of one class that were taken for another."""

    label: int
    predicted: int
    count: int
    share: float
    """Percent of the label's test samples."""


@dataclass(frozen=True)
class PairedDifference:
    """What the last stage has over zero-shot on the same samples."""

    points: float
    only_after: int
    """Samples that only the last stage gets right."""
    only_before: int
    samples: int

    @property
    def below_by_chance(self) -> float:
        """How likely as few wins are if wins and losses are equally likely: a sign test."""
        n, wins = self.only_after + self.only_before, self.only_after
        if n <= EXACT_UP_TO:
            return float(sum(math.comb(n, k) for k in range(wins + 1)) / 2**n)
        return NormalDist(n / 2, math.sqrt(n) / 2).cdf(wins + 0.5)


def last_stage(stages: Sequence[StagePredictions], tasks: Tasks) -> StagePredictions | None:
    """The checked predictions after the last task; None unless every sample has one."""
    check(stages, tasks)
    return _last(stages, tasks)


def task_confusion(p: StagePredictions, tasks: Tasks) -> Table:
    """Percent of the samples of each task (row) predicted as a class of each task (column);
    nan in the row of a task without samples."""
    T = len(tasks)
    counts = np.bincount(p.task * T + _predicted_task(p, tasks), minlength=T * T).reshape(T, T)
    totals = counts.sum(axis=1, keepdims=True)
    share: Table = np.full((T, T), np.nan)
    np.divide(100.0 * counts, totals, out=share, where=totals > 0)
    return share


def predicted_shares(p: StagePredictions, tasks: Tasks) -> tuple[Table, Table]:
    """By task, the percent of all samples predicted as its classes, and its share of samples."""
    T = len(tasks)
    predicted = np.bincount(_predicted_task(p, tasks), minlength=T)
    fair = np.bincount(p.task, minlength=T)
    return 100.0 * predicted / len(p.task), 100.0 * fair / len(p.task)


def never_predicted(p: StagePredictions) -> list[int]:
    """Classes that have test samples and that no sample is predicted as."""
    return sorted(set(p.label.tolist()) - set(p.seen_top[:, 0].tolist()))


def confused_pairs(p: StagePredictions, at_least: int = 1) -> list[Pair]:
    """Wrong predictions by label and class predicted, the greatest share first."""
    wrong = ~hits(p.seen_top, p.label)
    both = np.stack([p.label[wrong], p.seen_top[wrong, 0]])
    pairs, counts = np.unique(both, axis=1, return_counts=True)
    labels, totals = np.unique(p.label, return_counts=True)
    total = dict(zip(labels.tolist(), totals.tolist(), strict=True))
    found = [
        Pair(a, b, n, 100.0 * n / total[a])
        for (a, b), n in zip(pairs.T.tolist(), counts.tolist(), strict=True)
        if n >= at_least
    ]
    return sorted(found, key=lambda pair: (-pair.share, -pair.count, pair.label, pair.predicted))


def against_zero_shot(
    stages: Sequence[StagePredictions], tasks: Tasks
) -> tuple[PairedDifference, list[PairedDifference | None]] | None:
    """The last stage minus zero-shot, sample by sample: over all, and for each task that has
    samples. None unless both predict every sample among all classes."""
    after = _last(stages, tasks)
    before = next((p for p in stages if p.stage == ZERO_SHOT_STAGE), None)
    if after is None or before is None or (before.union_top[:, 0] == NO_CLASS).any():
        return None
    after, before = after.sorted(), before.sorted()
    # After the last task the classes seen are all classes: the two label spaces are one.
    right = hits(after.seen_top, after.label).astype(np.int64)
    gain = right - hits(before.union_top, before.label)
    parts = [gain[after.task == task] for task in range(len(tasks))]
    return _paired(gain), [_paired(part) if len(part) else None for part in parts]


def _paired(gain: NDArray[np.int64]) -> PairedDifference:
    wins, losses = int((gain > 0).sum()), int((gain < 0).sum())
    return PairedDifference(100.0 * (wins - losses) / len(gain), wins, losses, len(gain))


def _predicted_task(p: StagePredictions, tasks: Tasks) -> NDArray[np.int64]:
    owner = task_of_class(tasks)
    classes, place = np.unique(p.seen_top[:, 0], return_inverse=True)
    return np.asarray([owner[c] for c in classes.tolist()], dtype=np.int64)[place]


def _error(ranking: Ranking, label: Ints, rows: NDArray[np.bool_]) -> float:
    """The expected calibration error of the rows; nan where one of them has no score."""
    right = hits(ranking.top, label)[rows]
    confidence = np.exp((ranking.score[:, 0] - ranking.lse)[rows].astype(np.float64))
    if not rows.any() or np.isnan(confidence).any():
        return np.nan
    place = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    gap = np.bincount(place, weights=right - confidence)
    return float(100.0 * np.abs(gap).sum() / len(right))


def _mean(errors: list[float]) -> Metric:
    value = float(np.mean(errors))
    return Metric(None, NO_SCORES) if np.isnan(value) else Metric(value)


def _last(stages: Sequence[StagePredictions], tasks: Tasks) -> StagePredictions | None:
    p = next((p for p in stages if p.stage == len(tasks) - 1), None)
    return p if p is not None and (p.seen_top[:, 0] != NO_CLASS).all() else None
