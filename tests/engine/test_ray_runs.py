"""The same runs inside Ray: same numbers, whatever dies on the way."""

from __future__ import annotations

import os
import signal
import textwrap
import time
from pathlib import Path

import pytest

from raycl.observe.events import Event, TaskDone, WorkerLost
from raycl.store.store import Store
from tests.engine.processes import Command, makers
from tests.engine.worlds import World, numbers, predictions_digests

pytestmark = pytest.mark.ray

DEADLY = textwrap.dedent('''
    import os
    import pathlib
    import signal


    def die_once(place):
        """Kill this process the first time that it comes here."""
        mark = pathlib.Path(FOLDER) / f"died-{place}"
        if not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
''')


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path, noise=1.0)


@pytest.mark.parametrize("workers", [1, 2])
def test_ray_gives_the_numbers_of_this_process(
    world: World, tmp_path: Path, ray_session: object, workers: int
) -> None:
    method = world.pooled()
    here = world.run(method, store=str(tmp_path / "here"))
    there = world.run(method, pool="ray", workers=workers)
    assert numbers(there) == numbers(here)
    assert predictions_digests(world.store) == predictions_digests(tmp_path / "here")


def test_a_trained_method_gives_the_same_numbers_in_an_actor(
    world: World, tmp_path: Path, ray_session: object
) -> None:
    events: list[Event] = []
    here = world.run("joint", store=str(tmp_path / "here"))
    there = world.run("joint", pool="ray", observer=events.append)
    assert numbers(there) == numbers(here)
    assert there.computed == here.computed
    assert predictions_digests(world.store) == predictions_digests(tmp_path / "here")
    assert [e.task for e in events if isinstance(e, TaskDone)] == [0, 1, 2]


@pytest.mark.parametrize("victim", ["worker", "learner"])
def test_a_killed_process_costs_only_its_work(
    world: World, tmp_path: Path, ray_session: object, victim: str
) -> None:
    file = Path(world.pooled())
    here = world.run(str(file), store=str(tmp_path / "here"))
    calm = file.read_text()
    where = {
        "worker": (
            "        c, rows = item\n",
            "        die_once(f'worker-{c}') if c == 3 else None\n",
        ),
        "learner": (
            "    def learn(self, task, context):\n",
            "        die_once('learner') if task.index == 1 else None\n",
        ),
    }[victim]
    header = DEADLY.replace("FOLDER", repr(str(tmp_path)))
    body = calm.replace(where[0], where[0] + where[1])
    assert body != calm
    file.write_text(body.replace("import torch\n", "import torch\n" + header, 1))
    events: list[Event] = []
    there = world.run(str(file), pool="ray", observer=events.append)
    assert [path.name for path in tmp_path.glob("died-*")], "the victim died"
    assert any(isinstance(e, WorkerLost) for e in events)
    for name in ("r_seen", "r_union", "metrics"):
        assert there.values[name] == here.values[name]
    assert there.computed["state"] + there.reused.get("state", 0) >= 2


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 75, marks=pytest.mark.ordeal)],
)
def test_a_signal_to_the_driver_stops_the_learner_cleanly(
    tmp_path: Path, number: int, code: int
) -> None:
    """Ctrl-C reaches the whole process group, SIGTERM the driver alone."""
    world = World(tmp_path, train=20, noise=1.0)
    asked = [
        *("run", "joint", "--stream", f"embeddings:{world.data}", "--set", "stream.tasks=3"),
        *("--set", "method.align.epochs=1500", "--set", "method.align.batch=8", "--json"),
    ]
    command = Command(*asked, "--store", str(world.store), "--pool", "ray", folder=tmp_path)
    command.until("task 1/3")
    # Between two tasks there is no stage to save.
    command.until_seen(lambda: makers(world.store, "state"), "task at work")
    time.sleep(0.3)
    if number == signal.SIGINT:
        os.killpg(command.process.pid, number)
    else:
        command.kill(number)
    assert command.end() == (code, ""), command.log.read_text()
    assert "same command again" in command.log.read_text()
    kinds = {record.kind for record in Store.open(str(world.store)).records()}
    assert "partial" in kinds and "result" not in kinds, "the stage in progress was saved"
