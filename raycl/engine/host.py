"""What the engine asks of whoever hosts it, the pool that it works with, and on which device."""

from __future__ import annotations

from typing import Protocol

from raycl.compute.local_pool import LocalPool
from raycl.compute.pool import Pool, Resources
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


def near_the_gpu(execution: Execution, host: Host, pool: Pool) -> tuple[Pool, str, Resources]:
    """Where work on a device is done, on which, and a worker's share: with the workers if they
    have a GPU, else here if we have one."""
    from raycl.embedding.device import pick_device

    worker = Resources(execution.worker.cpus, execution.worker.gpus)
    if worker.gpus:
        return pool, "cpu" if execution.device == "cpu" else "cuda", worker
    device = pick_device(execution.device).type
    if device != "cpu":
        pool = LocalPool(stopping=host.stopping)
    return pool, device, worker
