"""Predictions made up for tests: from scores, or to give matrices that are wanted."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from raycl.metrics.predictions import Ranking, StagePredictions, no_ranking, rank

Tasks = list[list[int]]


def from_scores(
    stages: dict[int, NDArray[np.floating]], label: NDArray[np.int32], tasks: Tasks
) -> list[StagePredictions]:
    """Each stage's (n, classes) scores, columns in the order of the tasks' classes."""
    classes = np.array([c for task in tasks for c in task], dtype=np.int32)
    owner = np.array([t for t, task in enumerate(tasks) for _ in task], dtype=np.int32)
    task = owner[np.argsort(classes)[np.searchsorted(np.sort(classes), label)]]
    made = []
    for stage, scores in stages.items():
        known = owner <= stage
        seen = rank(scores[:, known], classes[known])
        made.append(
            StagePredictions.of(
                stage,
                sample=np.arange(len(label)),
                task=task,
                label=label,
                seen=seen,
                union=rank(scores, classes),
            )
        )
    return made


def from_hits(
    seen: list[list[int]],
    union: list[list[int]] | None,
    zero_shot: list[int] | None,
    counts: list[int],
) -> tuple[list[StagePredictions], Tasks]:
    """Predictions with `seen[i][j]` right ones after task i among the `counts[j]` of task j.

    Task j has the classes 10j and 10j + 1; the label is always the first, a wrong
    prediction is always class 1 of task 0.
    """
    tasks = [[10 * j, 10 * j + 1] for j in range(len(counts))]
    task = np.repeat(np.arange(len(counts)), counts)
    label = 10 * task
    made = [] if zero_shot is None else [_stage(-1, task, label, None, zero_shot)]
    for i, row in enumerate(seen):
        made.append(_stage(i, task, label, row, union[i] if union else None))
    return made, tasks


def _stage(stage, task, label, seen, union) -> StagePredictions:
    def ranking(right: list[int] | None) -> Ranking:
        if right is None:
            return no_ranking(len(task))
        place = np.concatenate([np.arange(n) for n in np.bincount(task)])
        hit = place < np.array([*right, *[0] * len(task)])[task]
        top = np.full((len(task), 5), -1, np.int32)
        top[:, 0] = np.where(hit, label, 1)
        score = np.where(top >= 0, 0.0, np.nan).astype(np.float32)
        return Ranking(top, score, np.zeros(len(task), np.float32))

    return StagePredictions.of(
        stage,
        sample=np.arange(len(task)),
        task=task,
        label=label,
        seen=ranking(seen),
        union=ranking(union),
    )
