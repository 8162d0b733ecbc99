"""What every pool promises, held against each of them."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from raycl.compute import LocalPool, Pool, Resources, WorkerSpec
from raycl.errors import ConfigError, DataError, MethodError, StoppedError, WorkError
from tests.compute.workers import (
    Fussy,
    Summed,
    Tally,
    Threads,
    Times,
    Unbuildable,
)


@pytest.fixture(scope="module", params=["local", pytest.param("ray", marks=pytest.mark.ray)])
def pool(request: pytest.FixtureRequest) -> Iterator[Pool]:
    if request.param == "local":
        yield LocalPool()
        return
    request.getfixturevalue("ray_session")
    from raycl.compute.ray_pool import RayPool

    with RayPool(workers=2) as ray_pool:
        yield ray_pool


def attempts_at(folder: Path, item: int) -> int:
    return len(list(folder.glob(f"{item}-*")))


def test_each_item_comes_back_exactly_once(pool: Pool) -> None:
    done = list(pool.map_unordered(WorkerSpec(Times, (3,)), range(10, 40)))
    assert sorted((d.index, d.item, d.value) for d in done) == [
        (i, i + 10, 3 * (i + 10)) for i in range(30)
    ]


def test_no_items_start_no_worker(pool: Pool, tmp_path: Path) -> None:
    assert list(pool.map_unordered(WorkerSpec(Times, (3, tmp_path)), [])) == []
    assert list(tmp_path.iterdir()) == []


def test_a_worker_is_built_once_for_many_items(pool: Pool, tmp_path: Path) -> None:
    done = list(pool.map_unordered(WorkerSpec(Times, (3, tmp_path)), range(20)))
    assert len(done) == 20
    assert 1 <= len(list(tmp_path.iterdir())) <= pool.workers


def test_each_map_builds_its_own_workers(pool: Pool) -> None:
    for factor in (2, 5):
        done = pool.map_unordered(WorkerSpec(Times, (factor,)), [1, 10])
        assert sorted(d.value for d in done) == [factor, 10 * factor]


def test_items_are_drawn_lazily(pool: Pool) -> None:
    drawn: list[int] = []

    def endless() -> Iterator[int]:
        for number in itertools.count():
            drawn.append(number)
            yield number

    results = pool.map_unordered(WorkerSpec(Times, (1,)), endless())
    taken = [next(results) for _ in range(5)]
    results.close()  # type: ignore[attr-defined]
    assert len(taken) == 5
    assert len(drawn) <= 5 + 6 * pool.workers


def test_after_an_early_end_the_pool_works_on(pool: Pool) -> None:
    for _ in pool.map_unordered(WorkerSpec(Times, (1,)), range(100)):
        break
    assert {d.value for d in pool.map_unordered(WorkerSpec(Times, (2,)), [1, 2])} == {2, 4}


def test_an_error_of_the_items_is_the_callers(pool: Pool) -> None:
    def items() -> Iterator[int]:
        yield 1
        raise KeyError("the source is broken")

    with pytest.raises(KeyError, match="the source is broken"):
        list(pool.map_unordered(WorkerSpec(Times, (1,)), items()))


def test_a_failed_item_runs_again(pool: Pool, tmp_path: Path) -> None:
    worker = WorkerSpec(Fussy, (tmp_path, {2: OSError("for now")}), {"times": 2})
    done = list(pool.map_unordered(worker, range(5)))
    assert sorted(d.value for d in done) == [0, 1, 2, 3, 4]
    assert attempts_at(tmp_path, 2) == 3


def test_a_hopeless_item_is_told_after_the_others(pool: Pool, tmp_path: Path) -> None:
    worker = WorkerSpec(Fussy, (tmp_path, {12: OSError("for ever"), 14: OSError("also")}))
    seen = []
    with pytest.raises(WorkError) as caught:
        for done in pool.map_unordered(worker, range(10, 20), attempts=2):
            seen.append(done.item)
    assert sorted(seen) == [10, 11, 13, 15, 16, 17, 18, 19]
    message = str(caught.value)
    for part in ("item 2 (12)", "2 times", "[4]", "OSError: for ever", "workers.py"):
        assert part in message
    assert attempts_at(tmp_path, 12) == 2


@pytest.mark.parametrize("kind", [ConfigError, DataError])
def test_what_the_user_gave_is_not_tried_again(
    pool: Pool, tmp_path: Path, kind: type[ConfigError | DataError]
) -> None:
    error = kind("unusable", got="this", do="give that")
    worker = WorkerSpec(Fussy, (tmp_path, {1: error}))
    seen = []
    with pytest.raises(kind) as caught:
        for done in pool.map_unordered(worker, range(4)):
            seen.append(done.item)
    assert sorted(seen) == [0, 2, 3]
    assert (caught.value.what, caught.value.got, caught.value.do) == (
        "unusable",
        "this",
        "give that",
    )
    assert attempts_at(tmp_path, 1) == 1


def test_our_errors_keep_their_type(pool: Pool, tmp_path: Path) -> None:
    worker = WorkerSpec(Fussy, (tmp_path, {0: MethodError("diverged", do="slow down")}))
    with pytest.raises(MethodError, match="diverged") as caught:
        list(pool.map_unordered(worker, [0]))
    assert caught.value.do == "slow down"
    assert attempts_at(tmp_path, 0) == 3


def test_a_stop_of_a_worker_ends_the_map(pool: Pool, tmp_path: Path) -> None:
    worker = WorkerSpec(Fussy, (tmp_path, {0: StoppedError("asked to")}))
    with pytest.raises(StoppedError, match="asked to"):
        list(pool.map_unordered(worker, itertools.count()))


def test_a_worker_that_cannot_be_built(pool: Pool) -> None:
    with pytest.raises(WorkError) as caught:
        list(pool.map_unordered(WorkerSpec(Unbuildable, (OSError("no weights"),)), range(9)))
    assert "Unbuildable" in str(caught.value)
    assert "no weights" in str(caught.value)


def test_a_worker_that_refuses_its_config(pool: Pool) -> None:
    refusal = ConfigError("no such width", got=-1, do="use a positive one")
    with pytest.raises(ConfigError, match="no such width") as caught:
        list(pool.map_unordered(WorkerSpec(Unbuildable, (refusal,)), range(9)))
    assert caught.value.do == "use a positive one"


def test_impossible_arguments(pool: Pool) -> None:
    with pytest.raises(ConfigError, match="attempt"):
        list(pool.map_unordered(WorkerSpec(Times, (1,)), [1], attempts=0))
    with pytest.raises(ConfigError, match="negative"):
        Resources(cpus=-1)


def test_workers_use_one_thread(pool: Pool) -> None:
    (done,) = pool.map_unordered(WorkerSpec(Threads), [0])
    assert done.value
    assert set(done.value) == {1}


def test_references_stand_for_values(pool: Pool) -> None:
    shared = pool.put(np.full(300_000, 7.0))
    for value in (pool.get(shared), shared.get()):
        np.testing.assert_array_equal(value, np.full(300_000, 7.0))


def test_references_travel_in_items(pool: Pool) -> None:
    items = [pool.put(np.full(1000, value)) for value in (1.0, 2.0, 5.0)]
    sums = sorted(d.value for d in pool.map_unordered(WorkerSpec(Summed), items))
    assert sums == [1000.0, 2000.0, 5000.0]


def test_a_service_is_shared_by_name(pool: Pool) -> None:
    name = f"tally-{uuid.uuid4().hex}"
    mine = pool.service(name, WorkerSpec(Tally, (10,)))
    yours = pool.service(name, WorkerSpec(Tally, (999,)))
    try:
        assert mine.call("add", 1) == 11
        assert yours.call("add", 1) == 12
        with pytest.raises(DataError, match="the tally refuses") as caught:
            mine.call("refuse")
        assert caught.value.do == "add something"
    finally:
        mine.end()
    again = pool.service(name, WorkerSpec(Tally, (20,)))
    try:
        assert again.call("add", 1) == 21
    finally:
        again.end()


def test_a_service_that_cannot_be_built_leaves_its_name_free(pool: Pool) -> None:
    name = f"tally-{uuid.uuid4().hex}"
    with pytest.raises(WorkError, match="no disk"):
        pool.service(name, WorkerSpec(Unbuildable, (OSError("no disk"),)))
    tally = pool.service(name, WorkerSpec(Tally))
    assert tally.call("add", 3) == 3
    tally.end()
