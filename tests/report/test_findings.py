"""Findings: figures by hand, verdicts on both sides of a threshold, reasons where there is none."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from raycl.metrics import diagnosis as d
from raycl.metrics.evaluation import evaluate
from raycl.metrics.predictions import StagePredictions, no_ranking, rank
from raycl.report.diagnosis_page import diagnosis_page
from raycl.report.findings import Diagnosis, Finding, diagnose

TASKS = [[0, 1], [2, 3]]
NAMES = ["cat", "dog", "<b>cow</b>", "hen"]


def stage(number: int, predicted: list[int], label: list[int]) -> StagePredictions:
    """Each sample is predicted as told, with a sure score."""
    y = np.array(label, np.int32)
    task = y // 2
    known = [c for t in TASKS[: number + 1] for c in t]

    def scores(classes: list[int]) -> Any:
        table = np.zeros((len(y), len(classes)))
        for row, c in enumerate(predicted):
            if c in classes:
                table[row, classes.index(c)] = 50.0
        return rank(table, np.array(classes))

    seen = scores(known) if number >= 0 else no_ranking(len(y))
    return StagePredictions.of(
        number, sample=np.arange(len(y)), task=task, label=y, seen=seen, union=scores([0, 1, 2, 3])
    )


LABEL = [c for c in range(4) for _ in range(20)]
RIGHT = list(LABEL)


def run_of(
    *stages: list[int], method: str = "mine", unseen: bool = True, label: list[int] = LABEL
) -> tuple[dict[str, Any], list[StagePredictions]]:
    """A result and its predictions, from what is predicted before and after each task."""
    made = [stage(i, predicted, label) for i, predicted in enumerate(stages, start=-1)]
    evaluation = evaluate(made, TASKS, scores_unseen=unseen)
    description = {
        "key": "result/made/0123", "method": method, "label": method, "stream": "made",
        "tasks": [{"classes": t, "train": 4, "test": 40} for t in TASKS], "class_names": NAMES,
    }  # fmt: skip
    return {**description, **evaluation.as_json()}, made


def by_name(diagnosis: Diagnosis) -> dict[str, Finding]:
    return {finding.name: finding for finding in diagnosis.findings}


def wrong(count: int, into: int) -> list[int]:
    """All right but for the first samples, which go into one class."""
    return [into] * count + RIGHT[count:]


def test_a_perfect_run_has_no_problem():
    found = by_name(diagnose(*run_of(wrong(30, 3), RIGHT, RIGHT)))
    assert {f.verdict for f in found.values()} == {"good"}
    assert found["below_zero_shot"].figure == pytest.approx(100 * 30 / 80)


def test_below_zero_shot_is_paired_and_by_task():
    found = by_name(diagnose(*run_of(RIGHT, RIGHT, wrong(30, 3))))
    whole, tasks = found["below_zero_shot"], found["tasks_below_zero_shot"]
    assert whole.figure == pytest.approx(-37.5) and whole.verdict == "bad"
    assert tasks.figure == 1 and tasks.details == ["task 1: -75.0 points on 40 samples"]


def test_a_loss_that_chance_explains_is_only_watched():
    before, after = wrong(4, 3), [3] * 0 + RIGHT
    after = RIGHT[:75] + [0] * 5
    finding = by_name(diagnose(*run_of(before, RIGHT, after)))["below_zero_shot"]
    assert finding.figure == pytest.approx(-1.25) and finding.verdict == "watch"


@pytest.mark.parametrize("n", [1, 7, 40])
def test_the_sign_test_is_the_binomial_tail(n):
    for wins in range(n + 1):
        paired = d.PairedDifference(0.0, wins, n - wins, n)
        tail = sum(math.comb(n, k) for k in range(wins + 1)) / 2**n
        assert paired.below_by_chance == pytest.approx(tail)
    big = d.PairedDifference(0.0, 600, 601, 5000)
    assert big.below_by_chance == pytest.approx(0.5, abs=0.02)


def test_forgetting_the_first_task_and_recency():
    found = by_name(diagnose(*run_of(RIGHT, RIGHT, wrong(40, 3))))
    assert found["early_task_drop"].figure == pytest.approx(100.0)
    assert found["early_task_drop"].verdict == "bad"
    recency = found["recency_bias"]
    assert recency.figure == pytest.approx(2.0) and recency.verdict == "bad"
    never = found["never_predicted"]
    assert never.figure == pytest.approx(50.0) and never.details == ["cat", "dog"]


def test_the_drop_needs_a_label_space_that_stands_or_zero_shots_own():
    run, stages = run_of(RIGHT, RIGHT, wrong(10, 3), unseen=False)
    diagnosis = diagnose(run, stages)
    assert "early_task_drop" not in by_name(diagnosis)
    assert "label space grows" in diagnosis.not_judged["early-task drop"]
    twin, _ = run_of(RIGHT, RIGHT, wrong(4, 3), method="zero_shot")
    finding = by_name(diagnose(run, stages, twin))["early_task_drop"]
    assert finding.figure == pytest.approx(100 * 10 / 40 - 100 * 4 / 40)


def test_confused_classes_by_hand():
    p = stage(1, [1] * 6 + [2] * 5 + RIGHT[11:], LABEL)
    pairs = d.confused_pairs(p)
    assert [(q.label, q.predicted, q.count, q.share) for q in pairs] == [
        (0, 1, 6, 30.0), (0, 2, 5, 25.0),
    ]  # fmt: skip
    assert d.confused_pairs(p, at_least=6) == pairs[:1]
    run, stages = run_of(RIGHT, RIGHT, [1] * 6 + [2] * 5 + RIGHT[11:])
    finding = by_name(diagnose(run, stages))["confused_classes"]
    assert finding.figure == 30.0 and finding.verdict == "watch"
    assert finding.details[1] == "cat taken for <b>cow</b>: 5 times, 25 %"


def test_confusion_among_tasks_and_shares_by_hand():
    p = stage(1, [2] * 10 + RIGHT[10:], LABEL)
    assert d.task_confusion(p, TASKS).tolist() == [[75.0, 25.0], [0.0, 100.0]]
    predicted, fair = d.predicted_shares(p, TASKS)
    assert predicted.tolist() == [37.5, 62.5] and fair.tolist() == [50.0, 50.0]


def test_a_task_without_samples_has_no_confusion():
    label = [0] * 5 + [1] * 5
    p = stage(1, label, label)
    assert np.isnan(d.task_confusion(p, TASKS)[1]).all()
    diagnosis = diagnose(*run_of(label, label, label, label=label))
    assert by_name(diagnosis)["empty_classes"].details == ["<b>cow</b>", "hen"]
    assert "recency bias" in diagnosis.not_judged


def test_without_zero_shot_predictions_it_is_not_judged():
    run, stages = run_of(RIGHT, RIGHT, RIGHT)
    diagnosis = diagnose(run, stages[1:])
    assert "below zero-shot" in diagnosis.not_judged
    assert "below_zero_shot" not in by_name(diagnosis)


def test_a_run_without_its_last_stage_is_judged_as_far_as_it_goes():
    run, stages = run_of(RIGHT, RIGHT)
    diagnosis = diagnose(run, stages)
    assert diagnosis.figures == []
    assert {"recency bias", "imbalance"} <= diagnosis.not_judged.keys()


def test_the_probe_is_judged_where_there_is_one():
    run, stages = run_of(RIGHT, RIGHT, RIGHT)
    assert "probe_drop" not in by_name(diagnose(run, stages))
    run["metrics"]["probe_drop"] = -6.0
    finding = by_name(diagnose(run, stages))["probe_drop"]
    assert finding.figure == 6.0 and finding.verdict == "bad"


def test_routing_is_judged_where_a_method_routes():
    run, stages = run_of(RIGHT, RIGHT, RIGHT)
    assert not {"routing_loss", "old_to_newest"} & set(by_name(diagnose(run, stages)))
    routed = {"accuracy_oracle": 95.0, "accuracy_hard": 80.0, "old_to_newest": 60.0}
    routed |= {"fair_to_newest": 5.0, "task_1.routed": 40.0, "task_2.routed": 99.0}
    run["figures"] = [{}, routed]
    found = by_name(diagnose(run, stages))
    assert found["routing_loss"].figure == 15 and found["routing_loss"].verdict == "watch"
    assert found["routing_loss"].details[0] == "task 1: 40 % routed right"
    assert found["old_to_newest"].figure == 55 and found["old_to_newest"].verdict == "bad"


def test_it_is_plain_data_and_a_page_that_escapes_names():
    diagnosis = diagnose(*run_of(RIGHT, RIGHT, [1] * 6 + [2] * 5 + RIGHT[11:]))
    assert json.loads(json.dumps(diagnosis.as_json()))["findings"]
    page = diagnosis_page(diagnosis)
    assert "<b>cow" not in page and "&lt;b&gt;cow&lt;/b&gt;" in page
    assert page.count('class="finding"') == len(diagnosis.findings)
    assert 'id="figure-confusion"' in page and "Confusion among tasks" in page


def test_the_worst_comes_first():
    verdicts = [f.verdict for f in diagnose(*run_of(RIGHT, RIGHT, wrong(30, 3))).findings]
    assert verdicts == sorted(verdicts, key=["bad", "watch", "good"].index)
