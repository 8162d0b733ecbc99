"""A linear classifier of frozen vectors: one weight row and one bias per class.

    logit_c = √d · (x · w_c) + b_c,   x of unit length

√d makes coordinates of the order of one, so that one rate suits every width. Rows start at
zero. A class that was never trained has no score.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from raycl.methods.context import Context
from raycl.methods.method import Setting
from raycl.methods.parts.key_head import Epochs
from raycl.methods.parts.keys import FLOOR, columns, positions, unit
from raycl.methods.parts.mini_batches import Descent, minimise

Loss = Callable[[Tensor, Tensor], Tensor]
"""From (n, classes) logits and columns."""


class LinearHead:
    """The rows of all classes, trained or not."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.weight = torch.zeros(setting.classes, setting.width, device=setting.device)
        self.bias = torch.zeros(setting.classes, device=setting.device)
        self.trained = torch.zeros(setting.classes, dtype=torch.bool, device=setting.device)

    def train(
        self,
        name: str,
        space: tuple[int, ...],
        epochs: Epochs,
        how: Descent,
        context: Context,
        loss: Loss = cross_entropy,
    ) -> None:
        """Move the rows of `space` by samples of these classes alone."""
        index = columns(space, self.weight)
        moved = [self.weight[index].requires_grad_(), self.bias[index].requires_grad_()]
        column = positions(space, self.setting.classes).to(index.device)

        def mean_loss(x: Tensor, y: Tensor) -> Tensor:
            return loss(_logits(x, *moved), column[y])

        minimise(name, how, moved, epochs, mean_loss, self.setting, context)
        if epochs.rows:
            self.weight[index], self.bias[index] = (part.detach() for part in moved)
            self.trained[index] = True

    def scores(self, x: Tensor, seen: tuple[int, ...]) -> Tensor:
        """(n, len(seen)) logits."""
        index = columns(seen, x)
        logits = _logits(unit(x), self.weight[index], self.bias[index])
        return logits.masked_fill(~self.trained[index], FLOOR)

    def state(self, classes: tuple[int, ...]) -> dict[str, Tensor]:
        """What is kept of these classes."""
        index = columns(classes, self.weight)
        parts = {"weight": self.weight, "bias": self.bias, "trained": self.trained}
        return {name: part[index] for name, part in parts.items()}

    def restore(self, classes: tuple[int, ...], state: Mapping[str, Tensor]) -> None:
        """Take back what `state` gave for the same classes."""
        index = columns(classes, self.weight)
        self.weight[index] = state["weight"].to(self.weight)
        self.bias[index] = state["bias"].to(self.bias)
        self.trained[index] = state["trained"].to(self.trained)


def _logits(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return math.sqrt(x.shape[1]) * (x @ weight.T) + bias
