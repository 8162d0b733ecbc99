"""What stands for the classes seen: generators fitted once, when their class arrives.

Guarantees: a generator is fitted to its class's vectors alone, by a random stream named by the
class, and never again; so neither class order nor the cut into tasks moves its numbers, and
where there is a store another run finds it there. (A generator that classes share is fitted to
those of one task.) A draw is named by (class, task, epoch), so any epoch can be drawn again.
Only what sampling needs is kept and counted as state.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from raycl.compute.local_pool import LocalPool
from raycl.config.generators import GeneratorSpec
from raycl.fitting.identity import class_stream, distinct_names
from raycl.fitting.parallel import fit_generators
from raycl.generators.build import begin_fit, restore_bank
from raycl.generators.fitting import AnyBank
from raycl.generators.vectors import ClassVectors
from raycl.methods.context import Context
from raycl.methods.method import Setting
from raycl.replay.sampled import Fitted as Streamed
from raycl.replay.sampled import SampledReplay


@dataclass(frozen=True, eq=False)
class Fitted:
    """The generators that one task brought."""

    classes: tuple[int, ...]
    bank: AnyBank


class ClassGenerators:
    """One bank for each task, in the order of tasks."""

    def __init__(self, spec: GeneratorSpec, setting: Setting) -> None:
        self.spec, self.setting = spec, setting
        self.fitted: list[Fitted] = []
        self.names = distinct_names(setting.class_names, [0] * setting.classes, ("",))
        """By which generators and random streams are named; no two classes share one."""

    @property
    def classes(self) -> tuple[int, ...]:
        """Those that have a generator, in order of arrival."""
        return tuple(c for fitted in self.fitted for c in fitted.classes)

    def learn(self, x: Tensor, y: Tensor, classes: tuple[int, ...], context: Context) -> None:
        """Fit a generator to each of these classes that has a sample."""
        rows = {c: torch.nonzero(y == c).flatten() for c in classes}
        found = tuple(c for c in classes if len(rows[c]))
        if found:
            data = {self.names[c]: x[rows[c]] for c in found}
            fit = self._fit_here if context.store is None else self._fit_stored
            self.fitted.append(Fitted(found, fit(data, context).to(self.setting.device)))

    def _fit_stored(self, data: Mapping[str, Tensor], context: Context) -> AnyBank:
        """On the pool's workers, what the store does not have."""
        assert context.store is not None
        device, pool = self.setting.device.type, context.pool
        if device != "cpu":
            # The pool's workers have no part of the learner's device.
            pool = LocalPool(stopping=context.stopping)
        fitted = fit_generators(
            data,
            self.spec,
            seed=self.setting.init_seed,
            store=context.store,
            pool=pool,
            observer=context.observer,
            stopping=context.stopping,
            device=device,
            task=context.task,
        )
        context.seconds["fit"] = fitted.seconds
        context.used += fitted.keys
        return fitted.bank

    def _fit_here(self, data: Mapping[str, Tensor], context: Context) -> AnyBank:
        """The same numbers in this process, for whoever has no store."""
        names = sorted(data)  # a shared generator takes its classes in this order
        seed = self.setting.init_seed
        vectors = [ClassVectors(n, data[n].float(), class_stream(seed, n)) for n in names]
        fitting = begin_fit(self.spec, vectors, self.setting.device)
        stage = context.stage("fit", fitting.total, "round")
        for _ in stage.steps(fitting.state, fitting.restore):
            fitting.advance()
        return fitting.bank().pick([names.index(name) for name in data])

    def replay(self, per_class: int, context: Context) -> SampledReplay:
        """So many samples of every class, anew for every epoch."""
        return SampledReplay(
            [self._streamed(fitted) for fitted in self.fitted],
            per_class,
            seed=self.setting.init_seed,
            task=context.task,
            where=context.draws,
            pool=context.pool,
            spill=True,  # slower than an error, and not lost
        )

    def _streamed(self, fitted: Fitted) -> Streamed:
        seed = self.setting.init_seed
        streams = [class_stream(seed, self.names[c]) for c in fitted.classes]
        return Streamed(fitted.bank, fitted.classes, streams)

    def state(self) -> dict[str, Tensor]:
        """All banks, each with its classes' ids."""
        out: dict[str, Tensor] = {}
        for i, fitted in enumerate(self.fitted):
            out[f"generators.{i}.classes"] = torch.tensor(fitted.classes)
            tensors = fitted.bank.state_dict()
            out |= {f"generators.{i}.bank.{name}": t for name, t in tensors.items()}
        return out

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take back what `state` gave."""
        self.fitted = []
        while (at := f"generators.{len(self.fitted)}.") + "classes" in state:
            start = f"{at}bank."
            tensors = {n.removeprefix(start): t for n, t in state.items() if n.startswith(start)}
            bank = restore_bank(self.spec, tensors, self.setting.device)
            self.fitted.append(Fitted(tuple(state[f"{at}classes"].tolist()), bank))
