"""What runs inside Ray's processes on behalf of a pool, and references to what it shares.

Failures come back as values, so that no exception of a worker is wrapped by Ray on its
way; an exception of Ray then always means that a process, a node or an object is gone.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import ray
from ray import cloudpickle

from raycl.compute.failures import Failure
from raycl.compute.here import know_leaving
from raycl.compute.pool import LostReferenceError, WorkerSpec
from raycl.compute.ray_drain import draining, has_elsewhere, own_node
from raycl.compute.threads import limit_threads

NAMESPACE = "raycl"


@dataclass(frozen=True)
class RayReference:
    """A value in Ray's object store. It travels inside items; it never goes to disk."""

    ref: Any

    def get(self) -> Any:
        try:
            return ray.get(self.ref)
        except ray.exceptions.RayTaskError:
            raise
        except ray.exceptions.RayError as error:
            raise LostReferenceError(
                f"a referenced value is gone: {reason(error)}", do="make the value again"
            ) from error


class PoolWorker:
    """The host of one worker instance in its own process."""

    def __init__(self, *, gpus: float) -> None:
        if not gpus:
            hide_gpus()
        limit_threads(1)
        node = own_node()
        know_leaving(lambda: node in draining())
        self._instance: Any = None

    def build(self, worker: WorkerSpec) -> Failure | str:
        """The id of the node where it is now ready to work."""
        self._instance = None  # lets go of the old one before the new one takes memory
        try:
            self._instance = worker.build()
        except Exception as error:
            return travelling(error)
        limit_threads(1)  # again, for the libraries that building has loaded
        return own_node()

    def work(self, item: Any) -> tuple[Failure | None, Any]:
        try:
            return None, self._instance(item)
        except Exception as error:
            return travelling(error), None


class ServiceWorker:
    """The host of a named service."""

    def __init__(self, worker: WorkerSpec) -> None:
        hide_gpus()
        self._failure: Failure | None = None
        try:
            self._state = worker.build()
        except Exception as error:
            self._failure = travelling(error)

    def ready(self) -> Failure | None:
        return self._failure

    def call(self, method: str, args: tuple[Any, ...]) -> tuple[Failure | None, Any]:
        if own_node() in draining() and has_elsewhere():
            os._exit(0)  # Ray builds it on another node, and repeats the call there
        try:
            return None, getattr(self._state, method)(*args)
        except Exception as error:
            return travelling(error), None


def hide_gpus() -> None:
    """Ray leaves all GPUs visible to whoever asked for none."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ""


def travelling(error: BaseException) -> Failure:
    """The failure, fit to leave this process."""
    return Failure.travelling(error, cloudpickle.dumps)


def arrived(failure: Failure) -> Failure:
    """The failure after its journey."""
    return failure.unpacked(cloudpickle.loads)


def reason(error: BaseException) -> str:
    """Ray's long story in one line, without its guesses."""
    story = " ".join(str(error).split())
    _, _, cause = story.partition("The actor is dead because ")
    short, _, _ = (cause or story).partition(" Some common causes include")
    return short[:300] or type(error).__name__
