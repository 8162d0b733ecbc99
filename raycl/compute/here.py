"""What a worker may ask and tell the process that sent it, if it is that process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from raycl.compute.stopping import never


def _nothing(done: int, total: int) -> None:
    pass


class _Process:
    """What is known of the process around us, by whoever hosts workers in it."""

    leaving: Callable[[], bool] = staticmethod(never)


def know_leaving(leaving: Callable[[], bool]) -> None:
    """Tells what says whether this process is about to go."""
    _Process.leaving = staticmethod(leaving)


def _leaving() -> bool:
    return _Process.leaving()


class Here:
    """Whether to stop, and where progress goes. A copy that travelled stops only where its
    process is about to go, because whoever sent it ends its process instead, and tells nobody."""

    def __init__(
        self,
        stopping: Callable[[], bool] = never,
        progress: Callable[[int, int], None] = _nothing,
    ) -> None:
        self.stopping, self.progress = stopping, progress

    def __reduce__(self) -> tuple[Any, ...]:
        return Here, (_leaving,)
