"""The pool over Ray: supervised actors, each with one worker instance.

Guarantees what `pool` promises, with processes that may die: a dead actor is replaced, the
item it was at is retried, an item that merely waited behind it loses no attempt. At most
two items per worker are with Ray and at most twice as many are drawn ahead; the last ones
never wait behind a busy worker while another is idle.

An actor whose node is draining gets nothing new: what it works at is finished, or saved and
goes on elsewhere if the work looks at its `Here`, and costs no attempt even if the node dies.

Idle actors are kept for the next map of the same resources, because a fresh process pays
seconds for its imports; the worker instance is built anew for each map. `warm=False`, or
`close`, gives their resources back.
"""

from __future__ import annotations

import contextlib
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Self

import ray

from raycl.compute.failures import Attempts, Failure, died
from raycl.compute.pool import (
    DEFAULT_ATTEMPTS,
    DEFAULT_RESOURCES,
    Done,
    Reference,
    Resources,
    Service,
    WorkerSpec,
)
from raycl.compute.ray_drain import LEAVING, draining
from raycl.compute.ray_resources import StartWatch, cluster_cpus
from raycl.compute.ray_service import RayService
from raycl.compute.ray_session import require_connection
from raycl.compute.ray_worker import PoolWorker, RayReference, arrived, reason
from raycl.compute.stopping import never
from raycl.errors import ConfigError, RayclError, StoppedError, WorkError
from raycl.observe.events import Observer, Warned, WorkerLost, nobody

_WAIT_SECONDS = 0.5
_SETTLE_SECONDS = 30.0


@dataclass(eq=False)
class _Hand:
    """One actor and, in order, the calls it has not answered."""

    actor: Any
    resources: Resources
    calls: list[_Call] = field(default_factory=list)
    built: bool = False
    node: str = ""
    """Where it is, once it is built."""
    leaving: bool = False
    """Whether its node was seen draining."""
    fresh: bool = True
    """Whether the actor has yet to prove, in its first map, that it can live."""


@dataclass(eq=False)
class _Call:
    """One item at one actor, or (without an item) the building of the worker."""

    hand: _Hand
    status: Any
    value: Any = None
    index: int = -1
    item: Any = None

    @property
    def builds(self) -> bool:
        return self.index < 0


class RayPool:
    """A `Pool` whose workers are Ray actors."""

    def __init__(
        self,
        observer: Observer = nobody,
        *,
        workers: int | None = None,
        stopping: Callable[[], bool] = never,
        warm: bool = True,
        patience: float | None = None,
        resources: Resources = DEFAULT_RESOURCES,
    ) -> None:
        """`resources` is what a worker holds unless its map says otherwise."""
        require_connection()
        if workers is not None and workers < 1:
            raise ConfigError("a pool needs a worker", got=workers, do="use 1 or more")
        self.workers = cluster_cpus() if workers is None else workers
        self.observer = observer
        self.stopping = stopping
        self.patience = patience
        self.resources = resources
        self._warm = warm
        self._idle: list[_Hand] = []
        self._maps: list[_Map] = []

    def map_unordered(
        self,
        worker: WorkerSpec,
        items: Iterable[Any],
        *,
        resources: Resources | None = None,
        attempts: int = DEFAULT_ATTEMPTS,
    ) -> Iterator[Done]:
        """Each item's value as it finishes."""
        return _Map(self, worker, items, resources or self.resources, attempts).results()

    def put(self, value: Any) -> Reference:
        return RayReference(ray.put(value))

    def get(self, reference: Reference) -> Any:
        return reference.get()

    def service(self, name: str, worker: WorkerSpec) -> Service:
        return RayService(name, worker)

    def close(self) -> None:
        for unfinished in list(self._maps):
            unfinished.free()
        self._dismiss_idle()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def enrol(self, running: _Map) -> None:
        self._maps.append(running)

    def take(self, resources: Resources) -> _Hand:
        """An idle actor if one fits, else a new one."""
        if self._idle and self._idle[0].resources != resources:
            self._dismiss_idle()
        while self._idle:
            hand = self._idle.pop()
            if hand.node not in draining():
                return hand
            _kill(hand)
        options = {"num_cpus": resources.cpus, "num_gpus": resources.gpus, "max_restarts": 0}
        actor = ray.remote(PoolWorker).options(**options).remote(gpus=resources.gpus)
        return _Hand(actor, resources)

    def give_back(self, running: _Map, hands: list[_Hand]) -> None:
        """Takes the actors of a map that ended; the busy ones are let go."""
        if running not in self._maps:
            return
        self._maps.remove(running)
        for hand in hands:
            if self._warm and hand.built and not hand.calls:
                hand.built = hand.fresh = False
                self._idle.append(hand)
            else:
                _kill(hand)

    def _dismiss_idle(self) -> None:
        while self._idle:
            _kill(self._idle.pop())


class _Map:
    """One call of a map: which actor is at which item, and what remains."""

    def __init__(
        self,
        pool: RayPool,
        worker: WorkerSpec,
        items: Iterable[Any],
        resources: Resources,
        attempts: int,
    ) -> None:
        self._pool = pool
        self._worker = worker
        self._source = enumerate(items)
        self._drained = False
        self._resources = resources
        self._record = Attempts(attempts)
        self._todo: deque[tuple[int, Any]] = deque()
        self._hands: list[_Hand] = []
        self._pending: dict[Any, _Call] = {}
        self._spec: Any = None
        self._lost_builds = 0
        self._start_watch = StartWatch(
            f"a worker {worker.name}", resources, pool.observer, pool.patience
        )
        self._freed = False

    def results(self) -> Iterator[Done]:
        self._pool.enrol(self)
        try:
            while self._feed():
                for status in self._wait():
                    # An earlier one may have settled it together with its dead actor.
                    if status in self._pending:
                        yield from self._settle(self._pending[status])
            self._record.raise_hopeless()
        finally:
            self.free()

    def free(self) -> None:
        self._pool.give_back(self, self._hands)
        self._hands, self._pending, self._freed = [], {}, True

    def _feed(self) -> bool:
        """Gives every actor something to do; whether an item is still to be waited for."""
        if self._freed:
            raise WorkError("the pool was closed before all results were read")
        self._draw()
        self._mind_drains()
        for hand in self._hands:
            if hand.built and not hand.calls and self._todo:
                self._send(hand)
        for hand in self._hands:
            # A second item hides the way to the driver and back.
            one_at_work = hand.built and len(hand.calls) == 1 and not hand.leaving
            if one_at_work and len(self._todo) > self._pool.workers:
                self._send(hand)
        while len(self._hands) < self._pool.workers and self._waiting_for_hands():
            self._hire()
        return bool(self._todo) or any(not call.builds for call in self._pending.values())

    def _mind_drains(self) -> None:
        """Lets go of actors on nodes that will go, as soon as they are idle."""
        going = draining()
        for hand in [hand for hand in self._hands if hand.node in going]:
            hand.leaving = True
            if not hand.calls:
                self._let_go(hand)

    def _let_go(self, hand: _Hand) -> None:
        """What waited behind its last item goes back to the others."""
        _kill(hand)
        self._hands.remove(hand)
        for call in reversed(hand.calls):
            del self._pending[call.status]
            self._todo.appendleft((call.index, call.item))
        self._pool.observer(Warned(f"{self._worker.name} moves: {LEAVING}"))

    def _draw(self) -> None:
        while not self._drained and len(self._todo) < 2 * self._pool.workers:
            try:
                self._todo.append(next(self._source))
            except StopIteration:
                self._drained = True

    def _waiting_for_hands(self) -> bool:
        return len(self._todo) > sum(not hand.built for hand in self._hands)

    def _hire(self) -> None:
        if self._spec is None:
            _carry_by_value(self._worker)
            self._spec = ray.put(self._worker)
        hand = self._pool.take(self._resources)
        self._hands.append(hand)
        self._expect(_Call(hand, hand.actor.build.remote(self._spec)))

    def _send(self, hand: _Hand) -> None:
        index, item = self._todo.popleft()
        status, value = hand.actor.work.options(num_returns=2).remote(item)
        self._expect(_Call(hand, status, value, index, item))

    def _expect(self, call: _Call) -> None:
        call.hand.calls.append(call)
        self._pending[call.status] = call

    def _wait(self) -> list[Any]:
        while True:
            if self._pool.stopping():
                raise StoppedError("stopped between work items", do="run the same command again")
            waiting = list(self._pending)
            ready, _ = ray.wait(waiting, num_returns=1, timeout=_WAIT_SECONDS)
            if ready:
                return list(ready)
            self._mind_drains()
            if not any(hand.built for hand in self._hands):
                self._start_watch.check()

    def _settle(self, call: _Call) -> Iterator[Done]:
        try:
            answer = self._answer(call)
        except ray.exceptions.RayError as error:
            yield from self._bury(call.hand, error)
            return
        yield from self._accept(call, answer)

    def _answer(self, call: _Call, timeout: float | None = None) -> Failure | Any:
        """A failure, or the value. Raises if Ray lost the one or other."""
        try:
            failure = ray.get(call.status, timeout=timeout)
            if isinstance(failure, Failure):
                return arrived(failure)
            if call.builds:
                return failure
            return ray.get(call.value)
        except ray.exceptions.RayTaskError as error:
            # The worker is fine, and what it returned could not be sent.
            return Failure(reason(error), str(error))

    def _accept(self, call: _Call, answer: Failure | Any) -> Iterator[Done]:
        call.hand.calls.remove(call)
        del self._pending[call.status]
        if call.builds:
            self._accept_build(call.hand, answer)
            return
        if not isinstance(answer, Failure):
            self._record.forget(call.index)
            yield Done(call.index, call.item, answer)
        elif self._was_put_down(call.hand, answer):
            self._todo.appendleft((call.index, call.item))
        elif self._record.again(call.index, call.item, answer):
            self._todo.append((call.index, call.item))
        if call.hand.leaving and call.hand in self._hands:
            self._let_go(call.hand)

    def _was_put_down(self, hand: _Hand, failure: Failure) -> bool:
        """Whether an item was saved because its node will go; others stop only if they may."""
        if isinstance(failure.error, StoppedError) and not self._pool.stopping():
            hand.leaving = hand.leaving or hand.node in draining(fresh=True)
            return hand.leaving
        return False

    def _accept_build(self, hand: _Hand, failure: Failure | str) -> None:
        if isinstance(failure, str):
            hand.built, hand.node = True, failure
            self._lost_builds = 0
            return
        if isinstance(failure.error, RayclError):
            raise failure.error
        raise WorkError(
            f"the worker {self._worker.name} could not be built: {failure.summary}\n"
            f"{failure.traceback}"
        ) from failure.error

    def _bury(self, hand: _Hand, error: Exception) -> Iterator[Done]:
        """An actor is gone, or its answer unknown: sorts out its calls, oldest first."""
        _kill(hand)
        self._hands.remove(hand)
        blamed = False
        for call in list(hand.calls):
            with contextlib.suppress(ray.exceptions.RayError):
                yield from self._accept(call, self._answer(call, _SETTLE_SECONDS))
                continue
            hand.calls.remove(call)
            del self._pending[call.status]
            if blamed:
                self._todo.appendleft((call.index, call.item))
            else:
                self._blame(call, reason(error))
            blamed = True

    def _blame(self, call: _Call, why: str) -> None:
        if call.builds:
            # One that died while it was idle says nothing about this worker.
            self._lost_builds += call.hand.fresh
            self._tell_lost(why, self._lost_builds)
            if self._lost_builds >= self._record.limit * self._pool.workers:
                raise WorkError(
                    f"the worker {self._worker.name} died {self._lost_builds} times while it was "
                    f"built; last: {why}"
                )
            return
        if call.hand.leaving:
            self._tell_lost(f"{LEAVING}, and went", self._record.used(call.index))
            self._todo.appendleft((call.index, call.item))
            return
        self._tell_lost(why, self._record.used(call.index) + 1)
        if self._record.again(call.index, call.item, died(why)):
            self._todo.append((call.index, call.item))

    def _tell_lost(self, why: str, attempt: int) -> None:
        self._pool.observer(WorkerLost(self._worker.name, why, attempt))


def _carry_by_value(worker: WorkerSpec) -> None:
    """A module that was made from text has no file: no other process could import it."""
    module = sys.modules.get(getattr(worker.cls, "__module__", ""))
    if module is not None and module.__name__ != "__main__" and module.__spec__ is None:
        ray.cloudpickle.register_pickle_by_value(module)  # type: ignore[no-untyped-call]


def _kill(hand: _Hand) -> None:
    with contextlib.suppress(ray.exceptions.RayError):
        ray.kill(hand.actor, no_restart=True)
