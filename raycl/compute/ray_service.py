"""A named service over Ray: one detached, zero-CPU actor per name and cluster.

It lives until somebody ends it or the cluster ends, whoever built it. If its process dies
it is built again, with the state its constructor gives; so its state is a cache, never
the only copy. Constructor arguments should be small: they are kept for the rebuilding.
"""

from __future__ import annotations

import contextlib
from typing import Any

import ray

from raycl.compute.failures import Failure
from raycl.compute.pool import WorkerSpec
from raycl.compute.ray_session import require_connection
from raycl.compute.ray_worker import NAMESPACE, ServiceWorker, arrived, reason
from raycl.errors import RayclError, WorkError

_TRIES = 5


class RayService:
    """The `Service` of that name in this cluster."""

    def __init__(self, name: str, worker: WorkerSpec) -> None:
        require_connection()
        self._name = name
        self._worker = worker
        self._actor = self._get_or_create()

    def call(self, method: str, *args: Any) -> Any:
        for _ in range(_TRIES):
            try:
                failure, value = ray.get(self._actor.call.remote(method, args))
                break
            except ray.exceptions.RayTaskError as error:
                raise WorkError(f"{self._name}.{method} could not be sent: {error}") from None
            except ray.exceptions.RayError as error:
                lost: Exception = error
                self._actor = self._get_or_create()
        else:
            raise WorkError(f"the service {self._name} keeps dying: {reason(lost)}") from lost
        if failure is not None:
            raise arrived(failure).as_exception(f"{self._name}.{method} failed")
        return value

    def end(self) -> None:
        _kill(self._actor)

    def _get_or_create(self) -> Any:
        options: dict[str, Any] = {
            "name": self._name,
            "namespace": NAMESPACE,
            "lifetime": "detached",
            "get_if_exists": True,
            "num_cpus": 0,
            "max_restarts": -1,
            "max_task_retries": 2,
            # Not in the placement group of whoever asks first, which it would end with.
            "scheduling_strategy": "DEFAULT",
        }
        for _ in range(_TRIES):
            actor: Any = ray.remote(ServiceWorker).options(**options).remote(self._worker)
            try:
                failure: Failure | None = ray.get(actor.ready.remote())
            except ray.exceptions.RayError as error:
                # One that was ended keeps its name for a moment.
                lost: Exception = error
                continue
            if failure is None:
                return actor
            _kill(actor)
            self._raise_unbuilt(arrived(failure))
        raise WorkError(f"the service {self._name} does not start: {reason(lost)}") from lost

    def _raise_unbuilt(self, failure: Failure) -> None:
        if isinstance(failure.error, RayclError):
            raise failure.error
        raise WorkError(
            f"the service {self._name} could not be built: {failure.summary}\n{failure.traceback}"
        ) from failure.error


def _kill(actor: Any) -> None:
    with contextlib.suppress(ray.exceptions.RayError):
        ray.kill(actor, no_restart=True)
