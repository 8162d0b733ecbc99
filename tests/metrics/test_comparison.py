"""Paired comparison: the figures of `evaluate`, a plain bootstrap's interval, and refusals."""

from __future__ import annotations

import json

import numpy as np
import pytest
from made_predictions import from_hits, from_scores

from raycl.errors import DataError
from raycl.metrics import comparison
from raycl.metrics.comparison import compare
from raycl.metrics.evaluation import evaluate
from raycl.metrics.predictions import StagePredictions

TASKS = [[4, 0], [1, 2], [3]]
NAMES = ("last_pooled", "last_task_mean", "last_macro", "avg_inc_pooled")


def labels(n: int = 60) -> np.ndarray:
    # Class 3 is rare, so that some resamples miss it and task 2 with it.
    return np.random.default_rng(0).choice([0, 1, 2, 3, 4], n, p=[0.3, 0.3, 0.2, 0.03, 0.17])


def made(seed: int, skill: float = 1.0, tasks=TASKS, n: int = 60) -> list[StagePredictions]:
    label = labels(n).astype(np.int32)
    order = np.array([c for task in tasks for c in task])
    g = np.random.default_rng(seed)
    gain = skill * (label[:, None] == order)
    scores = {i: g.normal(size=(n, 5)) + gain for i in range(len(tasks))}
    return from_scores(scores, label, tasks)


A, B = made(1), made(2, skill=2.0)


def by_indices(draws: int) -> dict[str, np.ndarray]:
    """The differences of a plain bootstrap, sample by sample."""
    n = len(A[0].label)
    g = np.random.default_rng(9)
    right = [[(p.seen_top[:, 0] == p.label) for p in run] for run in (A, B)]
    task, label = A[0].task, A[0].label
    drawn: dict[str, list[float]] = {name: [] for name in NAMES}
    for _ in range(draws):
        rows = g.integers(0, n, n)
        gain = [100.0 * (b[rows] * 1.0 - a[rows]) for a, b in zip(*right, strict=True)]
        by_task = [gain[-1][task[rows] == t] for t in range(3)]
        by_class = [gain[-1][label[rows] == c] for c in range(5)]
        by_stage = [gain[i][task[rows] <= i] for i in range(3)]
        drawn["last_pooled"].append(gain[-1].mean())
        for name, parts in zip(NAMES[1:], (by_task, by_class, by_stage), strict=True):
            drawn[name].append(np.mean([part.mean() for part in parts if len(part)]))
    return {name: np.array(values) for name, values in drawn.items()}


@pytest.mark.parametrize("name", NAMES)
def test_both_figures_are_those_of_the_evaluation(name):
    both = compare(A, B, TASKS, TASKS, draws=50).metrics[name]
    a, b = (evaluate(run, TASKS, scores_unseen=True).values[name].value for run in (A, B))
    assert both.a == pytest.approx(a)
    assert both.b == pytest.approx(b)
    assert both.difference == pytest.approx(b - a)


def test_intervals_are_those_of_a_plain_bootstrap():
    ours, plain = compare(A, B, TASKS, TASKS).metrics, by_indices(4_000)
    for name in NAMES:
        low, high = np.percentile(plain[name], [2.5, 97.5])
        width = high - low
        assert ours[name].low == pytest.approx(low, abs=0.06 * width)
        assert ours[name].high == pytest.approx(high, abs=0.06 * width)
        assert ours[name].flips == pytest.approx((plain[name] <= 0).mean(), abs=0.02)


def test_identical_runs_do_not_differ():
    same = compare(A, A, TASKS, TASKS, draws=100)
    for metric in same.metrics.values():
        assert (metric.difference, metric.low, metric.high, metric.flips) == (0, 0, 0, 1)
    assert (same.only_a_right, same.only_b_right) == (0, 0)


@pytest.mark.parametrize("counts", [[1, 6], [6, 1]])
def test_a_sure_win_never_flips_even_where_a_resample_misses_a_task(counts):
    a, tasks = from_hits([[0, 0], [0, 0]], None, None, counts)
    b, _ = from_hits([[6, 0], [6, 6]], None, None, counts)
    for metric in compare(a, b, tasks, tasks, draws=200).metrics.values():
        assert (metric.difference, metric.low, metric.high, metric.flips) == (100, 100, 100, 0)


def test_mcnemar_counts_the_samples_that_one_run_alone_gets_right():
    a, tasks = from_hits([[5, 0], [3, 1]], None, None, [5, 6])
    b, _ = from_hits([[5, 0], [1, 6]], None, None, [5, 6])
    counted = compare(a, b, tasks, tasks, draws=10)
    assert (counted.only_a_right, counted.only_b_right) == (2, 5)
    assert counted.samples == 11


def test_the_seed_decides_and_nothing_else(monkeypatch):
    once = compare(A, B, TASKS, TASKS, draws=300, seed=3)
    shuffled = []
    for p in reversed(B):
        order = np.random.default_rng(p.stage).permutation(len(p.sample))
        columns = {name: column[order] for name, column in p.to_columns().items()}
        shuffled.append(StagePredictions.from_columns(columns))
    monkeypatch.setattr(comparison, "CHUNK_CELLS", 100)
    assert compare(A, shuffled, TASKS, TASKS, draws=300, seed=3) == once
    assert compare(A, B, TASKS, TASKS, draws=300, seed=4) != once


def test_another_order_of_the_same_tasks_has_no_common_stages():
    other = [TASKS[2], TASKS[0][::-1], TASKS[1]]
    metrics = compare(A, made(3, tasks=other), TASKS, other, draws=50).metrics
    assert "another order" in metrics["avg_inc_pooled"].why
    assert metrics["avg_inc_pooled"].difference is None
    assert metrics["last_task_mean"].why is None
    mirrored = compare(made(3, tasks=other), A, other, TASKS, draws=50).metrics
    assert mirrored["last_task_mean"].difference == pytest.approx(
        -metrics["last_task_mean"].difference
    )


def test_other_tasks_have_no_common_task_mean():
    other = [[0, 1], [2, 3, 4]]
    metrics = compare(A, made(3, tasks=other), TASKS, other, draws=50).metrics
    assert {name for name, metric in metrics.items() if metric.why} == {
        "last_task_mean",
        "avg_inc_pooled",
    }
    assert metrics["last_macro"].difference is not None


def test_a_stage_that_one_run_lacks_has_no_mean_over_stages():
    metrics = compare(A[1:], B, TASKS, TASKS, draws=50).metrics
    assert metrics["avg_inc_pooled"].why == "a stage was not evaluated"


def test_zero_shot_predictions_do_not_disturb():
    stages, tasks = from_hits([[5, 0], [3, 1]], None, [1, 1], [5, 6])
    assert compare(stages, stages[1:], tasks, tasks, draws=5).metrics["avg_inc_pooled"].a


def test_other_samples_are_refused_with_their_number():
    with pytest.raises(DataError, match="20 samples in one run only"):
        compare(A, made(1, n=40), TASKS, TASKS)


def test_other_labels_are_refused_with_their_number():
    other = [[0, 4], [2, 1], [3]]
    label = labels().astype(np.int32)
    swapped = np.where(label == 1, 2, np.where(label == 2, 1, label)).astype(np.int32)
    run = from_scores({2: np.zeros((60, 5))}, swapped, other)
    with pytest.raises(DataError, match=rf"{int((label != swapped).sum())} of 60 samples"):
        compare(A, run, TASKS, other)


def test_other_label_spaces_are_refused():
    wider = [*TASKS[:2], [3, 7, 8]]
    label = labels().astype(np.int32)
    run = from_scores({2: np.zeros((60, 7))}, label, wider)
    with pytest.raises(DataError, match="2 classes in one run only"):
        compare(A, run, TASKS, wider)


def test_a_run_that_is_not_done_is_refused():
    with pytest.raises(DataError, match="after its last task"):
        compare(A[:-1], B, TASKS, TASKS)


def test_json_carries_it_all():
    result = compare(A, made(3, tasks=TASKS[::-1]), TASKS, TASKS[::-1], draws=20).as_json()
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert list(result["metrics"]) == list(NAMES)
    assert set(result["metrics"]["last_macro"]) == {
        *("a", "b", "difference", "low", "high", "flips", "why"),
    }
