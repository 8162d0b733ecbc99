"""Epochs in which every class counts the same: real vectors first, then drawn ones.

    a class of the task     min(n, per_class) of its real vectors, chosen anew, the rest drawn
    an older class          per_class drawn from its Gaussian

All of unit length. An epoch comes in parts of bounded size, each with its share of every class,
so that neither the classes' covariances nor their samples are ever all in memory. What a part
holds is named by (class, task, epoch, part): any can be made again.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from raycl.methods.context import Context
from raycl.methods.parts.gaussian_memory import GaussianMemory
from raycl.methods.parts.keys import unit

PART_BYTES = 128 << 20
"""Of the samples that are in memory at once."""


@dataclass(frozen=True)
class Step:
    """Where in an epoch a step of the training is."""

    epoch: int
    part: int
    batch: int


class GaussianEpochs:
    """The samples that prompts are trained on in one task."""

    def __init__(
        self,
        memory: GaussianMemory,
        real: tuple[Tensor, Tensor],
        per_class: int,
        batch: int,
        context: Context,
    ) -> None:
        """`real`: vectors of the task, and their class ids."""
        self.memory, self.context, self.batch = memory, context, batch
        self.setting = memory.setting
        x, y = real
        self.real = {c: unit(x[y == c]) for c in sorted(set(y.tolist()))}
        self.classes = memory.classes
        held = len(self.classes) * per_class * self.setting.width * 4
        parts = min(per_class, -(-held // PART_BYTES) or 1)
        self.starts = [per_class * part // parts for part in range(parts + 1)]
        rows = [len(self.classes) * (last - first) for first, last in pairwise(self.starts)]
        self.steps = [-(-count // batch) for count in rows]
        self._at: tuple[int, int] | None = None

    @property
    def per_epoch(self) -> int:
        """Steps."""
        return sum(self.steps)

    def step(self, number: int) -> Step:
        """The place of a step, counted from the first epoch."""
        epoch, inner = divmod(number, self.per_epoch)
        part = 0
        while inner >= self.steps[part]:
            inner -= self.steps[part]
            part += 1
        return Step(epoch, part, inner)

    def rows(self, number: int) -> tuple[Tensor, Tensor]:
        """Unit vectors on the method's device, and class ids on the CPU, of one step."""
        step = self.step(number)
        if self._at != (step.epoch, step.part):
            self._make(step.epoch, step.part)
        rows = self.order[step.batch * self.batch : (step.batch + 1) * self.batch]
        return self.x[rows.to(self.x.device)], self.y[rows]

    def _make(self, epoch: int, part: int) -> None:
        first, last = self.starts[part], self.starts[part + 1]
        drawn = [self._of_class(i, epoch, part, first, last) for i in range(len(self.classes))]
        x = torch.cat(drawn)
        self.x = unit(x).to(self.setting.device)
        self.y = torch.tensor(self.classes).repeat_interleave(last - first)
        generator = self.setting.generator("replay order", self.context.task, epoch, part)
        self.order = torch.randperm(len(x), generator=generator)
        self._at = epoch, part

    def _of_class(self, index: int, epoch: int, part: int, first: int, last: int) -> Tensor:
        c, task = self.classes[index], self.context.task
        real = self.real.get(c)
        chosen = torch.empty(0, self.setting.width)
        if real is not None:
            generator = self.setting.generator("replay real", c, task, epoch)
            chosen = real[torch.randperm(len(real), generator=generator)[first:last]]
        missing = last - first - len(chosen)
        if not missing:
            return chosen
        generator = self.setting.generator("replay drawn", c, task, epoch, part)
        drawn = self.memory.draw(index, missing, generator, self.context.store)
        return torch.cat([chosen, drawn])
