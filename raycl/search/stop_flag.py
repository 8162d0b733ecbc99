"""A flag that a driver raises and its trials look at, wherever they run: stop at the next step.

Guarantees: looking never fails a trial; a flag whose actor died is a flag that nobody raises.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import ray as untyped_ray

from raycl.compute.stopping import StopRequest

ray: Any = untyped_ray

LOOK_SECONDS = 0.5
_ANSWER_SECONDS = 5.0


class _Flag:
    """The actor: down until it is raised."""

    def __init__(self) -> None:
        self._up = False

    def put_up(self) -> None:
        self._up = True

    def is_up(self) -> bool:
        return self._up


class StopFlag:
    """The driver's side: an actor that takes no CPU and dies with the driver."""

    def __init__(self) -> None:
        self.name = f"raycl-stop-{uuid4().hex}"
        self._actor = ray.remote(_Flag).options(name=self.name, num_cpus=0).remote()

    def put_up(self) -> None:
        self._actor.put_up.remote()

    def __enter__(self) -> StopFlag:
        return self

    def __exit__(self, *exc: object) -> None:
        with contextlib.suppress(ray.exceptions.RayError):
            ray.kill(self._actor, no_restart=True)


@contextlib.contextmanager
def watching_flag(name: str) -> Iterator[StopRequest]:
    """The trial's side: a request that is made once the flag of that name is up."""
    stop, over = StopRequest(), threading.Event()

    def look() -> None:
        while not over.wait(LOOK_SECONDS):
            try:
                up = ray.get(ray.get_actor(name).is_up.remote(), timeout=_ANSWER_SECONDS)
            except ray.exceptions.GetTimeoutError:  # a busy machine: ask again
                continue
            except (ray.exceptions.RayError, ValueError):
                return
            if up:
                stop.request()
                return

    threading.Thread(target=look, daemon=True, name="raycl-stop-flag").start()
    try:
        yield stop
    finally:
        over.set()
