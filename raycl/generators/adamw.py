"""AdamW whose whole state is named tensors, ready to be saved in the middle of a loop.

It calls torch's own fused kernel. The optimiser classes do the same arithmetic, but importing
them brings in torch's compiler, which takes seconds, and their default goes through memory
once per operation. Moments are per element, so classes that share a tensor do not touch each
other, and a part of the parameters may be moved as soon as its gradients are known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

BETAS = (0.9, 0.999)
EPSILON = 1e-8
ALL = slice(None)


class AdamW:
    """Decoupled weight decay (Loshchilov & Hutter 2019); with none of it, this is Adam.

    `lr` may be set between two steps.
    """

    def __init__(self, parameters: Sequence[Tensor], lr: float, weight_decay: float = 0.0) -> None:
        self.parameters = list(parameters)
        assert all(p.is_contiguous() for p in self.parameters)
        self.lr, self.weight_decay = lr, weight_decay
        self.moved = [p.detach() for p in self.parameters]  # the same memory, unknown to autograd
        self.first = [torch.zeros_like(p) for p in self.moved]
        self.second = [torch.zeros_like(p) for p in self.moved]
        self.steps = torch.zeros((), device=self.moved[0].device)

    def step(self, loss: Tensor) -> None:
        """Move the parameters one step down the loss."""
        self.move(self.gradients(loss))

    def gradients(self, loss: Tensor) -> list[Tensor]:
        """Of the loss, one for each parameter."""
        return list(torch.autograd.grad(loss, self.parameters))

    def move(self, gradients: Sequence[Tensor]) -> None:
        """Move the parameters by these gradients."""
        self.begin_step()
        self.move_part(ALL, gradients)

    def begin_step(self) -> None:
        """Count one more step, in which every part is to be moved once."""
        self.steps += 1

    def move_part(self, part: slice, gradients: Sequence[Tensor]) -> None:
        """Move these of the parameters, within a step."""
        moved = self.moved[part]
        # The kernel walks both through memory and would pair wrong elements.
        alike = [
            g if g.stride() == p.stride() else g.clone(memory_format=torch.contiguous_format)
            for g, p in zip(gradients, moved, strict=True)
        ]
        torch._fused_adamw_(
            moved,
            alike,
            self.first[part],
            self.second[part],
            [],
            [self.steps] * len(moved),
            amsgrad=False,
            beta1=BETAS[0],
            beta2=BETAS[1],
            lr=self.lr,
            weight_decay=self.weight_decay,
            eps=EPSILON,
            maximize=False,
        )

    def state(self) -> dict[str, Tensor]:
        """Copies of parameters and moments by name."""
        return {
            f"{name}.{i}": tensor.detach().clone()
            for name, tensors in self._named().items()
            for i, tensor in enumerate(tensors)
        }

    @torch.no_grad()
    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Stand where `state` was taken."""
        for name, tensors in self._named().items():
            for i, tensor in enumerate(tensors):
                tensor.copy_(state[f"{name}.{i}"])

    def _named(self) -> dict[str, list[Tensor]]:
        return {
            "parameter": self.parameters,
            "first": self.first,
            "second": self.second,
            "steps": [self.steps],
        }
