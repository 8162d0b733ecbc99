"""The vectors of all images of a stream: made once, in chunks over a pool, then mapped.

Guarantees: the same bytes whatever the pool, its workers and their deaths; a kill costs
each worker one chunk at most; two processes make one set of features. All splits are
embedded. Corrupt images are all named before they are refused, or left out if the stream
says so. Vectors are not normalised.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from raycl.compute.here import Here
from raycl.compute.pool import DEFAULT_RESOURCES, Pool, Resources, WorkerSpec
from raycl.compute.stopping import never
from raycl.config.backbones import Backbone
from raycl.config.streams import ImageFiles, ImageStream
from raycl.embedding.encoding import (
    Chunk,
    ChunkEncoder,
    ChunkMade,
    vectors_of,
    vectors_table,
)
from raycl.embedding.identity import EmbeddingIdentity
from raycl.errors import DataError, StoreError
from raycl.observe.events import BEFORE_TASKS, Computed, Observer, Progress, Reused, Warned, nobody
from raycl.store.store import Payloads, Store
from raycl.streams.images import ImageSet, read_images
from raycl.streams.source import Floats, Ints

STAGE = "embed"

_SHOWN = 20
"""Corrupt images that an error names; their number is always told."""

_MOST_DECODERS = 16
_ROUNDS = 3


@dataclass(frozen=True)
class Features:
    """The vectors of the images that could be decoded, in row order."""

    x: Floats
    """(n, width), read-only; mapped into memory from a local store."""
    rows: Ints
    """The row in the image set that each vector is of."""
    corrupt: tuple[str, ...]
    """The images left out, by path."""
    key: str

    @property
    def warnings(self) -> tuple[str, ...]:
        if not self.corrupt:
            return ()
        return (f"left out {_named(self.corrupt, 5)}",)


def embed(
    spec: ImageStream,
    backbone: Backbone,
    *,
    store: Store,
    pool: Pool,
    observer: Observer = nobody,
    device: str = "cpu",
    resources: Resources = DEFAULT_RESOURCES,
    stopping: Callable[[], bool] = never,
) -> Features:
    """The features of a stream's images: found in the store, or made and stored."""
    names = EmbeddingIdentity.of(spec, backbone)
    making = _Making(names, store, pool, observer, device, resources, Here(stopping))
    payloads = store.get_or_make(names.features, making.make)
    making.discard_chunks()
    table = payloads["features.arrow"]
    return Features(
        x=vectors_of(table),
        rows=np.asarray(table["row"].to_numpy()),
        corrupt=_places(payloads["corrupt.json"]),
        key=names.features.key,
    )


class _Making:
    """One pass over the chunks of an image set."""

    def __init__(
        self,
        names: EmbeddingIdentity,
        store: Store,
        pool: Pool,
        observer: Observer,
        device: str,
        resources: Resources,
        stop: Here,
    ) -> None:
        self.names, self.store, self.pool, self.observer = names, store, pool, observer
        self.resources = resources
        args = (names, store.uri, device, _decoders(pool, resources), stop)
        self.worker = WorkerSpec(ChunkEncoder, args)
        self.chunks: list[Chunk] = []
        self.done = 0
        self.vectors: Floats | None = None
        """By row; those of corrupt images stay undefined."""
        self.corrupt: dict[int, dict[str, Any]] = {}

    def make(self) -> Payloads:
        """The payloads of the features, from chunks found and chunks made."""
        images = read_images(self.names.spec)
        self.chunks = list(_chunks(self.names, len(images)))
        self._fill(len(images))
        self._refuse_change()
        corrupt = [self.corrupt[row] for row in sorted(self.corrupt)]
        if corrupt and (not _skips(self.names.spec) or len(corrupt) == len(images)):
            raise _refused(_places(corrupt))
        assert self.vectors is not None
        rows = np.delete(np.arange(len(images)), list(self.corrupt))
        x = self.vectors[rows] if corrupt else self.vectors
        return {
            "features.arrow": _with_labels(vectors_table(rows, x), images, rows),
            "corrupt.json": corrupt,
        }

    def _fill(self, total: int) -> None:
        """Every chunk's vectors, found or made."""
        missing = [chunk for chunk in self.chunks if not self._take(chunk, total)]
        absent = set(missing)
        for chunk in self.chunks:
            if chunk not in absent:
                self.store.reused[chunk.spec.kind] += 1
                self.observer(Reused(chunk.spec.kind, chunk.spec.key))
        # More than one round only if somebody removes or damages chunks meanwhile.
        for _ in range(_ROUNDS):
            if not missing:
                return
            self._tell(total)
            lost = []
            for done in self.pool.map_unordered(self.worker, missing, resources=self.resources):
                self._note(done.item, done.value)
                if not self._take(done.item, total):
                    lost.append(done.item)
                self._tell(total)
            missing = lost
        raise StoreError(
            "chunks of features vanish from the store as they are made",
            got=self.store.uri,
            do="see that nothing else deletes there, and run the same command again",
        )

    def _take(self, chunk: Chunk, total: int) -> bool:
        """Copy a chunk's vectors to their rows, if it is stored."""
        payloads = self.store.get(chunk.spec)
        if payloads is None:
            return False
        table = payloads["vectors.arrow"]
        x = vectors_of(table)
        if self.vectors is None:
            self.vectors = np.empty((total, x.shape[1]), np.float32)
        self.vectors[table["row"].to_numpy()] = x
        self.done += len(chunk)
        corrupt = payloads["corrupt.json"]
        if corrupt and not self.corrupt:
            # At once, because all the others may take hours to be decoded.
            self.observer(Warned(_named(_places(corrupt), 5)))
        self.corrupt |= {image["row"]: image for image in corrupt}
        return True

    def _refuse_change(self) -> None:
        """What was read may be neither the old images nor the new: none of it is kept."""
        names = EmbeddingIdentity.of(self.names.spec, self.names.backbone)
        if names != self.names:
            self.discard_chunks()
            raise DataError(
                "the images or weights changed while they were embedded",
                do="leave them alone and run the same command again",
            )

    def _note(self, chunk: Chunk, made: ChunkMade) -> None:
        kind = chunk.spec.kind
        (self.store.computed if made.computed else self.store.reused)[kind] += 1
        if made.computed:
            self.observer(Computed(kind, chunk.spec.key, made.seconds))

    def _tell(self, total: int) -> None:
        self.observer(Progress(BEFORE_TASKS, STAGE, self.done, total, "image"))

    def discard_chunks(self) -> None:
        """The features hold all that the chunks did."""
        for chunk in self.chunks:
            self.store.discard(chunk.spec)


def _chunks(names: EmbeddingIdentity, images: int) -> list[Chunk]:
    ranges = ((a, min(a + names.chunk_rows, images)) for a in range(0, images, names.chunk_rows))
    return [Chunk(names.chunk(first, last), first, last) for first, last in ranges]


def _with_labels(table: pa.Table, images: ImageSet, rows: Ints) -> pa.Table:
    splits = pa.array(images.splits[rows].tolist()).dictionary_encode()
    labels = pa.array(np.asarray(images.labels)[rows])
    return table.add_column(1, "label", labels).add_column(2, "split", splits)


def _decoders(pool: Pool, resources: Resources) -> int:
    """Threads that decode: a worker alone in its process may use the cores that are idle."""
    if pool.workers > 1:
        return max(1, math.ceil(resources.cpus))
    return min(_MOST_DECODERS, len(os.sched_getaffinity(0)))


def _skips(spec: ImageStream) -> bool:
    return isinstance(spec, ImageFiles) and spec.corrupt == "skip"


def _places(corrupt: list[dict[str, Any]]) -> tuple[str, ...]:
    return tuple(image["place"] for image in corrupt)


def _refused(places: tuple[str, ...]) -> DataError:
    one = len(places) == 1
    return DataError(
        _named(places, _SHOWN),
        do=f"replace {'it' if one else 'them'}, or leave {'it' if one else 'them'} out with "
        "--skip-corrupt (stream.corrupt=skip): what was embedded is kept",
    )


def _named(places: tuple[str, ...], shown: int) -> str:
    count = "1 image" if len(places) == 1 else f"{len(places)} images"
    more = f" and {len(places) - shown} more" if len(places) > shown else ""
    return f"{count} cannot be decoded: {', '.join(places[:shown])}{more}"
