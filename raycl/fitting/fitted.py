"""Fitted classes: what is known of each, and their bank, read from the store when asked for.

Guarantees: classes are in the caller's order, in which every tensor of the bank is filled class
by class: its memory is the bank's own and that of one class.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from raycl.config.generators import GeneratorSpec
from raycl.errors import StoreError
from raycl.fitting.worker import TENSORS, ClassNotes
from raycl.generators.build import fits_per_class, restore_bank
from raycl.generators.fitting import AnyBank
from raycl.store.artefact import ArtefactSpec
from raycl.store.store import Store

State = dict[str, Tensor]
Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class FittedClass:
    """One class: its name, the seed of its fit, where its generator is, what is known of it."""

    name: str
    stream: int
    artefact: ArtefactSpec
    shapes: Mapping[str, tuple[int, ...]]
    """Of the artefact's tensors."""
    notes: ClassNotes


@dataclass(frozen=True, eq=False)
class Fitted:
    """The generators of some classes, all of them stored."""

    generator: GeneratorSpec
    classes: tuple[FittedClass, ...]
    store: Store
    computed: int
    """Artefacts that this call fitted; `reused` were found. One per class, unless shared."""
    reused: int
    seconds: float

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(c.name for c in self.classes)

    @property
    def streams(self) -> tuple[int, ...]:
        return tuple(c.stream for c in self.classes)

    @property
    def notes(self) -> tuple[ClassNotes, ...]:
        return tuple(c.notes for c in self.classes)

    @property
    def keys(self) -> tuple[str, ...]:
        """What a result that is made of these generators needs."""
        return tuple(dict.fromkeys(c.artefact.key for c in self.classes))

    @property
    def bytes(self) -> float:
        """What the bank takes, without padding."""
        return sum(c.notes.bytes for c in self.classes)

    @cached_property
    def bank(self) -> AnyBank:
        """The bank of all classes in their order, on the CPU; `bytes` says how large."""
        return restore_bank(self.generator, self._state())

    def states(self) -> Iterator[State]:
        """The tensors of one class after the other, as its own bank; not for shared ones."""
        for c in self.classes:
            yield self._read(c)

    def shapes(self) -> Shapes:
        """Of the bank's tensors."""
        return whole_shapes([c.shapes for c in self.classes])

    def _state(self) -> State:
        if not fits_per_class(self.generator):
            return self._shared()
        out: State = {}
        shapes = self.shapes()
        for place, state in enumerate(self.states()):
            for name, tensor in state.items():
                if name not in out:
                    out[name] = torch.zeros(shapes[name], dtype=tensor.dtype)
                out[name][class_slice(place, tensor)] = tensor[0]
        return out

    def _shared(self) -> State:
        first = self.classes[0]
        bank = restore_bank(self.generator, self._read(first))
        ordered = sorted(self.names)  # as it was fitted
        return bank.pick([ordered.index(name) for name in self.names]).state_dict()

    def _read(self, c: FittedClass) -> State:
        found = self.store.get(c.artefact, only=(TENSORS,))
        if found is None:
            raise StoreError(
                f"the generator of {c.name!r} is no longer in the store",
                got=c.artefact.key,
                do="fit again: only what is missing is fitted",
            )
        state: State = found[TENSORS]
        return state


def class_slice(place: int, tensor: Tensor) -> tuple[int | slice, ...]:
    """Where the tensor of a class lies in that of its bank; classes may be of several lengths,
    and what is missing is zero."""
    return place, *(slice(length) for length in tensor.shape[1:])


def whole_shapes(shapes: Sequence[Mapping[str, tuple[int, ...]]]) -> Shapes:
    """The shapes of a bank of classes whose own banks have these."""
    return {
        name: (len(shapes), *map(max, zip(*(s[name][1:] for s in shapes), strict=True)))
        for name in shapes[0]
    }
