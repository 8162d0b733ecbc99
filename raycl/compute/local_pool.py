"""A pool in this process: one worker, no parallelism, the same promises.

For tests, for debuggers, and for machines where Ray is not wanted. Values are held, not
copied: whoever writes into one breaks the contract of `Reference` and is not stopped.
Services are shared by name within the process.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Self

from raycl.compute.failures import Attempts, Failure
from raycl.compute.pool import (
    DEFAULT_ATTEMPTS,
    Done,
    Reference,
    Resources,
    Service,
    WorkerSpec,
)
from raycl.compute.stopping import never
from raycl.compute.threads import limited_threads
from raycl.errors import RayclError, StoppedError, WorkError


@dataclass(frozen=True)
class LocalReference:
    """Simply the value."""

    value: Any

    def get(self) -> Any:
        return self.value


class LocalService:
    """A named object of this process; a lock makes its methods run one at a time."""

    def __init__(self, name: str, worker: WorkerSpec) -> None:
        self._name = name
        self._state = _build(worker)
        self._lock = threading.RLock()

    def call(self, method: str, *args: Any) -> Any:
        with self._lock:
            return getattr(self._state, method)(*args)

    def end(self) -> None:
        with _services_lock:
            if _services.get(self._name) is self:
                del _services[self._name]


_services: dict[str, LocalService] = {}
_services_lock = threading.RLock()


class LocalPool:
    """A `Pool` that does everything here and now."""

    workers = 1

    def __init__(self, *, stopping: Callable[[], bool] = never) -> None:
        self._stopping = stopping

    def map_unordered(
        self,
        worker: WorkerSpec,
        items: Iterable[Any],
        *,
        resources: Resources | None = None,
        attempts: int = DEFAULT_ATTEMPTS,
    ) -> Iterator[Done]:
        """Each item's value, one after the other."""
        record = Attempts(attempts)
        instance: Any = None
        for index, item in enumerate(items):
            if self._stopping():
                raise StoppedError("stopped between work items", do="run the same command again")
            if instance is None:
                instance = _build(worker)
            yield from _work(instance, index, item, record)
        record.raise_hopeless()

    def put(self, value: Any) -> Reference:
        return LocalReference(value)

    def get(self, reference: Reference) -> Any:
        return reference.get()

    def service(self, name: str, worker: WorkerSpec) -> Service:
        with _services_lock:
            if name not in _services:
                _services[name] = LocalService(name, worker)
            return _services[name]

    def close(self) -> None:
        """Nothing is held between calls."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _build(worker: WorkerSpec) -> Any:
    try:
        with limited_threads(1):
            return worker.build()
    except RayclError:
        raise
    except Exception as error:
        raise WorkError(
            f"the worker {worker.name} could not be built: {type(error).__name__}: {error}"
        ) from error


def _work(instance: Any, index: int, item: Any, record: Attempts) -> Iterator[Done]:
    while True:
        try:
            # One thread, as in a pool of processes, so that the numbers are the same.
            with limited_threads(1):
                value = instance(item)
        except Exception as error:
            if record.again(index, item, Failure.here(error)):
                continue
            return
        record.forget(index)
        yield Done(index, item, value)
        return
