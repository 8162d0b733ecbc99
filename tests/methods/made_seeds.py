"""Seeds, adapters and streams of a few classes, for the tests of Auto-Seed."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from raycl.compute.local_pool import LocalPool
from raycl.config.autoseed import Adapt, AutoSeed, SeedUpdate
from raycl.config.streams import Validation
from raycl.methods.context import Context
from raycl.methods.method import Method, Setting, State
from raycl.methods.parts.keys import unit
from raycl.methods.parts.seed_adapters import Adapters
from raycl.methods.parts.seeds import (
    Seeds,
    fused,
)
from raycl.observe.events import nobody
from raycl.streams.stream import Samples, Task

CPU = torch.device("cpu")
WIDTH, CLASSES, PER_TASK, TASKS = 24, 12, 3, 4
SCALE = 20.0


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def short(**changes: Any) -> AutoSeed:
    small = {
        "hidden": 32,
        "noise": 8,
        "rank": 4,
        "adapt": Adapt(batch=8),
        "update": SeedUpdate(steps=15, lr=1e-3),
    }
    return AutoSeed(**{**small, **changes})


def made(samples: int = 12, off: float = 1.0, spread: float = 0.6) -> tuple[Setting, list[Task]]:
    """Classes around centres, with text that is off by so much; three classes a task."""
    centre = unit(noise(CLASSES, WIDTH, seed=1))
    text = unit(centre + off * noise(CLASSES, WIDTH, seed=2) / math.sqrt(WIDTH))
    setting = Setting(
        class_names=tuple(f"thing {c}" for c in range(CLASSES)),
        text=text,
        has_text=torch.ones(CLASSES, dtype=torch.bool),
        logit_scale=SCALE,
        init_seed=0,
        validation=Validation(seed=0),
        device=CPU,
    )

    def part(classes: tuple[int, ...], each: int, seed: int) -> Samples:
        y = torch.tensor(classes).repeat_interleave(each)
        shift = noise(CLASSES * each, WIDTH, seed=seed).view(CLASSES, each, WIDTH)
        x = centre[y] + spread * shift[list(classes)].flatten(0, 1) / math.sqrt(WIDTH)
        return Samples(x, y, y.numpy())

    order = torch.randperm(CLASSES, generator=torch.Generator().manual_seed(5)).tolist()
    tasks = []
    for index in range(TASKS):
        classes = tuple(order[index * PER_TASK : (index + 1) * PER_TASK])
        train, test = part(classes, samples, 3), part(classes, 40, 4)
        tasks.append(Task(index, classes, train=train, fit=train, held_out=test, test=test))
    return setting, tasks


def learn(method: Method[Any], tasks: list[Task], **lent: Any) -> Any:
    for task in tasks:
        method.seen = (*method.seen, *task.classes)
        method.learn(task.without_test(), Context(task.index, LocalPool(), nobody, **lent))
    return method


def accuracy(method: Method[Any], tasks: list[Task]) -> float:
    x, y = (torch.cat([getattr(task.test, side) for task in tasks]) for side in "xy")
    found = torch.tensor(method.seen)[method.seen_scores(x).argmax(dim=1)]
    return float((found == y).float().mean())


def same(a: State, b: State) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def some_adapters(seed: int = 0, rank: int = 3) -> Adapters:
    shapes = [(rank, WIDTH), (WIDTH, rank)] * 2
    return Adapters(*(0.2 * noise(*shape, seed=seed + i) for i, shape in enumerate(shapes)))


def some_seeds(count: int, classes: int, seed: int = 0) -> Seeds:
    v, w = (unit(noise(count, WIDTH, seed=seed + side)) for side in (10, 20))
    return Seeds(v, w, torch.arange(count) % classes)


def keys_over(text: Tensor, weight: float = 0.5) -> Any:
    return lambda adapters, mean_w: adapters.text(fused(text, mean_w, weight))
