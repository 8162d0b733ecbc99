"""Rankings and the columns of stored predictions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from made_predictions import from_scores

from raycl.errors import DataError, MethodError
from raycl.metrics.predictions import StagePredictions, no_ranking, rank

TABLES = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 6), st.integers(0, 9)),
    elements=st.sampled_from([-np.inf, -2.0, 0.0, 1.0, 1.5, 30.0]),
)


@settings(deadline=None)
@given(TABLES)
def test_rank_equals_a_stable_sort(scores):
    n, m = scores.shape
    classes = np.arange(m, dtype=np.int32)[::-1] * 3
    top, score, lse = rank(scores, classes)
    for i in range(n):
        order = [c for c in sorted(range(m), key=lambda c: -scores[i, c]) if scores[i, c] > -np.inf]
        best = order[:5]
        assert top[i].tolist() == [int(classes[c]) for c in best] + [-1] * (5 - len(best))
        assert score[i, : len(best)].tolist() == [scores[i, c] for c in best]
        assert np.isnan(score[i, len(best) :]).all()
        if order:
            total = np.log(sum(np.exp(float(scores[i, c])) for c in order))
            assert lse[i] == pytest.approx(total, rel=1e-6)
        else:
            assert np.isnan(lse[i])


def test_ties_go_to_the_first_class():
    top, _, _ = rank(np.zeros((1, 4)), [7, 3, 9, 1])
    assert top.tolist() == [[7, 3, 9, 1, -1]]


@pytest.mark.parametrize("n", [0, 1, 20_000])
def test_any_number_of_samples_keeps_its_rows(n):
    classes = np.arange(3)
    wanted = np.arange(n) % 3
    top, score, lse = rank((wanted[:, None] == classes).astype(float), classes)
    assert (top[:, 0] == wanted).all()
    assert top.shape == score.shape == (n, 5)
    assert lse.shape == (n,)


def test_a_class_that_cannot_be_predicted_is_never_ranked():
    top, score, lse = rank([[-np.inf, 2.0, -np.inf]], [4, 5, 6])
    assert top.tolist() == [[5, -1, -1, -1, -1]]
    assert score[0, 0] == lse[0] == 2.0


def test_large_scores_do_not_overflow():
    _, _, lse = rank([[1e6, 1e6]], [0, 1])
    assert lse[0] == pytest.approx(1e6 + np.log(2))


def test_ranking_leaves_the_scores_alone():
    scores = np.array([[3.0, 1.0, 2.0]])
    rank(scores, [0, 1, 2])
    assert scores.tolist() == [[3.0, 1.0, 2.0]]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_scores_of_a_diverged_method_are_refused(bad):
    with pytest.raises(MethodError, match="1 of 4 scores"):
        rank([[0.0, 1.0], [bad, -np.inf]], [0, 1])


@pytest.mark.parametrize(("scores", "classes"), [([1.0, 2.0], [0, 1]), ([[1.0, 2.0]], [0])])
def test_scores_of_another_shape_are_refused(scores, classes):
    with pytest.raises(MethodError, match="one column per class"):
        rank(scores, classes)


def make(stage: int = 0) -> StagePredictions:
    scores = np.random.default_rng(1).normal(size=(7, 6))
    label = np.array([0, 1, 2, 3, 4, 5, 0], dtype=np.int32)
    return from_scores({stage: scores}, label, [[0, 1], [2, 3], [4, 5]])[0]


def test_only_tasks_learnt_so_far_keep_a_seen_ranking():
    p = make(stage=1)
    assert (p.seen_top[p.task <= 1, 0] >= 0).all()
    assert (p.seen_top[p.task == 2] == -1).all()
    assert np.isnan(p.seen_lse[p.task == 2]).all()


@pytest.mark.parametrize("flat", [False, True])
def test_columns_come_back_as_they_were(flat):
    p = make()
    columns = p.to_columns()
    assert {len(column) for column in columns.values()} == {7}
    stored = {n: c.ravel() if flat and c.ndim == 2 else c for n, c in columns.items()}
    back = StagePredictions.from_columns(stored)
    assert back.stage == p.stage
    for name, column in back.to_columns().items():
        np.testing.assert_array_equal(column, columns[name])
        assert column.dtype == columns[name].dtype


def test_sorting_moves_whole_rows():
    p = make()
    order = np.random.default_rng(0).permutation(7)
    shuffled = StagePredictions.from_columns({n: c[order] for n, c in p.to_columns().items()})
    for name, column in shuffled.sorted().to_columns().items():
        np.testing.assert_array_equal(column, p.to_columns()[name])


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("label", np.zeros(7, np.int64)),
        ("seen_score", np.zeros((7, 5), np.float64)),
        ("union_top", np.zeros((7, 4), np.int32)),
        ("task", np.zeros(6, np.int32)),
    ],
)
def test_a_column_of_another_shape_or_type_is_refused(name, column):
    with pytest.raises(DataError, match=f"column '{name}' must be"):
        StagePredictions.from_columns({**make().to_columns(), name: column})


def test_a_missing_column_is_named():
    columns = make().to_columns()
    del columns["union_lse"]
    with pytest.raises(DataError, match="union_lse"):
        StagePredictions.from_columns(columns)


def test_two_stages_in_one_table_are_refused():
    columns = make().to_columns()
    columns["stage"] = np.arange(7)
    with pytest.raises(DataError, match="one stage"):
        StagePredictions.from_columns(columns)


def test_no_ranking_is_empty():
    top, score, lse = no_ranking(2)
    assert (top == -1).all()
    assert np.isnan(score).all()
    assert np.isnan(lse).all()
