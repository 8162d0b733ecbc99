"""The samples of two sources as one epoch: the task's own, and what is replayed."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from raycl.methods.parts.key_head import Epochs


@dataclass(frozen=True, eq=False)
class Joined:
    """Rows of the first, then rows of the second."""

    first: Epochs
    second: Epochs

    @property
    def rows(self) -> int:
        return self.first.rows + self.second.rows

    def epoch(self, index: int) -> tuple[Tensor, Tensor]:
        x, y = self.first.epoch(index)
        more_x, more_y = self.second.epoch(index)
        return torch.cat([x.to(more_x), more_x]), torch.cat([y.to(more_y), more_y])
