"""Every metric over accuracy matrices: one small pure function each.

Guarantees: a metric that lacks an entry it needs is None with the reason in plain words,
never a number from a half-filled matrix; an accuracy of zero counts. Values are percent.
R is `seen` where a function reads `m.seen` and `union` where it reads `m.union`; cells of
the two are never subtracted. T is the number of tasks, Z the zero-shot accuracies.
Metrics that need single samples are in `diagnosis`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raycl.metrics.matrices import Matrices, Table

Cells = NDArray[np.bool_]

ONE_TASK = "the stream has a single task"


@dataclass(frozen=True)
class Metric:
    """A value in percent (a list: one per stage), or None; and why anything is None."""

    value: float | list[float | None] | None
    why: str | None = None


def stage_pooled(m: Matrices) -> Metric:
    """After each task, the accuracy over the pooled test samples of the tasks so far."""
    return _by_stage([_pooled_at(m, i) for i in range(m.tasks)])


def stage_task_mean(m: Matrices) -> Metric:
    """After each task, the unweighted mean over the tasks so far."""
    return _by_stage([_task_mean_at(m, i) for i in range(m.tasks)])


def last_pooled(m: Matrices) -> Metric:
    """`stage_pooled` after the last task."""
    return _pooled_at(m, m.tasks - 1)


def last_task_mean(m: Matrices) -> Metric:
    """`stage_task_mean` after the last task."""
    return _task_mean_at(m, m.tasks - 1)


def avg_inc_pooled(m: Matrices) -> Metric:
    """The mean of `stage_pooled`."""
    return _mean_of([_pooled_at(m, i) for i in range(m.tasks)])


def avg_inc_task_mean(m: Matrices) -> Metric:
    """The mean of `stage_task_mean`."""
    return _mean_of([_task_mean_at(m, i) for i in range(m.tasks)])


def forgetting(m: Matrices) -> Metric:
    """Mean over j < T-1 of max over l in [j, T-2] of R[l, j], minus R[T-1, j]."""
    return _over(m, m.seen, _old_tasks(m), _forgetting)


def forgetting_union(m: Matrices) -> Metric:
    """`forgetting` under the label space that does not grow."""
    return _over(m, m.union, _old_tasks(m), _forgetting, no=_grows(m))


def bwt(m: Matrices) -> Metric:
    """Mean over j < T-1 of R[T-1, j] - R[j, j]."""
    return _over(m, m.seen, _last_and_first(m), _bwt)


def bwt_union(m: Matrices) -> Metric:
    """`bwt` under the label space that does not grow."""
    return _over(m, m.union, _last_and_first(m), _bwt, no=_grows(m))


def fwt(m: Matrices) -> Metric:
    """Mean over i >= 1 of R[i-1, i] - Z[i]."""
    return _above_zero_shot(m, fwt_raw(m))


def fwt_raw(m: Matrices) -> Metric:
    """Mean over i >= 1 of R[i-1, i]."""
    next_task = np.eye(m.tasks, k=1, dtype=bool)
    return _over(m, m.union, next_task, lambda R: R[next_task].mean())


def ci_transfer(m: Matrices) -> Metric:
    """Row first: mean over i < T-1 of the mean over j > i of R[i, j]."""
    rows = range(m.tasks - 1)
    return _over(m, m.union, _unseen(m), lambda R: _mean(R[i, i + 1 :] for i in rows))


def transfer(m: Matrices) -> Metric:
    """Column first: mean over j >= 1 of the mean over i < j of R[i, j]."""
    columns = range(1, m.tasks)
    return _over(m, m.union, _unseen(m), lambda R: _mean(R[:j, j] for j in columns))


def transfer_over_zero_shot(m: Matrices) -> Metric:
    """`transfer` minus zero-shot's on the same columns."""
    return _above_zero_shot(m, transfer(m))


def average(m: Matrices) -> Metric:
    """The mean of all entries."""
    return _over(m, m.union, np.ones_like(m.union, bool), lambda R: R.mean())


def last_union(m: Matrices) -> Metric:
    """Mean over j of R[T-1, j]."""
    last = np.zeros_like(m.union, bool)
    last[-1] = True
    return _over(m, m.union, last, lambda R: R[-1].mean())


def _mean(parts: Iterable[Table]) -> float:
    return float(np.mean([part.mean() for part in parts]))


def _forgetting(R: Table) -> float:
    T = len(R)
    best = np.array([R[j : T - 1, j].max() for j in range(T - 1)])
    return float((best - R[-1, :-1]).mean())


def _bwt(R: Table) -> float:
    return float((R[-1, :-1] - np.diagonal(R)[:-1]).mean())


def _over(
    m: Matrices,
    table: Table,
    cells: Cells,
    formula: Callable[[Table], float],
    *,
    no: str | None = None,
) -> Metric:
    """The formula's value, if every cell that it reads is defined."""
    why = no if cells.any() else ONE_TASK
    why = why or m.why_undefined(cells, table)
    return Metric(None, why) if why else Metric(float(formula(table)))


def _above_zero_shot(m: Matrices, metric: Metric) -> Metric:
    """A mean over the tasks from the second on, minus zero-shot's on these tasks."""
    if not isinstance(metric.value, float):
        return metric
    baseline = _over(m, m.zero_shot, np.arange(m.tasks) >= 1, lambda Z: Z[1:].mean())
    if not isinstance(baseline.value, float):
        return baseline
    return Metric(metric.value - baseline.value)


def _grows(m: Matrices) -> str | None:
    return m.no_union and f"{m.no_union}, so the label space grows with the stages"


def _old_tasks(m: Matrices) -> Cells:
    cells = np.tri(m.tasks, dtype=bool)
    cells[:, -1] = False
    return cells


def _last_and_first(m: Matrices) -> Cells:
    cells = np.eye(m.tasks, dtype=bool)
    cells[-1] = True
    cells[:, -1] = False
    return cells


def _unseen(m: Matrices) -> Cells:
    return ~np.tri(m.tasks, dtype=bool)


def _row(m: Matrices, i: int) -> Cells:
    cells = np.zeros_like(m.seen, bool)
    cells[i, : i + 1] = True
    return cells


def _pooled_at(m: Matrices, i: int) -> Metric:
    # A task without samples adds nothing to the pool, so its entry is not needed.
    cells = _row(m, i) & (m.counts > 0)
    if not cells.any():
        return Metric(None, f"the tasks up to {i + 1} have no test samples")
    return _over(m, m.seen, cells, lambda R: np.average(R[cells], weights=m.counts[cells[i]]))


def _task_mean_at(m: Matrices, i: int) -> Metric:
    return _over(m, m.seen, _row(m, i), lambda R: R[i, : i + 1].mean())


def _by_stage(stages: list[Metric]) -> Metric:
    values = [s.value if isinstance(s.value, float) else None for s in stages]
    return Metric(values, next((s.why for s in stages if s.why), None))


def _mean_of(stages: list[Metric]) -> Metric:
    numbers = [s.value for s in stages if isinstance(s.value, float)]
    if len(numbers) < len(stages):
        return Metric(None, next(s.why for s in stages if s.why))
    return Metric(float(np.mean(numbers)))
