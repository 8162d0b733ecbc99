"""How a source becomes tasks: class order, shots, validation, task sizes. Pure functions.

Each class draws from a stream of its own, named by the data set's class id, so neither
class order nor the other classes move what a class keeps.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import chain, repeat
from typing import Literal

import numpy as np

from raycl.config.seeds import rng
from raycl.config.streams import StreamSpec
from raycl.errors import ConfigError
from raycl.streams.source import Ints

DEFAULT_TASKS = 10
Order = Literal["mammoth", "pycil", "source"]


def class_order(classes: int, order_seed: int, order: Order = "mammoth") -> list[int]:
    """Class ids in the order they arrive, as published code permutes them.

    With p = `RandomState(seed).permutation(n)`: in mammoth and CGIL class c becomes number
    p[c]; in PyCIL and iCaRL class p[0] comes first.
    """
    if order == "source":
        return list(range(classes))
    permuted = np.random.RandomState(order_seed).permutation(classes)
    return [int(c) for c in (permuted if order == "pycil" else np.argsort(permuted))]


def cut(order: list[int], tasks: int) -> list[list[int]]:
    """Equal steps with the remainder last (196 in 10: 9×20 + 16); where that would leave
    a task empty, sizes that differ by one at most."""
    step = -(-len(order) // tasks)
    if step * (tasks - 1) < len(order):
        return [order[i : i + step] for i in range(0, len(order), step)]
    return [[int(c) for c in part] for part in np.array_split(np.asarray(order), tasks)]


def cut_by_size(order: list[int], increments: Sequence[int]) -> list[list[int]]:
    """Tasks of these sizes, the last of which goes on until no class is left."""
    parts, first = [], 0
    for size in chain(increments, repeat(increments[-1])):
        if first >= len(order):
            break
        parts.append(order[first : first + size])
        first += size
    if len(parts) < len(increments):
        raise ConfigError(
            "more increments than there are classes for",
            got=f"stream.increments={list(increments)} for {len(order)} classes",
            do="leave the last ones out",
        )
    return parts


def task_classes(
    class_domain: Ints, domains: int, spec: StreamSpec, order_seed: int
) -> list[list[int]]:
    """Which classes each task brings."""
    classes = len(class_domain)
    if spec.per_domain is not None:
        return [
            part
            for d in range(domains)
            for part in _within(np.flatnonzero(class_domain == d), spec, order_seed)
        ]
    if spec.increments is not None:
        return cut_by_size(class_order(classes, order_seed, spec.order), spec.increments)
    if is_by_domain(spec, domains):
        parts = [np.flatnonzero(class_domain == d).tolist() for d in range(domains)]
        return [part for part in parts if part]
    tasks = spec.tasks or min(DEFAULT_TASKS, classes)
    if tasks > classes:
        raise ConfigError(
            "more tasks than classes",
            got=f"stream.tasks={tasks} for {classes} classes",
            do=f"set stream.tasks to {classes} or fewer",
        )
    return cut(class_order(classes, order_seed, spec.order), tasks)


def is_by_domain(spec: StreamSpec, domains: int) -> bool:
    """Whether each domain is one task, as in X-TAIL."""
    asked = (spec.tasks, spec.increments, spec.per_domain)
    return domains > 1 and all(one is None for one in asked)


def _within(domain: Ints, spec: StreamSpec, order_seed: int) -> list[list[int]]:
    """The tasks of one of several domains."""
    assert spec.per_domain is not None
    if spec.per_domain > len(domain):
        raise ConfigError(
            "more tasks than classes in a domain",
            got=f"stream.per_domain={spec.per_domain} for {len(domain)} classes",
            do=f"set stream.per_domain to {len(domain)} or fewer",
        )
    order = class_order(len(domain), order_seed, spec.order)
    return [[int(domain[c]) for c in part] for part in cut(order, spec.per_domain)]


def rows_by_class(y: Ints, classes: int) -> list[Ints]:
    """The row numbers of each class, in file order."""
    order = np.argsort(y, kind="stable")
    ends = np.cumsum(np.bincount(y, minlength=classes))
    return np.split(order, ends[:-1])


def draw_shots(rows: Ints, class_id: int, shots: int | None, shot_seed: int) -> Ints:
    """At most `shots` of a class's rows."""
    if shots is None or len(rows) <= shots:
        return rows
    keep = rng(shot_seed, "shots", class_id).permutation(len(rows))[:shots]
    return rows[np.sort(keep)]


def hold_out(
    rows: Ints, class_id: int, fraction: float, val_seed: int, purpose: str = "validation"
) -> tuple[Ints, Ints]:
    """(fit, held out) rows of a class: at least one is held out where two or more exist."""
    if len(rows) < 2:
        return rows, rows[:0]
    held = min(len(rows) - 1, max(1, round(fraction * len(rows))))
    shuffled = rng(val_seed, purpose, class_id).permutation(len(rows))
    return rows[np.sort(shuffled[held:])], rows[np.sort(shuffled[:held])]


def set_aside(names: Sequence[str], fraction: float) -> list[bool]:
    """Which of a class's samples are for testing, where the set does not say.

    By the hash of their names, so the order in which they were found moves nothing; at
    least one is set aside and one is kept where there are two or more.
    """
    if len(names) < 2:
        return [False] * len(names)
    count = min(len(names) - 1, max(1, round(fraction * len(names))))
    hashes = [hashlib.sha256(name.encode(errors="surrogateescape")).digest() for name in names]
    chosen = set(sorted(range(len(names)), key=hashes.__getitem__)[:count])
    return [i in chosen for i in range(len(names))]
