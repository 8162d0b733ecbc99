"""The worker that turns a chunk of images into vectors and stores them.

Guarantees: an image's vector depends on the image and its row alone, since passes have one
shape and a corrupt image leaves a blank in its place; a chunk is stored whole or not at
all. Decoding runs ahead of encoding in threads, a bounded number of images; on a CPU passes
run beside each other too, each on one thread, so that no core waits and no bit moves.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from raycl.backbones.encoder import load_encoder
from raycl.compute.here import Here
from raycl.embedding.device import pick_device
from raycl.embedding.identity import EmbeddingIdentity
from raycl.errors import DataError, StoppedError
from raycl.store.artefact import ArtefactSpec
from raycl.store.store import Payloads, Store
from raycl.streams.images import read_images
from raycl.streams.source import Floats, Ints, listed

AHEAD = 2
"""Encoder passes that decoding may be ahead of encoding."""

Item = TypeVar("Item")
Made = TypeVar("Made")


@dataclass(frozen=True)
class Chunk:
    """A range of rows and the name of its vectors: one work item."""

    spec: ArtefactSpec
    first: int
    last: int

    def __len__(self) -> int:
        return self.last - self.first


@dataclass(frozen=True)
class ChunkMade:
    """What a worker tells of a chunk: whether it had to be computed, and how long it took."""

    computed: bool
    seconds: float


class ChunkEncoder:
    """Holds the encoder and the image set; called with one chunk after the other."""

    def __init__(
        self, identity: EmbeddingIdentity, store: str, device: str, decoders: int, here: Here
    ) -> None:
        _refuse_other_data(identity)
        self.backbone = identity.backbone
        self.images = read_images(identity.spec)
        self.encoder = load_encoder(identity.backbone, pick_device(device))
        self.store = Store.open(store)
        self.decoders = decoders
        # A GPU does one pass after the other anyway.
        self.encoders = decoders if self.encoder.device.type == "cpu" else 1
        self.here = here

    def __call__(self, chunk: Chunk) -> ChunkMade:
        before = self.store.computed[chunk.spec.kind]
        self.store.get_or_make(chunk.spec, lambda: self.encode(chunk))
        computed = self.store.computed[chunk.spec.kind] > before
        record = self.store.record(chunk.spec)
        return ChunkMade(computed, record.seconds if record else 0.0)

    def encode(self, chunk: Chunk) -> Payloads:
        """The payloads of a chunk: vectors by row, and the images that have none."""
        rows = range(chunk.first, chunk.last)
        corrupt: dict[int, DataError] = {}
        passes = self._passes(rows, corrupt)
        vectors = list(ahead(self._encode, passes, self.encoders, self.encoders - 1))
        whole = np.asarray([row for row in rows if row not in corrupt], np.int64)
        x = np.concatenate(vectors)[whole - chunk.first]
        self._refuse_overflow(x, whole)
        return {
            "vectors.arrow": vectors_table(whole, x),
            "corrupt.json": [
                {"row": row, "place": self.images.place(row), "why": error.what}
                for row, error in corrupt.items()
            ],
        }

    def _encode(self, pixels: Tensor) -> Floats:
        vectors: Floats = self.encoder.encode_images(pixels).numpy()
        return vectors

    def _passes(self, rows: range, corrupt: dict[int, DataError]) -> Iterator[Tensor]:
        """The pixels of one encoder pass after the other; `corrupt` collects what is blank."""
        batch: list[Tensor] = []
        decoded = ahead(self._decode, rows, self.decoders, AHEAD * self.backbone.batch)
        for row, pixels in zip(rows, decoded, strict=True):
            if isinstance(pixels, DataError):
                corrupt[row] = pixels
                pixels = torch.zeros(3, *self.encoder.image_size)
            batch.append(pixels)
            if len(batch) == self.backbone.batch or row == rows[-1]:
                if self.here.stopping():
                    raise StoppedError("stopped between two passes of the encoder")
                yield torch.stack(batch)
                batch = []

    def _decode(self, row: int) -> Tensor | DataError:
        try:
            return self.encoder.preprocess(self.images.image(row))
        except DataError as error:  # corrupt, or of no size; trouble of the disk goes on up
            return error

    def _refuse_overflow(self, x: Floats, rows: Ints) -> None:
        bad = rows[~np.isfinite(x).all(axis=1)]
        if len(bad):
            precision = self.backbone.precision
            raise DataError(
                f"the encoder gives NaN or infinity for {len(bad)} images at {precision}",
                got=listed([self.images.place(int(row)) for row in bad]),
                do="set backbone.precision=fp32"
                if precision != "fp32"
                else "look at these images and at the backbone's weights",
            )


def ahead(
    make: Callable[[Item], Made], items: Iterable[Item], threads: int, limit: int
) -> Iterator[Made]:
    """What is made of each item, in order; `limit` items beyond the one that is waited for are
    begun at most."""
    waiting: deque[Future[Made]] = deque()
    # A new thread would bring its library's own number of threads, and other bits.
    count = torch.get_num_threads()
    with ThreadPoolExecutor(threads, "raycl-embed", torch.set_num_threads, (count,)) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(make, item))
                if len(waiting) > limit:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def vectors_table(rows: Ints, x: Floats) -> pa.Table:
    """Row numbers and their vectors, as fixed lists."""
    flat = pa.array(np.ascontiguousarray(x, np.float32).reshape(-1))
    embedding = pa.FixedSizeListArray.from_arrays(flat, x.shape[1])
    return pa.table({"row": pa.array(rows), "embedding": embedding})


def vectors_of(table: pa.Table) -> Floats:
    """The vectors of such a table, without a copy where it lies in one piece."""
    column = table["embedding"]
    # combine_chunks would copy even a single one.
    column = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    flat = column.flatten().to_numpy(zero_copy_only=True)
    vectors: Floats = flat.reshape(len(column), column.type.list_size)
    return vectors


def _refuse_other_data(identity: EmbeddingIdentity) -> None:
    """A worker on another machine must see the same images and weights."""
    here = EmbeddingIdentity.of(identity.spec, identity.backbone)
    if (here.contents, here.weights) != (identity.contents, identity.weights):
        raise DataError(
            "the images or weights read here are not those that are to be embedded",
            do="put the same files at the same paths on every node, and do not change them "
            "while they are read; then run the command again",
        )
