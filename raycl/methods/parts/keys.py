"""Keys: one unit vector per class, scored by cosine; and the zero-shot ones of the text."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

FLOOR = float("-inf")
"""The score of a class that cannot be predicted."""


def unit(x: Tensor) -> Tensor:
    """Rows scaled to length one."""
    return normalize(x, dim=-1)


def cosine_scores(x: Tensor, keys: Tensor, logit_scale: float) -> Tensor:
    """(n, classes) scaled cosines of vectors of any length with unit keys."""
    return logit_scale * unit(x) @ keys.T


def columns(classes: tuple[int, ...], like: Tensor) -> Tensor:
    """Class ids as an index on the right device."""
    return torch.tensor(classes, dtype=torch.long, device=like.device)


def positions(classes: tuple[int, ...], total: int) -> Tensor:
    """For each class id its column among `classes`, -1 for the others."""
    out = torch.full((total,), -1, dtype=torch.long)
    out[torch.tensor(classes, dtype=torch.long)] = torch.arange(len(classes))
    return out
