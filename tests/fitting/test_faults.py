"""Workers that are killed, and pools of several sizes: the same generators bit for bit."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from raycl.compute.pool import Resources
from raycl.config.generators import GaussianGenerator, SharedVAEGenerator, VAEGenerator
from raycl.errors import ClusterError, MethodError
from raycl.observe.events import Computed, Event, WorkerLost
from raycl.store.store import Store
from tests.engine.processes import descendants
from tests.fitting.made_fits import fitted, made_vectors, record_bytes, tensor_digests
from tests.generators.made_classes import made_class

pytestmark = pytest.mark.ray

SLOW = VAEGenerator(latent=16, hidden=64, epochs=150, batch=16)
"""A class of a fraction of a second, so that a kill finds a worker at work."""


def busy_workers() -> list[int]:
    return [p for p, name in descendants(os.getpid()) if name.startswith("ray::Pool")]


def over(workers: int, observer: Any = None, **more: Any) -> Any:
    from raycl.compute.ray_pool import RayPool

    return RayPool(observer or (lambda event: None), workers=workers, **more)


def test_any_number_of_workers_gives_the_same_bits(tmp_path: Path, ray_session: object) -> None:
    classes = made_vectors((30, 1, 17, 50) * 3)
    spec = VAEGenerator(latent=6, hidden=24, epochs=6, batch=16)
    alone = fitted(classes, tmp_path / "0", spec)
    for workers in (1, 2):
        turned = classes if workers == 1 else dict(reversed(classes.items()))
        with over(workers) as pool:
            found = fitted(turned, tmp_path / str(workers), spec, pool=pool)
        assert (found.computed, found.reused) == (12, 0)
        assert tensor_digests(tmp_path / "0") == tensor_digests(tmp_path / str(workers))
        assert [n.dispersion for n in sorted(found.notes, key=lambda n: n.name)] == [
            n.dispersion for n in sorted(alone.notes, key=lambda n: n.name)
        ]


def test_a_worker_holds_what_its_pool_was_told(tmp_path: Path, ray_session: object) -> None:
    too_much = {"resources": Resources(cpus=3), "patience": 0.0}
    with over(1, **too_much) as pool, pytest.raises(ClusterError, match="3 CPU"):
        fitted(made_vectors((5,)), tmp_path, GaussianGenerator(), pool=pool)


def test_a_killed_worker_costs_the_class_it_was_at(tmp_path: Path, ray_session: object) -> None:
    classes = made_vectors((60,) * 16)
    fitted(classes, tmp_path / "here", SLOW)
    events: list[Event] = []
    before: dict[str, bytes] = {}

    def watch(event: Event) -> None:
        events.append(event)
        computed = sum(isinstance(e, Computed) for e in events)
        if computed == 4 and not before:
            before.update(record_bytes(tmp_path / "there"))
            os.kill(busy_workers()[0], signal.SIGKILL)

    with over(2, watch) as pool:
        found = fitted(classes, tmp_path / "there", SLOW, pool=pool, observer=watch)
    assert len([e for e in events if isinstance(e, WorkerLost)]) == 1
    assert found.computed + found.reused == 16
    assert found.reused <= 8, "what the dead worker had stored of its pack, and no more"
    after = record_bytes(tmp_path / "there")
    assert len(before) >= 4 and before.items() <= after.items(), "what was stored is not refitted"
    assert tensor_digests(tmp_path / "here") == tensor_digests(tmp_path / "there")


def test_a_poison_class_is_named_over_ray(tmp_path: Path, ray_session: object) -> None:
    poison = made_class(0, 4).vectors.numpy().copy()
    poison[::2], poison[1::2] = 3.3e38, -3.3e38
    good = made_vectors((5,) * 9)
    with over(2) as pool, pytest.raises(MethodError, match=r"1 of 10 .*'poison'"):
        fitted({"poison": poison, **good}, tmp_path, GaussianGenerator(), pool=pool)
    assert len(tensor_digests(tmp_path)) == 9


def test_a_shared_generator_stays_with_its_caller(tmp_path: Path, ray_session: object) -> None:
    spec = SharedVAEGenerator(latent=6, hidden=24, class_width=4, epochs=4, batch=16)
    classes = made_vectors()
    fitted(classes, tmp_path / "a", spec)
    with over(2) as pool:
        fitted(classes, tmp_path / "b", spec, pool=pool)
    assert tensor_digests(tmp_path / "a") == tensor_digests(tmp_path / "b")


@pytest.mark.ordeal
@pytest.mark.timeout(900)
def test_workers_that_keep_dying(tmp_path: Path, ray_session: object) -> None:
    classes = made_vectors((200,) * 40)
    fitted(classes, tmp_path / "here", SLOW)
    chance, over_yet, kills = random.Random(0), threading.Event(), []

    def kill_now_and_then() -> None:
        while not over_yet.wait(chance.uniform(2.0, 6.0)) and len(kills) < 8:
            workers = busy_workers()
            if workers:
                kills.append(time.monotonic())
                os.kill(chance.choice(workers), signal.SIGKILL)

    killer = threading.Thread(target=kill_now_and_then)
    killer.start()
    rounds = 0
    try:
        # An item that is hit three times is given up, and the same call goes on.
        while len(list(Store.open(str(tmp_path / "there")).records("generator"))) < 40:
            rounds += 1
            assert rounds < 20
            try:
                with over(2) as pool:
                    fitted(classes, tmp_path / "there", SLOW, pool=pool)
            except Exception as error:
                assert "its worker died" in str(error), error
    finally:
        over_yet.set()
        killer.join()
    assert kills
    assert tensor_digests(tmp_path / "here") == tensor_digests(tmp_path / "there")
