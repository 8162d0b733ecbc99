"""Which rows a trainer sees, and in which order.

Guarantees: an order is a function of (seed, epoch) and of the rows' identity alone: how they
were packed, and in which order classes were added, do not move it. `Quota` and `Reservoir`
choose by a random priority that belongs to the row, so a row they once dropped never comes
back as more is added, and a reservoir is an exact uniform sample of all that was added so far.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import assert_never

import numpy as np
from numpy.typing import NDArray

from raycl.config.seeds import rng
from raycl.errors import ConfigError
from raycl.replay.shards import Ints

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Shuffled:
    """Every row once per epoch."""


@dataclass(frozen=True)
class Balanced:
    """Every class equally often: any run of C rows that begins at a multiple of C, the number
    of classes, holds each of them once.

    `per_class` rows of each class per epoch; null: the mean class size, rounded up. Rows of a
    smaller class repeat equally often, those of a larger class take turns over the epochs.
    """

    per_class: int | None = None


@dataclass(frozen=True)
class Quota:
    """At most `per_class` rows of each class, the same in every epoch, each once per epoch."""

    per_class: int


@dataclass(frozen=True)
class Reservoir:
    """A uniform sample of `size` of all the rows, the same in every epoch, each once per epoch."""

    size: int


Sampling = Shuffled | Balanced | Quota | Reservoir


@dataclass(frozen=True)
class Shard:
    """All rows that one addition gave a class of a task."""

    task: int
    class_id: int
    addition: int
    """0 for the first addition to this class of this task, then 1, …"""
    rows: int


class Order:
    """The order of rows for every epoch. Rows count through the shards as they are given."""

    def __init__(self, sampling: Sampling, shards: Sequence[Shard], seed: int) -> None:
        _check(sampling)
        self._sampling, self._seed = sampling, seed
        sizes = [shard.rows for shard in shards]
        class_ids = np.array([shard.class_id for shard in shards], np.int64)
        _, places = np.unique(class_ids, return_inverse=True)
        # 16 bits where they suffice, because those NumPy sorts by radix.
        narrow = np.uint16 if len(places) < 2**16 else np.int64
        self._class_of = np.repeat(places.astype(narrow), sizes)
        self._chosen = self._choose(shards)

    def __len__(self) -> int:
        """Rows per epoch."""
        match self._sampling:
            case Balanced():
                classes = int(self._class_of.max()) + 1
                return classes * self._per_class(classes)
            case _:
                return len(self._chosen)

    def epoch(self, number: int) -> Ints:
        """The rows of an epoch, in their order."""
        random = rng(self._seed, "replay order", number)
        if isinstance(self._sampling, Balanced):
            return self._rounds(random)
        return self._chosen[random.permutation(len(self._chosen))]

    def _choose(self, shards: Sequence[Shard]) -> Ints:
        match self._sampling:
            case Shuffled() | Balanced():
                return np.arange(len(self._class_of))
            case Reservoir(size):
                # Canonical order is that of the index, so ties (2^-53) are settled too.
                best = np.argsort(self._priorities(shards, "reservoir"), kind="stable")
                return np.sort(best[:size])
            case Quota(per_class):
                return self._first_of_each(self._priorities(shards, "quota"), per_class)
            case _:
                assert_never(self._sampling)

    def _priorities(self, shards: Sequence[Shard], purpose: str) -> Floats:
        """A uniform number for each row that depends on nothing but the row."""
        draws = [
            rng(self._seed, f"replay {purpose}", s.task, s.class_id, s.addition).random(s.rows)
            for s in shards
        ]
        return np.concatenate(draws)

    def _first_of_each(self, priorities: Floats, most: int) -> Ints:
        order = np.argsort(priorities, kind="stable")
        order = order[np.argsort(self._class_of[order], kind="stable")]
        counts = np.bincount(self._class_of)
        rank = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
        return np.sort(order[rank < most])

    def _rounds(self, random: np.random.Generator) -> Ints:
        """Round after round with one row of each class, in a new order of classes."""
        shuffled = random.permutation(len(self._class_of))
        grouped = shuffled[np.argsort(self._class_of[shuffled], kind="stable")]
        counts = np.bincount(self._class_of)
        starts = np.cumsum(counts) - counts
        turn = np.arange(self._per_class(len(counts)))[:, None]
        rounds = grouped[starts[None, :] + turn % counts[None, :]]
        return random.permuted(rounds, axis=1, out=rounds).ravel()

    def _per_class(self, classes: int) -> int:
        assert isinstance(self._sampling, Balanced)
        asked = self._sampling.per_class
        return asked if asked is not None else -(-len(self._class_of) // classes)


def _check(sampling: Sampling) -> None:
    match sampling:
        case Shuffled() | Balanced(None):
            return
        case Balanced(per_class=size) | Quota(per_class=size) | Reservoir(size=size):
            if isinstance(size, int) and size >= 1:
                return
            raise ConfigError(
                f"{type(sampling).__name__} needs a whole number of rows, 1 or more", got=size
            )
        case _:
            raise ConfigError(
                "not a way to sample a replay buffer",
                got=sampling,
                do="use Shuffled(), Balanced(), Quota(per_class) or Reservoir(size)",
            )
