"""Fresh samples per epoch: the same wherever they are drawn, and new in every epoch."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch

from raycl.compute import LocalPool
from raycl.config.generators import GaussianGenerator, GMMGenerator, RealVectors
from raycl.errors import ConfigError, DataError
from raycl.generators.build import fit
from raycl.generators.fitting import AnyBank
from raycl.generators.vectors import ClassVectors
from raycl.replay.batches import Position
from raycl.replay.sampled import Fitted, SampledReplay
from raycl.replay.sampling import Balanced, Quota, Shuffled

WIDTH = 8


def bank_of(classes: range, spec: Any = None) -> AnyBank:
    data = []
    for c in classes:
        random = torch.Generator().manual_seed(c)
        vectors = torch.randn(12, WIDTH, generator=random) + 100 * c
        data.append(ClassVectors(f"class {c}", vectors, c))
    return fit(spec or GaussianGenerator(), data)


def replay(classes: int = 20, **options: Any) -> SampledReplay:
    half = classes // 2
    banks = [
        Fitted(bank_of(range(half)), range(half), range(half)),
        Fitted(
            bank_of(range(half, classes), RealVectors()),
            range(half, classes),
            range(half, classes),
        ),
    ]
    return SampledReplay(banks, 5, **{"seed": 0, "task": 1, **options})


def drawn(source: SampledReplay, *args: Any, **options: Any) -> list[Any]:
    return [(x.tolist(), y.tolist()) for x, y in source.batches(*args, **options)]


def test_an_epoch_holds_n_samples_of_each_class() -> None:
    source = replay()
    assert len(source) == 100 and source.classes == tuple(range(20))
    counts = Counter[int]()
    for x, y in source.batches(16, epochs=1):
        assert torch.equal((x.mean(dim=1) / 100).round().long(), y)
        counts.update(y.tolist())
    assert counts == dict.fromkeys(range(20), 5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_who_draws_does_not_move_a_number(dtype: torch.dtype) -> None:
    options: dict[str, Any] = {"epochs": 3, "dtype": dtype}
    expected = drawn(replay(), 16, prefetch=0, **options)
    assert drawn(replay(), 16, **options) == expected
    workers = replay(where="workers", pool=LocalPool())
    assert drawn(workers, 16, **options) == expected
    assert drawn(workers, 16, prefetch=0, **options) == expected


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_workers_draw_the_same_over_ray() -> None:
    from raycl.compute.ray_pool import RayPool
    from raycl.compute.threads import limited_threads

    with limited_threads(1):
        expected = drawn(replay(80), 16, epochs=3)
    with RayPool(workers=2) as pool:
        source = replay(80, where="workers", pool=pool)
        assert drawn(source, 16, epochs=3) == expected
        with source.batches(16, epochs=50) as batches:
            next(batches)
        assert drawn(source, 16, epochs=1) == expected[: len(expected) // 3]
    assert source.metrics().draw_seconds > 0


def test_epochs_tasks_and_seeds_have_samples_of_their_own() -> None:
    def samples(**options: Any) -> list[tuple[float, ...]]:
        return [
            tuple(row) for x, _ in replay(2, **options).batches(9, epochs=2) for row in x.tolist()
        ]

    here = samples()
    seen = [row for row in here if max(row) < 50]  # of the Gaussian; the others are real vectors
    assert len(set(seen)) == 10
    for options in ({"seed": 1}, {"task": 2}):
        assert not set(seen) & set(samples(**options))
    assert samples() == here


def test_a_loop_resumes_in_any_epoch() -> None:
    whole = drawn(replay(), 16, Balanced(), epochs=3)
    steps = len(whole) // 3
    for start in (Position(0, 2), Position(1, 0), Position(2, steps), Position(1, steps - 1)):
        rest = drawn(replay(), 16, Balanced(), epochs=3, start=start)
        assert rest == whole[start.epoch * steps + start.step :]


def test_a_class_does_not_depend_on_its_neighbours() -> None:
    alone = SampledReplay([Fitted(bank_of(range(3, 4)), [3], [3])], 5, seed=0, task=1)
    ours = {tuple(row) for x, y in alone.batches(5, epochs=1) for row in x.tolist()}
    theirs = {
        tuple(row)
        for x, y in replay().batches(16, epochs=1)
        for row, c in zip(x.tolist(), y.tolist(), strict=True)
        if c == 3
    }
    assert ours == theirs


def test_threads_end_with_the_iterator() -> None:
    def names() -> list[str]:
        return [t.name for t in threading.enumerate() if t.name.startswith("raycl-")]

    before = names()
    with replay().batches(4, epochs=1000) as batches:
        next(batches)
        assert len(names()) > len(before)
    assert names() == before
    assert drawn(replay(), 16, epochs=0) == [] and names() == before


def test_an_error_of_a_draw_reaches_the_trainer(monkeypatch: pytest.MonkeyPatch) -> None:
    source = replay()

    def broken(*args: Any) -> None:
        raise FloatingPointError("no such sample")

    monkeypatch.setattr(type(source._banks[1].bank), "sample", broken)
    for prefetch in (0, 2):
        with pytest.raises(FloatingPointError, match="no such sample"):
            drawn(source, 16, epochs=2, prefetch=prefetch)


def test_metrics_tell_what_drawing_costs() -> None:
    source = replay()
    assert len(drawn(source, 16, epochs=2)) == 14
    metrics = source.metrics()
    assert (metrics.epoch_bytes, metrics.batches) == (100 * WIDTH * 4, 14)
    assert metrics.draw_seconds > 0 and metrics.waited_seconds > 0


def test_bad_options_are_refused() -> None:
    bank = bank_of(range(2))
    fitted = Fitted(bank, [0, 1], [0, 1])
    other = Fitted(bank_of(range(1), GMMGenerator(components=1)), [0], [0])
    cases: list[tuple[Any, Any, Any, str]] = [
        ([], {}, DataError, "at least one class"),
        ([fitted, other], {}, DataError, "each class once"),
        ([fitted], {"n_per_class": 0}, ConfigError, "needs samples"),
        ([fitted], {"where": "nowhere"}, ConfigError, "'trainer' or 'workers'"),
        ([fitted], {"where": "workers"}, ConfigError, "need a pool"),
    ]
    for banks, options, kind, message in cases:
        with pytest.raises(kind, match=message):
            SampledReplay(banks, **{"n_per_class": 4, "seed": 0, "task": 0, **options})
    with pytest.raises(DataError, match="2 classes, 1 ids"):
        Fitted(bank, [0], [0, 1])
    source = SampledReplay([fitted], 4, seed=0, task=0)
    with pytest.raises(ConfigError, match="not chosen among"):
        source.batches(4, Quota(2), epochs=1)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="float32 or float16"):
        source.batches(4, Shuffled(), epochs=1, dtype=torch.float64)


def test_fp16_samples_are_the_rounded_ones() -> None:
    exact = drawn(replay(), 16, epochs=1)
    half = drawn(replay(), 16, epochs=1, dtype=torch.float16)
    for (x, y), (rounded, z) in zip(exact, half, strict=True):
        assert y == z
        assert np.array_equal(np.array(x, np.float32).astype(np.float16), np.array(rounded))
