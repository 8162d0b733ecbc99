"""Hosting a learner in one supervised Ray actor that holds its CPUs and GPUs.

The driver only watches: heads of clusters have neither. Guarantees: events reach the
driver's observer in order, and none is lost unless the actor dies with it; an exception
of the target keeps its type; if the actor dies it is replaced and the target runs again,
for as long as each life makes progress (something computed or a task done); a stop is
passed on, and enforced after a grace; if its node is draining, it is asked to save and stop
in the same way, and goes on elsewhere.

Not guaranteed: that the target runs once. It continues from what it stored.
"""

from __future__ import annotations

import contextlib
import threading
import time
from typing import Any

import ray

from raycl.compute.failures import Failure
from raycl.compute.learner import Stoppable, Target
from raycl.compute.pool import DEFAULT_ATTEMPTS, Resources
from raycl.compute.ray_drain import LEAVING, draining, own_node
from raycl.compute.ray_resources import StartWatch
from raycl.compute.ray_session import Session
from raycl.compute.ray_worker import arrived, hide_gpus, reason, travelling
from raycl.compute.stopping import StopRequest
from raycl.errors import ConfigError, StoppedError, WorkError
from raycl.observe.events import Computed, Event, Observer, TaskDone, Warned, WorkerLost

GRACE_SECONDS = 15.0
PROGRESS = (Computed, TaskDone)
_POLL_SECONDS = 1.0
_WATCH_SECONDS = 0.2
_THREADS = 4  # run, events, stop, and one for where it is


def host(
    target: Target,
    payload: Any,
    *,
    observer: Observer,
    stop: Stoppable,
    session: Session,
    cpus: float = 1,
    gpus: float = 0,
    attempts: int = DEFAULT_ATTEMPTS,
    grace: float = GRACE_SECONDS,
) -> Any:
    """The target's value, from an actor that holds the CPUs and GPUs."""
    if attempts < 1:
        raise ConfigError("a learner needs at least one attempt", got=attempts, do="use 1 or more")
    resources = Resources(cpus, gpus)
    patience = 0.0 if session.local else None
    deaths = 0
    while True:
        life = _Life(resources, observer, stop, grace, patience)
        try:
            return life.watch(target, payload)
        except _Moved:
            observer(Warned(f"the learner moves: {LEAVING}"))
            continue
        except ray.exceptions.RayError as error:
            why = reason(error)
        finally:
            life.end()
        deaths = 0 if life.progressed else deaths + 1
        observer(WorkerLost("learner", why, deaths))
        if stop.requested:
            raise StoppedError(f"the learner died while it was stopping: {why}")
        if deaths >= attempts:
            raise WorkError(
                f"the learner died {deaths} time(s) in a row without progress; last: {why}",
                do="look at its memory; the same command continues from what is stored",
            )


class _Moved(Exception):  # noqa: N818 - no fault
    """A life ended because its node will go; the next begins from what it saved."""


class LearnerActor:
    """The actor: runs the target in one thread, answers the driver in others."""

    def __init__(self, *, gpus: float) -> None:
        if not gpus:
            hide_gpus()
        self._stop = StopRequest()
        self._news = threading.Condition()
        self._events: list[Event] = []
        self._forgotten = 0
        self._ended = False

    def run(self, target: Target, payload: Any) -> tuple[Failure | None, Any]:
        try:
            return None, target(self, payload)
        except Exception as error:
            return travelling(error), None
        finally:
            with self._news:
                self._ended = True
                self._news.notify_all()

    def node(self) -> str:
        return own_node()

    def stop(self) -> None:
        self._stop.request()

    def emit(self, event: Event) -> None:
        with self._news:
            self._events.append(event)
            self._news.notify_all()

    def stopping(self) -> bool:
        return self._stop.requested

    def events(self, seen: int, wait: float) -> list[Event]:
        """The events after the first `seen`, as soon as there are some."""
        with self._news:
            # Kept until the driver says it has seen them: an answer may get lost.
            del self._events[: seen - self._forgotten]
            self._forgotten = seen
            self._news.wait_for(lambda: self._events or self._ended, wait)
            return list(self._events)


class _Life:
    """One actor from its birth to its end, as the driver sees it."""

    def __init__(
        self,
        resources: Resources,
        observer: Observer,
        stop: Stoppable,
        grace: float,
        patience: float | None,
    ) -> None:
        self._observer = observer
        self._stop = stop
        self._grace = grace
        self._actor = _start(resources)
        self._started = False
        self._seen = 0
        self._start_watch = StartWatch("the learner", resources, observer, patience)
        self._place = self._actor.node.remote()
        self._node = ""
        self._moving = False
        self._kill_at: float | None = None
        self.progressed = False

    def watch(self, target: Target, payload: Any) -> Any:
        """The target's value or exception; an error of Ray if the actor died."""
        result = self._actor.run.remote(target, payload)
        news = self._ask(_POLL_SECONDS)
        while True:
            ready, _ = ray.wait([result, news], num_returns=1, timeout=_WATCH_SECONDS)
            if result in ready:
                self._tell_rest(news)
                return self._opened(result)
            if news in ready:
                self._tell(ray.get(news))
                news = self._ask(_POLL_SECONDS)
            self._mind_drain()
            self._mind_stop()
            if not self._started:
                self._start_watch.check()

    def end(self) -> None:
        with contextlib.suppress(ray.exceptions.RayError):
            ray.kill(self._actor, no_restart=True)

    def _ask(self, wait: float) -> Any:
        return self._actor.events.remote(self._seen, wait)

    def _tell(self, events: list[Event]) -> None:
        self._started = True
        for event in events:
            self._seen += 1
            self.progressed = self.progressed or isinstance(event, PROGRESS)
            self._observer(event)

    def _tell_rest(self, news: Any) -> None:
        # If the actor is gone by now, its last words are lost and its result may not be.
        with contextlib.suppress(ray.exceptions.RayError):
            while events := ray.get(news):
                self._tell(events)
                news = self._ask(0)

    def _opened(self, result: Any) -> Any:
        try:
            return _opened(result)
        except StoppedError:
            if self._moving and not self._stop.requested:
                raise _Moved from None
            raise

    def _mind_drain(self) -> None:
        going = draining()
        if going and not self._node:
            with contextlib.suppress(ray.exceptions.RayError):
                self._node = ray.get(self._place, timeout=0)
        self._moving = self._moving or self._node in going

    def _mind_stop(self) -> None:
        stops = self._stop.requested
        if not stops and not self._moving:
            return
        if not self._started:
            raise StoppedError("stopped before the learner started") if stops else _Moved
        if self._kill_at is None:
            self._kill_at = time.monotonic() + self._grace
            self._actor.stop.remote()
        elif time.monotonic() >= self._kill_at:
            if not stops:
                raise _Moved
            raise StoppedError(
                f"the learner did not stop within {self._grace:g} s and was ended",
                do="what it finished is stored; the same command continues",
            )


def _start(resources: Resources) -> Any:
    options: dict[str, Any] = {
        "num_cpus": resources.cpus,
        "num_gpus": resources.gpus,
        "max_restarts": 0,
        "max_concurrency": _THREADS,
    }
    return ray.remote(LearnerActor).options(**options).remote(gpus=resources.gpus)


def _opened(result: Any) -> Any:
    try:
        failure, value = ray.get(result)
    except ray.exceptions.RayTaskError as error:
        raise WorkError(f"the learner's value could not be sent: {error}") from None
    if failure is not None:
        raise arrived(failure).as_exception("the learner failed")
    return value
