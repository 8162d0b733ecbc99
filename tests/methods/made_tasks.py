"""A small setting and its tasks, cut as one likes: the same samples whatever the cut."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from raycl.compute.local_pool import LocalPool
from raycl.config.seeds import rng
from raycl.config.streams import Validation
from raycl.methods.context import Context
from raycl.methods.method import Method, Setting
from raycl.methods.parts.keys import unit
from raycl.observe.events import nobody
from raycl.streams.stream import Samples, Task

CLASSES, WIDTH = 6, 16
CARS = Path(os.environ.get("RAYCL_DATA", "")) / "clip_vitb32" / "stanford_cars.npz"
"""Real CLIP embeddings, where they are at hand."""


def made_setting(noise: float = 0.5) -> Setting:
    """Text at so much noise from where `made_tasks` puts the classes."""
    off = rng(0, "made text").normal(size=(CLASSES, WIDTH))
    return Setting(
        class_names=tuple(f"class {c}" for c in range(CLASSES)),
        text=unit(torch.from_numpy(_centres() + noise * off).float()),
        has_text=torch.ones(CLASSES, dtype=torch.bool),
        logit_scale=100.0,
        init_seed=0,
        validation=Validation(seed=0),
        device=torch.device("cpu"),
    )


def cars(classes: int, tasks: int) -> tuple[Setting, list[Task]]:
    """The first classes of Stanford Cars, a quarter of the samples held out."""
    with np.load(CARS, allow_pickle=False) as file:
        parts = {name: file[name] for name in ("train_x", "train_y", "test_x", "test_y", "text")}
    text = unit(torch.from_numpy(parts["text"][:classes]).float())
    setting = Setting(
        class_names=tuple(f"car {c}" for c in range(classes)),
        text=text,
        has_text=torch.ones(classes, dtype=torch.bool),
        logit_scale=100.0,
        init_seed=0,
        validation=Validation(seed=0),
        device=torch.device("cpu"),
    )

    def samples(split: str, own: Any, rows: slice = slice(None)) -> Samples:
        at = [np.flatnonzero(parts[f"{split}_y"] == c)[rows] for c in own]
        every = np.concatenate(at)
        x = torch.from_numpy(parts[f"{split}_x"][every]).float()
        return Samples(x, torch.from_numpy(parts[f"{split}_y"][every]).long(), every)

    order = rng(0, "cars order").permutation(classes)
    cut = [tuple(int(c) for c in own) for own in np.array_split(order, tasks)]
    made = [
        Task(
            index,
            own,
            train=samples("train", own),
            fit=samples("train", own, slice(4, None)),
            held_out=samples("train", own, slice(0, 4)),
            test=samples("test", own),
        )
        for index, own in enumerate(cut)
    ]
    return setting, made


@dataclass(frozen=True)
class MadeTask(Task):
    """A task that can be had without held-out samples."""

    def held_out_none(self) -> Samples:
        return self.without_test().test


def made_tasks(
    setting: Setting, cut: Sequence[tuple[int, ...]], train: int = 12, noise: float = 0.3
) -> list[Task]:
    """One task for each part of the cut; `fit` and `held_out` share out `train`."""
    tasks: list[Task] = []
    for index, classes in enumerate(cut):
        whole = [_samples(c, "train", train, noise) for c in classes]
        keep = max(1, train // 4)
        test = [_samples(c, "test", 20, noise) for c in classes]
        tasks.append(
            MadeTask(
                index,
                tuple(classes),
                train=_joined(whole),
                fit=_joined([_rows(s, slice(keep, None)) for s in whole]),
                held_out=_joined([_rows(s, slice(0, keep)) for s in whole]),
                test=_joined(test),
            )
        )
    return tasks


def learn(method: Method[Any], tasks: Sequence[Task], start: int = 0, **lent: Any) -> Method[Any]:
    """The method after the tasks from `start` on."""
    for task in tasks[start:]:
        method.seen = tuple(c for t in tasks[: task.index + 1] for c in t.classes)
        method.learn(task.without_test(), Context(task.index, LocalPool(), nobody, **lent))
    return method


def accuracy(method: Method[Any], tasks: Sequence[Task]) -> float:
    """Over all tests of these tasks, among the classes seen."""
    x = torch.cat([task.test.x for task in tasks])
    y = torch.cat([task.test.y for task in tasks])
    found = torch.tensor(method.seen)[method.seen_scores(x).argmax(dim=1)]
    return float((found == y).float().mean())


def without(task: Task, c: int) -> Task:
    """The task with no sample of a class."""
    drop = {name: _dropped(getattr(task, name), c) for name in ("train", "fit", "held_out")}
    return replace(task, **drop)


def _dropped(samples: Samples, c: int) -> Samples:
    keep = samples.y != c
    return Samples(samples.x[keep], samples.y[keep], samples.rows[keep.numpy()])


def _centres() -> Any:
    return rng(0, "made centres").normal(size=(CLASSES, WIDTH))


def _samples(c: int, split: str, n: int, noise: float) -> Samples:
    off = rng(0, "made", split, c).normal(size=(n, WIDTH))
    x = torch.from_numpy(_centres()[c] + 3 * noise * off).float()
    return Samples(x, torch.full((n,), c), 1000 * c + np.arange(n))


def _rows(samples: Samples, rows: slice) -> Samples:
    return Samples(samples.x[rows], samples.y[rows], samples.rows[rows])


def _joined(parts: Sequence[Samples]) -> Samples:
    return Samples(
        torch.cat([p.x for p in parts]),
        torch.cat([p.y for p in parts]),
        np.concatenate([p.rows for p in parts]),
    )
