"""Whether packs fit: a budget of one's own, and the memory that they would live in.

Guarantees: what does not fit is an error before it is shared, with both figures; only who
asked for spilling gets it.
"""

from __future__ import annotations

from pathlib import Path

from raycl.compute.local_pool import LocalPool
from raycl.compute.pool import Pool
from raycl.errors import ConfigError

MIB = 2**20
_MEMINFO = Path("/proc/meminfo")


def free_bytes(pool: Pool) -> int | None:
    """Bytes that this node can still share over the pool; None if it cannot be told."""
    if isinstance(pool, LocalPool):
        return _available_memory()
    from raycl.compute import ray_object_store

    return ray_object_store.free_bytes()


def _available_memory() -> int | None:
    try:
        lines = _MEMINFO.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    for line in lines:
        name, _, rest = line.partition(":")
        if name == "MemAvailable":
            return int(rest.split()[0]) * 1024
    return None


class Room:
    """What one owner may share in all."""

    def __init__(self, pool: Pool, budget: int | None, *, spill: bool) -> None:
        if budget is not None and budget <= 0:
            raise ConfigError("a byte budget must be positive", got=budget, do="leave it out")
        self._pool, self._budget, self._spill = pool, budget, spill
        self._at_first: int | None = None
        self._shared = 0

    def require_budget(self, total: int) -> None:
        """An error if all that was added exceeds the budget."""
        if self._budget is not None and total > self._budget:
            raise ConfigError(
                "the replay buffer exceeds its byte budget",
                got=f"needs {_mib(total)}, has {_mib(self._budget)}",
                do="raise byte_budget, keep fewer rows per class, or keep them in float16",
            )

    def take(self, more: int) -> None:
        """Counts `more` bytes that are about to be shared; an error if they do not fit."""
        if self._spill:
            return
        free = free_bytes(self._pool)
        if free is None:
            return
        if self._at_first is None:
            self._at_first = free
        total = self._shared + more
        # The figure lags behind what we have just put, so both ends are held.
        if more > free or total > self._at_first:
            room = min(self._at_first, free + self._shared)
            raise ConfigError(
                "the replay buffer does not fit into the object store of this node",
                got=f"needs {_mib(total)}, has {_mib(room)}",
                do="give Ray a larger object store (and the container a larger /dev/shm), keep "
                "fewer rows or float16, or allow spilling to disk with spill=True",
            )
        self._shared = total


def _mib(count: int) -> str:
    return f"{count / MIB:.1f} MiB"
