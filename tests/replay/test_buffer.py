"""What is in a replay buffer, what is refused, and what its batches are."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pytest
import torch

from raycl.compute import LocalPool, Pool
from raycl.errors import ConfigError, DataError
from raycl.replay.batches import Position
from raycl.replay.buffer import ReplayBuffer
from raycl.replay.sampling import Balanced, Quota, Reservoir, Shuffled
from raycl.replay.shards import ArtefactRows
from raycl.store.artefact import ArtefactSpec
from raycl.store.store import Store
from tests.replay.actors import vectors_of

Drawn = list[tuple[Any, Any]]


@pytest.fixture(scope="module", params=["local", pytest.param("ray", marks=pytest.mark.ray)])
def pool(request: pytest.FixtureRequest) -> Iterator[Pool]:
    if request.param == "local":
        yield LocalPool()
        return
    request.getfixturevalue("ray_session")
    from raycl.compute.ray_pool import RayPool

    with RayPool(workers=2) as ray_pool:
        yield ray_pool


def filled(pool: Pool, sizes: dict[int, int], order: Any = None, **options: Any) -> ReplayBuffer:
    buffer = ReplayBuffer(pool, **options)
    for class_id in order if order is not None else sizes:
        buffer.add(class_id // 2, class_id, vectors_of(class_id, sizes[class_id]))
    return buffer.seal()


def drawn(buffer: ReplayBuffer, *args: Any, **options: Any) -> Drawn:
    return [(x.tolist(), y.tolist()) for x, y in buffer.batches(*args, **options)]


SIZES = {0: 5, 1: 9, 2: 1, 3: 7}


def test_an_epoch_holds_every_row_with_its_class(pool: Pool) -> None:
    buffer = filled(pool, SIZES)
    assert (len(buffer), buffer.classes, buffer.width) == (22, (0, 1, 2, 3), 8)
    assert buffer.bytes == 22 * 8 * 4
    rows = []
    for x, y in buffer.batches(4, Shuffled(), seed=0):
        assert x.dtype == torch.float32 and y.dtype == torch.int64
        assert x[:, 0].tolist() == y.tolist()
        rows += [(int(a), int(b)) for a, b in x[:, :2]]
    assert sorted(rows) == [(c, i) for c, n in SIZES.items() for i in range(n)]


def test_neither_order_nor_packing_nor_prefetch_moves_a_batch(pool: Pool) -> None:
    expected = drawn(filled(pool, SIZES), 4, seed=3, epochs=2)
    others = [
        filled(pool, SIZES, order=[3, 1, 0, 2]),
        filled(pool, SIZES, pack_bytes=3 * 32),
        filled(pool, SIZES, pack_bytes=1),
    ]
    assert [len(b._packs) for b in others] == [1, 8, 22]
    for other in others:
        assert drawn(other, 4, seed=3, epochs=2) == expected
    assert drawn(others[1], 4, seed=3, epochs=2, prefetch=0) == expected
    assert drawn(others[1], 4, seed=3, epochs=2, prefetch=7) == expected
    assert drawn(others[1], 4, seed=4, epochs=2) != expected


@pytest.mark.parametrize("sampling", [Shuffled(), Balanced(), Balanced(3), Quota(2), Reservoir(9)])
@pytest.mark.parametrize("drop_last", [False, True])
def test_a_loop_resumes_at_its_position(sampling: Any, drop_last: bool) -> None:
    buffer = filled(LocalPool(), SIZES)
    options: dict[str, Any] = {"seed": 1, "epochs": 3, "drop_last": drop_last}
    whole = drawn(buffer, 4, sampling, **options)
    for stop in range(len(whole) + 1):
        with buffer.batches(4, sampling, prefetch=2, **options) as batches:
            assert len(batches) == len(whole)
            for _ in range(stop):
                next(batches)
            position = batches.position
            assert len(batches) == len(whole) - stop
        assert drawn(buffer, 4, sampling, start=position, **options) == whole[stop:]


def test_epochs_differ_and_keep_their_length() -> None:
    buffer = filled(LocalPool(), SIZES)
    batches = drawn(buffer, 4, Shuffled(), seed=0, epochs=2)
    assert [len(y) for _, y in batches] == [4, 4, 4, 4, 4, 2] * 2
    assert batches[:6] != batches[6:]
    assert len(drawn(buffer, 4, Shuffled(), seed=0, epochs=2, drop_last=True)) == 10
    assert drawn(buffer, 4, seed=0, epochs=0) == []


def test_a_batch_is_private_and_a_view_is_not(pool: Pool) -> None:
    buffer = filled(pool, SIZES, pack_bytes=5 * 32)
    (view,) = buffer.views(0, 0)
    assert not view.flags.writeable and not view.flags.owndata
    before = drawn(buffer, 4, seed=0)
    for x, y in buffer.batches(4, seed=0):
        x.fill_(-1)
        y.fill_(-1)
    assert drawn(buffer, 4, seed=0) == before
    assert buffer.views(0, 0)[0].ctypes.data == view.ctypes.data
    with pytest.raises(ValueError, match="read-only"):
        view[0] = 0


def test_what_was_given_may_be_changed_afterwards() -> None:
    mine = vectors_of(1)
    buffer = ReplayBuffer(LocalPool())
    buffer.add(0, 1, mine)
    mine[:] = 99
    buffer.seal()
    assert buffer.views(0, 1)[0][:, 0].tolist() == [1.0] * 6


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_types_are_kept_or_converted(dtype: str) -> None:
    buffer = ReplayBuffer(LocalPool())
    buffer.add(0, 0, torch.from_numpy(vectors_of(0, dtype=dtype)))
    buffer.seal()
    ((x, _),) = buffer.batches(100, Shuffled(), seed=0)
    assert str(x.dtype) == f"torch.{dtype}"
    ((x, _),) = buffer.batches(100, Shuffled(), seed=0, dtype=torch.bfloat16)
    assert x.dtype == torch.bfloat16
    assert sorted(x[:, 1].tolist()) == [0, 1, 2, 3, 4, 5]


def test_a_buffer_of_one_type_converts_what_fits() -> None:
    buffer = ReplayBuffer(LocalPool(), dtype="float16")
    buffer.add(0, 0, vectors_of(0))
    with pytest.raises(DataError, match=r"class 1: a vector does not fit into float16") as caught:
        buffer.add(0, 1, vectors_of(1) * np.float32(1e6))
    assert "5e+06" in str(caught.value)
    assert len(buffer) == 6 and buffer.bytes == 6 * 8 * 2
    extended = buffer.seal().extended()
    extended.add(1, 2, vectors_of(2))
    assert extended.bytes == 12 * 8 * 2


def with_nan() -> Any:
    x = vectors_of(0)
    x[2, 3] = np.nan
    x[4, 0] = np.inf
    return x


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (with_nan(), r"task 3, class 7: 2 vectors hold NaN or infinity \(got rows 2, 4\)"),
        (np.zeros((0, 8), np.float32), r"task 3, class 7: expected .* \(0, 8\) of float32"),
        (np.zeros((4, 0), np.float32), r"class 7: expected"),
        (np.zeros(8, np.float32), r"class 7: expected .* \(8,\)"),
        (np.zeros((2, 8)), r"class 7: expected .* float64"),
        (np.zeros((2, 8), np.int64), r"class 7: expected .* int64"),
        ([["a"]], r"class 7: expected"),
        (torch.zeros(2, 8, dtype=torch.bfloat16), r"class 7: NumPy has no bfloat16"),
        (vectors_of(0, width=9), r"class 7: .*one width and type \(got 9 x float32, not 8 x"),
        (vectors_of(0, dtype="float16"), r"class 7: .*8 x float16, not 8 x float32"),
    ],
)
def test_bad_vectors_are_refused_by_name(vectors: Any, message: str) -> None:
    buffer = ReplayBuffer(LocalPool())
    buffer.add(0, 0, vectors_of(0))
    with pytest.raises(DataError, match=message):
        buffer.add(3, 7, vectors)
    assert buffer.seal().classes == (0,)


def test_bad_options_are_refused() -> None:
    pool = LocalPool()
    open_buffer = ReplayBuffer(pool)
    refused: list[tuple[Any, str]] = [
        (lambda: ReplayBuffer(pool, dtype="int8"), "float16 or float32"),
        (lambda: ReplayBuffer(pool, pack_bytes=0), "a pack must hold something"),
        (lambda: ReplayBuffer(pool, byte_budget=0), "budget must be positive"),
        (lambda: ReplayBuffer(pool, shared=True), "needs a store"),
        (lambda: open_buffer.add(0, 0), "neither vectors nor a source"),
        (lambda: open_buffer.batches(4, seed=0), "still open"),
        (open_buffer.handle, "still open"),
        (open_buffer.extended, "still open"),
    ]
    for call, message in refused:
        with pytest.raises(ConfigError, match=message):
            call()
    for task, class_id in [(-1, 0), (0, -1), (0.5, 0), (0, "cat")]:
        with pytest.raises(DataError, match="whole numbers"):
            open_buffer.add(task, class_id, vectors_of(0))  # type: ignore[arg-type]
    buffer = filled(pool, SIZES)
    cases: list[tuple[Any, str]] = [
        ({"batch": 0}, "batch must"),
        ({"batch": 2.5}, "batch must"),
        ({"batch": 4, "epochs": -1}, "epochs must"),
        ({"batch": 4, "prefetch": -1}, "prefetch must"),
        ({"batch": 4, "start": Position(0, 99)}, "no such position"),
        ({"batch": 4, "start": Position(2, 0)}, "no such position"),
        ({"batch": 4, "sampling": Quota(0)}, "Quota needs"),
        ({"batch": 4, "sampling": Reservoir(cast(int, 1.5))}, "Reservoir needs"),
        ({"batch": 4, "sampling": "balanced"}, "not a way to sample"),
    ]
    for options, message in cases:
        with pytest.raises(ConfigError, match=message):
            buffer.batches(seed=0, **options)


def test_an_empty_buffer_can_be_sealed_and_not_read() -> None:
    buffer = ReplayBuffer(LocalPool()).seal()
    assert (len(buffer), buffer.bytes, buffer.classes) == (0, 0, ())
    with pytest.raises(DataError, match="empty"):
        buffer.batches(4, seed=0)


def test_nothing_is_added_after_the_seal_but_to_an_extension(pool: Pool) -> None:
    buffer = filled(pool, SIZES, pack_bytes=8 * 32)
    with pytest.raises(ConfigError, match="sealed"):
        buffer.add(9, 9, vectors_of(9))
    extended = buffer.extended()
    extended.add(9, 9, vectors_of(9))
    extended.add(1, 3, vectors_of(3))
    extended.seal()
    once = ReplayBuffer(pool)
    for task, class_id, rows in [(0, 0, 5), (0, 1, 9), (1, 2, 1), (1, 3, 7), (1, 3, 6), (9, 9, 6)]:
        once.add(task, class_id, vectors_of(class_id, rows))
    assert drawn(extended, 4, seed=0) == drawn(once.seal(), 4, seed=0)
    assert extended.views(0, 0)[0].ctypes.data == buffer.views(0, 0)[0].ctypes.data
    assert len(buffer) == 22 and len(extended) == 34


def test_one_sample_is_enough() -> None:
    buffer = filled(LocalPool(), {5: 1})
    assert drawn(buffer, 256, seed=0, epochs=2) == [([[5.0] + [0.0] * 7], [5])] * 2


def test_ten_thousand_classes_are_few_objects() -> None:
    buffer = ReplayBuffer(LocalPool())
    for class_id in range(10_000):
        buffer.add(class_id // 1000, class_id, vectors_of(class_id, 3, 16, "float16"))
    buffer.seal()
    assert buffer.metrics().objects == 1
    (x, y), *_ = buffer.batches(10_000, Balanced(), seed=0)
    assert sorted(y.tolist()) == list(range(10_000))
    assert torch.equal(x[:, 0], y.half())


def test_a_shard_larger_than_a_pack_is_cut() -> None:
    buffer = filled(LocalPool(), {0: 100}, pack_bytes=7 * 32)
    assert buffer.metrics().objects == 15
    assert np.concatenate(buffer.views(0, 0))[:, 1].tolist() == list(range(100))


def test_the_budget_is_held_before_anything_is_shared() -> None:
    buffer = ReplayBuffer(LocalPool(), byte_budget=2**20)
    buffer.add(0, 0, np.zeros((3000, 64), np.float32))
    with pytest.raises(ConfigError, match=r"needs 1\.5 MiB, has 1\.0 MiB") as caught:
        buffer.add(0, 1, np.zeros((3000, 64), np.float32))
    assert "float16" in str(caught.value)
    assert buffer.bytes == 3000 * 64 * 4


def test_rows_of_an_artefact_need_no_vectors(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    spec = ArtefactSpec("features", "all", {"of": "these"}, {"of": "these"})
    x = np.arange(80, dtype=np.float32).reshape(10, 8)
    column = pa.FixedSizeListArray.from_arrays(pa.array(x.ravel()), 8)
    tensors = {"vector": torch.from_numpy(x)[None]}
    table = pa.table({"embedding": column})
    store.put(spec, {"features.arrow": table, "state.safetensors": tensors})
    buffer = ReplayBuffer(LocalPool(), store)
    arrow = ArtefactRows(spec.key, "features.arrow", "embedding", (7, 1, 4))
    buffer.add(0, 0, source=arrow)
    buffer.add(0, 1, source=ArtefactRows(spec.key, "state.safetensors", "vector", range(2, 10, 3)))
    for source, message in [
        (ArtefactRows(spec.key, "features.arrow", "embedding", (10,)), "has 10 rows"),
        (ArtefactRows(spec.key, "features.arrow", "embedding", (-1,)), "has 10 rows"),
        (ArtefactRows(spec.key, "features.arrow", "vectors", (0,)), "it has embedding"),
        (ArtefactRows(spec.key, "other.arrow", "embedding", (0,)), "no payload 'other.arrow'"),
        (ArtefactRows(f"{spec.key[:-2]}00", "features.arrow", "e", (0,)), "no payload"),
    ]:
        with pytest.raises(DataError, match=message):
            buffer.add(1, 1, source=source)
    with pytest.raises(ConfigError, match="need the store"):
        ReplayBuffer(LocalPool()).add(0, 0, source=arrow)
    buffer.seal()
    assert buffer.views(0, 0)[0].tolist() == x[[7, 1, 4]].tolist()
    assert buffer.views(0, 1)[0].tolist() == x[[2, 5, 8]].tolist()
    assert [record.kind for record in store.records()] == ["features"]


def test_the_thread_ends_with_its_iterator() -> None:
    def threads() -> int:
        return sum(t.name == "raycl-replay" for t in threading.enumerate())

    buffer = filled(LocalPool(), SIZES)
    before = threads()
    batches = buffer.batches(1, seed=0, epochs=100, prefetch=2)
    next(batches)
    assert threads() == before + 1
    del batches
    gc.collect()
    assert threads() == before
    with buffer.batches(1, seed=0, epochs=100, prefetch=2) as left:
        next(left)
    assert list(left) == [] and threads() == before
    assert len(list(buffer.batches(1, seed=0, epochs=2, prefetch=2))) == 48
    assert threads() == before


def test_an_error_of_the_thread_reaches_the_trainer() -> None:
    buffer = filled(LocalPool(), SIZES)

    def broken(rows: Any, out: Any) -> None:
        raise OSError("the disk is gone")

    buffer.reader.gather = broken  # type: ignore[method-assign]
    for prefetch in (0, 2):
        batches = buffer.batches(4, seed=0, prefetch=prefetch)
        with pytest.raises(OSError, match="the disk is gone"):
            next(batches)
        assert list(batches) == []


def test_metrics_count_what_happened() -> None:
    buffer = filled(LocalPool(), SIZES, pack_bytes=8 * 32)
    assert buffer.metrics().hit_rate is None
    for _ in buffer.batches(4, Shuffled(), seed=0):
        time.sleep(0.001)
    found = buffer.metrics()
    assert (found.bytes, found.objects, found.batches) == (22 * 32, 3, 6)
    assert (found.found, found.reloaded, found.hit_rate) == (3, 0, 1.0)
    assert found.gather_seconds > 0 and found.waited_seconds > 0


def test_two_threads_may_add_and_read_at_once() -> None:
    buffer = ReplayBuffer(LocalPool(), pack_bytes=40 * 32)

    def fill(part: int) -> None:
        for class_id in range(part * 100, part * 100 + 100):
            buffer.add(0, class_id, vectors_of(class_id))

    workers = [threading.Thread(target=fill, args=(part,)) for part in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    buffer.seal()
    readers = [buffer.batches(32, seed=0, epochs=2, prefetch=2) for _ in range(3)]
    for together in zip(*readers, strict=True):
        for x, y in together:
            assert torch.equal(x, together[0][0])
            assert x[:, 0].tolist() == y.tolist()
    assert buffer.classes == tuple(range(400))
