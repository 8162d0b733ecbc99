"""Training by AdamW at a cosine rate, in a stage that survives a kill.

    rate in step s of S      lr · (1 + cos(π s / S)) / 2
    gradient longer than g   scaled to length g

Several groups of parameters, each with its own rate, are moved by one loss. Nothing in the loop
waits for the device.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from raycl.errors import MethodError
from raycl.generators.adamw import AdamW
from raycl.methods.context import Context

Loss = Callable[[int], Tensor]
"""Of a step."""


def descend(
    groups: Sequence[AdamW],
    loss: Loss,
    steps: int,
    context: Context,
    name: str,
    clip: float | None = None,
    options: str = "method.vision.lr or method.text.lr",
) -> None:
    """Move the groups' parameters `steps` times, at their own rates to begin with; `options` set
    them."""
    rates = [group.lr for group in groups]
    parameters = [p for group in groups for p in group.parameters]

    def snapshot() -> dict[str, Tensor]:
        return {f"{i}.{n}": t for i, group in enumerate(groups) for n, t in group.state().items()}

    def restore(state: Mapping[str, Tensor]) -> None:
        for i, group in enumerate(groups):
            own = {n.removeprefix(f"{i}."): t for n, t in state.items() if n.startswith(f"{i}.")}
            group.restore(own)

    stage = context.stage(name, steps)
    for step in stage.steps(snapshot, restore):
        found = _clipped(list(torch.autograd.grad(loss(step), parameters)), clip)
        for group, rate in zip(groups, rates, strict=True):
            group.lr = rate * (1 + math.cos(math.pi * step / steps)) / 2
            own, found = found[: len(group.parameters)], found[len(group.parameters) :]
            group.move(own)
    if not all(bool(torch.isfinite(p).all()) for p in parameters):
        raise MethodError(
            f"training diverged in {name} of task {context.task + 1}",
            got="parameters that are not finite",
            do=f"lower {options}",
        )


def _clipped(gradients: list[Tensor], clip: float | None) -> list[Tensor]:
    if clip is None:
        return gradients
    length = torch.stack([g.square().sum() for g in gradients]).sum().sqrt()
    scale = (clip / (length + 1e-6)).clamp(max=1.0)
    return [g * scale for g in gradients]


class ShuffledRows:
    """Positions of the rows of each step: all rows in every epoch, in an order of its own."""

    def __init__(self, rows: int, batch: int, order: Callable[[int], torch.Generator]) -> None:
        """`order` gives the random stream of an epoch."""
        self.rows, self.batch, self.order = rows, batch, order
        self.per_epoch = -(-rows // batch)
        self._epoch, self._shuffled = -1, torch.empty(0)

    def __call__(self, step: int) -> Tensor:
        epoch, inner = divmod(step, self.per_epoch)
        if epoch != self._epoch:
            self._epoch = epoch
            self._shuffled = torch.randperm(self.rows, generator=self.order(epoch))
        return self._shuffled[inner * self.batch : (inner + 1) * self.batch]
