"""Learning rates and noise levels as functions of a position, so that nothing needs saving."""

from __future__ import annotations

import math

import torch
from torch import Tensor

RESTARTS = 10
"""The first cycle of the learning rate lasts this part of the fit."""


def warm_restarts(lr: float, epoch: int, epochs: int) -> float:
    """Cosine from lr to zero, restarted; each cycle is twice as long as the one before.

    Of the cycles 1, 2, 4 and 8 tenths the last is cut short, so a fit ends at 69 % of lr.
    """
    length = max(1, epochs // RESTARTS)
    while epoch >= length:
        epoch -= length
        length *= 2
    return lr * (1 + math.cos(math.pi * epoch / length)) / 2


def cosine_signal(steps: int) -> Tensor:
    """ᾱ_t for t = 1 … steps: the share of the signal's variance that is left, zero at the end."""
    t = torch.arange(1, steps + 1, dtype=torch.float64) / steps
    alpha = torch.cos(t * math.pi / 2).square()
    alpha[-1] = 0.0  # cos(π/2) is 6e-17 in floating point
    return alpha.float()
