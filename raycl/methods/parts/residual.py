"""Keys as text plus a trained residual: k_c = normalise(e_c + r_c).

r starts at zero where the class has text; a class without any gets a small random r, so
that its key has a direction.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from raycl.methods.method import Setting
from raycl.methods.parts.key_head import KeyHead, Trainable
from raycl.methods.parts.keys import columns, unit

INIT_STD = 0.02


class ResidualHead(KeyHead):
    """The residual of every class."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        noise = torch.empty(setting.classes, setting.width)
        noise.normal_(std=INIT_STD, generator=setting.generator("residual"))
        self.residual = noise.masked_fill(setting.has_text.cpu()[:, None], 0.0).to(setting.device)

    def prepare(self, space: tuple[int, ...]) -> Trainable:
        index = columns(space, self.residual)
        text, moved = self.setting.text[index], self.residual[index].clone().requires_grad_()

        def keep(parameters: list[Tensor]) -> None:
            (self.residual[index],) = parameters

        return Trainable([moved], lambda: unit(text + moved), keep)

    def all_keys(self) -> Tensor:
        return unit(self.setting.text + self.residual)

    def state(self, seen: tuple[int, ...]) -> dict[str, Tensor]:
        return {"residual": self.residual[columns(seen, self.residual)]}

    def put_back(self, seen: tuple[int, ...], state: Mapping[str, Tensor]) -> None:
        self.residual[columns(seen, self.residual)] = state["residual"].to(self.residual)
