"""A run that is killed or asked to stop at any moment ends with the same numbers."""

from __future__ import annotations

import random
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from raycl.store.store import Store
from tests.engine.processes import Command
from tests.engine.worlds import VOLATILE, World, predictions_digests

METHOD = "joint"
EPOCHS = 120
"""Long enough that a kill finds it at work, short enough for a test."""


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


def arguments(world: World, store: Path, *more: str) -> list[str]:
    return [
        "run",
        METHOD,
        "--stream",
        f"embeddings:{world.data}",
        "--set",
        "stream.tasks=3",
        "--set",
        f"method.align.epochs={EPOCHS}",
        "--store",
        str(store),
        "--json",
        *more,
    ]


def numbers(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in VOLATILE}


def killed_until_done(world: World, moments: random.Random, kills: int) -> dict[str, Any]:
    """Start, kill at a random moment, start again; the last one may finish."""
    for _ in range(kills):
        command = Command(*arguments(world, world.store), folder=world.folder)
        time.sleep(moments.uniform(1.0, 6.0))
        command.kill()
        command.end()
        damaged = list(Store.open(str(world.store)).verify())
        assert damaged == [], "a kill must leave every record whole"
    return Command(*arguments(world, world.store), folder=world.folder).result()


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


@pytest.mark.ordeal
def test_twenty_kills_at_random_moments(world: World, whole: Whole) -> None:
    survived = killed_until_done(world, random.Random(0), kills=20)
    assert numbers(survived) == whole.values
    assert predictions_digests(world.store) == whole.digests
