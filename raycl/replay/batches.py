"""Batches for a trainer, gathered when it asks or ahead of it by one thread.

Guarantees: batch (epoch, step) is the same whatever was drawn before it, so a loop resumes
from a position; a batch is private memory that its reader may write to; an error of the thread
is raised where the next batch was asked for; the thread ends with the iterator, however that
ends.
"""

from __future__ import annotations

import queue
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol, Self

import torch
from torch import Tensor

from raycl.errors import ConfigError

Batch = tuple[Tensor, Tensor]
PREFETCH = 2
MOST_AT_ONCE = 16
BYTES_AT_ONCE = 2**22
"""Small batches are gathered and handed over several at a time: what a call, or waking a thread,
costs is as much as copying one of 256 KiB."""
_POLL_SECONDS = 0.1


@dataclass(frozen=True, order=True)
class Position:
    """The next batch: `step` of `epoch`, both from 0."""

    epoch: int = 0
    step: int = 0


class Epoch(Protocol):
    """The rows of one epoch, in their order."""

    def __len__(self) -> int: ...

    def take(self, first: int, last: int) -> Batch:
        """Vectors and labels of rows `first` to `last`, in memory of their own."""


Chunks = Generator[Batch, None, None]
"""Rows of one epoch that follow each other; those of several batches."""


class Feed(Protocol):
    """Where epochs come from."""

    @property
    def rows(self) -> int:
        """Per epoch."""

    @property
    def row_bytes(self) -> int:
        """Of one row as it is handed over."""

    def epochs(self, first: int, last: int, stopped: Callable[[], bool]) -> Iterator[Epoch]:
        """Those epochs, one after the other; `stopped` tells that nobody waits any more."""


@dataclass(frozen=True)
class Schedule:
    """How an epoch is cut, and how many there are."""

    batch: int
    epochs: int
    start: Position = Position()
    drop_last: bool = False
    prefetch: int = PREFETCH

    def __post_init__(self) -> None:
        for name, value, least in (
            ("batch", self.batch, 1),
            ("epochs", self.epochs, 0),
            ("prefetch", self.prefetch, 0),
            ("start", min(self.start.epoch, self.start.step), 0),
        ):
            if not isinstance(value, int) or value < least:
                raise ConfigError(f"{name} must be a whole number from {least} on", got=value)

    def steps(self, rows: int) -> int:
        """Batches per epoch."""
        return rows // self.batch if self.drop_last else -(-rows // self.batch)

    def check(self, rows: int) -> None:
        """An error unless the start is a batch of the schedule, or the end of an epoch."""
        steps = self.steps(rows)
        if self.start.step > steps or self.start.epoch > self.epochs:
            raise ConfigError(
                "there is no such position in this schedule",
                got=f"epoch {self.start.epoch}, step {self.start.step}",
                do=f"it has {self.epochs} epochs of {steps} batches; resume with the batch size, "
                "sampling and contents that the position is of",
            )


@dataclass
class Clock:
    """Where the time of readers goes, summed over all of a buffer's iterators."""

    batches: int = 0
    gather_seconds: float = 0.0
    waited_seconds: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def gathered(self, seconds: float, batches: int) -> None:
        with self._lock:
            self.batches += batches
            self.gather_seconds += seconds

    def waited(self, seconds: float) -> None:
        with self._lock:
            self.waited_seconds += seconds


class Batches(Iterator[Batch]):
    """An iterator over the batches of a feed; `position` is that of the next one."""

    def __init__(self, feed: Feed, schedule: Schedule, device: torch.device, clock: Clock) -> None:
        schedule.check(feed.rows)
        self._schedule, self._device, self._clock = schedule, device, clock
        self._steps = schedule.steps(feed.rows)
        begin = _carried(schedule.start, self._steps)
        self._epoch, self._step = begin.epoch, begin.step
        # No bound method: the thread must not keep alive the iterator whose end ends it.
        self._stop = threading.Event()
        self._source = _made(feed, schedule, clock, self._stop)
        self._ready: deque[Batch] = deque()
        self._closer: weakref.finalize[..., Batches] | None = None
        if schedule.prefetch:
            self._source, end = _ahead(self._source, schedule.prefetch, self._stop)
            self._closer = weakref.finalize(self, end)

    @property
    def position(self) -> Position:
        """Where to resume: `start=` of a later call, with the same seed and sampling."""
        return Position(self._epoch, self._step)

    def __len__(self) -> int:
        """Batches that are left."""
        done = self._epoch * self._steps + self._step
        return max(self._schedule.epochs * self._steps - done, 0)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Batch:
        if self._stop.is_set():
            raise StopIteration
        if not self._ready:
            self._refill()
        self._step += 1
        if self._step >= self._steps:
            self._epoch, self._step = self._epoch + 1, 0
        return self._ready.popleft()

    def _refill(self) -> None:
        began = time.perf_counter()
        try:
            x, y = next(self._source)
        except BaseException:
            self.close()
            raise
        self._clock.waited(time.perf_counter() - began)
        if x.device != self._device:
            # From pinned memory; its allocator waits for the copy before it reuses a block.
            x = x.to(self._device, non_blocking=True)
        if y.device != self._device:
            y = y.to(self._device, non_blocking=True)
        size = self._schedule.batch
        for first in range(0, len(x), size):
            self._ready.append((x[first : first + size], y[first : first + size]))

    def close(self) -> None:
        """Ends the thread. Twice is harmless."""
        self._stop.set()
        if self._closer is not None:
            self._closer()
        self._source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _carried(position: Position, steps: int) -> Position:
    """The end of an epoch is the beginning of the next."""
    if position.step >= steps:
        return Position(position.epoch + 1, 0)
    return position


def _made(feed: Feed, plan: Schedule, clock: Clock, stop: threading.Event) -> Chunks:
    start = _carried(plan.start, plan.steps(feed.rows))
    first = start.step * plan.batch
    fits = BYTES_AT_ONCE // (feed.row_bytes * plan.batch)
    at_once = plan.batch * max(1, min(fits, MOST_AT_ONCE))
    for epoch in feed.epochs(start.epoch, plan.epochs, stop.is_set):
        last = len(epoch) - len(epoch) % plan.batch if plan.drop_last else len(epoch)
        for begin in range(first, last, at_once):
            began = time.perf_counter()
            chunk = epoch.take(begin, min(begin + at_once, last))
            clock.gathered(time.perf_counter() - began, -(-len(chunk[0]) // plan.batch))
            yield chunk
        first = 0


@dataclass(frozen=True)
class _Ended:
    """The last thing in the queue: the end, or why."""

    error: BaseException | None


def _ahead(
    source: Chunks, prefetch: int, stop: threading.Event
) -> tuple[Chunks, Callable[[], None]]:
    """What a thread draws from the source, and how to end that thread."""
    made: queue.Queue[Batch | _Ended] = queue.Queue(prefetch)
    thread = threading.Thread(
        target=_fill, args=(source, made, stop), name="raycl-replay", daemon=True
    )
    thread.start()

    def end() -> None:
        stop.set()
        if thread is not threading.current_thread():
            thread.join()

    return _drawn(made, thread), end


def _fill(source: Chunks, made: queue.Queue[Batch | _Ended], stop: threading.Event) -> None:
    error: BaseException | None = None
    try:
        for chunk in source:
            if not _put(made, chunk, stop):
                break
    except BaseException as raised:
        error = raised
    finally:
        # Here, not wherever the last reference goes: it may hold a map of a pool.
        source.close()
    _put(made, _Ended(error), stop)


def _put(made: queue.Queue[Batch | _Ended], item: Batch | _Ended, stop: threading.Event) -> bool:
    while not stop.is_set():
        try:
            made.put(item, timeout=_POLL_SECONDS)
        except queue.Full:
            continue
        return True
    return False


def _drawn(
    made: queue.Queue[Batch | _Ended], thread: threading.Thread
) -> Generator[Batch, None, None]:
    while True:
        try:
            item = made.get(timeout=_POLL_SECONDS)
        except queue.Empty:
            # A thread that has just ended may have put its last word in between.
            if thread.is_alive() or not made.empty():
                continue
            return  # closed
        if not isinstance(item, _Ended):
            yield item
            continue
        if item.error is not None:
            raise item.error
        return
