"""What the engine lends a method while it learns: progress, workers, and a place to
save half-done work.

A long loop asks for a `Stage`. The stage restores the loop's position after a kill, saves
it now and then, and turns a stop request into a clean end at the next step boundary.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from raycl.compute.pool import Pool
from raycl.errors import MethodError, StoppedError
from raycl.observe.events import Observer, Progress
from raycl.store.store import Store

SAVE_EVERY_SECONDS = 10.0
TELL_EVERY_SECONDS = 0.1
POSITION, ELAPSED = "__stage_position", "__stage_seconds"
"""Names in a saved stage that are not the method's."""

Snapshot = Callable[[], Mapping[str, Tensor]]


@dataclass
class Context:
    """Lent to `Method.learn` for one task."""

    task: int
    pool: Pool
    observer: Observer
    stopping: Callable[[], bool] = lambda: False
    """True once the run was asked to stop; a stage looks by itself."""
    load_partial: Callable[[str], Mapping[str, Tensor] | None] = lambda stage: None
    save_partial: Callable[[str, Mapping[str, Tensor]], None] = lambda stage, tensors: None
    draws: Literal["trainer", "workers"] = "trainer"
    """Who draws the samples that are replayed; on a CPU the numbers are the same."""
    store: Store | None = None
    """Where what outlives the run is kept, such as a generator; None keeps nothing."""
    used: list[str] = field(default_factory=list)
    """Keys of stored artefacts that what was learnt is made of; they are kept as long as it."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Wall-clock seconds by stage, filled by the stages; those before a kill included."""
    _stages: set[str] = field(default_factory=set)

    def stage(self, name: str, total: int, unit: str = "step") -> Stage:
        """A loop of `total` units that survives a kill; its name is its own in the task."""
        if name in self._stages:
            raise MethodError(
                f"two stages of task {self.task + 1} are both named {name!r}",
                do="give each its own name: it is what a saved loop is found by",
            )
        self._stages.add(name)
        return Stage(self, name, total, unit)


class Stage:
    """One loop's bookkeeping: `for step in stage.steps(snapshot, restore)`."""

    def __init__(self, context: Context, name: str, total: int, unit: str) -> None:
        self.context, self.name, self.total, self.unit = context, name, total, unit
        self._saved_at = self._told_at = time.monotonic()
        self._began, self._before = time.monotonic(), 0.0

    def steps(
        self, snapshot: Snapshot, restore: Callable[[Mapping[str, Tensor]], None]
    ) -> Iterator[int]:
        """The positions still to do; `restore` is called first if some were done before."""
        self._began = time.monotonic()
        for step in range(self._resume(restore), self.total):
            yield step
            self._between(step + 1, snapshot)
        self.context.seconds[self.name] = self._seconds()

    def _resume(self, restore: Callable[[Mapping[str, Tensor]], None]) -> int:
        found = self.context.load_partial(self.name)
        if found is None:
            return 0
        self._before = float(found[ELAPSED])
        ours = (POSITION, ELAPSED)
        restore({name: tensor for name, tensor in found.items() if name not in ours})
        return int(found[POSITION])

    def _seconds(self) -> float:
        return self._before + time.monotonic() - self._began

    def _between(self, done: int, snapshot: Snapshot) -> None:
        """Between two steps: tell, save if it is time, stop if asked."""
        now = time.monotonic()
        if done == self.total or now - self._told_at > TELL_EVERY_SECONDS:
            self._told_at = now
            event = Progress(self.context.task, self.name, done, self.total, self.unit)
            self.context.observer(event)
        stop = self.context.stopping()
        if stop or now - self._saved_at > SAVE_EVERY_SECONDS:
            self._saved_at = now
            self._save(done, snapshot())
        if stop:
            raise StoppedError(f"stopped in {self.name} of task {self.context.task + 1}")

    def _save(self, done: int, tensors: Mapping[str, Tensor]) -> None:
        for name in (POSITION, ELAPSED):
            if name in tensors:
                raise MethodError(f"a snapshot cannot hold a tensor named {name!r}")
        position = torch.tensor(done)
        elapsed = torch.tensor(self._seconds(), dtype=torch.float64)
        self.context.save_partial(self.name, {**tensors, POSITION: position, ELAPSED: elapsed})
