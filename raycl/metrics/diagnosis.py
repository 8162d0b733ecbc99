"""The metrics that need single predictions: per-class accuracy, calibration, recency.

Guarantees as in `definitions`: percent, or None with the reason. A calibration error reads
the scores as logits, so it means little for a method whose scores are distances.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from raycl.metrics.definitions import ONE_TASK, Metric
from raycl.metrics.matrices import Matrices, Tasks, hits
from raycl.metrics.predictions import NO_CLASS, Ints, Ranking, StagePredictions

BINS = 15
"""Bins of equal width for the expected calibration error."""

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
