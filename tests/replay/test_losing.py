"""Lost objects are read again; who owns them; how many copies there are."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raycl.compute import LocalPool, LostReferenceError, Reference
from raycl.errors import ConfigError, DataError
from raycl.replay import room
from raycl.replay.buffer import ReplayBuffer
from raycl.replay.packs import KIND, Manifest, load
from raycl.replay.sampling import Shuffled
from raycl.replay.shards import ArtefactRows
from raycl.store.artefact import ArtefactSpec
from raycl.store.store import Store
from tests.replay.actors import Trial, vectors_of


@dataclass(frozen=True)
class Losable:
    """A reference whose value may go."""

    value: list[Any]

    def get(self) -> Any:
        if not self.value:
            raise LostReferenceError("gone")
        return self.value[0]


@dataclass
class ForgetfulPool(LocalPool):
    """A pool that can lose all that was put into it."""

    kept: list[list[Any]] = field(default_factory=list)

    def put(self, value: Any) -> Losable:
        self.kept.append([value])
        return Losable(self.kept[-1])

    def lose_all(self) -> None:
        for value in self.kept:
            value.clear()


def filled(pool: Any, store: Store | None, **options: Any) -> ReplayBuffer:
    buffer = ReplayBuffer(pool, store, pack_bytes=10 * 32, **options)
    for class_id in range(5):
        buffer.add(0, class_id, vectors_of(class_id))
    return buffer.seal()


def drawn(buffer: ReplayBuffer) -> list[Any]:
    return [(x.tolist(), y.tolist()) for x, y in buffer.batches(4, seed=0, epochs=2)]


def packs_in(store: Store) -> int:
    return len(list(store.records(KIND)))


def test_a_lost_pack_is_read_from_the_store(tmp_path: Path) -> None:
    store, pool = Store.open(str(tmp_path)), ForgetfulPool()
    expected = drawn(filled(LocalPool(), None))
    buffer = filled(pool, store)
    assert packs_in(store) == 3
    pool.lose_all()
    assert drawn(buffer) == expected
    metrics = buffer.metrics()
    assert (metrics.found, metrics.reloaded, metrics.hit_rate) == (0, 3, 0.0)
    buffer.release()
    assert drawn(buffer) == expected
    assert buffer.metrics().hit_rate == 0.5


def test_the_same_content_is_stored_once(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    for _ in range(2):
        filled(LocalPool(), store)
    assert packs_in(store) == 3 and store.computed[KIND] == 3


def test_what_has_sources_is_not_stored_again(tmp_path: Path) -> None:
    store, pool = Store.open(str(tmp_path)), ForgetfulPool()
    buffer = ReplayBuffer(pool, store, pack_bytes=4 * 32)
    loads = []

    def again() -> Any:
        loads.append(1)
        return vectors_of(7, 6)

    buffer.add(0, 7, vectors_of(7, 6), source=again)
    buffer.seal()
    assert packs_in(store) == 0 and not loads
    pool.lose_all()
    assert np.concatenate(buffer.views(0, 7)).tolist() == vectors_of(7, 6).tolist()
    assert len(loads) == 2


def test_a_source_that_changed_is_noticed() -> None:
    pool = ForgetfulPool()
    buffer = ReplayBuffer(pool)
    buffer.add(0, 0, vectors_of(0), source=lambda: vectors_of(1))
    buffer.seal()
    pool.lose_all()
    with pytest.raises(DataError, match="not what it was"):
        drawn(buffer)


def test_what_cannot_be_read_again_says_so(tmp_path: Path) -> None:
    pool = ForgetfulPool()
    buffer = filled(pool, None)
    pool.lose_all()
    with pytest.raises(LostReferenceError, match="nobody told where to read it again"):
        drawn(buffer)
    store, pool = Store.open(str(tmp_path)), ForgetfulPool()
    buffer = filled(pool, store)
    for record in list(store.records(KIND)):
        store.discard(record.key)
    pool.lose_all()
    with pytest.raises(LostReferenceError, match="the store no longer has it"):
        drawn(buffer)


def test_a_damaged_copy_is_never_read(tmp_path: Path) -> None:
    store, pool = Store.open(str(tmp_path)), ForgetfulPool()
    buffer = filled(pool, store)
    for file in tmp_path.rglob("*vectors.bin"):
        data = bytearray(file.read_bytes())
        data[5] ^= 1
        file.write_bytes(data)
    pool.lose_all()
    with pytest.raises(LostReferenceError, match="cannot be read again"):
        drawn(buffer)


def test_a_handle_reads_through_another_pool(tmp_path: Path) -> None:
    store, pool = Store.open(str(tmp_path)), ForgetfulPool()
    buffer = filled(pool, store)
    expected = drawn(buffer)
    pool.lose_all()
    other = ReplayBuffer.open(LocalPool(), buffer.handle())
    assert drawn(other) == expected
    assert other.metrics().reloaded == 3
    extended = other.extended()
    extended.add(1, 9, vectors_of(9))
    assert len(extended.seal()) == 36


def test_the_manifest_lets_go_of_what_was_asked_for_least_recently(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    recipes = [recipe for recipe, _ in filled(LocalPool(), store).handle().packs]
    manifest = Manifest(store.uri, "local", most_bytes=2 * recipes[0].nbytes)
    for recipe in (*recipes, recipes[1], recipes[2]):
        assert manifest.pack(recipe).get().tolist() == load(recipe, store).tolist()
    assert manifest.metrics()["loads"] == 3
    manifest.pack(recipes[0])
    assert manifest.metrics() == {"packs": 2, "bytes": manifest.metrics()["bytes"], "loads": 4}
    manifest.forget()
    assert manifest.metrics()["bytes"] == 0


def test_what_does_not_fit_into_memory_is_refused_before_it_is_shared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(room, "free_bytes", lambda pool: 700)
    pool = ForgetfulPool()
    buffer = ReplayBuffer(pool, pack_bytes=10 * 32)
    buffer.add(0, 0, vectors_of(0, 25))
    assert len(pool.kept) == 2
    with pytest.raises(ConfigError, match=r"needs 0\.0 MiB, has .*\n.*/dev/shm.*spill=True"):
        buffer.seal()
    assert len(pool.kept) == 2
    assert len(ReplayBuffer.extended(filled(pool, None, spill=True))) == 30


def test_room_is_asked_for_what_is_new_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    store = Store.open(str(tmp_path))
    buffer = filled(LocalPool(), store)
    shared = filled(LocalPool(), store, shared=True)
    monkeypatch.setattr(room, "free_bytes", lambda pool: 600)
    extended = buffer.extended()  # 960 bytes are there already
    extended.add(1, 5, vectors_of(5))
    assert len(extended.seal()) == 36
    # The manifest holds these; it has no room for others.
    assert filled(LocalPool(), store, shared=True).bytes == shared.bytes
    monkeypatch.setattr(room, "free_bytes", lambda pool: 100)
    other = ReplayBuffer(LocalPool(), store, shared=True)
    other.add(0, 9, vectors_of(9))
    with pytest.raises(ConfigError, match="object store of this node"):
        other.seal()
    shared._owner.service.end()  # type: ignore[attr-defined]


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
class TestOverRay:
    """The same with processes that die."""

    @staticmethod
    def trial(store: Store) -> Any:
        import ray

        return ray.remote(Trial).options(num_cpus=0).remote(store.uri)

    @staticmethod
    def kill(trial: Any) -> None:
        import ray

        pid = ray.get(trial.__ray_call__.remote(lambda self: os.getpid()))
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(ray.exceptions.RayActorError):
            ray.get(trial.__ray_ready__.remote())

    @pytest.mark.parametrize("shared", [False, True])
    def test_the_producer_is_killed(self, tmp_path: Path, shared: bool) -> None:
        import ray

        from raycl.compute.ray_pool import RayPool

        store = Store.open(str(tmp_path))
        trial = self.trial(store)
        handle = ray.get(trial.build.remote(shared=shared))
        self.kill(trial)
        if not shared:
            gone(handle.packs[0][1])
        with RayPool(workers=1) as pool:
            buffer = ReplayBuffer.open(pool, handle, store)
            ((x, _),) = buffer.batches(99, Shuffled(), seed=0)
            metrics = buffer.metrics()
        assert sorted(x[:, :2].tolist()) == [[c, i] for c in range(3) for i in range(6)]
        assert (metrics.found, metrics.reloaded) == ((1, 0) if shared else (0, 1))

    def test_what_is_being_read_outlives_its_owner(self, tmp_path: Path) -> None:
        import ray

        from raycl.compute.ray_pool import RayPool

        store = Store.open(str(tmp_path))
        trial = self.trial(store)
        handle = ray.get(trial.build.remote(shared=False))
        with RayPool(workers=1) as pool:
            buffer = ReplayBuffer.open(pool, handle, store)
            batches = buffer.batches(4, seed=0, epochs=2)
            seen = [next(batches)]
            self.kill(trial)
            time.sleep(3)  # more than Ray needs to drop what nobody reads
            # Whatever the store does with the room now, the views must not change.
            junk = [pool.put(np.full(40 * 2**20, 255, np.uint8)) for _ in range(4)]
            seen += list(batches)
            assert buffer.metrics().reloaded == 0
            del junk
            buffer.release()
            gone(handle.packs[0][1])
            again = [x.tolist() for x, _ in buffer.batches(4, seed=0, epochs=2)]
            assert buffer.metrics().reloaded == 1
            assert [x.tolist() for x, _ in seen] == again

    def test_the_manifest_is_killed(self, tmp_path: Path) -> None:
        from raycl.compute.ray_pool import RayPool

        store = Store.open(str(tmp_path))
        with RayPool(workers=1) as pool:
            buffer = filled(pool, store, shared=True)
            expected = drawn(buffer)
            service = buffer._owner.service  # type: ignore[attr-defined]
            assert service.call("metrics")["loads"] == 3
            again = filled(pool, store, shared=True)
            assert service.call("metrics") == {"packs": 3, "bytes": 30 * 32, "loads": 3}
            buffer.release()
            again.release()
            os.kill(service.call("process"), signal.SIGKILL)
            for _, reference in again.handle().packs:
                gone(reference)
            assert drawn(again) == expected
            assert again.metrics().reloaded == 3
            assert service.call("metrics")["loads"] == 3
            service.end()

    def test_readers_of_one_node_share_one_copy(self, tmp_path: Path) -> None:
        import ray

        from raycl.compute import ray_object_store
        from raycl.compute.ray_pool import RayPool

        store = Store.open(str(tmp_path))
        size = 20 * 2**20
        before = _settled()
        with RayPool(workers=1) as pool:
            buffer = ReplayBuffer(pool, store)
            big = np.zeros((size // 32 // 3, 8), np.float32)
            for class_id in range(3):
                big[:, 0] = class_id
                buffer.add(0, class_id, big)
            handle = buffer.seal().handle()
            trials = [self.trial(store) for _ in range(3)]
            answers = ray.get([t.views_of.remote(handle) for t in trials])
            pids = {pid for pid, _, _ in answers}
            assert len(pids) == 3
            assert all(not writeable for _, writeable, _ in answers)
            # Mapped from the one file that is the object store, not private memory.
            assert all("/dev/shm" in where or "plasma" in where for _, _, where in answers)
            used = before - _settled()
            assert size * 0.9 < used < size * 1.5, used
            for trial in trials:
                ray.kill(trial)
        assert ray_object_store.free_bytes() is not None

    def test_a_store_that_is_too_small_is_told_before_it_spills(self) -> None:
        from raycl.compute.ray_pool import RayPool

        with RayPool(workers=1) as pool:
            buffer = ReplayBuffer(pool, pack_bytes=40 * 2**20)
            with pytest.raises(ConfigError, match=r"needs \d+\.\d MiB, has \d+\.\d MiB"):
                for class_id in range(8):
                    buffer.add(0, class_id, np.zeros((30 * 2**20 // 2048, 512), np.float32))


def gone(reference: Reference) -> None:
    """Waits until Ray has noticed that the owner is dead."""
    for _ in range(100):
        try:
            reference.get()
        except LostReferenceError:
            return
        time.sleep(0.2)
    raise AssertionError("the object outlives its owner")


def _settled() -> int:
    """Free bytes once the raylet's figure, which lags, has stopped moving."""
    from raycl.compute import ray_object_store

    last = -1
    for _ in range(20):
        time.sleep(0.7)
        free = ray_object_store.free_bytes()
        assert free is not None
        if free == last:
            return free
        last = free
    return last


def test_rows_of_artefacts_are_shared_without_a_second_copy(tmp_path: Path) -> None:
    import torch

    store = Store.open(str(tmp_path))
    spec = ArtefactSpec("latents", "a", {"a": 1}, {"a": 1})
    store.put(spec, {"x.safetensors": {"x": torch.from_numpy(vectors_of(1, 9))}})
    buffer = ReplayBuffer(LocalPool(), store, shared=True)
    buffer.add(0, 1, source=ArtefactRows(spec.key, "x.safetensors", "x", range(9)))
    buffer.seal()
    assert packs_in(store) == 0
    assert buffer.views(0, 1)[0].tolist() == vectors_of(1, 9).tolist()
    buffer._owner.service.end()  # type: ignore[attr-defined]
