"""A hosted learner: its value, its news, its errors, its deaths and its end."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from raycl.compute import StopRequest, host_in_process
from raycl.errors import ClusterError, ConfigError, MethodError, StoppedError, WorkError
from raycl.observe.events import Computed, Event, Progress, Warned, WorkerLost
from tests.compute import workers

Host = Callable[..., Any]


@pytest.fixture(params=["local", pytest.param("ray", marks=pytest.mark.ray)])
def hosted(request: pytest.FixtureRequest) -> Host:
    if request.param == "local":
        return lambda target, payload, **more: host_in_process(
            target, payload, **{"observer": lambda event: None, "stop": StopRequest(), **more}
        )
    return request.getfixturevalue("ray_hosted")  # type: ignore[no-any-return]


@pytest.fixture
def ray_hosted(ray_session: object) -> Host:
    from raycl.compute.ray_learner import host

    return lambda target, payload, **more: host(
        target,
        payload,
        **{
            "session": ray_session,
            "observer": lambda event: None,
            "stop": StopRequest(),
            **more,
        },
    )


def test_the_value_comes_back_after_all_events_in_order(hosted: Host) -> None:
    events: list[Event] = []
    assert hosted(workers.add_one, 41, observer=events.append) == 42
    assert [event.done for event in events if isinstance(event, Progress)] == list(range(250))


def test_our_errors_arrive_whole(hosted: Host) -> None:
    events: list[Event] = []
    with pytest.raises(ConfigError) as caught:
        hosted(workers.fail_with, "config", observer=events.append)
    error = caught.value
    assert (error.what, error.got, error.do) == ("no such option", "--colour", "leave it out")
    assert [type(event) for event in events] == [Warned]
    with pytest.raises(MethodError, match="diverged"):
        hosted(workers.fail_with, "method")


def test_plain_errors_keep_their_type(hosted: Host) -> None:
    with pytest.raises(ZeroDivisionError, match="a plain error"):
        hosted(workers.fail_with, "zero")


def test_a_stop_reaches_the_target(hosted: Host) -> None:
    stop = StopRequest()
    events: list[Event] = []

    def watch(event: Event) -> None:
        events.append(event)
        stop.request("SIGTERM")

    with pytest.raises(StoppedError, match="stopped at a step"):
        hosted(workers.until_stopped, None, observer=watch, stop=stop)
    assert [event.message for event in events if isinstance(event, Warned)] == ["running", "saved"]


@pytest.mark.ray
def test_an_error_that_does_not_travel_is_told_in_words(ray_hosted: Host) -> None:
    with pytest.raises(WorkError, match="onetwo") as caught:
        ray_hosted(workers.fail_with, "odd")
    assert "workers.py" in str(caught.value)


@pytest.mark.ray
def test_a_value_that_does_not_travel(ray_hosted: Host) -> None:
    with pytest.raises(WorkError, match="could not be sent"):
        ray_hosted(lambda context, payload: threading.Lock(), None)


@pytest.mark.ray
def test_a_killed_learner_continues(ray_hosted: Host, tmp_path: Path) -> None:
    events: list[Event] = []

    def kill_after_two(event: Event) -> None:
        events.append(event)
        if isinstance(event, Computed) and event.key == "1":
            workers.wait_for(tmp_path / "pid")
            os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)

    assert ray_hosted(workers.resumable, (tmp_path, 2), observer=kill_after_two) == 2
    assert len([event for event in events if isinstance(event, WorkerLost)]) == 1
    assert [event.key for event in events if isinstance(event, Computed)] == ["0", "1", "2"]


@pytest.mark.ray
def test_deaths_without_progress_have_an_end(ray_hosted: Host, tmp_path: Path) -> None:
    events: list[Event] = []
    with pytest.raises(WorkError, match="2 time"):
        ray_hosted(workers.dies_at_once, tmp_path, observer=events.append, attempts=2)
    assert [event.attempt for event in events if isinstance(event, WorkerLost)] == [1, 2]


@pytest.mark.ray
def test_deaths_with_progress_do_not_count(ray_hosted: Host, tmp_path: Path) -> None:
    def watch(event: Event) -> None:
        if isinstance(event, Computed):
            workers.leave(tmp_path / f"seen-{event.key}")

    assert ray_hosted(workers.dies_after_each_unit, tmp_path, observer=watch, attempts=1) == 5


@pytest.mark.ray
def test_a_deaf_learner_is_ended_after_the_grace(ray_hosted: Host, tmp_path: Path) -> None:
    stop = StopRequest()
    with pytest.raises(StoppedError, match="did not stop within"):
        ray_hosted(
            workers.deaf,
            tmp_path,
            observer=lambda event: stop.request("SIGINT"),
            stop=stop,
            grace=0.3,
        )


@pytest.mark.ray
def test_an_error_of_the_observer_ends_the_learner(ray_hosted: Host) -> None:
    def broken(event: Event) -> None:
        raise KeyError("the display is broken")

    with pytest.raises(KeyError, match="the display is broken"):
        ray_hosted(workers.until_stopped, None, observer=broken)


@pytest.mark.ray
def test_what_no_node_has_is_an_error(ray_hosted: Host) -> None:
    with pytest.raises(ClusterError) as caught:
        ray_hosted(workers.add_one, 1, cpus=1, gpus=8)
    assert "1 CPU, 8 GPU" in str(caught.value)
    assert "2 CPU, 0 GPU" in str(caught.value)


@pytest.mark.ray
def test_a_learner_has_pools_of_its_own(ray_hosted: Host) -> None:
    assert ray_hosted(workers.maps_in_a_pool, [1, 2, 3]) == [3, 6, 9]


@pytest.mark.ray
def test_a_learner_needs_an_attempt(ray_hosted: Host) -> None:
    with pytest.raises(ConfigError, match="attempt"):
        ray_hosted(workers.add_one, 1, attempts=0)
