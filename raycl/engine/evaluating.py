"""Predicts every test sample of every task, in both label spaces, and keeps the ranking.

Test vectors go through in fixed chunks, so that what a sample scores does not depend on
how many others there are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from raycl.engine.contract import scores_of
from raycl.methods.method import Method, Setting
from raycl.metrics.predictions import (
    ZERO_SHOT_STAGE,
    Ranking,
    StagePredictions,
    no_ranking,
    rank,
)
from raycl.streams.stream import Samples, Stream, joined

CHUNK = 2048


@dataclass(frozen=True)
class Tests:
    """The tests of all tasks, and the task that each is of."""

    samples: Samples
    task: NDArray[np.int64]

    @classmethod
    def of(cls, stream: Stream) -> Tests:
        """One task after the other."""
        tests = [task.test for task in stream.tasks]
        return cls(joined(tests), np.repeat(np.arange(len(tests)), [len(t) for t in tests]))


def predict_stage(
    method: Method[Any], stream: Stream, stage: int, tests: Tests, x: Tensor
) -> StagePredictions:
    """What the method predicts after task `stage`; `x` is what it scores for the tests."""
    test, task = tests.samples, tests.task
    device = method.setting.device
    known = task <= stage

    def seen_scores(x: Tensor) -> Tensor:
        return scores_of(method, "seen_scores", x, len(method.seen))

    def union_scores(x: Tensor) -> Tensor:
        return scores_of(method, "union_scores", x, stream.classes)

    # Later tasks' samples have no ranking among the classes seen so far.
    seen = _spread(ranked(x[known], np.asarray(method.seen), device, seen_scores), known)
    if method.scores_unseen:
        union = ranked(x, np.arange(stream.classes), device, union_scores)
    else:
        union = seen
    return StagePredictions.of(
        stage, sample=test.rows, task=task, label=test.y.numpy(), seen=seen, union=union
    )


def _spread(ranking: Ranking, rows: NDArray[np.bool_]) -> Ranking:
    """The ranking of some rows among all of them; the others have none."""
    whole = no_ranking(len(rows))
    for column, values in zip(whole, ranking, strict=True):
        column[rows] = values
    return whole


def predict_zero_shot(setting: Setting, stream: Stream) -> StagePredictions:
    """What the text vectors alone predict over the union, before any task."""
    tests = Tests.of(stream)
    test = tests.samples
    union = ranked(test.x, np.arange(stream.classes), setting.device, setting.zero_shot)
    return StagePredictions.of(
        ZERO_SHOT_STAGE,
        sample=test.rows,
        task=tests.task,
        label=test.y.numpy(),
        seen=no_ranking(len(test)),
        union=union,
    )


@torch.no_grad()
def ranked(
    x: Tensor, classes: Any, device: torch.device, scores: Callable[[Tensor], Tensor]
) -> Ranking:
    if len(x) == 0:
        return no_ranking(0)
    parts = [
        rank(scores(chunk.to(device)).float().cpu().numpy(), classes)
        for chunk in torch.split(x, CHUNK)
    ]
    return Ranking(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def to_table(predictions: StagePredictions) -> pa.Table:
    """Predictions as an Arrow table: one row per sample, rankings as fixed lists."""
    columns = {}
    for name, values in predictions.to_columns().items():
        if values.ndim == 1:
            columns[name] = pa.array(values)
        else:
            flat = pa.array(values.reshape(-1))
            columns[name] = pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
    return pa.table(columns)


def from_table(table: pa.Table) -> StagePredictions:
    """The inverse of `to_table`."""
    columns = {}
    for name in table.column_names:
        column = table[name].combine_chunks()
        flat = column.flatten() if pa.types.is_fixed_size_list(column.type) else column
        columns[name] = flat.to_numpy(zero_copy_only=False)
    return StagePredictions.from_columns(columns)
