"""A run that is killed or asked to stop at any moment ends with the same numbers."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from raycl.config.clts import CLTS
from raycl.config.methods import BUILT_IN, kind_of
from raycl.store.store import Store
from tests.engine.processes import Command, descendants
from tests.engine.worlds import VOLATILE, World, predictions_digests

METHOD = "joint"
SHORT = 120
"""Epochs that a test has time for."""
LONG = 2500
"""Epochs of about a minute: the kills of the ordeal find it at work."""


def make_world(folder: Path) -> World:
    return World(folder, train=20, noise=1.0)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_world(tmp_path)


@dataclass
class Whole:
    """The run that nobody disturbed."""

    values: dict[str, Any]
    digests: list[str]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    world = make_world(tmp_path_factory.mktemp("whole"))
    values = Command(*arguments(world, world.store), folder=world.folder).result()
    return Whole(numbers(values), predictions_digests(world.store))


def arguments(world: World, store: Path, *more: str, epochs: int = SHORT) -> list[str]:
    return [
        "run",
        METHOD,
        "--stream",
        f"embeddings:{world.data}",
        "--set",
        "stream.tasks=3",
        "--set",
        f"method.align.epochs={epochs}",
        "--set",
        "method.align.batch=8",
        "--store",
        str(store),
        "--json",
        *more,
    ]


def numbers(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in VOLATILE}


def killed_until_done(
    world: World, kills: int, victims: Callable[[int], list[int]], *pool: str
) -> dict[str, Any]:
    """Start, kill something at a random moment, start again; the last one may finish."""
    moments = random.Random(0)
    asked = arguments(world, world.store, *pool, epochs=LONG)
    unfinished = 0
    for _ in range(kills):
        command = Command(*asked, folder=world.folder)
        time.sleep(moments.uniform(3.0, 20.0))
        for victim in moments.sample(found := victims(command.process.pid), k=min(1, len(found))):
            with contextlib.suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)
        unfinished += command.end(900)[0] != 0
        damaged = list(Store.open(str(world.store)).verify())
        assert damaged == [], "a kill must leave every record whole"
    assert unfinished >= 3, "the kills came after the work"
    return Command(*asked, folder=world.folder).result(900)


def test_a_killed_run_continues_to_the_same_numbers(
    world: World, tmp_path: Path, whole: Whole
) -> None:
    command = Command(*arguments(world, world.store), folder=tmp_path)
    command.until("task 2/3")
    command.kill()
    assert command.end()[0] == -signal.SIGKILL
    continued = Command(*arguments(world, world.store), folder=tmp_path).result()
    assert continued["computed"]["state"] < 3, "what was finished is not computed again"
    assert numbers(continued) == whole.values
    assert predictions_digests(world.store) == whole.digests


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_signal_stops_within_a_step_and_loses_none(
    world: World, tmp_path: Path, whole: Whole, number: int, code: int
) -> None:
    command = Command(*arguments(world, world.store), folder=tmp_path)
    command.until("task 1/3")
    command.kill(number)
    assert command.end() == (code, "")
    assert "same command again" in command.log.read_text()
    kinds = {record.kind for record in Store.open(str(world.store)).records()}
    assert "state" in kinds and "result" not in kinds
    continued = Command(*arguments(world, world.store), folder=tmp_path).result()
    assert numbers(continued) == whole.values


@pytest.fixture(scope="module")
def long_whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    world = make_world(tmp_path_factory.mktemp("long"))
    values = Command(*arguments(world, world.store, epochs=LONG), folder=world.folder).result(900)
    return Whole(numbers(values), predictions_digests(world.store))


@pytest.mark.ordeal
def test_twenty_kills_at_random_moments(world: World, long_whole: Whole) -> None:
    survived = killed_until_done(world, 20, lambda driver: [driver])
    assert numbers(survived) == long_whole.values
    assert predictions_digests(world.store) == long_whole.digests


@pytest.mark.ordeal
def test_twenty_kills_of_any_process_under_ray(world: World, long_whole: Whole) -> None:
    def victims(driver: int) -> list[int]:
        inner = [pid for pid, name in descendants(driver) if name.startswith(("ray::", "raylet"))]
        return [driver, *inner]

    survived = killed_until_done(world, 20, victims, "--pool", "ray")
    assert numbers(survived) == long_whole.values
    assert predictions_digests(world.store) == long_whole.digests


@pytest.mark.ordeal
@pytest.mark.parametrize("method", [kind_of(spec) for spec in BUILT_IN if spec is not CLTS])
def test_every_method_is_killed_in_each_task_and_continues(
    world: World, tmp_path: Path, method: str
) -> None:
    calm = world.run(method)
    moments = random.Random(method)
    words = [*world.words(method), "--store", str(tmp_path / "killed")]
    for task in (1, 2, 3):
        command = Command(*words, folder=tmp_path)
        with contextlib.suppress(AssertionError):  # or it ended before
            command.until(f"task {task}/3")
        time.sleep(moments.uniform(0.0, 0.3))
        command.kill()
        command.end()
        assert list(Store.open(str(tmp_path / "killed")).verify()) == []
    continued = Command(*words, folder=tmp_path).result()
    assert numbers(continued) == numbers(calm.as_json())
    assert predictions_digests(tmp_path / "killed") == predictions_digests(world.store)
