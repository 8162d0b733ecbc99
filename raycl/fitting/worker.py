"""The worker that fits packs of classes and stores each class's generator by itself.

Guarantees: a class is stored as soon as it is fitted, so a kill costs a worker on a CPU the
class it was at, and on a GPU one stack; a class that cannot be fitted is told by name and costs
the others of its pack nothing. A long fit saves itself now and then and goes on from there.

A small picture of each class is stored beside what is known of it, because a worker has the
real vectors at hand, and whoever looks later has not. It moves no number of the fit.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from raycl.compute.here import Here
from raycl.compute.pool import Reference
from raycl.config.generators import GeneratorSpec
from raycl.config.seeds import seed_for
from raycl.errors import ConfigError, DataError, MethodError, RayclError
from raycl.fitting.identity import unfinished
from raycl.generators.build import fit
from raycl.generators.diagnosis import diagnose
from raycl.generators.fitting import AnyBank, Watch
from raycl.generators.noise import BLOCK
from raycl.generators.noise import generator as random_of
from raycl.generators.vectors import ClassVectors, standardise
from raycl.store.artefact import ArtefactSpec
from raycl.store.store import Make, Payloads, Store

TENSORS, NOTES, STATE = "generator.safetensors", "notes.json", "state.safetensors"
PICTURES = "pictures"
"""Where the notes hold a `Picture` of each class, in the order of the classes."""
REAL, SAMPLED = 48, BLOCK
"""At most so many points of a picture; what is sampled is computed in whole blocks."""
AXES_ROWS = 128
"""Vectors that the axes of a picture are found from: all of a small class."""
STEPS = 1000
"""How finely a picture's coordinates are kept."""
FAULTS = (DataError, MethodError, torch.linalg.LinAlgError)  # type: ignore[attr-defined]
"""What is wrong with one class, and not with the machine."""


@dataclass(frozen=True)
class ClassNotes:
    """What is known of one fitted class, besides its tensors."""

    name: str
    vectors: int
    dispersion: float | None
    """Deviation of samples over deviation of vectors, mean over dimensions; 1 is right, None
    where the class does not vary."""
    mean_error: float | None
    """Distance of the means, in the class's deviations."""
    reconstruction: float | None
    log_likelihood: float | None
    seconds: float
    bytes: float


@dataclass(frozen=True)
class Picture:
    """Real and sampled vectors of a class in the first two principal axes of the real ones.

    Points are whole numbers in one text, `x y x y …`, in parts of `unit` over `STEPS`, from the
    real mean: so ten thousand pictures are small, stored or in memory. An axis along which the
    real vectors do not vary, as with a single one, is 0 everywhere.
    """

    real: str
    sampled: str
    unit: float
    """The largest distance from the real mean along an axis."""
    share: tuple[float, float]
    """Of the real vectors' variance, along each axis."""


@dataclass(frozen=True)
class Fit:
    """One artefact to make: of a class, or of all classes that share a generator."""

    artefact: ArtefactSpec
    names: tuple[str, ...]
    streams: tuple[int, ...]
    places: tuple[int, ...]
    """Where the vectors of these classes are in the shipment."""


@dataclass(frozen=True, repr=False)
class Pack:
    """Some fits, and the vectors they need: one work item."""

    fits: tuple[Fit, ...]
    shipment: Reference
    """A tuple of float32 arrays."""

    def __repr__(self) -> str:
        names = [name for fit in self.fits for name in fit.names]
        return f"{'class' if len(names) == 1 else 'classes'} {', '.join(names)}"


@dataclass(frozen=True)
class Made:
    """What a worker tells of a fit."""

    artefact: ArtefactSpec
    computed: bool = False
    notes: Mapping[str, Any] | None = None
    """The payload of that name without its pictures, or None and a fault."""
    fault: RayclError | None = None


class ClassFitter:
    """Holds the spec, the store and the device; called with one pack after the other."""

    def __init__(self, generator: GeneratorSpec, store: str, device: str, here: Here) -> None:
        if device == "cuda" and not torch.cuda.is_available():
            raise ConfigError(
                "generators are to be fitted on a GPU, and this worker sees none",
                do="set execution.device=cpu, or execution.worker.gpus=1 on a cluster",
            )
        self.generator, self.device, self.here = generator, torch.device(device), here
        self.store = Store.open(store, stopping=here.stopping)

    def __call__(self, pack: Pack) -> tuple[Made, ...]:
        vectors = pack.shipment.get()
        data = [_class_vectors(work, vectors) for work in pack.fits]
        if self.device.type == "cpu" or len(pack.fits) == 1:
            return tuple(
                self._stored(work, partial(self._resumed, work, own))
                for work, own in zip(pack.fits, data, strict=True)
            )
        return self._stacked(pack.fits, [own[0] for own in data])

    def _stored(self, work: Fit, make: Make) -> Made:
        kind = work.artefact.kind
        before = self.store.computed[kind]
        try:
            notes = self.store.get_or_make(work.artefact, make)[NOTES]
        except FAULTS as error:
            return Made(work.artefact, fault=_told(error, work))
        # Pictures stay in the store: who asked for a fit has no use for them.
        told = {name: value for name, value in notes.items() if name != PICTURES}
        return Made(work.artefact, self.store.computed[kind] > before, told)

    def _resumed(self, work: Fit, data: Sequence[ClassVectors]) -> Payloads:
        """The payloads of one fit, from where an earlier process left it."""
        place = unfinished(work.artefact)
        kept: list[bool] = []

        def load() -> Mapping[str, Tensor] | None:
            if self.store.record(place) is None:  # which tells no lease about it
                return None
            kept.append(True)
            found = self.store.get(place)
            return None if found is None else found[STATE]

        def save(state: Mapping[str, Tensor]) -> None:
            self.store.put(place, {STATE: dict(state)})
            kept.append(True)

        watch = Watch(self.here.progress, self.here.stopping, load, save)
        began = time.perf_counter()
        bank = fit(self.generator, data, self.device, watch)
        payloads = _payloads(bank, data, time.perf_counter() - began)
        if kept:
            self.store.discard(place)
        return payloads

    def _stacked(self, fits: Sequence[Fit], data: Sequence[ClassVectors]) -> tuple[Made, ...]:
        """The classes that are still missing in one stack, which only a GPU gains by."""
        missing = [i for i, work in enumerate(fits) if not self.store.has(work.artefact)]
        began = time.perf_counter()
        found = dict(zip(missing, self._banks([data[i] for i in missing]), strict=True))
        seconds = (time.perf_counter() - began) / max(len(missing), 1)

        def make(i: int) -> Payloads:
            bank = found[i] if i in found else self._banks([data[i]])[0]
            if isinstance(bank, Exception):
                raise bank
            return _payloads(bank, [data[i]], seconds)

        return tuple(self._stored(work, partial(make, i)) for i, work in enumerate(fits))

    def _banks(self, data: Sequence[ClassVectors]) -> list[AnyBank | Exception]:
        """A bank of each class, or what is wrong with it: halves tell who it is."""
        if not data:
            return []
        try:
            bank = fit(self.generator, data, self.device, Watch(stopping=self.here.stopping))
        except FAULTS as error:
            if len(data) == 1:
                return [error]
            half = len(data) // 2
            return self._banks(data[:half]) + self._banks(data[half:])
        return list(bank.split([1] * len(data)))


def _class_vectors(work: Fit, vectors: Sequence[NDArray[np.float32]]) -> list[ClassVectors]:
    # Copied, since what lies in an object store can be neither written nor relied on to be
    # aligned; one class at a time, so it is little.
    return [
        ClassVectors(name, torch.tensor(vectors[place]), stream)
        for name, stream, place in zip(work.names, work.streams, work.places, strict=True)
    ]


def _payloads(bank: AnyBank, data: Sequence[ClassVectors], seconds: float) -> Payloads:
    bank = bank.to(torch.device("cpu"))
    state = bank.state_dict()
    if not all(bool(t.isfinite().all()) for t in state.values()):
        raise MethodError(
            f"the generator of {_named(data)} holds NaN or infinity",
            do="look at the size of its vectors",
        )
    found = diagnose(bank, data)
    shared, bytes_each = seconds / len(data), bank.bytes_per_class
    notes = [
        ClassNotes(
            name=c.name,
            vectors=len(c),
            dispersion=_number(found.std_ratio, i),
            mean_error=_number(found.mean_error, i),
            reconstruction=_number(found.reconstruction, i),
            log_likelihood=_number(found.log_likelihood, i),
            seconds=shared,
            bytes=bytes_each,
        )
        for i, c in enumerate(data)
    ]
    shapes = {name: list(tensor.shape) for name, tensor in state.items()}
    parts = bank.split([1] * len(data))
    pictures = [asdict(picture(part, c)) for part, c in zip(parts, data, strict=True)]
    return {
        TENSORS: state,
        NOTES: {
            "classes": [asdict(note) for note in notes],
            "shapes": shapes,
            PICTURES: pictures,
        },
    }


def picture(part: AnyBank, c: ClassVectors) -> Picture:
    """The picture of one class, whose own bank this is."""
    scaled = standardise(c.vectors)
    order = torch.randperm(len(c), generator=random_of(c.stream, "picture"))
    rows = scaled.x[order[:AXES_ROWS]] * scaled.std
    axes, share = _principal_axes(rows)
    samples = part.sample(SAMPLED, [seed_for(c.stream, "picture")])[0].cpu().double()
    real, sampled = rows[:REAL] @ axes, (samples - scaled.mean) @ axes
    sampled = sampled[sampled.isfinite().all(dim=1)]
    unit = float(torch.cat([real, sampled]).abs().max())
    return Picture(_text(real, unit), _text(sampled, unit), unit, share)


def _principal_axes(rows: Tensor) -> tuple[Tensor, tuple[float, float]]:
    """The two directions (d, 2) of most variance, and their shares of it.

    From the smaller of the two Gram matrices, so that neither many rows nor many dimensions
    cost much. The sign makes an axis's largest entry positive.
    """
    largest = rows.abs().max().clamp(min=torch.finfo(rows.dtype).tiny)
    x = rows / largest  # what is squared neither overflows nor vanishes
    few = len(x) < x.shape[1]
    values, vectors = torch.linalg.eigh(x @ x.T if few else x.T @ x)
    axes, shares = x.new_zeros(x.shape[1], 2), [0.0, 0.0]
    total = float(values.clamp(min=0).sum())
    for place in range(min(2, len(values))):
        value, vector = float(values[-1 - place]), vectors[:, -1 - place]
        if value <= total * torch.finfo(x.dtype).eps * len(values):
            break
        axis = x.T @ vector / value**0.5 if few else vector
        axes[:, place] = axis * axis[axis.abs().argmax()].sign()
        shares[place] = round(value / total, 4)
    return axes, (shares[0], shares[1])


def _text(points: Tensor, unit: float) -> str:
    steps = points * (STEPS / unit) if unit else points
    return " ".join(map(str, steps.round().int().flatten().tolist()))


def _number(column: Tensor | None, place: int) -> float | None:
    value = math.nan if column is None else float(column[place])
    return value if math.isfinite(value) else None


def _named(data: Sequence[ClassVectors]) -> str:
    return f"class {data[0].name!r}" if len(data) == 1 else f"{len(data)} classes"


def _told(error: Exception, work: Fit) -> RayclError:
    if isinstance(error, RayclError):
        return error
    first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return MethodError(f"class {', '.join(work.names[:5])!r} cannot be fitted: {first}")
