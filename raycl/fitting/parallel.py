"""`fit_generators`: every class's generator, found in the store or fitted over a pool.

Guarantees on CPUs of one kind: a class's generator is the same bits whatever the pool, its
workers and their deaths, the order of classes and which others are asked for; each class is
fitted once, stored at once, and found ever after. A class that cannot be fitted is told by name
after all others were stored. Not guaranteed: that two calls that do not know of each other never
wait for one another; they fit each class once between them.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from raycl.compute.here import Here
from raycl.compute.local_pool import LocalPool
from raycl.compute.pool import Pool, Resources, WorkerSpec
from raycl.compute.stopping import never
from raycl.config.generators import GeneratorSpec
from raycl.errors import DataError, MethodError, RayclError, WorkError
from raycl.fitting.fitted import Fitted, FittedClass
from raycl.fitting.identity import (
    class_artefact,
    class_stream,
    shared_artefact,
    vectors_digest,
)
from raycl.fitting.packing import Packs, Wanted, whole_pack
from raycl.fitting.worker import NOTES, TENSORS, ClassFitter, ClassNotes, Made
from raycl.generators.build import GPU_STACK, fits_per_class
from raycl.generators.vectors import ClassVectors, check_widths
from raycl.observe.events import BEFORE_TASKS, Computed, Observer, Progress, Reused, Warned, nobody
from raycl.store.artefact import ArtefactSpec
from raycl.store.store import Store

Vectors = NDArray[Any] | Tensor
STRAGGLER_TIMES, STRAGGLER_SECONDS = 3.0, 1.0
"""A class that took so many times the median, and so long, is told."""
READERS_AFAR = 16
"""Artefacts that are looked up at once where an answer takes its time."""
SHOWN = 5


def fit_generators(
    classes: Mapping[str, Vectors],
    generator: GeneratorSpec,
    *,
    seed: int,
    store: Store,
    pool: Pool,
    observer: Observer = nobody,
    stopping: Callable[[], bool] = never,
    device: str = "cpu",
    resources: Resources | None = None,
    task: int = BEFORE_TASKS,
) -> Fitted:
    """The generators of these classes, by name (n, d) floats, in their order.

    Names tell classes apart in the store too: the same one in two domains must be qualified.
    """
    began = time.monotonic()
    wanted, faults = _checked(classes, generator, seed)
    if not fits_per_class(generator):
        _raise_faults(faults, len(classes), "they share one generator, so none was fitted")
        wanted = sorted(wanted, key=lambda w: w.name)
    making = _Fitting(generator, store, pool, observer, stopping, device, resources, task)
    making.faults |= faults
    making.find(wanted)
    making.make(wanted)
    _raise_faults(making.faults, len(classes), "every other class is stored and will be found")
    found = making.classes(wanted)
    return Fitted(
        generator,
        tuple(found[name] for name in classes),
        store,
        making.computed,
        making.reused,
        time.monotonic() - began,
    )


def _checked(
    classes: Mapping[str, Vectors], generator: GeneratorSpec, seed: int
) -> tuple[list[Wanted], dict[str, RayclError]]:
    """The classes that can be fitted, and what is wrong with the others."""
    data: list[ClassVectors] = []
    faults: dict[str, RayclError] = {}
    for name, vectors in classes.items():
        if not isinstance(name, str):
            raise DataError("classes are named by text", got=repr(name), do="give each its name")
        try:
            data.append(ClassVectors(name, _float32(name, vectors), class_stream(seed, name)))
        except DataError as error:
            faults[name] = error
    if data or not faults:
        check_widths(data)
    arrays = {c.name: np.ascontiguousarray(c.vectors.numpy()) for c in data}
    contents = {name: vectors_digest(x) for name, x in arrays.items()}
    if fits_per_class(generator):
        named = {n: class_artefact(generator, seed, n, content) for n, content in contents.items()}
    else:
        named = dict.fromkeys(contents, shared_artefact(generator, seed, contents))
    return [Wanted(c.name, c.stream, arrays[c.name], named[c.name]) for c in data], faults


def _float32(name: str, vectors: Vectors) -> Tensor:
    x = vectors if isinstance(vectors, Tensor) else np.asarray(vectors)
    kind = x.dtype if isinstance(x, Tensor) else x.dtype.kind
    if not (x.dtype.is_floating_point if isinstance(x, Tensor) else kind == "f"):
        raise DataError(f"class {name!r}: vectors must be floats", got=str(x.dtype))
    if isinstance(x, Tensor):
        return x.detach().to("cpu", torch.float32)
    with np.errstate(over="ignore"):  # an overflow becomes infinity, which the check names
        x = np.ascontiguousarray(x, np.float32)
    # What is mapped from a store is read-only, and torch would warn of it.
    return torch.from_numpy(x if x.flags.writeable else x.copy())


class _Fitting:
    """One call: what was found, what was made, what cannot be."""

    def __init__(
        self,
        generator: GeneratorSpec,
        store: Store,
        pool: Pool,
        observer: Observer,
        stopping: Callable[[], bool],
        device: str,
        resources: Resources | None,
        task: int,
    ) -> None:
        self.generator, self.store, self.pool = generator, store, pool
        self.observer, self.stopping, self.device = observer, stopping, device
        self.resources, self.task = resources, task
        self.notes: dict[str, Any] = {}
        """By artefact key, the payload of that name."""
        self.faults: dict[str, RayclError] = {}
        self.computed = self.reused = 0
        self.made_now: set[str] = set()

    def find(self, wanted: Sequence[Wanted]) -> None:
        """Take what is stored, whole and undamaged."""
        artefacts = list({w.artefact.key: w.artefact for w in wanted}.values())
        afar = self.store.location.local_root is None
        with ThreadPoolExecutor(READERS_AFAR if afar else 1, "raycl-look-up") as threads:
            found = threads.map(self._stored_notes, artefacts)
            for artefact, notes in zip(artefacts, found, strict=True):
                if notes is not None:
                    self._note(Made(artefact, notes=notes))

    def _stored_notes(self, artefact: ArtefactSpec) -> Any:
        # The tensors are read too: damage shows now, while the vectors are at hand.
        payloads = self.store.get(artefact, only=(TENSORS, NOTES))
        return None if payloads is None else payloads[NOTES]

    def make(self, wanted: Sequence[Wanted]) -> None:
        """Fit what is missing."""
        missing = self._missing(wanted)
        if not missing:
            return
        if not fits_per_class(self.generator):
            self._make_shared(missing)
            return
        total = len(wanted)
        packs = Packs(missing, self.pool, None if self.device == "cpu" else GPU_STACK)
        try:
            self._map(packs, total)
        except WorkError:
            # One class may have cost its neighbours in the pack their turn, or its worker's
            # life: alone, it costs only itself, and the error names it.
            if packs.widest == 1:
                raise
            self._map(Packs(self._missing(wanted), self.pool, 1), total)
        self._tell_stragglers(wanted)

    def _missing(self, wanted: Sequence[Wanted]) -> list[Wanted]:
        return [w for w in wanted if w.artefact.key not in self.notes and w.name not in self.faults]

    def _map(self, packs: Packs, total: int) -> None:
        worker = WorkerSpec(ClassFitter, self._args(Here(self.stopping)))
        self._tell(total)
        for done in self.pool.map_unordered(worker, packs, resources=self.resources):
            for fit, made in zip(done.item.fits, done.value, strict=True):
                if made.fault is not None:
                    (name,) = fit.names
                    self.faults[name] = made.fault
                    self.observer(Warned(f"{made.fault.what}; the other classes go on"))
                else:
                    self._note(made)
                    packs.heard(1, made.notes["classes"][0]["seconds"])
            self._tell(total)

    def _make_shared(self, wanted: Sequence[Wanted]) -> None:
        """One long fit. On a CPU it stays in this process, where it is stopped between two
        epochs and tells how far it is; no second worker could help it."""
        here = Here(self.stopping, self._tell_epochs)
        pool: Pool = self.pool
        if self.device == "cpu":
            pool = LocalPool(stopping=self.stopping)
        worker = WorkerSpec(ClassFitter, self._args(here))
        pack = whole_pack(wanted, wanted[0].artefact, pool)
        for done in pool.map_unordered(worker, [pack], resources=self.resources):
            (made,) = done.value
            if made.fault is not None:
                raise made.fault
            self._note(made)

    def _args(self, here: Here) -> tuple[Any, ...]:
        return self.generator, self.store.uri, self.device, here

    def _note(self, made: Made) -> None:
        kind, key = made.artefact.kind, made.artefact.key
        assert made.notes is not None
        self.notes[key] = made.notes
        if made.computed:
            self.computed += 1
            self.store.computed[kind] += 1
            self.made_now.add(key)
            seconds = sum(note["seconds"] for note in made.notes["classes"])
            self.observer(Computed(kind, key, seconds))
        else:
            self.reused += 1
            self.store.reused[kind] += 1
            self.observer(Reused(kind, key))

    def _tell(self, total: int) -> None:
        done = len(self.notes)
        self.observer(Progress(self.task, self._stage, done, total, "generator"))

    def _tell_epochs(self, done: int, total: int) -> None:
        self.observer(Progress(self.task, self._stage, done, total, "epoch"))

    @property
    def _stage(self) -> str:
        return f"fit {self.generator.kind}"

    def _tell_stragglers(self, wanted: Sequence[Wanted]) -> None:
        made = [w for w in wanted if w.artefact.key in self.made_now]
        seconds = {w.name: self.notes[w.artefact.key]["classes"][0]["seconds"] for w in made}
        if not seconds:
            return
        middle, slowest = (
            statistics.median(seconds.values()),
            max(made, key=lambda w: seconds[w.name]),
        )
        most = seconds[slowest.name]
        if most > STRAGGLER_SECONDS and most > STRAGGLER_TIMES * middle:
            rows = statistics.median(len(w.vectors) for w in made)
            self.observer(
                Warned(
                    f"the slowest class, {slowest.name!r}, took {most:.1f} s, the median "
                    f"{middle:.1f} s; it has {len(slowest.vectors)} vectors, the median {rows:g}"
                )
            )

    def classes(self, wanted: Sequence[Wanted]) -> dict[str, FittedClass]:
        """All classes by name, once each has its notes."""
        stored = {key: payload["classes"] for key, payload in self.notes.items()}
        own = {(key, note["name"]): note for key, notes in stored.items() for note in notes}
        return {w.name: self._class(w, ClassNotes(**own[w.artefact.key, w.name])) for w in wanted}

    def _class(self, w: Wanted, notes: ClassNotes) -> FittedClass:
        shapes = self.notes[w.artefact.key]["shapes"]
        named = {name: tuple(shape) for name, shape in shapes.items()}
        return FittedClass(w.name, w.stream, w.artefact, named, notes)


def _raise_faults(faults: Mapping[str, RayclError], asked: int, others: str) -> None:
    """The one fault as it is; several as one error that names every class."""
    if not faults:
        return
    if asked == 1:
        raise next(iter(faults.values()))
    names = ", ".join(repr(name) for name in list(faults)[:SHOWN])
    more = f" and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
    reasons = "; ".join(str(error).replace("\n", " ") for error in list(faults.values())[:SHOWN])
    kind = DataError if all(isinstance(e, DataError) for e in faults.values()) else MethodError
    raise kind(
        f"{len(faults)} of {asked} classes cannot be fitted: {names}{more}",
        got=reasons,
        do=f"mend or leave out what is named: {others}",
    )
