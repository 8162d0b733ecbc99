"""Heartbeats: what a command says of itself, and what is made of its silence."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from raycl.errors import StoppedError, StoreError, WorkError
from raycl.observe.events import Event, Progress, RunStarted, TaskDone, Warned, nobody
from raycl.observe.pulse import Listening, clock, rate
from raycl.store import pulses
from raycl.store.collect import collect
from raycl.store.local_folder import LocalFolder
from raycl.store.location import Location
from raycl.store.pulses import ALONE, JOB, beating, heard, standing
from raycl.store.store import Store

DEADLINE_SECONDS = 60.0


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Location:
    monkeypatch.delenv(JOB, raising=False)
    return LocalFolder(tmp_path / "store")


def test_task_stage_pace_and_time_left_are_told(place: Location) -> None:
    events: list[Event] = []
    with beating(place, "run x", events.append, seconds=0.02) as tell:
        tell(RunStarted("result/x/0", "slda on digits", tasks=4, done=1))
        tell(TaskDone(1, 4, 10, 90.0, seconds=30.0))
        tell(Progress(2, "embed", 100, 1000, "image", at=50.0))
        tell(Progress(2, "embed", 400, 1000, "image", at=52.0))
        deadline = time.monotonic() + DEADLINE_SECONDS
        while heard(place)[0].pulse.done != 400 and time.monotonic() < deadline:
            time.sleep(0.01)  # a thread writes it, no event does
        (now,) = heard(place)
    assert len(events) == 4
    assert now.state == "running" and now.job == ALONE
    assert now.pulse.per_second == 150.0 and now.pulse.stage_left == 4.0
    assert now.pulse.left == 60.0
    assert now.sentence().startswith(
        "slda on digits, task 3/4, embed 400/1000 images, 150 images/s, 0:04 left, "
        "all tasks in about 1:00 (beat 0 s ago, process "
    )
    (after,) = heard(place)
    assert after.state == "done" and after.sentence().endswith("(done 0 s ago)")


@pytest.mark.parametrize(
    ("error", "state"),
    [(StoppedError("stopped after task 2"), "stopped"), (WorkError("it broke\nbadly"), "failed")],
)
def test_how_it_ended_is_told_without_secrets(
    place: Location, monkeypatch: pytest.MonkeyPatch, error: Exception, state: str
) -> None:
    monkeypatch.setenv("MY_TOKEN", "stopped after" if state == "stopped" else "it broke")
    with pytest.raises(type(error)), beating(place, "x", nobody):
        raise error
    (found,) = heard(place)
    assert found.state == state and found.pulse.why.startswith("[MY_TOKEN]")
    assert "badly" not in found.pulse.why


SCRIPT = """
import os, sys, time
from raycl.observe.events import nobody
from raycl.store.location import open_location
from raycl.store.pulses import beating
with beating(open_location(sys.argv[1]), "x", nobody):
    print("beats", flush=True)
    time.sleep(600)
"""


def test_a_killed_process_is_silent_at_once_on_its_own_host(
    place: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(JOB, "raycl-abc-1")
    command = [sys.executable, "-c", SCRIPT, place.uri]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ}) as victim:
        assert victim.stdout is not None and victim.stdout.readline() == "beats\n"
        (alive,) = heard(place, "raycl-abc-1")
        assert alive.state == "running"
        victim.kill()
        victim.wait()
        (dead,) = heard(place, "raycl-abc-1")
        assert dead.state == "silent" and "died or is cut off" in dead.sentence()
        assert heard(place, "raycl-abc-2") == []


def rewritten(place: Location, **changes: object) -> None:
    """As another host would have written it."""
    (file,) = place.files(pulses.FOLDER)
    body = json.loads(place.read(file.path) or b"")
    body["process"]["host"] = "another"
    body["pulse"] |= changes
    place.write(file.path, json.dumps(body).encode())


def test_another_host_is_silent_after_some_beats_that_did_not_come(
    place: Location, tmp_path: Path
) -> None:
    with beating(place, "x", nobody, seconds=100.0):
        rewritten(place)
        assert heard(place)[0].state == "running"
        (file,) = (tmp_path / "store").rglob("*.json")
        for age, state in ((390, "running"), (410, "silent")):
            os.utime(file, (time.time() - age,) * 2)
            assert heard(place)[0].state == state
        rewritten(place, heard=time.time() - 3600)
        assert "no news for 1:00:00" in heard(place)[0].sentence()


def test_a_store_that_cannot_be_written_harms_nobody(
    place: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: object, path: str, data: bytes) -> None:
        raise StoreError("full")

    monkeypatch.setattr(LocalFolder, "write", refuse)
    with beating(place, "x", nobody) as tell:
        tell(Warned("y"))
    assert heard(place) == []


def test_half_a_pulse_is_left_out(place: Location) -> None:
    for name, text in (("a", "{"), ("b", "[]"), ("c", '{"pulse": {}}')):
        place.write(f"pulses/here/{name}.json", text.encode())
    assert heard(place) == []


def test_of_several_lives_the_one_that_runs_counts(place: Location) -> None:
    with pytest.raises(WorkError), beating(place, "x", nobody):
        raise WorkError("first")
    with beating(place, "x", nobody), pytest.raises(WorkError), beating(place, "x", nobody):
        raise WorkError("while another runs")
    found = heard(place)
    assert len(found) == 3
    assert [one.state for one in standing(found)] == ["done"]
    assert [one.state for one in standing(found[:1])] == ["failed"]


def test_what_is_old_is_garbage_and_what_beats_is_not(place: Location, tmp_path: Path) -> None:
    store = Store.open(place.uri)
    for _ in range(2):
        with beating(place, "x", nobody):
            pass
    first, second = sorted((tmp_path / "store").rglob("*.json"))
    os.utime(first, (time.time() - 8 * 86400,) * 2)
    assert [item.reason for item in collect(store)] == ["an old heartbeat"]
    collect(store, delete=True)
    assert not first.exists() and second.exists()


def test_a_stage_that_begins_again_has_a_pace_of_its_own() -> None:
    listening = Listening("x")
    listening(Progress(0, "fit", 5, 10, "class", at=1.0))
    assert listening.pulse.per_second is None
    listening(Progress(0, "fit", 6, 10, "class", at=3.0))
    assert listening.pulse.per_second == 0.5
    listening(Progress(1, "fit", 2, 10, "class", at=4.0))
    assert listening.pulse.per_second is None and listening.pulse.stage_left is None


def test_durations_and_paces_are_readable() -> None:
    assert [clock(s) for s in (0, 59.6, 3599, 3600)] == ["0:00", "1:00", "59:59", "1:00:00"]
    assert [rate(r) for r in (0.01234, 12.34, 1234.5)] == ["0.0123", "12.3", "1,234"]
