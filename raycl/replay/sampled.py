"""Fresh samples of generators for every epoch, drawn ahead of the trainer.

What is drawn is named by (bank, seed, task, epoch) and the class's own stream, so it is never
stored: whoever needs it again draws it again. Guarantees, on a CPU: the same bits whether the
trainer's process draws or workers do, however many; at most two epochs and what workers have
in flight are in memory.
"""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from raycl.compute.pool import Pool, Reference, WorkerSpec
from raycl.config.generators import GeneratorSpec
from raycl.config.seeds import seed_for
from raycl.errors import ConfigError, DataError, StoppedError
from raycl.generators.build import restore_bank
from raycl.generators.fitting import AnyBank
from raycl.replay.batches import PREFETCH, Batch, Batches, Clock, Position, Schedule
from raycl.replay.room import Room
from raycl.replay.sampling import Balanced, Order, Shard, Shuffled
from raycl.replay.shards import Ints, Matrix

Where = Literal["trainer", "workers"]
GROUP = 16
"""Classes that are drawn at a time: few enough to be spread over workers."""
_DTYPES = {torch.float32: np.float32, torch.float16: np.float16}


@dataclass(frozen=True, eq=False)
class Fitted:
    """Generators of some classes: the bank, and for each class its id and its own stream."""

    bank: AnyBank
    class_ids: Sequence[int]
    streams: Sequence[int]
    """As in `ClassVectors`: of the class itself, not of its place among others."""

    def __post_init__(self) -> None:
        if not len(self.bank) == len(self.class_ids) == len(self.streams):
            raise DataError(
                "each class of a bank needs an id and a stream",
                got=f"{len(self.bank)} classes, {len(self.class_ids)} ids, "
                f"{len(self.streams)} streams",
            )


@dataclass(frozen=True)
class _Draw:
    """A work item: one group of a bank's classes, for one epoch."""

    epoch: int
    bank: int
    group: int
    row: int
    """Where the samples begin among all of the epoch."""
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class SampledMetrics:
    """What drawing and reading cost, in this process."""

    epoch_bytes: int
    batches: int
    draw_seconds: float
    """Until an epoch was complete, summed; ahead of the trainer, so not all of it waited."""
    gather_seconds: float
    waited_seconds: float


class SampledReplay:
    """`n_per_class` samples of each class, new ones in each epoch."""

    def __init__(
        self,
        banks: Sequence[Fitted],
        n_per_class: int,
        *,
        seed: int,
        task: int,
        where: Where = "trainer",
        pool: Pool | None = None,
        spill: bool = False,
    ) -> None:
        """With where="workers", `pool` draws; the trainer's own process does otherwise."""
        if n_per_class < 1:
            raise ConfigError("an epoch needs samples of each class", got=n_per_class)
        if where not in ("trainer", "workers"):
            raise ConfigError("samples are drawn by 'trainer' or 'workers'", got=where)
        if where == "workers" and pool is None:
            raise ConfigError("workers that draw samples need a pool", do="give pool=")
        self._banks, self._n, self._seed, self._task = list(banks), n_per_class, seed, task
        self._where, self._pool, self._spill = where, pool, spill
        ids = [int(c) for fitted in self._banks for c in fitted.class_ids]
        widths = {fitted.bank.width for fitted in self._banks}
        if not ids or len(set(ids)) < len(ids) or len(widths) > 1:
            raise DataError(
                "banks to replay need at least one class, each class once, and one width",
                got=f"{len(ids)} classes, {len(set(ids))} of them distinct, widths {widths}",
            )
        self._ids, (self._width,) = ids, widths
        self._clock, self._draw_seconds = Clock(), 0.0

    @property
    def classes(self) -> tuple[int, ...]:
        """Class ids, ascending."""
        return tuple(sorted(self._ids))

    @property
    def where(self) -> Where:
        """Who draws."""
        return self._where

    @property
    def width(self) -> int:
        """Dimensions of a sample."""
        return self._width

    def __len__(self) -> int:
        """Samples per epoch."""
        return len(self._ids) * self._n

    def batches(
        self,
        batch: int,
        sampling: Shuffled | Balanced = Shuffled(),  # noqa: B008 - frozen
        *,
        epochs: int,
        start: Position = Position(),  # noqa: B008 - frozen
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        prefetch: int = PREFETCH,
        drop_last: bool = False,
    ) -> Batches:
        """(x, y) after (x, y); the samples of epoch e are the same wherever one starts."""
        if dtype not in _DTYPES:
            raise ConfigError("samples come as float32 or float16", got=str(dtype))
        where = torch.device(device)
        # A place on the workers' side is the CPU; a trainer with a GPU draws there.
        home = where if self._where == "trainer" else torch.device("cpu")
        plan = Schedule(batch, epochs, start, drop_last, prefetch)
        pin = home != where and where.type == "cuda"
        feed = _Feed(self, self.order(sampling), dtype, home, pin, ahead=prefetch > 0)
        return Batches(feed, plan, where, self._clock)

    def metrics(self) -> SampledMetrics:
        """Figures so far."""
        return SampledMetrics(
            epoch_bytes=len(self) * self._width * 4,
            batches=self._clock.batches,
            draw_seconds=self._draw_seconds,
            gather_seconds=self._clock.gather_seconds,
            waited_seconds=self._clock.waited_seconds,
        )

    def whole_epochs(self, epochs: int, device: torch.device | str = "cpu") -> WholeEpochs:
        """For a trainer that puts the rows of an epoch into an order of its own."""
        return WholeEpochs(self, epochs, torch.device(device))

    def drawn(self, wanted: _Wanted) -> Generator[Tensor, None, None]:
        """All samples of one epoch after the other: class by class, (rows, width)."""
        inside = self._where == "trainer"
        epochs = self.drawn_here(wanted) if inside else self._drawn_by_workers(wanted)
        if not wanted.ahead:
            yield from self._timed(epochs)
            return
        with ThreadPoolExecutor(1, thread_name_prefix="raycl-draws") as thread:
            # One epoch ahead and no more: a queue would hold another.
            coming = thread.submit(next, epochs, None)
            try:
                while (samples := self._waited(coming)) is not None:
                    coming = thread.submit(next, epochs, None)
                    yield samples
            finally:
                wanted.end()
                wait([coming])
                epochs.close()

    def _timed(self, epochs: Iterator[Tensor]) -> Iterator[Tensor]:
        while True:
            began = time.perf_counter()
            samples = next(epochs, None)
            self._draw_seconds += time.perf_counter() - began
            if samples is None:
                return
            yield samples

    def _waited(self, coming: Future[Tensor | None]) -> Tensor | None:
        began = time.perf_counter()
        samples = coming.result()
        self._draw_seconds += time.perf_counter() - began
        return samples

    def drawn_here(self, wanted: _Wanted) -> Generator[Tensor, None, None]:
        """The same, by this process."""
        groups = [_groups(fitted.bank.to(wanted.home)) for fitted in self._banks]
        for epoch in range(wanted.first, wanted.last):
            out = torch.empty(len(self), self._width, dtype=wanted.dtype, device=wanted.home)
            for draw in self._draws(epoch):
                if wanted.stopped():
                    return
                samples = _sampled(groups[draw.bank][draw.group], draw, self._n)
                out[draw.row : draw.row + len(samples)] = samples
            yield out

    def _drawn_by_workers(self, wanted: _Wanted) -> Generator[Tensor, None, None]:
        assert self._pool is not None
        dtype = _DTYPES[wanted.dtype]
        nbytes = len(self) * self._width * wanted.dtype.itemsize
        Room(self._pool, None, spill=self._spill).take(nbytes)
        states = [
            (f.bank.spec, self._pool.put({n: t.cpu().numpy() for n, t in f.bank.tensors.items()}))
            for f in self._banks
        ]
        worker = WorkerSpec(Drawer, (states, self._n, np.dtype(dtype).name))
        epochs = range(wanted.first, wanted.last)
        items = (draw for epoch in epochs for draw in self._draws(epoch))
        waiting: dict[int, tuple[Matrix, int]] = {}
        due = wanted.first
        for done in self._pool.map_unordered(worker, items):
            if wanted.stopped():
                return
            draw: _Draw = done.item
            if draw.epoch not in waiting:
                waiting[draw.epoch] = (np.empty((len(self), self._width), dtype), 0)
            out, rows = waiting[draw.epoch]
            out[draw.row : draw.row + len(done.value)] = done.value
            waiting[draw.epoch] = (out, rows + len(done.value))
            while due in waiting and waiting[due][1] == len(self):
                yield torch.from_numpy(waiting.pop(due)[0])
                due += 1

    def _draws(self, epoch: int) -> Iterator[_Draw]:
        row = 0
        for number, fitted in enumerate(self._banks):
            for group in range(-(-len(fitted.bank) // GROUP)):
                streams = fitted.streams[group * GROUP : (group + 1) * GROUP]
                seeds = tuple(
                    seed_for(stream, "replay samples", self._seed, self._task, epoch)
                    for stream in streams
                )
                yield _Draw(epoch, number, group, row, seeds)
                row += len(seeds) * self._n

    def order(self, sampling: Shuffled | Balanced) -> Order:
        """The order of rows, which is that of all the classes' samples in a row."""
        if not isinstance(sampling, Shuffled | Balanced):
            raise ConfigError(
                "fresh samples are not chosen among", got=sampling, do="use Shuffled or Balanced"
            )
        shards = [Shard(self._task, c, 0, self._n) for c in self._ids]
        return Order(sampling, shards, seed_for(self._seed, "replay task", self._task))

    @property
    def labels(self) -> Ints:
        """The class of each row."""
        return np.repeat(np.array(self._ids, np.int64), self._n)


class WholeEpochs:
    """All samples of an epoch at once, class by class; to be closed after use.

    Asked for one after the other, the next is drawn while one is trained on: by the workers, or
    beside the trainer's GPU. On a CPU that draws itself a second thread would take its time
    from the trainer.
    """

    def __init__(self, replay: SampledReplay, epochs: int, device: torch.device) -> None:
        self._replay, self._epochs, self._device = replay, epochs, device
        self._inside = replay.where == "trainer"
        self._coming: Generator[Tensor, None, None] | None = None
        self._next = -1

    @property
    def rows(self) -> int:
        """In an epoch."""
        return len(self._replay)

    def epoch(self, index: int) -> tuple[Tensor, Tensor]:
        """Vectors and class ids; the same for the same index, whenever asked."""
        if self._coming is None or index != self._next:
            self.close()
            self._coming = self._replay.drawn(self._wanted(index))
        try:
            samples = next(self._coming)
            self._next = index + 1
        except StoppedError:
            # Workers draw no more. The trainer stops after its next step, and saves itself.
            self.close()
            samples = next(self._replay.drawn_here(self._wanted(index)))
        return samples.to(self._device), torch.from_numpy(self._replay.labels)

    def _wanted(self, first: int) -> _Wanted:
        home = self._device if self._inside else torch.device("cpu")
        ahead = not self._inside or home.type != "cpu"
        return _Wanted(first, self._epochs, torch.float32, home, ahead, lambda: False)

    def close(self) -> None:
        """What is being drawn is not needed any more."""
        if self._coming is not None:
            self._coming.close()
        self._coming = None


def _groups(bank: AnyBank) -> list[AnyBank]:
    """Banks of GROUP classes, as views of this one."""
    full, rest = divmod(len(bank), GROUP)
    return bank.split([GROUP] * full + ([rest] if rest else []))


def _sampled(group: AnyBank, draw: _Draw, n: int) -> Tensor:
    samples = group.sample(n, draw.seeds)
    return samples.reshape(-1, samples.shape[-1])


class Drawer:
    """A worker that draws from banks which lie in the object store."""

    def __init__(
        self, states: Sequence[tuple[GeneratorSpec, Reference]], n: int, dtype: str
    ) -> None:
        self._states, self._n, self._dtype = states, n, dtype
        self._banks: dict[int, list[AnyBank]] = {}

    def __call__(self, draw: _Draw) -> Matrix:
        if draw.bank not in self._banks:
            self._banks[draw.bank] = _groups(self._bank(draw.bank))
        samples = _sampled(self._banks[draw.bank][draw.group], draw, self._n)
        return samples.numpy().astype(self._dtype, copy=False)

    def _bank(self, number: int) -> AnyBank:
        spec, reference = self._states[number]
        arrays: dict[str, Any] = reference.get()
        with warnings.catch_warnings():
            # Torch warns of read-only arrays; nobody writes into a fitted bank.
            warnings.simplefilter("ignore", UserWarning)
            return restore_bank(spec, {n: torch.from_numpy(a) for n, a in arrays.items()})


@dataclass(frozen=True)
class _Wanted:
    """Epochs `first` to `last` of samples: of which type, on which device, and until when."""

    first: int
    last: int
    dtype: torch.dtype
    home: torch.device
    ahead: bool
    nobody_waits: Callable[[], bool]
    _ended: threading.Event = field(default_factory=threading.Event)

    def stopped(self) -> bool:
        """Asked between draws."""
        return self._ended.is_set() or self.nobody_waits()

    def end(self) -> None:
        """What is being drawn is not needed any more."""
        self._ended.set()


@dataclass(frozen=True, eq=False)
class _Feed:
    """Epochs of one call of `batches`."""

    replay: SampledReplay
    order: Order
    dtype: torch.dtype
    home: torch.device
    pin: bool
    ahead: bool

    @property
    def rows(self) -> int:
        return len(self.order)

    @property
    def row_bytes(self) -> int:
        return self.replay.width * self.dtype.itemsize

    def epochs(self, first: int, last: int, stopped: Callable[[], bool]) -> Iterator[_DrawnEpoch]:
        wanted = _Wanted(first, last, self.dtype, self.home, self.ahead, stopped)
        labels = self.replay.labels
        for number, samples in enumerate(self.replay.drawn(wanted), first):
            order = self.order.epoch(number)
            yield _DrawnEpoch(samples, order, labels[order], pin=self.pin)


class _DrawnEpoch:
    """All samples of an epoch, and the order in which they are read."""

    def __init__(self, samples: Tensor, order: Ints, labels: Ints, *, pin: bool) -> None:
        self._samples, self._pin = samples, pin
        self._order = torch.from_numpy(order).to(samples.device)
        self._labels = torch.from_numpy(labels)

    def __len__(self) -> int:
        return len(self._order)

    def take(self, first: int, last: int) -> Batch:
        x = self._samples.index_select(0, self._order[first:last])
        y = self._labels[first:last].clone()
        return (x.pin_memory(), y.pin_memory()) if self._pin else (x, y)
