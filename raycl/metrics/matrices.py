"""The complete accuracy matrices of a run, and why an entry is undefined.

`seen[i, j]` is the accuracy on task j after task i over the classes seen so far (j <= i),
`union[i, j]` the same over all classes of the stream, `zero_shot[j]` the backbone's before
any task. Guarantees: percent, nan where undefined and never a masked zero; predictions
that contradict each other or the tasks are refused. It defines no metric.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raycl.errors import DataError, MethodError
from raycl.metrics.predictions import NO_CLASS, ZERO_SHOT_STAGE, Ints, StagePredictions

Table = NDArray[np.float64]
Tasks = Sequence[Sequence[int]]

NO_RULE = "the method has no rule for classes it has not learnt"


@dataclass(frozen=True, eq=False)
class Matrices:
    """Percent of right predictions by stage and task; nan where undefined."""

    seen: Table
    union: Table
    zero_shot: Table
    counts: NDArray[np.int64]
    """Test samples of each task."""
    no_union: str | None = None
    """Why classes that are not learnt yet cannot be scored, if they cannot."""
    no_zero_shot: str = "the zero-shot backbone was not evaluated"

    @property
    def tasks(self) -> int:
        """How many tasks the stream has."""
        return len(self.counts)

    @property
    def empty_tasks(self) -> list[int]:
        """Tasks without any test sample."""
        return [int(j) for j in np.flatnonzero(self.counts == 0)]

    def why_undefined(self, cells: NDArray[np.bool_], table: Table) -> str | None:
        """Why an entry among the `cells` of `table` is undefined, or None if all are there."""
        gaps = np.argwhere(cells & np.isnan(table))
        if not len(gaps):
            return None
        if empty := [j for j in self.empty_tasks if cells[..., j].any()]:
            return f"task {empty[0] + 1} has no test samples"
        if table is self.zero_shot:
            return self.no_zero_shot
        later = gaps[gaps[:, 1] > gaps[:, 0]]
        if self.no_union and len(later):
            return self.no_union
        i, j = (int(index) for index in gaps[0])
        return f"task {j + 1} was not evaluated after task {i + 1}"


def hits(top: Ints, label: Ints) -> NDArray[np.bool_]:
    """Whether the first class of each ranking is the label."""
    right: NDArray[np.bool_] = top[:, 0] == label
    return right


def accuracy_matrices(stages: Sequence[StagePredictions], tasks: Tasks) -> Matrices:
    """The matrices of a run: one `StagePredictions` for each task, and -1 for zero-shot.

    A stage that is missing, as in a run that is not done, leaves its row undefined.
    """
    check(stages, tasks)
    T = len(tasks)
    counts = np.bincount(stages[0].task, minlength=T)
    seen, union = np.full((T, T), np.nan), np.full((T, T), np.nan)
    zero_shot = np.full(T, np.nan)
    for p in stages:
        if p.stage == ZERO_SHOT_STAGE:
            zero_shot[:] = _by_task(p.union_top, p, counts)
        else:
            seen[p.stage] = _by_task(p.seen_top, p, counts)
            union[p.stage] = _by_task(p.union_top, p, counts)
    return Matrices(seen, union, zero_shot, counts)


def _by_task(top: Ints, p: StagePredictions, counts: NDArray[np.int64]) -> Table:
    T = len(counts)
    ranked = np.bincount(p.task[top[:, 0] != NO_CLASS], minlength=T)
    if (half := (ranked > 0) & (ranked < counts)).any():
        j = int(np.flatnonzero(half)[0])
        raise MethodError(
            f"after stage {p.stage} only some samples of task {j + 1} have a prediction",
            got=f"{ranked[j]} of {counts[j]}",
            do="score every test sample of a task, or none",
        )
    right = np.bincount(p.task[hits(top, p.label)], minlength=T)
    defined = (ranked > 0) & (counts > 0)
    row: Table = np.full(T, np.nan)
    row[defined] = 100.0 * right[defined] / counts[defined]
    return row


def check(stages: Sequence[StagePredictions], tasks: Tasks) -> None:
    """Refuse predictions that contradict each other or the tasks."""
    if not stages or not tasks or not len(stages[0].sample):
        raise DataError("there are no tasks, or no predictions of test samples, to evaluate")
    numbers = [p.stage for p in stages]
    if len(set(numbers)) < len(numbers) or not set(numbers) <= {-1, *range(len(tasks))}:
        raise DataError(
            "every stage must be given once, from -1 (zero-shot) up to the last task",
            got=f"stages {sorted(numbers)} of {len(tasks)} tasks",
        )
    owner = task_of_class(tasks)
    _check_labels(stages[0], owner)
    first = _samples(stages[0])
    for p in stages:
        if not np.array_equal(_samples(p), first):
            raise DataError(
                f"stages {stages[0].stage} and {p.stage} were not evaluated on the same samples",
                do="evaluate every stage on the whole test set",
            )
        _check_classes(p, owner)


def task_of_class(tasks: Tasks) -> dict[int, int]:
    """The task in which each class of the stream is learnt."""
    owner = {c: t for t, classes in enumerate(tasks) for c in classes}
    if len(owner) < sum(len(classes) for classes in tasks):
        raise DataError("a class belongs to two tasks", do="give each class to one task")
    if min(owner, default=0) < 0:
        raise DataError("class ids must not be negative", got=min(owner))
    return owner


def _samples(p: StagePredictions) -> NDArray[Any]:
    order = np.argsort(p.sample, kind="stable")
    return np.stack([p.sample, p.task, p.label])[:, order]


def _check_labels(p: StagePredictions, owner: dict[int, int]) -> None:
    if len(np.unique(p.sample)) < len(p.sample):
        raise DataError("a test sample is predicted twice in one stage")
    for label, task in np.unique(np.stack([p.label, p.task]), axis=1).T.tolist():
        if owner.get(label) != task:
            raise DataError(f"class {label} is not of task {task}", got=owner.get(label))


def _check_classes(p: StagePredictions, owner: dict[int, int]) -> None:
    seen = [c for c, task in owner.items() if task <= p.stage]
    for name, top, allowed in (("seen", p.seen_top, seen), ("union", p.union_top, list(owner))):
        if strange := set(np.unique(top).tolist()) - {NO_CLASS, *allowed}:
            raise MethodError(
                f"after stage {p.stage} the {name} ranking holds a class that it cannot hold",
                got=f"class {min(strange)}",
            )
    if (p.seen_top[p.task > p.stage] != NO_CLASS).any():
        raise MethodError(
            f"after stage {p.stage} a sample of a later task is ranked among the seen classes"
        )
