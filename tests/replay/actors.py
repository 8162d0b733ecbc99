"""What other processes do to a replay buffer, in tests over Ray."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from raycl.replay.buffer import Handle, ReplayBuffer
from raycl.store.store import Store


def vectors_of(class_id: int, rows: int = 6, width: int = 8, dtype: str = "float32") -> Any:
    """Vectors that tell which row of which class they are."""
    x = np.zeros((rows, width), dtype)
    x[:, 0], x[:, 1] = class_id, np.arange(rows)
    return x


class Trial:
    """A trial in a process of its own that builds a buffer and may die."""

    def __init__(self, store_uri: str) -> None:
        from raycl.compute.ray_pool import RayPool

        self.pool = RayPool(workers=1)
        self.store = Store.open(store_uri)
        self.buffer: ReplayBuffer | None = None

    def build(self, *, shared: bool) -> Handle:
        self.buffer = ReplayBuffer(self.pool, self.store, shared=shared)
        for class_id in range(3):
            self.buffer.add(0, class_id, vectors_of(class_id))
        return self.buffer.seal().handle()

    def views_of(self, handle: Handle) -> tuple[int, bool, str]:
        """This process, whether it may write into the first pack, and what maps it."""
        self.buffer = ReplayBuffer.open(self.pool, handle, self.store)
        assert len(list(self.buffer.batches(4096, seed=0))) > 1
        view = self.buffer.views(0, 0)[0]
        return os.getpid(), view.flags.writeable, _mapping(view.ctypes.data)


def _mapping(address: int) -> str:
    """The file behind an address of this process."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, _, rest = line.partition(" ")
        first, last = (int(part, 16) for part in span.split("-"))
        if first <= address < last:
            return rest.split(maxsplit=4)[-1]
    return "nothing"
