"""Two runs compared on the same test samples, from their stored predictions.

Guarantees: samples are paired by their index, both runs share every bootstrap resample,
the numbers depend only on the predictions and the seed. Runs over other samples, labels
or classes are refused. The interval speaks of test samples alone: it says nothing about
what another seed or class order would give.

Samples that agree in class and in every hit are interchangeable, so a resample of n
samples is one multinomial draw over their distinct kinds: exact, and far smaller.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raycl.config.seeds import rng
from raycl.errors import DataError
from raycl.metrics.matrices import Table, Tasks, check, hits, task_of_class
from raycl.metrics.predictions import NO_CLASS, Ints, StagePredictions

Counts = NDArray[np.int64]

CHUNK_CELLS = 2_000_000
"""Draws × kinds held in memory at once: 16 MB of counts."""


@dataclass(frozen=True)
class Difference:
    """One metric of both runs, b - a with its 95 % interval; or why there is none."""

    a: float | None = None
    b: float | None = None
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    flips: float | None = None
    """Share of the draws in which the sign is not the observed one."""
    why: str | None = None


@dataclass(frozen=True)
class Comparison:
    """Run b against run a on the same test samples."""

    samples: int
    draws: int
    metrics: dict[str, Difference]
    only_a_right: int
    """McNemar's counts, after the last task."""
    only_b_right: int

    def as_json(self) -> dict[str, Any]:
        """Plain data in full precision."""
        return asdict(self)


def compare(
    a_stages: Sequence[StagePredictions],
    b_stages: Sequence[StagePredictions],
    tasks_a: Tasks,
    tasks_b: Tasks,
    *,
    draws: int = 10_000,
    seed: int = 0,
) -> Comparison:
    """The paired differences b - a in percent points, by bootstrap over the test samples.

    A task or class that a resample happens to miss is left out of that resample's mean.
    """
    if draws < 1:
        raise DataError("a bootstrap needs at least one draw", got=draws)
    a, b = _learnt(a_stages, tasks_a), _learnt(b_stages, tasks_b)
    _check_pairs(a[-1], b[-1], tasks_a, tasks_b)
    why = _why_not(a, b, tasks_a, tasks_b)
    kinds = _kinds(a, b, every_stage="avg_inc_pooled" not in why)
    metrics = _differences(kinds, draws, seed, why)
    lost, won = kinds.hits_a[:, -1] > kinds.hits_b[:, -1], kinds.hits_b[:, -1] > kinds.hits_a[:, -1]
    return Comparison(
        samples=int(kinds.counts.sum()),
        draws=draws,
        metrics=metrics,
        only_a_right=int(kinds.counts[lost].sum()),
        only_b_right=int(kinds.counts[won].sum()),
    )


def _learnt(stages: Sequence[StagePredictions], tasks: Tasks) -> list[StagePredictions]:
    """The stages after each task, sorted by sample; the last one must be there."""
    check(stages, tasks)
    learnt = sorted((p for p in stages if p.stage >= 0), key=lambda p: p.stage)
    last = len(tasks) - 1
    if not learnt or learnt[-1].stage != last or (learnt[-1].seen_top[:, 0] == NO_CLASS).any():
        raise DataError("a run without predictions after its last task cannot be compared")
    return [p.sorted() for p in learnt]


def _check_pairs(a: StagePredictions, b: StagePredictions, tasks_a: Tasks, tasks_b: Tasks) -> None:
    if others := len(np.setxor1d(a.sample, b.sample)):
        raise DataError(
            "the runs were not tested on the same samples",
            got=f"{others} samples in one run only",
            do="compare runs of one source with one split",
        )
    if other := int((a.label != b.label).sum()):
        raise DataError("the runs disagree about labels", got=f"{other} of {len(a.label)} samples")
    if classes := set(task_of_class(tasks_a)) ^ set(task_of_class(tasks_b)):
        raise DataError(
            "the runs have different label spaces", got=f"{len(classes)} classes in one run only"
        )


def _why_not(
    a: list[StagePredictions], b: list[StagePredictions], tasks_a: Tasks, tasks_b: Tasks
) -> dict[str, str]:
    """The metrics that these two runs do not share, and why."""
    sets_a, sets_b = [frozenset(t) for t in tasks_a], [frozenset(t) for t in tasks_b]
    why = {}
    if set(sets_a) != set(sets_b):
        why["last_task_mean"] = "the runs divide the classes into other tasks"
    if sets_a != sets_b:
        why["avg_inc_pooled"] = "the runs learn other tasks, or in another order"
    elif min(len(a), len(b)) < len(tasks_a):
        why["avg_inc_pooled"] = "a stage was not evaluated"
    elif (a[0].task > 0).all():
        why["avg_inc_pooled"] = "the first task has no test samples"
    return why


@dataclass(frozen=True, eq=False)
class _Kinds:
    """The distinct kinds of samples, sorted by task and class, and how many there are."""

    task: Ints
    label: Ints
    hits_a: Ints
    """(kinds, stages): whether run a is right; the last column is the last stage."""
    hits_b: Ints
    counts: Counts


def _kinds(a: list[StagePredictions], b: list[StagePredictions], *, every_stage: bool) -> _Kinds:
    first = 0 if every_stage else -1
    stages = [*a[first:], *b[first:]]
    table = [a[-1].task, a[-1].label, *(hits(p.seen_top, p.label) for p in stages)]
    rows, counts = np.unique(np.stack(table, axis=1), axis=0, return_counts=True)
    middle = 2 + len(a[first:])
    return _Kinds(rows[:, 0], rows[:, 1], rows[:, 2:middle], rows[:, middle:], counts)


def _differences(
    kinds: _Kinds, draws: int, seed: int, why: dict[str, str]
) -> dict[str, Difference]:
    parts: dict[str, list[Table]] = {name: [] for name in _STATISTICS if name not in why}
    for counts in _resamples(kinds.counts, draws, seed):
        for name, drawn in parts.items():
            drawn.append(_STATISTICS[name](kinds, kinds.hits_b - kinds.hits_a, counts))
    return {
        name: Difference(why=why[name])
        if name in why
        else _difference(
            float(statistic(kinds, kinds.hits_a, kinds.counts[None])[0]),
            float(statistic(kinds, kinds.hits_b, kinds.counts[None])[0]),
            np.concatenate(parts[name]),
        )
        for name, statistic in _STATISTICS.items()
    }


def _difference(a: float, b: float, drawn: Table) -> Difference:
    low, high = (float(q) for q in np.percentile(drawn, [2.5, 97.5]))
    flips = float((np.sign(drawn) != np.sign(b - a)).mean()) if a != b else 1.0
    return Difference(a, b, b - a, low, high, flips)


def _resamples(counts: Counts, draws: int, seed: int) -> Iterator[Counts]:
    """Chunks of (draws, kinds): how often each kind occurs in each resample."""
    generator = rng(seed, "paired-bootstrap")
    n = int(counts.sum())
    step = max(1, CHUNK_CELLS // len(counts))
    for start in range(0, draws, step):
        yield generator.multinomial(n, counts / n, size=min(step, draws - start))


# A statistic maps values (kinds, stages) and counts (draws, kinds) to percent, one per draw.


def _pooled(kinds: _Kinds, values: Ints, counts: Counts) -> Table:
    shares: Table = 100.0 * (counts @ values[:, -1]) / counts.sum(axis=1)
    return shares


def _task_mean(kinds: _Kinds, values: Ints, counts: Counts) -> Table:
    return _group_mean(kinds.task, values[:, -1], counts)


def _macro(kinds: _Kinds, values: Ints, counts: Counts) -> Table:
    return _group_mean(kinds.label, values[:, -1], counts)


def _stage_mean(kinds: _Kinds, values: Ints, counts: Counts) -> Table:
    learnt = kinds.task[:, None] <= np.arange(values.shape[1])
    weights = counts.astype(np.float64)  # for a matrix product by BLAS
    return _mean_share(weights @ (learnt * values).astype(np.float64), weights @ learnt)


def _group_mean(group: Ints, values: Ints, counts: Counts) -> Table:
    starts = np.flatnonzero(np.diff(group, prepend=np.int32(-1)))
    total = np.add.reduceat(counts * values, starts, axis=1)
    return _mean_share(total, np.add.reduceat(counts, starts, axis=1))


def _mean_share(total: NDArray[Any], size: NDArray[Any]) -> Table:
    """Per row the mean of total / size in percent, over the groups that were drawn."""
    drawn = size > 0
    share = np.divide(total, size, out=np.zeros(size.shape), where=drawn)
    mean: Table = 100.0 * share.sum(axis=1) / drawn.sum(axis=1)
    return mean


_STATISTICS: dict[str, Callable[[_Kinds, Ints, Counts], Table]] = {
    "last_pooled": _pooled,
    "last_task_mean": _task_mean,
    "last_macro": _macro,
    "avg_inc_pooled": _stage_mean,
}
