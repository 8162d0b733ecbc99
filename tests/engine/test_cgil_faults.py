"""Whole runs of CGIL whose processes are killed: the same bits, and only what was lost again.

Every kill finds its process in the middle of the work it is named for: the process is stopped,
looked at, and only then killed. What the store held at that moment must never be made again.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from raycl.compute.stopping import StopRequest
from raycl.config.execution import Execution
from raycl.config.experiment import Experiment
from raycl.config.loading import load, parse_setting
from raycl.config.methods import CGIL
from raycl.config.streams import EmbeddingsStream
from raycl.engine.fitting import fit
from raycl.engine.run import run
from raycl.errors import StoppedError
from raycl.observe.events import Event
from raycl.replay.sampled import Drawer
from raycl.store.store import Store
from tests.engine.processes import LIMIT_SECONDS, Command, caught, descendants, gone, logged
from tests.engine.worlds import (
    LASTING,
    LASTING_CLASSES,
    LASTING_TASKS,
    Killer,
    Loss,
    Whole,
    World,
    lasting_world,
    states,
)
from tests.fitting.made_fits import record_bytes

ROOT = Path(__file__).parents[2]
LAST = LASTING_TASKS - 1
QUICK = ("method.per_class=8", "method.align.epochs=3")
OURS = ("ray::Learner", "ray::Pool")
"""How the processes are called that do our work; Ray's own agents take a minute to give up."""

Plan = Callable[[Event, int], Loss | None]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return lasting_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def calm(world: World) -> Whole:
    """The run that nobody disturbed, in this process."""
    return Whole.of(world.run("cgil", *LASTING), world.store)


def ended(world: World, store: Path, settings: tuple[str, ...] = LASTING) -> Whole:
    """What a run of other processes left, where nothing is left to compute."""
    found = world.run("cgil", *settings, store=str(store))
    assert found.reused == {"result": 1}
    return Whole.of(found, store)


def experiment(world: World, *settings: str) -> Experiment:
    return load([world.asked("cgil"), *(parse_setting(text) for text in settings)]).experiment


# Moments, and who dies then


def at_a_fit(event: dict[str, Any], task: int) -> bool:
    """Whether a class of this task is fitted and another is not."""
    mine = (event.get("task"), event.get("unit")) == (task, "generator")
    return mine and 0 < event["done"] < event["total"]


def at_an_alignment(event: dict[str, Any], task: int) -> bool:
    """Whether the alignment of this task has most of its way to go."""
    mine = (event.get("task"), event.get("stage")) == (task, "align")
    return mine and 2 * event["done"] < event["total"]


def plan(
    due: Callable[[dict[str, Any], int], bool], task: int, kill: Callable[[int], Loss]
) -> Plan:
    return lambda event, told: kill(told) if due(event.as_dict(), task) else None


def worker_at_a_fit(store: Path, told: int) -> Loss:
    with caught(store, "generator") as worker:
        loss = Loss.now(store, told)
        worker.kill()
    assert loss.making == [worker.key]
    return loss


def worker_at_a_draw(store: Path, told: int) -> Loss:
    (worker,) = [pid for pid, name in descendants(os.getpid()) if name.startswith("ray::Pool")]
    loss = Loss.now(store, told)
    os.kill(worker, signal.SIGKILL)
    assert not loss.making and states(store) == LAST
    return loss


def learner_at_a_fit(store: Path, told: int) -> Loss:
    with caught(store, "generator") as worker, caught(store, "state") as learner:
        loss = Loss.now(store, told)
        learner.kill()
    assert loss.making == [worker.key]
    return loss


def learner_at_an_alignment(store: Path, told: int) -> Loss:
    with caught(store, "state") as learner:
        loss = Loss.now(store, told)
        learner.kill()
        assert not loss.making and states(store) == LAST
    return loss


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_workers_die_at_a_fit_and_at_a_draw(world: World, tmp_path: Path, calm: Whole) -> None:
    killer = Killer(
        [
            plan(at_a_fit, 0, lambda told: worker_at_a_fit(tmp_path, told)),
            plan(at_an_alignment, LAST, lambda told: worker_at_a_draw(tmp_path, told)),
        ]
    )
    place: dict[str, Any] = {"store": str(tmp_path), "pool": "ray", "draws": "workers"}
    there = world.run("cgil", *LASTING, observer=killer, **place)
    assert killer.lost == ["ClassFitter", "Drawer"]
    assert Whole.of(there, tmp_path) == calm
    for loss in killer.losses:
        loss.check(tmp_path, killer.fitted)
    # The learner lived: what it did not hear of as computed, it found.
    assert there.computed["generator"] == killer.fitted
    assert killer.fitted + there.reused.get("generator", 0) == LASTING_CLASSES


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_the_learner_dies_at_a_fit_and_at_an_alignment(
    world: World, tmp_path: Path, calm: Whole
) -> None:
    killer = Killer(
        [
            plan(at_a_fit, 1, lambda told: learner_at_a_fit(tmp_path, told)),
            plan(at_an_alignment, LAST, lambda told: learner_at_an_alignment(tmp_path, told)),
        ]
    )
    there = world.run("cgil", *LASTING, observer=killer, store=str(tmp_path), pool="ray")
    assert killer.lost == ["learner", "learner"]
    assert Whole.of(there, tmp_path) == calm
    for loss in killer.losses:
        loss.check(tmp_path, killer.fitted, orphaned=len(loss.making))
    # The last life had the last task alone to do, and all its generators were there.
    assert (there.computed["state"], "generator" in there.computed) == (1, False)
    assert there.reused["generator"] == LASTING_CLASSES // LASTING_TASKS


@pytest.mark.ray
def test_a_node_is_lost_with_the_worker_that_fits_on_it(
    world: World, tmp_path: Path, calm: Whole
) -> None:
    process = subprocess.run(
        [sys.executable, "-m", "tests.compute.losing_a_node", str(tmp_path), "cgil"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "RAY_AUTH_MODE": "disabled"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    told = json.loads(process.stdout.splitlines()[-1])
    assert told["lost"] == ["ClassFitter"] and len(told["making"]) == 2
    found = told["reused"].get("generator", 0)
    assert told["computed"]["generator"] + found == LASTING_CLASSES
    assert ended(world, tmp_path / "store") == calm


# Commands, killed and given again


def fits_told(store: Path) -> int:
    events = logged(store)
    return sum((e["event"], e.get("kind")) == ("Computed", "generator") for e in events)


def killed_at_a_fit(command: Command, store: Path) -> Loss:
    command.until_seen(lambda: record_bytes(store), "generator")
    with caught(store, "generator", command.includes) as fitter:
        loss = Loss.now(store, fits_told(store))
        command.kill()
        assert command.end()[0] == -signal.SIGKILL
    assert fitter.key in loss.making and loss.stored
    return loss


def killed_at_an_alignment(command: Command, store: Path) -> Loss:
    command.until_seen(
        lambda: any(at_an_alignment(event, LAST) for event in logged(store)), "alignment"
    )
    with caught(store, "state", command.includes):
        loss = Loss.now(store, fits_told(store))
        command.kill()
        assert command.end()[0] == -signal.SIGKILL
        assert not loss.making and states(store) == LAST
    return loss


def until_gone(commands: list[Command]) -> None:
    """What killed drivers had started ends by itself."""
    ours = [p for command in commands for p, name in command.below if name.startswith(OURS)]
    deadline = time.monotonic() + LIMIT_SECONDS
    while left := [pid for pid in ours if not gone(pid)]:
        assert time.monotonic() < deadline, f"{len(left)} processes live on"
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("pool", "kills"),
    [
        pytest.param([], [killed_at_a_fit, killed_at_an_alignment], id="local"),
        pytest.param(
            ["--pool", "ray"],
            [killed_at_a_fit],
            id="ray at a fit",
            marks=[pytest.mark.ray, pytest.mark.ordeal],
        ),
        pytest.param(
            ["--pool", "ray", "--workers", "2"],
            [killed_at_a_fit, killed_at_an_alignment],
            id="ray",
            marks=[pytest.mark.ray, pytest.mark.ordeal],
        ),
    ],
)
def test_the_same_command_goes_on_where_its_driver_died(
    world: World,
    tmp_path: Path,
    calm: Whole,
    pool: list[str],
    kills: list[Callable[[Command, Path], Loss]],
) -> None:
    asked = [*world.words("cgil", *LASTING), "--store", str(tmp_path / "store"), *pool]
    losses, commands = [], [Command(*asked, folder=tmp_path)]
    for kill in kills:
        with commands[-1] as command:
            losses.append(kill(command, tmp_path / "store"))
        # At once: what is left of the last one may still be at work.
        commands.append(Command(*asked, folder=tmp_path))
    values = commands[-1].result()
    until_gone(commands)
    for loss in losses:
        # A learner works on for a moment when its driver and its Ray are gone.
        orphaned = LASTING_CLASSES - len(loss.stored) if pool else 0
        loss.check(tmp_path / "store", fits_told(tmp_path / "store"), orphaned)
    left = LASTING_CLASSES - len(losses[-1].stored)
    assert values["computed"].get("generator", 0) <= left
    assert ended(world, tmp_path / "store") == calm


# Numbers that do not depend on who works


@pytest.mark.ray
@pytest.mark.ordeal
@pytest.mark.usefixtures("ray_session")
def test_four_workers_give_the_numbers_of_this_process(tmp_path: Path) -> None:
    world = World(tmp_path, classes=12, noise=1.0)
    here = world.run("cgil", *QUICK)
    place: dict[str, Any] = {"store": str(tmp_path / "there"), "pool": "ray", "draws": "workers"}
    # Four of them and the learner fit into the two CPUs of the tests' Ray.
    there = world.run("cgil", *QUICK, workers=4, worker={"cpus": 0.25}, **place)
    assert there.computed == here.computed and there.computed["generator"] == 12
    assert Whole.of(there, tmp_path / "there") == Whole.of(here, world.store)


def test_another_order_and_a_fit_of_some_classes_fit_nothing(world: World, calm: Whole) -> None:
    other = world.run("cgil", *LASTING, "stream.order_seed=5", "method.align.epochs=1")
    orders = [[t["classes"] for t in v["tasks"]] for v in (other.values, calm.values)]
    assert orders[0] != orders[1]
    assert "generator" not in other.computed
    assert other.reused["generator"] == LASTING_CLASSES
    asked = experiment(world, *LASTING)
    assert isinstance(asked.stream, EmbeddingsStream) and isinstance(asked.method, CGIL)
    place = Execution(store=str(world.store))
    some = ("thing 4", "thing 1")
    found = fit(asked.stream, asked.method.generator, place, classes=some)
    assert (found.computed, found.reused) == ({}, {"generator": 2})


# Stops


def test_a_stop_while_samples_are_awaited_keeps_every_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The workers draw no more then, and the trainer has to reach the end of a step."""
    world = World(tmp_path)
    whole = Whole.of(world.run("cgil", *QUICK), world.store)
    store, stop, draw = tmp_path / "stopped", StopRequest(), Drawer.__call__

    def stopping(self: Drawer, item: Any) -> Any:
        # The first of an epoch's two draws, for which the trainer waits.
        if states(store) == 1:
            stop.request()
        return draw(self, item)

    monkeypatch.setattr(Drawer, "__call__", stopping)
    place = Execution(store=str(store), draws="workers")
    with pytest.raises(StoppedError, match="stopped in align of task 2"):
        run(experiment(world, *QUICK), place, stop=stop)
    assert len(list(Store.open(str(store)).records("partial"))) == 1
    assert Whole.of(run(experiment(world, *QUICK), place), store) == whole


# By hand, before a release

LONG = (
    "method.generator.epochs=500",
    "method.generator.batch=16",
    "method.per_class=64",
    "method.align.epochs=500",
    "method.align.batch=32",
)
"""A run of a minute or more, whose alignments save themselves on the way."""
PATIENCE = 900.0


@pytest.fixture(scope="module")
def long_world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("long"), classes=24, train=64, noise=1.0)


@pytest.fixture(scope="module")
def long_calm(long_world: World) -> Whole:
    return Whole.of(long_world.run("cgil", *LONG), long_world.store)


def living(command: Command) -> dict[str, list[int]]:
    """What may be killed of a command, by its part."""
    found: dict[str, list[int]] = {"driver": [command.process.pid]}
    for pid, name in descendants(command.process.pid):
        for part in ("raylet", *OURS):
            if name.startswith(part):
                found.setdefault(part, []).append(pid)
    return found


def ended_within(command: Command, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while command.process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    return command.process.poll() is not None


@pytest.mark.ordeal
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("pool", ["local", pytest.param("ray", marks=pytest.mark.ray)])
def test_ten_kills_of_any_part_at_any_moment(
    long_world: World, tmp_path: Path, long_calm: Whole, pool: str
) -> None:
    chance, store = random.Random(0), tmp_path / "store"
    asked = [*long_world.words("cgil", *LONG), "--store", str(store), "--pool", pool]
    losses: list[Loss] = []
    died: Counter[str] = Counter()

    def disturbed(command: Command) -> int:
        """Its exit code; whatever it is made of is killed now and then."""
        while len(losses) < 10 and not ended_within(command, chance.uniform(2, 10)):
            parts = living(command)
            part = chance.choice(sorted(parts))
            losses.append(Loss.now(store, 0))
            died[part] += 1
            with contextlib.suppress(ProcessLookupError):
                os.kill(chance.choice(parts[part]), signal.SIGKILL)
        return command.end(PATIENCE)[0]

    code = -1
    for _ in range(20):
        # Each time with other workers, which are none of the numbers' business.
        workers = chance.choice((1, 2, 4)) if pool == "ray" else 1
        draws = f"execution.draws={chance.choice(('trainer', 'workers'))}"
        place = ["--workers", str(workers), "--set", draws]
        with Command(*asked, *place, folder=tmp_path) as command:
            code = disturbed(command)
        assert list(Store.open(str(store)).verify()) == []
        if code == 0:
            break
    assert code == 0 and len(losses) >= 5, "the work was done before the kills"
    print(f"killed: {dict(died)}")
    for loss in losses:
        loss.check_stored(store)
    assert fits_told(store) <= 24
    assert ended(long_world, store, LONG) == long_calm
