"""Accuracy on a probe: a test set beside the stream that is never trained.

`own[i]` is the accuracy after task i among the probe's own classes, `union[i]` among these
and all classes of the stream; zero-shot's are the bare backbone's, before any task.
Guarantees: percent, nan where undefined, and why.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from raycl.errors import DataError
from raycl.metrics.definitions import Metric
from raycl.metrics.matrices import Table, hits
from raycl.metrics.predictions import NO_CLASS, ZERO_SHOT_STAGE, Ints, StagePredictions

NO_ZERO_SHOT = "the zero-shot backbone was not evaluated on the probe"


@dataclass(frozen=True, eq=False)
class ProbeAccuracy:
    """Percent of right predictions on the probe by stage; nan where undefined."""

    own: Table
    union: Table
    zero_shot: float
    zero_shot_union: float
    why: str | None = None
    """Why the stages have no accuracy, if they have none."""

    @property
    def last(self) -> Metric:
        """`own` after the last task."""
        value = float(self.own[-1])
        if math.isnan(value):
            return Metric(None, self.why or "the probe was not evaluated after the last task")
        return Metric(value)

    @property
    def drop(self) -> Metric:
        """`own` after the last task minus zero-shot's; below zero if learning cost some."""
        last = self.last
        if not isinstance(last.value, float):
            return last
        if math.isnan(self.zero_shot):
            return Metric(None, NO_ZERO_SHOT)
        return Metric(last.value - self.zero_shot)


def probe_accuracy(
    stages: Sequence[StagePredictions], tasks: int, why: str | None = None
) -> ProbeAccuracy:
    """The accuracies of a run of so many tasks; a stage that is missing is undefined."""
    own, union = np.full(tasks, np.nan), np.full(tasks, np.nan)
    before = before_union = math.nan
    for p in stages:
        if not ZERO_SHOT_STAGE <= p.stage < tasks:
            raise DataError(f"the probe was evaluated at a stage that is none: {p.stage}")
        if p.stage == ZERO_SHOT_STAGE:
            before, before_union = _accuracy(p.seen_top, p), _accuracy(p.union_top, p)
        else:
            own[p.stage], union[p.stage] = _accuracy(p.seen_top, p), _accuracy(p.union_top, p)
    return ProbeAccuracy(own, union, before, before_union, why)


def _accuracy(top: Ints, p: StagePredictions) -> float:
    if not len(top) or (top[:, 0] == NO_CLASS).all():
        return math.nan
    return float(100.0 * hits(top, p.label).mean())
