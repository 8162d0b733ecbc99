"""Stages: found again by name, timed over all their lives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest
import torch
from torch import Tensor

from raycl.compute.local_pool import LocalPool
from raycl.errors import MethodError, StoppedError
from raycl.methods import context as context_module
from raycl.methods.context import Context
from raycl.observe.events import nobody


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    moved = Clock()
    monkeypatch.setattr(context_module, "time", moved)
    yield moved


def make(saved: dict[str, Mapping[str, Tensor]], *, stop: bool = False) -> Context:
    return Context(
        task=0,
        pool=LocalPool(),
        observer=nobody,
        stopping=lambda: stop,
        load_partial=saved.get,
        save_partial=saved.__setitem__,
    )


def test_time_before_a_stop_counts_too(clock: Clock) -> None:
    saved: dict[str, Mapping[str, Tensor]] = {}
    done = []
    with pytest.raises(StoppedError):
        for step in make(saved, stop=True).stage("train", 3).steps(dict, lambda state: None):
            done.append(step)
            clock.now += 5
    resumed = make(saved)
    for step in resumed.stage("train", 3).steps(dict, lambda state: None):
        done.append(step)
        clock.now += 2
    assert done == [0, 1, 2]
    assert resumed.seconds == {"train": 9.0}


def test_two_stages_of_one_name_are_refused() -> None:
    lent = make({})
    lent.stage("train", 3)
    with pytest.raises(MethodError, match="both named 'train'"):
        lent.stage("train", 3)


def test_a_snapshot_may_hold_any_name_but_ours() -> None:
    saved: dict[str, Mapping[str, Tensor]] = {}
    seen = []
    snapshot = {"position": torch.tensor(7.0)}
    with pytest.raises(StoppedError):
        list(make(saved, stop=True).stage("a", 2).steps(lambda: snapshot, seen.append))
    list(make(saved).stage("a", 2).steps(lambda: snapshot, seen.append))
    assert seen == [snapshot]
    taken = {context_module.POSITION: torch.tensor(0)}
    with pytest.raises(MethodError, match="cannot hold a tensor named"):
        list(make({}, stop=True).stage("b", 2).steps(lambda: taken, seen.append))
