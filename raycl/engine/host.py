"""What the engine asks of whoever hosts it, and the pool that it works with."""

from __future__ import annotations

from typing import Protocol

from raycl.compute.local_pool import LocalPool
from raycl.compute.pool import Pool
from raycl.config.execution import Execution
from raycl.observe.events import Event


class Host(Protocol):
    """Where events go, and whether to stop."""

    def emit(self, event: Event) -> None: ...
    def stopping(self) -> bool: ...


def open_pool(execution: Execution, host: Host) -> Pool:
    """The pool that work is mapped over: in this process, or Ray actors."""
    if execution.pool == "local":
        return LocalPool(stopping=host.stopping)
    from raycl.compute.ray_pool import RayPool

    return RayPool(host.emit, workers=execution.workers, stopping=host.stopping)
