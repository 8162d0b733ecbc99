"""Random draws made ahead of a device that would wait for them.

On a CPU the draws are made when they are asked for, in the thread that asks: a second thread
would only compete with the first.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from inspect import ismethod
from weakref import WeakMethod

import torch
from torch import Tensor

WORKERS = 4
Draws = tuple[Tensor, ...]


class Ahead:
    """`get(0)`, `get(1)`, …: what `make` gives for each round, on the device."""

    def __init__(self, make: Callable[[int], Draws], rounds: int, device: torch.device) -> None:
        self.maker, self.rounds, self.device = _maker(make), rounds, device
        self.waiting: dict[int, Future[Draws]] = {}
        self.workers: ThreadPoolExecutor | None = None

    def get(self, index: int) -> Draws:
        """The draws of a round."""
        if self.device.type == "cpu":
            return self._made(index)
        if self.workers is None:
            self.workers = ThreadPoolExecutor(WORKERS, thread_name_prefix="raycl-draws")
        for i in range(index, min(index + WORKERS, self.rounds)):
            if i not in self.waiting:
                self.waiting[i] = self.workers.submit(self._pinned, i)
        draws = self.waiting.pop(index).result()
        if index + 1 == self.rounds:
            self.workers.shutdown()
            self.workers = None
        return tuple(t.to(self.device, non_blocking=True) for t in draws)

    def _made(self, index: int) -> Draws:
        make = self.maker()
        assert make is not None, "the owner of these draws is gone"
        return make(index)

    def _pinned(self, index: int) -> Draws:
        draws = self._made(index)
        if self.device.type != "cuda":
            return draws
        return tuple(t.pin_memory() for t in draws)


def _maker(make: Callable[[int], Draws]) -> Callable[[], Callable[[int], Draws] | None]:
    # A method is its owner's, and the owner holds these draws: were it held here, all tensors of
    # a finished fit would stay until the next collection of cycles.
    return WeakMethod(make) if ismethod(make) else lambda: make
