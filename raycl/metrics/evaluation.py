"""From the stored predictions of a run to its matrices and every metric: one entry point.

Guarantees: the same predictions give the same numbers whatever the order of the samples
and stages; what is undefined is null with its reason. It reads and writes no file.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from raycl.metrics import definitions as d
from raycl.metrics import diagnosis
from raycl.metrics.definitions import Metric
from raycl.metrics.matrices import NO_RULE, Matrices, Table, Tasks, accuracy_matrices
from raycl.metrics.predictions import StagePredictions
from raycl.metrics.probing import ProbeAccuracy, probe_accuracy


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The matrices of a run and all its metrics by name."""

    matrices: Matrices
    values: dict[str, Metric]
    empty_test_classes: list[int]
    """Source class ids without any test sample; they are left out of macro means."""
    empty_tasks: list[int]
    probe: ProbeAccuracy | None = None

    def as_json(self) -> dict[str, Any]:
        """Plain data in full precision; None where a number is undefined."""
        return {
            "r_seen": _plain(self.matrices.seen),
            "r_union": _plain(self.matrices.union),
            "zero_shot": _plain(self.matrices.zero_shot),
            "probe": self.probe and _plain(self.probe.own),
            "probe_union": self.probe and _plain(self.probe.union),
            "probe_zero_shot": self.probe and _number(self.probe.zero_shot),
            "probe_zero_shot_union": self.probe and _number(self.probe.zero_shot_union),
            "metrics": {name: metric.value for name, metric in self.values.items()},
            "why_null": {name: metric.why for name, metric in self.values.items() if metric.why},
            "empty_test_classes": self.empty_test_classes,
            "empty_tasks": self.empty_tasks,
        }


def evaluate(
    stages: Sequence[StagePredictions],
    tasks: Tasks,
    *,
    scores_unseen: bool,
    missing_text: int = 0,
    probed: Sequence[StagePredictions] | None = None,
    why_no_probe: str | None = None,
) -> Evaluation:
    """Every metric of a run.

    `tasks` lists the source class ids of each task. `scores_unseen` says whether the method
    has a rule for classes that it has not learnt; `missing_text` counts the classes without
    a text vector, which nothing can score before they are learnt. `probed` are the stages of
    a probe where one was named; `why_no_probe` says why the method cannot score it.
    """
    stages = [p.sorted() for p in sorted(stages, key=lambda p: p.stage)]
    matrices = accuracy_matrices(stages, tasks)
    if missing_text:
        matrices = _without_text(matrices, missing_text)
    elif not scores_unseen:
        matrices = _without_unseen(matrices, NO_RULE)
    empty = diagnosis.empty_test_classes(stages, tasks)
    values = _metrics(matrices, stages, tasks)
    probe = None if probed is None else probe_accuracy(probed, len(tasks), why_no_probe)
    if probe is not None:
        values |= {"probe_last": probe.last, "probe_drop": probe.drop}
    return Evaluation(matrices, values, empty, matrices.empty_tasks, probe)


def _metrics(m: Matrices, stages: list[StagePredictions], tasks: Tasks) -> dict[str, Metric]:
    return {
        "stage_pooled": d.stage_pooled(m),
        "stage_task_mean": d.stage_task_mean(m),
        "last_pooled": d.last_pooled(m),
        "last_task_mean": d.last_task_mean(m),
        "avg_inc_pooled": d.avg_inc_pooled(m),
        "avg_inc_task_mean": d.avg_inc_task_mean(m),
        "last_macro": diagnosis.last_macro(stages, tasks),
        "forgetting": d.forgetting(m),
        "forgetting_union": d.forgetting_union(m),
        "bwt": d.bwt(m),
        "bwt_union": d.bwt_union(m),
        "fwt": d.fwt(m),
        "fwt_raw": d.fwt_raw(m),
        "ci_transfer": d.ci_transfer(m),
        "transfer": d.transfer(m),
        "average": d.average(m),
        "last_union": d.last_union(m),
        "transfer_over_zero_shot": d.transfer_over_zero_shot(m),
        "ece_seen": diagnosis.ece_seen(stages, tasks),
        "ece_unseen": diagnosis.ece_unseen(stages, tasks, m.no_union),
        "predicted_recent": diagnosis.predicted_recent(stages, tasks),
        "predicted_recent_fair": diagnosis.predicted_recent_fair(m),
    }


def _without_unseen(m: Matrices, why: str) -> Matrices:
    """Only learnt classes can be scored: among these, the union is what was seen."""
    learnt = np.tri(m.tasks, dtype=bool)
    stored = np.where(np.isnan(m.union), m.seen, m.union)
    return replace(m, union=np.where(learnt, stored, np.nan), no_union=why)


def _without_text(m: Matrices, missing: int) -> Matrices:
    plural = "class has" if missing == 1 else "classes have"
    why = f"{missing} {plural} no text vector"
    blank = np.full(m.tasks, np.nan)
    return replace(_without_unseen(m, why), zero_shot=blank, no_zero_shot=why)


def _plain(table: Table) -> list[Any]:
    if table.ndim > 1:
        return [_plain(row) for row in table]
    return [_number(value) for value in table.tolist()]


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
