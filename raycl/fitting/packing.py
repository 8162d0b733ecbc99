"""How missing classes become work items: packs that all workers finish together.

How many classes a pack holds follows what the classes before took, for it moves no number: a
pack should be worth the way to a worker and back, and the last ones should be small. Vectors
travel in shipments of some MiB, put when their first pack is drawn and let go with their last:
so what is on its way is bounded, however many classes there are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raycl.compute.pool import Pool, Reference
from raycl.fitting.worker import Fit, Pack
from raycl.store.artefact import ArtefactSpec

WORTH_SECONDS = 1.0
"""What a pack should take: far more than the milliseconds of its way."""
WIDEST = 64
SHARES = 2
"""Into so many packs per worker what remains is cut at least."""
SHIPMENT_BYTES = 32 << 20


@dataclass(frozen=True, eq=False)
class Wanted:
    """A class that is to have a generator."""

    name: str
    stream: int
    vectors: NDArray[np.float32]
    artefact: ArtefactSpec


class Packs:
    """The packs of these classes, longest classes first, each made when it is drawn."""

    def __init__(self, wanted: Sequence[Wanted], pool: Pool, width: int | None = None) -> None:
        self.wanted = sorted(wanted, key=lambda w: -len(w.vectors))
        self.pool, self.width = pool, width
        self.widest = 0
        self._heard, self._seconds = 0, 0.0

    def heard(self, classes: int, seconds: float) -> None:
        """So many classes took so long: the next packs are cut accordingly."""
        self._heard += classes
        self._seconds += seconds

    def __iter__(self) -> Iterator[Pack]:
        first = end = 0
        shipment: Reference | None = None
        while first < len(self.wanted):
            if first == end:
                end = self._shipment_end(first)
                shipment = self.pool.put(tuple(w.vectors for w in self.wanted[first:end]))
                begin = first
            count = min(self._count(len(self.wanted) - first), end - first)
            chosen = self.wanted[first : first + count]
            assert shipment is not None
            fits = tuple(
                Fit(w.artefact, (w.name,), (w.stream,), (place,))
                for place, w in enumerate(chosen, start=first - begin)
            )
            first += count
            self.widest = max(self.widest, count)
            yield Pack(fits, shipment)

    def _shipment_end(self, first: int) -> int:
        """At least one class, and as many as fit."""
        total, end = 0, first
        while end < len(self.wanted) and (end == first or total < SHIPMENT_BYTES):
            total += self.wanted[end].vectors.nbytes
            end += 1
        return end

    def _count(self, remaining: int) -> int:
        fair = -(-remaining // self.pool.workers)
        if self.width is not None:
            return max(1, min(self.width, fair))
        if not self._heard:
            return 1
        worth = int(WORTH_SECONDS * self._heard / max(self._seconds, 1e-9))
        return max(1, min(worth, WIDEST, fair // SHARES))


def whole_pack(wanted: Sequence[Wanted], artefact: ArtefactSpec, pool: Pool) -> Pack:
    """All classes in the one fit of a generator that they share."""
    fit = Fit(
        artefact,
        tuple(w.name for w in wanted),
        tuple(w.stream for w in wanted),
        tuple(range(len(wanted))),
    )
    return Pack((fit,), pool.put(tuple(w.vectors for w in wanted)))
