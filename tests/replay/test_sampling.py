"""Which rows are drawn: counts that must be exact, and frequencies that must be uniform."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest

from raycl.replay.sampling import Balanced, Order, Quota, Reservoir, Shard, Shuffled

SHARDS = [Shard(0, 3, 0, 40), Shard(0, 5, 0, 7), Shard(1, 5, 0, 2), Shard(1, 8, 0, 1)]
CLASSES = np.repeat([3, 5, 5, 8], [40, 7, 2, 1])
CHI_SQUARE_999 = {49: 85.4, 99: 148.2}
"""The quantile that one in a thousand honest samples exceeds."""


def test_balanced_rounds_hold_each_class_once() -> None:
    order = Order(Balanced(12), SHARDS, seed=0)
    assert len(order) == 36
    for epoch in range(3):
        rows = order.epoch(epoch)
        assert [sorted(CLASSES[rows[i : i + 3]]) for i in range(0, 36, 3)] == [[3, 5, 8]] * 12
        times = Counter(rows.tolist())
        assert {times[row] for row in range(40)} == {0, 1}
        assert {times[row] for row in range(40, 49)} == {1, 2}
        assert times[49] == 12


def test_balanced_takes_turns_with_the_rows_of_a_large_class() -> None:
    order = Order(Balanced(12), SHARDS, seed=0)
    seen = {row for epoch in range(40) for row in order.epoch(epoch).tolist()}
    assert seen == set(range(50))


def test_balanced_epochs_are_as_long_as_the_buffer() -> None:
    assert len(Order(Balanced(), SHARDS, seed=0)) == 3 * 17  # 50 rows of 3 classes
    assert len(Order(Balanced(), SHARDS, seed=0).epoch(0)) == 51


def test_a_quota_is_the_same_in_every_epoch() -> None:
    order = Order(Quota(5), SHARDS, seed=0)
    epochs = [order.epoch(epoch) for epoch in range(3)]
    assert Counter(CLASSES[epochs[0]].tolist()) == {3: 5, 5: 5, 8: 1}
    assert len(order) == 11 and len(set(epochs[0].tolist())) == 11
    assert all(sorted(rows) == sorted(epochs[0]) for rows in epochs)
    assert epochs[0].tolist() != epochs[1].tolist()


def test_a_reservoir_larger_than_the_buffer_holds_all() -> None:
    assert sorted(Order(Reservoir(99), SHARDS, seed=0).epoch(0)) == list(range(50))
    assert sorted(Order(Quota(99), SHARDS, seed=0).epoch(0)) == list(range(50))


def test_a_reservoir_is_a_uniform_sample() -> None:
    draws, size = 2000, 10
    times = np.zeros(50)
    pairs = Counter[bool]()
    for seed in range(draws):
        kept = Order(Reservoir(size), SHARDS, seed=seed).epoch(0)
        assert len(set(kept.tolist())) == size
        times[kept] += 1
        pairs[0 in kept and 49 in kept] += 1
    expected = draws * size / 50
    # Rows of a sample without replacement vary less than independent ones.
    chi_square = ((times - expected) ** 2 / (expected * (1 - size / 50))).sum() * 49 / 50
    assert chi_square < CHI_SQUARE_999[49]
    assert abs(pairs[True] / draws - size * (size - 1) / (50 * 49)) < 0.013


def test_a_reservoir_follows_a_stream_of_additions() -> None:
    """What it dropped never comes back, and each prefix of the stream has its uniform sample."""
    shards = [Shard(task, task, 0, 20) for task in range(5)]
    times = np.zeros(100)
    for seed in range(1000):
        kept = [set(Order(Reservoir(10), shards[:n], seed).epoch(0).tolist()) for n in range(1, 6)]
        for n, (before, after) in enumerate(itertools.pairwise(kept), 1):
            assert {row for row in after if row < 20 * n} <= before
        times[list(kept[-1])] += 1
    chi_square = ((times - 100) ** 2 / (100 * 0.9)).sum() * 99 / 100
    assert chi_square < CHI_SQUARE_999[99]


def test_a_row_keeps_its_chance_whoever_is_its_neighbour() -> None:
    whole = Order(Reservoir(50), SHARDS, seed=4)._priorities(SHARDS, "reservoir")
    alone = Order(Reservoir(50), SHARDS[1:2], seed=4)._priorities(SHARDS[1:2], "reservoir")
    assert whole[40:47].tolist() == alone.tolist()


@pytest.mark.parametrize("sampling", [Shuffled(), Balanced(3)])
def test_every_order_of_rows_is_as_likely(sampling: Shuffled | Balanced) -> None:
    shards = [Shard(0, 0, 0, 3)]
    seen = Counter(tuple(Order(sampling, shards, 0).epoch(e).tolist()) for e in range(3000))
    assert len(seen) == 6
    assert sum((n - 500) ** 2 / 500 for n in seen.values()) < 20.5  # 5 degrees, 1 in 1000


def test_many_classes_of_many_sizes() -> None:
    sizes = np.random.default_rng(0).integers(1, 6, 70_000)
    shards = [Shard(0, c, 0, int(n)) for c, n in enumerate(sizes)]
    rows = Order(Balanced(2), shards, seed=0).epoch(0)
    class_of = np.repeat(np.arange(70_000), sizes)
    assert (np.bincount(class_of[rows[:70_000]]) == 1).all()
    assert (np.bincount(class_of[rows]) == 2).all()
