"""Keys of one label space made by several processes, each the keys of its own classes.

    own classes ─► own keys ─► all-gather ─► all keys ─► the same loss in every process
    gradients of a class's own part stay where the class is; those of shared parts are summed

Encoding prompts is almost all of the work in aligning keys, and it is linear in classes; logits
and loss are not worth cutting, so every process takes whole batches. Guarantees: the losses are
those of one process, to rounding, and the processes end with the same state. Classes are cut in
the order of the space, in parts that differ by one class at most.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.distributed as dist
from torch import Tensor

from raycl.config.methods import Align
from raycl.errors import ConfigError
from raycl.methods.context import Context
from raycl.methods.parts.key_head import Epochs, KeyHead


class Sharded:
    """The learners of a process group that is initialised; gloo on CPUs, NCCL on GPUs."""

    def __init__(self, classes: int, group: dist.ProcessGroup | None = None) -> None:
        self.group = group
        self.rank, self.learners = dist.get_rank(group), dist.get_world_size(group)
        if classes < self.learners:
            raise ConfigError(
                "more learners than classes to share out",
                got=f"{self.learners} learners, {classes} classes",
                do="use fewer learners",
            )
        whole, rest = divmod(classes, self.learners)
        self.sizes = [whole + (rank < rest) for rank in range(self.learners)]

    def own(self, space: tuple[int, ...]) -> tuple[int, ...]:
        """This learner's classes, next to each other in the space."""
        start = sum(self.sizes[: self.rank])
        return space[start : start + self.sizes[self.rank]]

    def gather(self, rows: Tensor) -> Tensor:
        """All learners' rows in the order of the space; gradients reach one's own."""
        # Parts of one size are what every backend can gather.
        most = max(self.sizes)
        padded = rows.detach().new_zeros(most, *rows.shape[1:])
        padded[: len(rows)] = rows.detach()
        found = [torch.empty_like(padded) for _ in self.sizes]
        dist.all_gather(found, padded, group=self.group)
        parts = [part[:size] for part, size in zip(found, self.sizes, strict=True)]
        parts[self.rank] = rows
        return torch.cat(parts)

    def total(self, gradients: list[Tensor], shared: Sequence[bool]) -> list[Tensor]:
        """The gradients, summed over learners where all hold the parameter alike."""
        alike = [g for g, is_shared in zip(gradients, shared, strict=True) if is_shared]
        if not alike:
            return gradients
        joined = torch.cat([g.flatten() for g in alike])  # one message, not one each
        dist.all_reduce(joined, group=self.group)
        summed = iter(torch.split(joined, [g.numel() for g in alike]))
        return [
            next(summed).view_as(g) if is_shared else g
            for g, is_shared in zip(gradients, shared, strict=True)
        ]


def train_sharded(
    head: KeyHead,
    epochs: Epochs,
    space: tuple[int, ...],
    align: Align,
    context: Context,
    group: dist.ProcessGroup | None = None,
) -> list[Tensor]:
    """Train the keys of `space` with the other processes of the group, which call the same.

    All must hold the same head and be given the same epochs. Gives the losses of its steps.
    """
    learners = Sharded(len(space), group)
    mine = head.prepare(learners.own(space))
    everywhere = head.prepare(space)

    def keep(parameters: list[Tensor]) -> None:
        everywhere.keep(
            [
                p if is_shared else learners.gather(p)
                for p, is_shared in zip(parameters, mine.shared, strict=True)
            ]
        )

    return head.train_on(epochs, replace(mine, keep=keep), space, align, context, learners)
