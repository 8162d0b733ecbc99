"""Results that may stand side by side: one board for each label space.

Guarantees: the settings of a board share the data, its classes, the number of tasks, the
stream's options, the backbone and the protocol, whatever their names say, so that no
figure mixes label spaces. Means over runs are null where any run is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from raycl.report.leaderboard import (
    NOT_RECORDED,
    Cell,
    Result,
    Setting,
    settings,
    summary,
    task_count,
)

REFERENCE = "zero_shot"
"""The method that the others are held against."""


@dataclass(frozen=True)
class Board:
    """Settings in one label space, in the order of the leaderboard."""

    name: str
    settings: list[Setting]

    @property
    def first(self) -> Setting:
        """The setting that stands for what all of them share."""
        return self.settings[0]

    @cached_property
    def runs(self) -> list[Result]:
        """All runs of all settings."""
        return [run for setting in self.settings for run in setting.runs]

    @cached_property
    def tasks(self) -> int:
        """How many tasks the stream has; 0 if no result says."""
        return max(map(task_count, self.runs))

    @cached_property
    def reference(self) -> Setting | None:
        """The frozen zero-shot model, if it was run."""
        return next((s for s in self.settings if is_reference(s)), None)


def is_reference(setting: Setting) -> bool:
    """Whether this is the frozen zero-shot model."""
    return all(run["method"] == REFERENCE for run in setting.runs)


def boards(results: Iterable[Result]) -> list[Board]:
    """The results by label space, in the order of the leaderboard."""
    groups: dict[tuple[str, ...], list[Setting]] = {}
    for setting in settings(results):
        words = (setting.stream, setting.backbone, setting.protocol)
        groups.setdefault(words, []).append(setting)
    return [Board(stream, group) for (stream, *_), group in groups.items()]


def mean_list(values: Sequence[Any], length: int) -> list[Cell]:
    """Place by place, mean and deviation of lists that may hold nulls or be missing."""
    return [
        summary([_entry(value, (place,)) for value in values], NOT_RECORDED)
        for place in range(length)
    ]


def mean_table(values: Sequence[Any], size: int) -> list[list[float | None]]:
    """Entry by entry, the mean of square tables that may hold nulls or be missing."""
    return [
        [_mean([_entry(value, (i, j)) for value in values]) for j in range(size)]
        for i in range(size)
    ]


def _mean(values: Sequence[float | None]) -> float | None:
    numbers = [value for value in values if value is not None]
    return None if len(numbers) < len(values) else math.fsum(numbers) / len(numbers)


def _entry(value: Any, place: tuple[int, ...]) -> float | None:
    for index in place:
        if not isinstance(value, list) or index >= len(value):
            return None
        value = value[index]
    return value if isinstance(value, int | float) else None
