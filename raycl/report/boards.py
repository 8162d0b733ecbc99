"""Results that may stand side by side: one board for each label space.

Guarantees: the settings of a board share the data, its classes, the number of tasks, the
stream's options, the backbone and the protocol, whatever their names say, so that no
figure mixes label spaces. Means over runs are null where any run is.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from typing import Any

from raycl.report.leaderboard import NOT_RECORDED, Cell, Result, Setting, settings, summary

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


def task_count(run: Result) -> int:
    """The number of tasks of a result."""
    return len(run.get("tasks") or run.get("r_seen") or ())


def boards(results: Iterable[Result]) -> list[Board]:
    """The results by label space, in the order of the leaderboard."""
    groups: dict[tuple[str, ...], list[Setting]] = {}
    for setting in settings(results):
        words = (setting.stream, setting.backbone, setting.protocol)
        groups.setdefault((*words, _label_space(setting.runs[0])), []).append(setting)
    shown = Counter(key[:-1] for key in groups)
    return [
        Board(f"{key[0]} #{key[-1][:4]}" if shown[key[:-1]] > 1 else key[0], group)
        for key, group in groups.items()
    ]


def _label_space(run: Result) -> str:
    """A digest of what must be equal for two accuracies to be comparable, seeds aside."""
    experiment = run.get("experiment") or {}
    stream = dict(experiment.get("stream") or {})
    for seed in ("order_seed", "shot_seed"):
        stream.pop(seed, None)
    parts = [
        stream,
        experiment.get("backbone"),
        run.get("contents"),
        run.get("weights"),
        sorted(run.get("class_names") or ()),
        task_count(run),
    ]
    return sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


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
