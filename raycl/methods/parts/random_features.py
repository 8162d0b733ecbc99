"""Random features whose products approximate a kernel.

    φ(x) = √(2 / M) · max(0, x W),   W (d, M) ~ N(0, 1),   x of unit length

E|φ(x)|² = 1, so what is right for one M is right for another; with M the products come near
the arc-cosine kernel of first order (Cho & Saul 2009). W is drawn again from the seed and is
no part of a state.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from raycl.methods.method import Setting
from raycl.methods.parts.keys import unit


class RandomFeatures:
    """φ for one seed, alike for every class order and every cut into tasks."""

    def __init__(self, setting: Setting, hidden: int) -> None:
        weight = torch.empty(setting.width, hidden)
        weight.normal_(generator=setting.generator("random features"))
        self.weight = weight.to(setting.device) * math.sqrt(2 / hidden)

    @property
    def hidden(self) -> int:
        return int(self.weight.shape[1])

    def __call__(self, x: Tensor) -> Tensor:
        """(n, M) features in the type of x."""
        return (unit(x) @ self.weight.to(x.dtype)).relu()
