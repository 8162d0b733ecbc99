"""Evaluating predictions equals counting by hand; order never matters; nonsense is refused."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_predictions import from_hits, from_scores

from raycl.errors import DataError, MethodError
from raycl.metrics.evaluation import evaluate
from raycl.metrics.predictions import StagePredictions


@st.composite
def runs(draw):
    """Scores (n, classes) for every stage, labels, and tasks of source classes in any order."""
    sizes = draw(st.lists(st.integers(1, 3), min_size=1, max_size=4))
    classes = draw(st.permutations(range(sum(sizes))))
    starts = np.cumsum([0, *sizes])
    tasks = [list(classes[a:b]) for a, b in pairwise(starts)]
    n = draw(st.integers(1, 12))
    g = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    label = g.choice(classes, size=n).astype(np.int32)
    scores = {i: g.integers(-2, 3, (n, len(classes))).astype(float) for i in range(-1, len(tasks))}
    return scores, label, tasks


def accuracy(scores, columns, label, rows):
    """Percent, by a loop; None where there is nothing to count."""
    rows = [r for r in rows if columns]
    right = [max(columns, key=lambda c: scores[r][columns[c]]) == label[r] for r in rows]
    return 100.0 * sum(right) / len(right) if right else None


@settings(max_examples=60, deadline=None)
@given(runs())
def test_matrices_equal_a_loop(run):
    scores, label, tasks = run
    T = len(tasks)
    result = evaluate(from_scores(scores, label, tasks), tasks, scores_unseen=True).as_json()
    order = [c for task in tasks for c in task]
    union = {c: k for k, c in enumerate(order)}
    for j in range(T):
        rows = [r for r in range(len(label)) if label[r] in tasks[j]]
        assert result["zero_shot"][j] == accuracy(scores[-1], union, label, rows)
        for i in range(T):
            learnt = {c: union[c] for task in tasks[: i + 1] for c in task}
            assert result["r_union"][i][j] == accuracy(scores[i], union, label, rows)
            expected = accuracy(scores[i], learnt, label, rows) if j <= i else None
            assert result["r_seen"][i][j] == expected


@settings(max_examples=60, deadline=None)
@given(runs())
def test_sample_metrics_equal_a_loop(run):
    scores, label, tasks = run
    T = len(tasks)
    values = evaluate(from_scores(scores, label, tasks), tasks, scores_unseen=True).values
    columns = {c: k for k, c in enumerate(c for task in tasks for c in task)}
    everything = range(len(label))
    by_class = [
        accuracy(scores[T - 1], columns, label, [r for r in everything if label[r] == c])
        for c in columns
    ]
    present = [a for a in by_class if a is not None]
    assert values["last_macro"].value == pytest.approx(sum(present) / len(present))

    best = [max(columns, key=lambda c: scores[T - 1][r][columns[c]]) for r in everything]
    recent = 100.0 * sum(c in tasks[-1] for c in best) / len(label)
    assert values["predicted_recent"].value == pytest.approx(recent)
    fair = 100.0 * sum(c in tasks[-1] for c in label) / len(label)
    assert values["predicted_recent_fair"].value == pytest.approx(fair)

    pooled = values["stage_pooled"].value
    for i in range(T):
        learnt = {c: columns[c] for task in tasks[: i + 1] for c in task}
        rows = [r for r in everything if label[r] in learnt]
        expected = accuracy(scores[i], learnt, label, rows)
        assert pooled[i] == (None if expected is None else pytest.approx(expected))


@settings(max_examples=40, deadline=None)
@given(runs(), st.integers(0, 2**32 - 1))
def test_the_order_of_samples_and_stages_is_irrelevant(run, seed):
    scores, label, tasks = run
    stages = from_scores(scores, label, tasks)
    g = np.random.default_rng(seed)
    mixed = []
    for k in g.permutation(len(stages)):
        order = g.permutation(len(label))
        columns = {name: c[order] for name, c in stages[k].to_columns().items()}
        mixed.append(StagePredictions.from_columns(columns))
    expected = evaluate(stages, tasks, scores_unseen=True).as_json()
    assert evaluate(mixed, tasks, scores_unseen=True).as_json() == expected


@settings(max_examples=40, deadline=None)
@given(runs(), st.booleans(), st.integers(0, 1))
def test_every_null_has_its_reason_and_no_number_has_one(run, scores_unseen, missing_text):
    scores, label, tasks = run
    stages = from_scores(scores, label, tasks)
    how = {"scores_unseen": scores_unseen, "missing_text": missing_text}
    for metric in evaluate(stages, tasks, **how).values.values():
        values = metric.value if isinstance(metric.value, list) else [metric.value]
        assert (None in values) == bool(metric.why)
        assert all(math.isfinite(v) for v in values if v is not None)


def calibration_by_hand(confidence, right):
    """The textbook sum over 15 equal bins of |accuracy - confidence| times the bin's share."""
    total = 0.0
    for b in range(15):
        inside = [k for k, c in enumerate(confidence) if min(int(c * 15), 14) == b]
        if inside:
            gap = np.mean([right[k] for k in inside]) - np.mean([confidence[k] for k in inside])
            total += len(inside) / len(confidence) * abs(gap)
    return 100.0 * total


def test_calibration_errors_equal_the_textbook_sum():
    g = np.random.default_rng(5)
    tasks = [[0, 1], [2, 3]]
    label = g.integers(0, 4, 40).astype(np.int32)
    scores = {i: g.normal(size=(40, 4)) for i in range(2)}

    def error(stage, rows, classes):
        exp = np.exp(scores[stage][rows][:, classes])
        share = exp / exp.sum(axis=1, keepdims=True)
        right = np.array(classes)[share.argmax(axis=1)] == label[rows]
        return calibration_by_hand(share.max(axis=1), right)

    old, new = np.flatnonzero(label < 2), np.flatnonzero(label >= 2)
    every = np.arange(40)
    values = evaluate(from_scores(scores, label, tasks), tasks, scores_unseen=True).values
    seen = (error(0, old, [0, 1]) + error(1, every, [0, 1, 2, 3])) / 2
    assert values["ece_seen"].value == pytest.approx(seen, abs=1e-4)
    assert values["ece_unseen"].value == pytest.approx(error(0, new, [0, 1, 2, 3]), abs=1e-4)


def test_sure_and_right_is_calibrated():
    tasks = [[0], [1]]
    label = np.array([0, 0, 1], dtype=np.int32)
    sure = np.where(label[:, None] == np.arange(2), 200.0, 0.0)
    values = evaluate(
        from_scores({0: sure, 1: sure}, label, tasks), tasks, scores_unseen=True
    ).values
    assert values["ece_seen"].value == 0.0
    assert values["ece_unseen"].value == 0.0


def good() -> tuple[list[StagePredictions], list[list[int]]]:
    return from_hits([[2, 0], [1, 2]], [[1, 1], [1, 2]], [1, 1], [3, 4])


def changed(p: StagePredictions, **columns: int) -> StagePredictions:
    """The same predictions with the first entry of some columns replaced."""
    new = {}
    for name, value in columns.items():
        new[name] = getattr(p, name).copy()
        new[name][0] = value
    return replace(p, **new)


@pytest.mark.parametrize(
    ("columns", "error", "says"),
    [
        ({"sample": 1}, DataError, "same samples"),
        ({"label": 1}, DataError, "same samples"),
        ({"seen_top": 10}, MethodError, "seen ranking holds a class"),
        ({"union_top": 99}, MethodError, "union ranking holds a class"),
        ({"union_top": -1}, MethodError, "only some samples of task 1"),
    ],
)
def test_a_stage_that_contradicts_the_others_is_refused(columns, error, says):
    stages, tasks = good()
    stages[1] = changed(stages[1], **columns)
    with pytest.raises(error, match=says):
        evaluate(stages, tasks, scores_unseen=True)


def test_a_later_task_among_the_seen_is_refused():
    stages, tasks = good()
    top = stages[1].seen_top.copy()
    top[-1, 0] = 0
    stages[1] = replace(stages[1], seen_top=top)
    with pytest.raises(MethodError, match="later task"):
        evaluate(stages, tasks, scores_unseen=True)


def test_a_sample_twice_is_refused():
    stages, tasks = good()
    with pytest.raises(DataError, match="twice"):
        evaluate([changed(p, sample=1) for p in stages], tasks, scores_unseen=True)


@pytest.mark.parametrize(
    ("tasks", "says"),
    [
        ([[0, 1], [0, 11]], "two tasks"),
        ([[0, 1], [11]], "class 10 is not of task 1"),
        ([[0, 1]], "every stage"),
        ([[0, 1, -4], [10, 11]], "negative"),
        ([], "no tasks"),
    ],
)
def test_tasks_that_do_not_fit_are_refused(tasks, says):
    with pytest.raises(DataError, match=says):
        evaluate(good()[0], tasks, scores_unseen=True)


def test_a_stage_twice_and_no_stage_are_refused():
    stages, tasks = good()
    with pytest.raises(DataError, match="once"):
        evaluate([*stages, stages[-1]], tasks, scores_unseen=True)
    with pytest.raises(DataError, match="no predictions"):
        evaluate([], tasks, scores_unseen=True)
