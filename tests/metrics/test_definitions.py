"""Each metric on a worked matrix, on LADA's published one, and what makes it null."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from made_predictions import from_hits

from raycl.metrics import definitions as d
from raycl.metrics.evaluation import evaluate
from raycl.metrics.matrices import Matrices

COUNTS = [4, 10, 5]
SEEN = [[2, 0, 0], [4, 9, 0], [3, 6, 4]]  # 50 | 100 90 | 75 60 80
UNION = [[1, 3, 2], [2, 5, 0], [3, 4, 4]]  # 25 30 40 | 50 50 0 | 75 40 80
ZERO_SHOT = [1, 2, 3]  # 25 20 60

WORKED = {
    "last_pooled": 100 * 13 / 19,
    "last_task_mean": (75 + 60 + 80) / 3,
    "avg_inc_pooled": (50 + 100 * 13 / 14 + 100 * 13 / 19) / 3,
    "avg_inc_task_mean": (50 + 95 + 215 / 3) / 3,
    "last_macro": (75 + 60 + 80) / 3,
    "forgetting": ((100 - 75) + (90 - 60)) / 2,
    "forgetting_union": ((50 - 75) + (50 - 40)) / 2,
    "bwt": ((75 - 50) + (60 - 90)) / 2,
    "bwt_union": ((75 - 25) + (40 - 50)) / 2,
    "fwt": ((30 - 20) + (0 - 60)) / 2,
    "fwt_raw": (30 + 0) / 2,
    "ci_transfer": ((30 + 40) / 2 + 0) / 2,
    "transfer": (30 + (40 + 0) / 2) / 2,
    "average": 390 / 9,
    "last_union": (75 + 40 + 80) / 3,
    "transfer_over_zero_shot": 25 - (20 + 60) / 2,
    "predicted_recent": 100 * 4 / 19,
    "predicted_recent_fair": 100 * 5 / 19,
}


def worked(seen=SEEN, union=UNION, zero_shot=ZERO_SHOT, counts=COUNTS, **how):
    stages, tasks = from_hits(seen, union, zero_shot, counts)
    return evaluate(stages, tasks, **{"scores_unseen": True, **how})


@pytest.mark.parametrize("name", WORKED)
def test_worked_matrix(name):
    metric = worked().values[name]
    assert metric.value == pytest.approx(WORKED[name])
    assert metric.why is None


def test_worked_rows():
    values = worked().values
    assert values["stage_pooled"].value == pytest.approx([50, 100 * 13 / 14, 100 * 13 / 19])
    assert values["stage_task_mean"].value == pytest.approx([50, 95, 215 / 3])


def test_worked_json():
    result = worked().as_json()
    assert result["r_seen"] == [[50, None, None], [100, 90, None], [75, 60, 80]]
    assert result["r_union"] == [[25, 30, 40], [50, 50, 0], [75, 40, 80]]
    assert result["zero_shot"] == [25, 20, 60]
    assert result["metrics"]["bwt_union"] == 20.0
    assert result["why_null"] == {}
    assert result["empty_test_classes"] == [1, 11, 21]


@pytest.fixture(scope="module")
def lada() -> Matrices:
    """LADA's published X-TAIL matrix, 16 shots, order I; rounded to one decimal there."""
    path = Path(__file__).with_name("lada_xtail_16shot_order1.csv")
    with path.open() as file:
        rows = [[float(text) for text in row[1:]] for row in list(csv.reader(file))[1:]]
    union = np.array(rows)
    blank = np.full(10, np.nan)
    return Matrices(np.full((10, 10), np.nan), union, blank, np.full(10, 100))


@pytest.mark.parametrize(
    ("metric", "published"),
    [(d.transfer, 61.59), (d.average, 72.68), (d.last_union, 83.10), (d.ci_transfer, 64.61)],
)
def test_published_matrix_gives_the_published_figures(lada, metric, published):
    assert metric(lada).value == pytest.approx(published, abs=0.005)


def test_transfer_is_not_the_pooled_triangle(lada):
    pooled = lada.union[np.triu_indices(10, k=1)].mean()
    assert pooled == pytest.approx(64.11, abs=0.005)
    assert abs(d.transfer(lada).value - pooled) > 2
    assert abs(d.ci_transfer(lada).value - pooled) > 0.4


ABOVE = {"fwt", "fwt_raw", "ci_transfer", "transfer", "average", "transfer_over_zero_shot"}
GROWS = {"forgetting_union", "bwt_union"}
NEEDS_Z = {"fwt", "transfer_over_zero_shot"}


def nulls(evaluation):
    return {name for name, metric in evaluation.values.items() if metric.value is None}


def test_a_method_without_a_rule_has_no_upper_triangle():
    evaluation = worked(union=None, scores_unseen=False)
    assert nulls(evaluation) == ABOVE | GROWS | {"ece_unseen"}
    reasons = evaluation.as_json()["why_null"]
    assert all("no rule" in reasons[name] for name in ABOVE | GROWS | {"ece_unseen"})
    assert all("label space grows" in reasons[name] for name in GROWS)
    assert evaluation.as_json()["r_union"] == [[50, None, None], [100, 90, None], [75, 60, 80]]
    assert evaluation.values["last_union"].value == pytest.approx(215 / 3)


def test_an_upper_triangle_without_a_rule_is_not_believed():
    evaluation = worked(scores_unseen=False)
    assert np.isnan(evaluation.matrices.union[np.triu_indices(3, k=1)]).all()
    assert evaluation.values["transfer"].value is None


def test_missing_text_takes_zero_shot_and_the_unseen_away():
    evaluation = worked(missing_text=2)
    assert nulls(evaluation) == ABOVE | GROWS | {"ece_unseen"}
    assert evaluation.as_json()["zero_shot"] == [None, None, None]
    assert "2 classes have no text vector" in evaluation.values["fwt"].why
    assert "1 class has no text" in worked(missing_text=1).values["transfer"].why


def test_without_zero_shot_only_its_differences_are_null():
    evaluation = worked(zero_shot=None)
    assert nulls(evaluation) == NEEDS_Z
    assert "zero-shot" in evaluation.values["fwt"].why


def test_single_task_has_no_metric_over_other_tasks():
    evaluation = worked([[3]], [[2]], [1], [4])
    assert nulls(evaluation) == {
        *ABOVE - {"average"},
        *GROWS,
        "forgetting",
        "bwt",
        "ece_unseen",
    }
    assert {m.why for m in evaluation.values.values() if m.why} == {"the stream has a single task"}
    assert evaluation.values["average"].value == 50.0
    assert evaluation.values["avg_inc_pooled"].value == 75.0


def test_a_task_without_samples_is_listed_and_never_a_zero():
    evaluation = worked(counts=[4, 0, 5])
    assert evaluation.empty_tasks == [1]
    assert evaluation.empty_test_classes == [1, 10, 11, 21]
    assert evaluation.as_json()["r_seen"] == [[50, None, None], [100, None, None], [75, None, 80]]
    values = evaluation.values
    assert values["last_pooled"].value == pytest.approx(100 * 7 / 9)
    assert values["stage_task_mean"].value == [50.0, None, None]
    for name in ("stage_task_mean", "last_task_mean", "forgetting", "bwt", "transfer", "average"):
        assert values[name].why == "task 2 has no test samples"
    assert values["last_macro"].value == pytest.approx((75 + 80) / 2)


def test_a_first_task_without_samples_has_no_stage_accuracy():
    values = worked(counts=[0, 10, 5]).values
    assert values["stage_pooled"].value[0] is None
    assert values["avg_inc_pooled"].value is None
    assert "no test samples" in values["avg_inc_pooled"].why
    assert values["last_pooled"].value == pytest.approx(100 * 10 / 15)


def test_a_run_that_is_not_done_has_no_last_accuracy():
    stages, tasks = from_hits(SEEN, UNION, ZERO_SHOT, COUNTS)
    evaluation = evaluate(stages[:-1], tasks, scores_unseen=True)
    defined = {name for name, m in evaluation.values.items() if isinstance(m.value, float)}
    assert defined == {
        "fwt",
        "fwt_raw",
        "ci_transfer",
        "transfer",
        "transfer_over_zero_shot",
        "ece_unseen",
        "predicted_recent_fair",
    }
    assert evaluation.values["stage_task_mean"].value == [50.0, 95.0, None]
    assert evaluation.values["last_pooled"].why == "task 1 was not evaluated after task 3"


def test_true_zeros_count():
    zeros = [[0, 0, 0]] * 3
    evaluation = worked(zeros, zeros, [0, 0, 0])
    assert nulls(evaluation) == set()
    assert evaluation.values["average"].value == 0.0
    assert evaluation.values["forgetting"].value == 0.0
    assert evaluation.values["stage_pooled"].value == [0.0, 0.0, 0.0]
