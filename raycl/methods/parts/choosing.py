"""Choosing among a few candidates by held-out samples, as tasks arrive.

A candidate is judged on a task's held-out samples when they come, among the classes seen by
then; only counts of right answers are kept. Which tasks may choose is `validation.scope`. Where
a sum over samples scores a class, candidates must be judged with every class's `fit` samples
alone: beside classes that have their held-out samples back, the task's would look small.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from raycl.config.streams import Validation
from raycl.methods.parts.keys import positions
from raycl.streams.stream import Task


def in_scope(validation: Validation, task: Task) -> bool:
    """Whether this task is one of those that choose."""
    return validation.scope == "all" or task.index < validation.first_k


def may_choose(validation: Validation, task: Task) -> bool:
    """Whether this task's held-out samples may choose something, and there are any."""
    return in_scope(validation, task) and len(task.held_out) > 0 and len(task.fit) > 0


def right_answers(
    scores: Iterable[Tensor], y: Tensor, seen: tuple[int, ...], classes: int
) -> Tensor:
    """How many samples each candidate's (n, len(seen)) scores get right."""
    target = positions(seen, classes)[y.cpu()]
    return torch.stack([(s.argmax(dim=1).cpu() == target).sum() for s in scores])


def middle_of_best(right: Tensor) -> tuple[int, ...]:
    """Of the candidates with most right answers, the one in their middle, by its place in a
    grid of any dimensions: few samples leave plateaus."""
    best = torch.nonzero(right == right.max())
    distance = (best - best.double().mean(dim=0)).square().sum(dim=1)
    middle: list[int] = best[int(distance.argmin())].tolist()
    return tuple(middle)
