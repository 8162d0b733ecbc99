"""Low-rank residual adapters of image and text vectors, shared by all classes.

    a(x) = normalise(x + U D x),   D (rank, d) random,   U (d, rank) zero at first

so that untrained adapters change nothing.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import linear

from raycl.methods.method import Setting
from raycl.methods.parts.keys import unit


class Adapters(NamedTuple):
    """The weights of both, in the order in which an optimiser gets them."""

    image_down: Tensor
    image_up: Tensor
    text_down: Tensor
    text_up: Tensor

    def image(self, x: Tensor) -> Tensor:
        """Unit vectors of images, adapted."""
        return _adapted(x, self.image_down, self.image_up)

    def text(self, e: Tensor) -> Tensor:
        """Unit vectors of text, adapted."""
        return _adapted(e, self.text_down, self.text_up)

    def ready(self) -> Adapters:
        """Copies that require gradients."""
        return Adapters(*(part.detach().clone().requires_grad_() for part in self))

    def still(self) -> Adapters:
        """The same memory, unknown to autograd."""
        return Adapters(*(part.detach() for part in self))


def untrained(setting: Setting, rank: int) -> Adapters:
    """Adapters that change nothing yet."""

    def down(side: str) -> Tensor:
        noise = torch.empty(rank, setting.width)
        noise.normal_(std=1 / math.sqrt(setting.width), generator=setting.generator(side))
        return noise.to(setting.device)

    def up() -> Tensor:
        return torch.zeros(setting.width, rank, device=setting.device)

    return Adapters(down("image adapter"), up(), down("text adapter"), up())


def _adapted(x: Tensor, down: Tensor, up: Tensor) -> Tensor:
    return unit(x + linear(linear(x, down), up))
