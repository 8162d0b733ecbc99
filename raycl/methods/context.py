"""What the engine lends a method while it learns: progress, workers, and a place to
save half-done work.

A long loop asks for a `Stage`. The stage restores the loop's position after a kill, saves
it now and then, and turns a stop request into a clean end at the next step boundary.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from raycl.compute.pool import Pool
from raycl.errors import StoppedError
from raycl.observe.events import Observer, Progress

SAVE_EVERY_SECONDS = 10.0
TELL_EVERY_SECONDS = 0.1
STEP = "position"

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
    seconds: dict[str, float] = field(default_factory=dict)
    """Wall-clock seconds by stage, filled by the stages."""

    def stage(self, name: str, total: int, unit: str = "step") -> Stage:
        """A loop of `total` units that survives a kill."""
        return Stage(self, name, total, unit)


class Stage:
    """One loop's bookkeeping: `for step in stage.steps(snapshot, restore)`."""

    def __init__(self, context: Context, name: str, total: int, unit: str) -> None:
        self.context, self.name, self.total, self.unit = context, name, total, unit
        self._saved_at = self._told_at = time.monotonic()

    def steps(
        self, snapshot: Snapshot, restore: Callable[[Mapping[str, Tensor]], None]
    ) -> Iterator[int]:
        """The positions still to do; `restore` is called first if some were done before."""
        began = time.monotonic()
        for step in range(self._resume(restore), self.total):
            yield step
            self._between(step + 1, snapshot)
        spent = self.context.seconds
        spent[self.name] = spent.get(self.name, 0.0) + time.monotonic() - began

    def _resume(self, restore: Callable[[Mapping[str, Tensor]], None]) -> int:
        found = self.context.load_partial(self.name)
        if found is None:
            return 0
        restore({name: tensor for name, tensor in found.items() if name != STEP})
        return int(found[STEP])

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
            position = {STEP: torch.tensor(done)}
            self.context.save_partial(self.name, {**snapshot(), **position})
        if stop:
            raise StoppedError(f"stopped in {self.name} of task {self.context.task + 1}")
