"""A fit under way: in rounds, each of which may be the last before a stop.

Guarantees: `state` after any round and `restore` into a new fitting of the same data give the
same bank, bit for bit, as a fit that was never stopped. A long fit of several classes goes
class by class where stacking gains nothing, so what is finished is finished.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from raycl.errors import StoppedError
from raycl.generators.bank import Bank
from raycl.generators.memory import keep_freed_memory

AnyBank = Bank[Any]
DONE = "rounds_done"


class Fitting(ABC):
    """One pack of classes on its way to a bank."""

    def __init__(self, total: int) -> None:
        self.total, self.done = total, 0

    def advance(self) -> None:
        """One round: an epoch, a few steps, or all of a closed form."""
        self._advance()
        self.done += 1

    @abstractmethod
    def _advance(self) -> None: ...

    def state(self) -> dict[str, Tensor]:
        """All that the rest of the fit needs, as copies."""
        return {DONE: torch.tensor(self.done), **self._state()}

    @abstractmethod
    def _state(self) -> dict[str, Tensor]: ...

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Stand where `state` was taken."""
        self.done = int(state[DONE])
        self._restore(state)

    @abstractmethod
    def _restore(self, state: Mapping[str, Tensor]) -> None: ...

    @abstractmethod
    def bank(self) -> AnyBank:
        """The result, once `done` is `total`."""


class ClosedForm(Fitting):
    """A fit of one round."""

    def __init__(self, make: Callable[[], AnyBank]) -> None:
        super().__init__(1)
        self.make = make
        self.made: AnyBank | None = None

    def _advance(self) -> None:
        self.made = self.make()

    def _state(self) -> dict[str, Tensor]:
        return {}

    def _restore(self, state: Mapping[str, Tensor]) -> None:
        self.made = self.make() if self.done else None

    def bank(self) -> AnyBank:
        assert self.made is not None
        return self.made


@dataclass(frozen=True)
class Part:
    """Some classes of a fit: their places in the whole, and how to begin with them."""

    places: tuple[int, ...]
    begin: Callable[[], Fitting]


class InTurn(Fitting):
    """Parts of a fit one after the other; only one is in memory beside the finished banks."""

    def __init__(
        self,
        parts: Sequence[Part],
        rounds: int,
        restore_bank: Callable[[Mapping[str, Tensor]], AnyBank],
    ) -> None:
        super().__init__(rounds * len(parts))
        self.parts, self.rounds, self.restore_bank = parts, rounds, restore_bank
        self.finished: list[AnyBank] = []
        self.current: Fitting | None = None

    def _advance(self) -> None:
        if self.current is None:
            self.current = self.parts[len(self.finished)].begin()
        self.current.advance()
        if self.current.done == self.rounds:
            self.finished.append(self.current.bank())
            self.current = None

    def _state(self) -> dict[str, Tensor]:
        out = {
            f"bank.{i}.{name}": tensor.clone()
            for i, bank in enumerate(self.finished)
            for name, tensor in bank.state_dict().items()
        }
        inner = {} if self.current is None else self.current.state()
        return out | {f"current.{name}": tensor for name, tensor in inner.items()}

    def _restore(self, state: Mapping[str, Tensor]) -> None:
        whole, begun = divmod(self.done, self.rounds)
        self.finished = [self.restore_bank(_under(f"bank.{i}.", state)) for i in range(whole)]
        self.current = None
        if begun:
            self.current = self.parts[whole].begin()
            self.current.restore(_under("current.", state))

    def bank(self) -> AnyBank:
        joined = Bank.concat(self.finished)
        places = [place for part in self.parts for place in part.places]
        if places == sorted(places):
            return joined
        return joined.pick(sorted(range(len(places)), key=places.__getitem__))


def _under(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)}


@dataclass(frozen=True)
class Watch:
    """How a caller follows a fit, ends it and keeps what it has done so far."""

    progress: Callable[[int, int], None] = lambda done, total: None
    """Called after every round."""
    stopping: Callable[[], bool] = lambda: False
    """Asked after every round; true saves and raises StoppedError."""
    load: Callable[[], Mapping[str, Tensor] | None] = lambda: None
    save: Callable[[Mapping[str, Tensor]], None] = lambda state: None
    save_every_seconds: float = 10.0


def run(fitting: Fitting, watch: Watch) -> AnyBank:
    """All rounds that are still to do."""
    keep_freed_memory()
    found = watch.load()
    if found is not None:
        fitting.restore(found)
    saved_at = time.monotonic()
    while fitting.done < fitting.total:
        fitting.advance()
        watch.progress(fitting.done, fitting.total)
        stop = watch.stopping() and fitting.done < fitting.total
        if stop or time.monotonic() - saved_at > watch.save_every_seconds:
            watch.save(fitting.state())
            saved_at = time.monotonic()
        if stop:
            raise StoppedError(f"stopped after {fitting.done} of {fitting.total} rounds of a fit")
    return fitting.bank()
