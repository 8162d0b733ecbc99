"""What only a pool of processes can suffer: deaths, lost values, busy clusters."""

from __future__ import annotations

import os
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from raycl.compute import LostReferenceError, Resources, StopRequest, WorkerSpec
from raycl.errors import ClusterError, ConfigError, StoppedError, WorkError
from raycl.observe.events import Event, Warned, WorkerLost
from tests.compute.workers import (
    DEADLINE_SECONDS,
    DeadAtBirth,
    Deadly,
    Killable,
    OwnPut,
    Pid,
    ServiceUser,
    Sleeper,
    Tally,
    Times,
    Unsendable,
    wait_for,
)

pytestmark = pytest.mark.ray


@pytest.fixture
def make_pool(ray_session: object) -> Iterator[Callable[..., object]]:
    from raycl.compute.ray_pool import RayPool

    pools: list[RayPool] = []

    def make(*args: object, **kwargs: object) -> RayPool:
        pools.append(RayPool(*args, **kwargs))  # type: ignore[arg-type]
        return pools[-1]

    yield make
    for pool in pools:
        pool.close()


def free_cpus_reach(count: float) -> bool:
    import ray

    deadline = time.monotonic() + DEADLINE_SECONDS
    while ray.available_resources().get("CPU", 0) < count:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def test_a_worker_that_dies_is_replaced(make_pool: Callable, tmp_path: Path) -> None:
    events: list[Event] = []
    pool = make_pool(events.append, workers=2)
    worker = WorkerSpec(Deadly, (tmp_path, (3, 7), 1))
    done = list(pool.map_unordered(worker, range(10)))
    assert sorted((d.index, d.value) for d in done) == [(i, i) for i in range(10)]
    lost = [event for event in events if isinstance(event, WorkerLost)]
    # Which item a death is put down to may be its neighbour, whose answer died with it.
    assert [event.worker for event in lost] == ["Deadly", "Deadly"]
    assert {event.attempt for event in lost} <= {1, 2}


def test_a_killed_worker_is_replaced(make_pool: Callable, tmp_path: Path) -> None:
    pool = make_pool(workers=1)

    def kill() -> None:
        wait_for(tmp_path / "pid")
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    done = list(pool.map_unordered(WorkerSpec(Killable, (tmp_path,)), range(4)))
    killer.join()
    assert sorted(d.value for d in done) == [0, 1, 2, 3]


def test_only_the_item_at_work_is_blamed_for_a_death(make_pool: Callable, tmp_path: Path) -> None:
    pool = make_pool(workers=1)
    values = []
    with pytest.raises(WorkError, match=r"item 2 \(2\) failed 1 time") as caught:
        for done in pool.map_unordered(WorkerSpec(Deadly, (tmp_path, (2,))), range(8), attempts=1):
            values.append(done.value)
    assert sorted(values) == [0, 1, 3, 4, 5, 6, 7]
    assert "died" in str(caught.value)


def test_a_worker_that_dies_while_it_is_built(make_pool: Callable) -> None:
    with pytest.raises(WorkError, match="DeadAtBirth died 2 times while it was built"):
        list(make_pool(workers=1).map_unordered(WorkerSpec(DeadAtBirth), [1, 2], attempts=2))


def test_a_value_that_cannot_be_sent(make_pool: Callable) -> None:
    with pytest.raises(WorkError, match="lock"):
        list(make_pool(workers=1).map_unordered(WorkerSpec(Unsendable), [0], attempts=1))


def test_an_interrupt_frees_busy_workers(make_pool: Callable, tmp_path: Path) -> None:
    pool = make_pool(workers=2)

    def interrupt() -> None:
        wait_for(tmp_path / "started-0")
        os.kill(os.getpid(), signal.SIGINT)

    # A test run in the background of a shell inherits a SIGINT that is ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    interrupting = threading.Thread(target=interrupt)
    interrupting.start()
    # Ray's compiled wait sometimes turns an interrupt into a SystemError of its own.
    with pytest.raises((KeyboardInterrupt, SystemError)):
        list(pool.map_unordered(WorkerSpec(Sleeper, (tmp_path,)), range(4)))
    signal.signal(signal.SIGINT, before)
    interrupting.join()
    assert free_cpus_reach(2)


def test_closing_the_pool_ends_an_unfinished_map(make_pool: Callable) -> None:
    pool = make_pool(workers=2)
    results = pool.map_unordered(WorkerSpec(Times, (1,)), range(100))
    next(results)
    pool.close()
    assert free_cpus_reach(2)
    with pytest.raises(WorkError, match="closed"):
        list(results)


def test_a_map_stops_while_its_items_are_at_work(make_pool: Callable, tmp_path: Path) -> None:
    stop = StopRequest()
    pool = make_pool(workers=1, stopping=lambda: stop.requested)

    def ask() -> None:
        wait_for(tmp_path / "started-0")
        stop.request("SIGTERM")

    asking = threading.Thread(target=ask)
    asking.start()
    with pytest.raises(StoppedError):
        list(pool.map_unordered(WorkerSpec(Sleeper, (tmp_path,)), range(3)))
    asking.join()
    assert free_cpus_reach(2)


def test_warm_workers_that_died_meanwhile_are_replaced(make_pool: Callable) -> None:
    pool = make_pool(workers=1)
    for _ in range(2):
        (done,) = pool.map_unordered(WorkerSpec(Pid), [0], attempts=1)
        os.kill(done.value, signal.SIGKILL)
        wait_for_end_of(done.value)


def wait_for_end_of(pid: int) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_cold_pool_gives_its_cpus_back(make_pool: Callable) -> None:
    pool = make_pool(workers=2, warm=False)
    assert len(list(pool.map_unordered(WorkerSpec(Times, (1,)), range(4)))) == 4
    assert free_cpus_reach(2)


def test_more_workers_than_cpus_share_what_there_is(make_pool: Callable) -> None:
    pool = make_pool(workers=5)
    done = pool.map_unordered(WorkerSpec(Times, (2,)), range(20))
    assert sorted(d.value for d in done) == list(range(0, 40, 2))


def test_what_no_node_has_is_an_error(make_pool: Callable) -> None:
    events: list[Event] = []
    pool = make_pool(events.append, workers=1, patience=1.0)
    with pytest.raises(ClusterError) as caught:
        list(pool.map_unordered(WorkerSpec(Times, (1,)), [1], resources=Resources(cpus=64)))
    assert "64 CPU" in str(caught.value)
    assert "2 CPU" in str(caught.value)
    assert [type(event) for event in events] == [Warned]


def test_a_pool_has_at_least_one_worker(make_pool: Callable) -> None:
    with pytest.raises(ConfigError, match="worker"):
        make_pool(workers=0)
    assert make_pool().workers == 2


def test_a_service_outlives_its_callers(make_pool: Callable) -> None:
    name = f"tally-{uuid.uuid4().hex}"
    pool = make_pool(workers=2)
    assert len(list(pool.map_unordered(WorkerSpec(ServiceUser, (name,)), range(10)))) == 10
    pool.close()
    tally = make_pool(workers=1).service(name, WorkerSpec(Tally))
    assert tally.call("add", 0) == 45
    tally.end()


def test_a_service_that_dies_is_built_again(make_pool: Callable, tmp_path: Path) -> None:
    name = f"tally-{uuid.uuid4().hex}"
    tally = make_pool(workers=1).service(name, WorkerSpec(Tally, (5,)))
    assert tally.call("add", 1) == 6
    assert tally.call("die", tmp_path / "died") == "born again"
    assert tally.call("add", 1) == 6
    tally.end()


def test_a_value_dies_with_the_process_that_put_it(make_pool: Callable) -> None:
    pool = make_pool(workers=1, warm=False)
    (done,) = pool.map_unordered(WorkerSpec(OwnPut), [3])
    assert free_cpus_reach(2)
    with pytest.raises(LostReferenceError, match="make the value again"):
        deadline = time.monotonic() + DEADLINE_SECONDS
        while time.monotonic() < deadline:
            done.value.get()
