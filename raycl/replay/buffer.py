"""`ReplayBuffer`: latents of earlier classes, one copy per node, gathered by many trainers.

Shards of (task, class) are packed into objects of up to 128 MB and put through the pool: the
caller owns them, or, with `shared=True`, a manifest service that outlives it. Guarantees:
what is in is finite and of one width; a batch is a function of (seed, epoch, step) and the
contents; an object that is lost is read again from the store; no reader copies a pack.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from raycl.compute.pool import Pool, Reference
from raycl.errors import ConfigError, DataError
from raycl.replay.batches import PREFETCH, Batch, Batches, Clock, Position, Schedule
from raycl.replay.packs import OwnPacks, Packs, Piece, Recipe, recipe_of, shared_packs
from raycl.replay.reader import Held, Reader
from raycl.replay.room import MIB, Room
from raycl.replay.sampling import Balanced, Order, Sampling, Shard
from raycl.replay.shards import DTYPES, Ints, Matrix, Shelf, Source, checked
from raycl.store.store import Store

PACK_BYTES = 122 * MIB
"""128 MB: fewer objects to gather a batch from, and still few seconds to read one again."""
SMALL_PACK_BYTES = 16 * MIB
"""A last pack below this is packed again by `extended`."""


@dataclass(frozen=True)
class ReplayMetrics:
    """What a buffer holds and what reading it costs, in this process."""

    bytes: int
    objects: int
    found: int
    """Packs that were there when they were first read."""
    reloaded: int
    """Packs that were lost and read again."""
    batches: int
    gather_seconds: float
    waited_seconds: float
    """In which a trainer waited for its next batch."""

    @property
    def hit_rate(self) -> float | None:
        """Share of packs that were found; null before the first is read."""
        total = self.found + self.reloaded
        return self.found / total if total else None


@dataclass(frozen=True)
class Handle:
    """A sealed buffer, small enough to send: references and recipes, no vectors."""

    shards: tuple[Shard, ...]
    packs: tuple[tuple[Recipe, Reference], ...]
    dtype: str
    width: int
    store_uri: str | None
    shared: bool


class ReplayBuffer:
    """Vectors by (task, class); `add` them, `seal` it, then draw `batches` from it."""

    def __init__(
        self,
        pool: Pool,
        store: Store | None = None,
        byte_budget: int | None = None,
        *,
        shared: bool = False,
        dtype: str | None = None,
        pack_bytes: int = PACK_BYTES,
        spill: bool = False,
    ) -> None:
        """`dtype` is float16 or float32; null keeps that of the first vectors."""
        if dtype is not None and dtype not in DTYPES:
            raise ConfigError("a buffer holds float16 or float32", got=dtype)
        if pack_bytes < 1:
            raise ConfigError("a pack must hold something", got=pack_bytes)
        self._pool, self._store, self._shared = pool, store, shared
        self._room = Room(pool, byte_budget, spill=spill)
        self._owner: Packs
        if shared:
            self._owner = shared_packs(pool, store, spill=spill)
        else:
            self._owner = OwnPacks(pool, store, self._room)
        self._options: dict[str, Any] = {"byte_budget": byte_budget, "spill": spill}
        self._options["pack_bytes"] = self._pack_bytes = pack_bytes
        self._dtype, self._width = dtype, 0
        # A dtype that was asked for converts; one that was found is only compared with.
        self._converts = dtype is not None
        self._shelf = Shelf(store)
        self._shards: list[Shard] = []
        self._additions: Counter[tuple[int, int]] = Counter()
        self._open: list[tuple[Piece, Matrix]] = []
        self._open_bytes = self._closed_bytes = 0
        self._packs: list[tuple[Recipe, Reference]] = []
        self._sealed = False
        self._reader: Reader | None = None
        self._clock = Clock()
        self._lock = threading.RLock()

    def add(
        self, task: int, class_id: int, vectors: Any = None, source: Source | None = None
    ) -> None:
        """Adds rows to a class of a task; they are copied, or shared as they are read.

        `source` says where they can be read again; without vectors they are read from there
        now. Without a source, the pack they come into is stored, if there is a store.
        """
        name = f"task {task}, class {class_id}"
        if not all(isinstance(i, int | np.integer) and i >= 0 for i in (task, class_id)):
            raise DataError("a task and a class are whole numbers from 0 on", got=name)
        if vectors is None and source is None:
            raise ConfigError(f"{name}: neither vectors nor a source", do="give one or both")
        with self._lock:
            if self._sealed:
                raise ConfigError(
                    "the replay buffer is sealed: its shards are immutable",
                    got=name,
                    do="add to buffer.extended(), which shares what is in already",
                )
            given = self._shelf.read(source) if vectors is None and source else vectors
            matrix = checked(name, given, self._dtype if self._converts else None)
            self._require_like_the_others(name, matrix)
            self._append(int(task), int(class_id), matrix, source)

    def _require_like_the_others(self, name: str, matrix: Matrix) -> None:
        self._dtype = self._dtype or matrix.dtype.name
        self._width = self._width or matrix.shape[1]
        if (matrix.shape[1], matrix.dtype.name) != (self._width, self._dtype):
            raise DataError(
                f"{name}: a replay buffer holds vectors of one width and type",
                got=f"{matrix.shape[1]} x {matrix.dtype.name}, not {self._width} x {self._dtype}",
                do="embed all with one backbone; dtype='float16' or 'float32' converts",
            )

    def _append(self, task: int, class_id: int, matrix: Matrix, source: Source | None) -> None:
        self._room.require_budget(self.bytes + matrix.nbytes)
        shard = len(self._shards)
        addition = self._additions[task, class_id]
        self._additions[task, class_id] += 1
        self._shards.append(Shard(task, class_id, addition, len(matrix)))
        row_bytes = matrix.nbytes // len(matrix)
        first = 0
        while first < len(matrix):
            fits = max((self._pack_bytes - self._open_bytes) // row_bytes, 0)
            if not fits and self._open:
                self._close_pack()
                continue
            rows = min(max(fits, 1), len(matrix) - first)
            part = matrix[first : first + rows].copy()
            self._open.append((Piece(shard, first, rows, source), part))
            self._open_bytes += part.nbytes
            first += rows

    def _close_pack(self) -> None:
        """Shares what is open as one object."""
        if not self._open:
            return
        matrix = np.concatenate([part for _, part in self._open])
        recipe = recipe_of([piece for piece, _ in self._open], matrix)
        self._packs.append(self._owner.share(recipe, matrix))
        self._closed_bytes += matrix.nbytes
        self._open, self._open_bytes = [], 0

    def seal(self) -> ReplayBuffer:
        """Shares what is still open; from now on the buffer is read and not added to."""
        with self._lock:
            self._close_pack()
            self._sealed = True
        return self

    def extended(self) -> ReplayBuffer:
        """An open buffer that begins with what this one holds, sharing its objects."""
        self._require_sealed()
        out = ReplayBuffer(
            self._pool, self._store, shared=self._shared, dtype=self._dtype, **self._options
        )
        out._converts = self._converts
        out._take_over(self)
        return out

    def _take_over(self, other: ReplayBuffer) -> None:
        self._width, self._shards = other._width, list(other._shards)
        self._additions = Counter(other._additions)
        self._packs = list(other.handle().packs)
        if self._packs and self._packs[-1][0].nbytes < min(SMALL_PACK_BYTES, self._pack_bytes):
            recipe, _ = self._packs.pop()
            vectors, start = other.reader.view(len(self._packs)), 0
            for piece in recipe.pieces:
                self._open.append((piece, vectors[start : start + piece.rows]))
                start += piece.rows
            self._open_bytes = recipe.nbytes
        self._closed_bytes = sum(recipe.nbytes for recipe, _ in self._packs)

    @classmethod
    def open(cls, pool: Pool, handle: Handle, store: Store | None = None) -> ReplayBuffer:
        """The buffer behind a handle, in another process: it shares objects, and reads those
        that are lost from the store."""
        if store is None and handle.store_uri is not None:
            store = Store.open(handle.store_uri)
        out = cls(pool, store, shared=handle.shared, dtype=handle.dtype)
        out._width, out._shards = handle.width, list(handle.shards)
        out._packs, out._sealed = list(handle.packs), True
        out._additions = Counter((s.task, s.class_id) for s in handle.shards)
        out._closed_bytes = sum(recipe.nbytes for recipe, _ in handle.packs)
        return out

    def handle(self) -> Handle:
        """What another process needs to read this buffer; it must be sealed."""
        self._require_sealed()
        uri = None if self._store is None else self._store.uri
        recipes = [recipe for recipe, _ in self._packs]
        return Handle(
            shards=tuple(self._shards),
            packs=tuple(zip(recipes, self.reader.references, strict=True)),
            dtype=self._dtype or DTYPES[-1],
            width=self._width,
            store_uri=uri,
            shared=self._shared,
        )

    @property
    def classes(self) -> tuple[int, ...]:
        """Class ids, ascending."""
        return tuple(sorted({shard.class_id for shard in self._shards}))

    @property
    def width(self) -> int:
        """Dimensions of a vector; 0 before the first."""
        return self._width

    def __len__(self) -> int:
        return sum(shard.rows for shard in self._shards)

    @property
    def bytes(self) -> int:
        """Of all vectors; each node that reads holds them once."""
        return self._closed_bytes + self._open_bytes

    def metrics(self) -> ReplayMetrics:
        """Figures of this process so far."""
        found, reloaded = (0, 0) if self._reader is None else self._reader.counts
        return ReplayMetrics(
            bytes=self.bytes,
            objects=len(self._packs),
            found=found,
            reloaded=reloaded,
            batches=self._clock.batches,
            gather_seconds=self._clock.gather_seconds,
            waited_seconds=self._clock.waited_seconds,
        )

    def views(self, task: int, class_id: int) -> list[Matrix]:
        """Read-only views of a class's rows, as they lie in their packs."""
        self._require_sealed()
        out = []
        for number, (recipe, _) in enumerate(self._packs):
            start = 0
            for piece in recipe.pieces:
                shard = self._shards[piece.shard]
                if (shard.task, shard.class_id) == (task, class_id):
                    out.append(self.reader.view(number)[start : start + piece.rows])
                start += piece.rows
        return out

    def batches(
        self,
        batch: int,
        sampling: Sampling = Balanced(),  # noqa: B008 - frozen
        *,
        seed: int,
        epochs: int = 1,
        start: Position = Position(),  # noqa: B008 - frozen
        dtype: torch.dtype | None = None,
        device: torch.device | str = "cpu",
        prefetch: int | None = None,
        drop_last: bool = False,
    ) -> Batches:
        """(x, y) after (x, y), as tensors of their own on the device; y holds class ids.

        Batch (epoch, step) depends on the seed and what is in the buffer, not on `start`,
        packing or prefetching. The last batch of an epoch may be short. `prefetch` null: a
        thread gathers ahead of a GPU; on a CPU it would compete with the trainer for less than
        it saves.
        """
        self._require_sealed()
        if not self._shards:
            raise DataError("the replay buffer is empty", do="add a class before it is sealed")
        where = torch.device(device)
        pin = where.type == "cuda"
        if prefetch is None:
            prefetch = PREFETCH if pin else 0
        plan = Schedule(batch, epochs, start, drop_last, prefetch)
        feed = _Feed(self.reader, self._packs, self._shards, sampling, seed, dtype, pin=pin)
        return Batches(feed, plan, where, self._clock)

    @property
    def reader(self) -> Reader:
        """The packs as this process sees them."""
        with self._lock:
            if self._reader is None:
                held = [
                    Held(recipe.rows, reference, partial(self._owner.renew, recipe))
                    for recipe, reference in self._packs
                ]
                self._reader = Reader(held)
            return self._reader

    def release(self) -> None:
        """Lets go of the views, so that the object store may move what nobody reads."""
        with self._lock:
            if self._reader is not None:
                self._reader.release()

    def _require_sealed(self) -> None:
        if not self._sealed:
            raise ConfigError("the replay buffer is still open", do="call seal() first")


class _Feed:
    """Epochs of one call of `batches`."""

    def __init__(
        self,
        reader: Reader,
        packs: list[tuple[Recipe, Reference]],
        shards: list[Shard],
        sampling: Sampling,
        seed: int,
        dtype: torch.dtype | None,
        *,
        pin: bool,
    ) -> None:
        canonical = sorted(
            range(len(shards)),
            key=lambda i: (shards[i].class_id, shards[i].task, shards[i].addition),
        )
        in_order = [shards[i] for i in canonical]
        self.reader, self.dtype, self.pin = reader, dtype, pin
        self.width = packs[0][0].width
        self.kept = torch.float16 if packs[0][0].dtype == "float16" else torch.float32
        self.order = Order(sampling, in_order, seed)
        self.rows = len(self.order)
        self.row_bytes = self.width * (dtype or self.kept).itemsize
        class_ids = np.array([shard.class_id for shard in in_order], np.int64)
        self.labels: Ints = np.repeat(class_ids, [shard.rows for shard in in_order])
        self.stored = _stored_rows([recipe for recipe, _ in packs], shards, canonical)

    def epochs(self, first: int, last: int, stopped: Callable[[], bool]) -> Iterator[_PackedEpoch]:
        for number in range(first, last):
            yield _PackedEpoch(self, self.order.epoch(number))


def _stored_rows(recipes: list[Recipe], shards: list[Shard], canonical: list[int]) -> Ints:
    """For each row in canonical order, its place in the packs."""
    begins = np.empty(len(shards), np.int64)
    begins[canonical] = np.cumsum([0, *(shards[i].rows for i in canonical)])[:-1]
    out: Ints = np.empty(sum(shard.rows for shard in shards), np.int64)
    place = 0
    for recipe in recipes:
        for piece in recipe.pieces:
            at = begins[piece.shard] + piece.first
            out[at : at + piece.rows] = np.arange(place, place + piece.rows)
            place += piece.rows
    return out


class _PackedEpoch:
    """One epoch's rows in the packs, and their labels, in the epoch's order."""

    def __init__(self, feed: _Feed, order: Ints) -> None:
        self._feed = feed
        self._rows = feed.stored[order]
        self._labels = torch.from_numpy(feed.labels[order])

    def __len__(self) -> int:
        return len(self._rows)

    def take(self, first: int, last: int) -> Batch:
        feed = self._feed
        converts = feed.dtype is not None and feed.dtype != feed.kept
        shape = (last - first, feed.width)
        x = torch.empty(shape, dtype=feed.kept, pin_memory=feed.pin and not converts)
        feed.reader.gather(self._rows[first:last], x.numpy())
        if converts:
            x = torch.empty(shape, dtype=feed.dtype, pin_memory=feed.pin).copy_(x)
        y = self._labels[first:last].clone()
        return x, y.pin_memory() if feed.pin else y
