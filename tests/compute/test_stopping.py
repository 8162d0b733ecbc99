"""Signals ask once, and insist the second time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from raycl.compute import LocalPool, StopRequest, WorkerSpec, catching_signals
from raycl.errors import StoppedError
from tests.compute.workers import Times

AGAIN = """
import os, signal, time
from raycl.compute import StopRequest, catching_signals, stopping
stopping.SAME_WISH_SECONDS = 0.2
stop = StopRequest()
with catching_signals(stop):
    os.kill(os.getpid(), signal.{name})
    print(stop.requested, stop.signal_name, flush=True)
    os.kill(os.getpid(), signal.{name})
    print("one wish", flush=True)
    time.sleep(0.4)
    os.kill(os.getpid(), signal.{name})
print("still here")
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_a_request(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    stop = StopRequest()
    with catching_signals(stop):
        assert not stop.requested
        os.kill(os.getpid(), number)
        assert stop.requested
        assert stop.signal_name == number.name
    assert signal.getsignal(number) is before


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 75)])
def test_a_later_signal_ends_the_process(name: str, code: int) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", AGAIN.format(name=name)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == code, ended.stderr
    assert ended.stdout == f"True {name}\none wish\n"


@pytest.mark.ray
def test_ctrl_c_lets_a_hosted_learner_save(tmp_path: Path) -> None:
    """Ctrl-C goes to all processes of the terminal, those of a local Ray among them."""
    driver = subprocess.Popen(
        [sys.executable, "-m", "tests.compute.stoppable"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with driver:
        assert driver.stdout is not None
        assert driver.stdout.readline() == "running\n"
        os.killpg(driver.pid, signal.SIGINT)
        assert driver.stdout.read() == "saved\nSIGINT\n"
    assert driver.returncode == 75


AFTER_RAY = """
import os, signal
from raycl.compute import StopRequest, catching_signals
from raycl.compute.ray_session import connect
stop = StopRequest()
with catching_signals(stop):
    connect(num_cpus=1, object_store_mib=100).close()
    os.kill(os.getpid(), signal.SIGTERM)
    print(stop.signal_name)
"""


@pytest.mark.ray
def test_a_signal_is_a_request_after_ray_has_ended_too() -> None:
    """Ray's library puts back what the system does by default, which Python is not told."""
    ended = subprocess.run(
        [sys.executable, "-c", AFTER_RAY], capture_output=True, text=True, timeout=120, check=False
    )
    assert (ended.returncode, ended.stdout) == (0, "SIGTERM\n"), ended.stderr


def test_outside_the_main_thread_signals_are_left_alone() -> None:
    before = signal.getsignal(signal.SIGTERM)
    seen = []

    def elsewhere() -> None:
        with catching_signals(StopRequest()):
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert seen == [before]


def test_the_first_reason_is_kept() -> None:
    stop = StopRequest()
    stop.request("SIGTERM")
    stop.request("SIGINT")
    assert stop.signal_name == "SIGTERM"


def test_a_map_stops_between_items() -> None:
    stop = StopRequest()
    pool = LocalPool(stopping=lambda: stop.requested)
    seen = []
    with pytest.raises(StoppedError):
        for done in pool.map_unordered(WorkerSpec(Times, (1,)), range(10)):
            seen.append(done.value)
            if done.value == 3:
                stop.request()
    assert seen == [0, 1, 2, 3]
