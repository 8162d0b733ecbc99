"""Packs as one process sees them: views that are fetched once, and rows copied out of them.

Guarantees: one `get` per object and process; what comes out is a copy, what it comes from is
not; an object that is lost is made again where its rows are asked for.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from raycl.compute.pool import LostReferenceError, Reference
from raycl.replay.shards import Ints, Matrix

_RENEWALS = 3


@dataclass
class Held:
    """One object and how to get another of the same content."""

    rows: int
    reference: Reference
    renew: Callable[[], Reference]


class Reader:
    """Rows counted through all objects, in their order."""

    def __init__(self, held: Sequence[Held]) -> None:
        self._held = list(held)
        self._ends: Ints = np.cumsum([h.rows for h in held], dtype=np.int64)
        self._views: list[Matrix | None] = [None] * len(held)
        self._found = self._reloaded = 0
        self._lock = threading.Lock()

    @property
    def counts(self) -> tuple[int, int]:
        """Objects found and objects reloaded."""
        return self._found, self._reloaded

    @property
    def references(self) -> list[Reference]:
        """Of the objects as they are now."""
        return [held.reference for held in self._held]

    def view(self, number: int) -> Matrix:
        """The vectors of an object, without a copy if it is on this node."""
        found = self._views[number]
        if found is None:
            with self._lock:
                found = self._views[number]
                if found is None:
                    found = self._views[number] = self._fetch(self._held[number])
        return found

    def _fetch(self, held: Held) -> Matrix:
        lost: LostReferenceError | None = None
        for attempt in range(1 + _RENEWALS):
            try:
                vectors: Matrix = held.reference.get()
            except LostReferenceError as error:
                # A second time only if the process that renewed it died in between.
                lost = error
                held.reference = held.renew()
                continue
            self._found += attempt == 0
            self._reloaded += attempt > 0
            return vectors
        assert lost is not None
        raise lost

    def release(self) -> None:
        """Lets go of all views; the next read fetches again."""
        self._views = [None] * len(self._held)

    def gather(self, rows: Ints, out: Matrix) -> None:
        """Copies these rows into `out`, in their order."""
        if len(self._held) == 1:
            # In range by construction; mode="raise" would copy twice.
            np.take(self.view(0), rows, axis=0, out=out, mode="clip")
            return
        object_of = np.searchsorted(self._ends, rows, side="right")
        for number in np.flatnonzero(np.bincount(object_of)):
            places = np.flatnonzero(object_of == number)
            begin = self._ends[number] - self._held[number].rows
            out[places] = self.view(int(number)).take(rows[places] - begin, axis=0, mode="clip")
