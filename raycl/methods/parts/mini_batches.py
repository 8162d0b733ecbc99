"""Training some tensors on mini-batches: AdamW, as a stage that survives a kill.

Batches come from a random stream named by (stage, task, epoch), so that a resumed loop needs
only its position, the parameters and the optimiser's moments. Nothing in the loop waits for
the device.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from raycl.errors import MethodError
from raycl.generators.adamw import AdamW
from raycl.methods.context import Context
from raycl.methods.method import Setting
from raycl.methods.parts.key_head import Epochs
from raycl.methods.parts.keys import unit


@dataclass(frozen=True)
class Descent:
    """How far and how fast."""

    lr: float
    epochs: int
    batch: int
    weight_decay: float = 0.0
    cosine: bool = False
    """Whether the rate falls to zero along a half cosine; it is constant otherwise."""

    def rate(self, step: int, steps: int) -> float:
        """Of one step among so many."""
        return self.lr * (1 + math.cos(math.pi * step / steps)) / 2 if self.cosine else self.lr


def minimise(
    name: str,
    how: Descent,
    parameters: Sequence[Tensor],
    epochs: Epochs,
    loss: Callable[[Tensor, Tensor], Tensor],
    setting: Setting,
    context: Context,
) -> None:
    """Move `parameters` in place by the mean loss of (unit vectors, class ids)."""
    if not epochs.rows:
        return
    batches = _Batches(name, how.batch, epochs, setting, context.task)
    optimiser = AdamW(parameters, how.lr, how.weight_decay)
    steps, last = how.epochs * batches.per_epoch, torch.zeros(())
    stage = context.stage(name, steps)
    for step in stage.steps(optimiser.state, optimiser.restore):
        optimiser.lr = how.rate(step, steps)
        found = loss(*batches.at(step))
        optimiser.step(found)
        last = found.detach()
    finite = all(bool(torch.isfinite(p).all()) for p in parameters)
    if not finite or not math.isfinite(float(last)):
        raise MethodError(
            f"training diverged in task {context.task + 1}",
            got=f"loss {float(last)}",
            do=f"lower method.lr (now {how.lr:g})",
        )


class _Batches:
    """Rows of an epoch in an order of their own, a batch at a time."""

    def __init__(self, name: str, batch: int, epochs: Epochs, setting: Setting, task: int) -> None:
        self.name, self.batch, self.epochs = name, batch, epochs
        self.setting, self.task = setting, task
        self.per_epoch = -(-epochs.rows // batch)
        self.epoch = -1
        """Whose samples are at hand."""

    def at(self, step: int) -> tuple[Tensor, Tensor]:
        epoch, batch = divmod(step, self.per_epoch)
        if epoch != self.epoch:
            x, y = self.epochs.epoch(epoch)
            device = self.setting.device
            self.x, self.y = unit(x.to(device).float()), y.to(device)
            generator = self.setting.generator("batches", self.name, self.task, epoch)
            self.order = torch.randperm(len(x), generator=generator).to(device)
            self.epoch = epoch
        rows = self.order[batch * self.batch : (batch + 1) * self.batch]
        return self.x[rows], self.y[rows]
