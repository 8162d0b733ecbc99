"""How a class's rows are cut into batches, and packs of classes that are cut alike.

Guarantees: every row is met once per epoch; a class's batches depend on its own number of
rows alone. A last batch of one row is merged with the one before, because statistics over one
row are none; the published loop skips it, and with it a row.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from raycl.generators.noise import generator


def batch_count(rows: int, batch: int) -> int:
    """Batches of an epoch."""
    whole, rest = divmod(rows, batch)
    lone = rest == 1 and whole > 0
    return max(1, whole + (rest > 0) - lone)


def batch_slices(rows: int, batch: int) -> list[slice]:
    """The batches of an epoch as slices of its order."""
    count = batch_count(rows, batch)
    return [slice(i * batch, (i + 1) * batch if i + 1 < count else rows) for i in range(count)]


def epoch_order(stream: int, epoch: int, rows: int) -> Tensor:
    """The order in which a class's rows are met in an epoch."""
    return torch.randperm(rows, generator=generator(stream, "order", epoch))


def packs(sizes: Sequence[int], batch: int, width: int) -> list[tuple[int, ...]]:
    """Places of the classes, in packs of at most `width` that take equally many batches.

    So every class of a pack takes every step, and only rows need masking.
    """
    alike: dict[int, list[int]] = {}
    for place, size in enumerate(sizes):
        alike.setdefault(batch_count(size, batch), []).append(place)
    return [
        tuple(places[i : i + width])
        for _, places in sorted(alike.items())
        for i in range(0, len(places), width)
    ]
