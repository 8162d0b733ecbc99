"""How far a bank's samples are from vectors of the same classes.

Everything is in units of the class's own deviation per dimension, over the dimensions that
vary; a class without two distinct vectors has no such unit and gets nan. Measured against
held-out vectors it says what a generator generalises; against its own training vectors, what
it forgot of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from raycl.errors import DataError
from raycl.generators.bank import Bank
from raycl.generators.vectors import ClassVectors, divisor, standardise

ROWS = 256


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """One number per class."""

    std_ratio: Tensor
    """Deviation of samples over deviation of vectors, mean over dimensions; 1 is right."""
    mean_error: Tensor
    """Root mean square over dimensions of the distance between the means."""
    reconstruction: Tensor
    """Root mean square over vectors and dimensions of the distance to the nearest sample."""
    log_likelihood: Tensor | None
    """Mean nats per dimension that varies; None where the model has no density."""


def diagnose(bank: Bank[Any], data: Sequence[ClassVectors], rows: int = ROWS) -> Diagnosis:
    """Compare `rows` samples of each class with its vectors, in the bank's order of classes."""
    if len(data) != len(bank):
        raise DataError(
            "a bank is compared with the same classes", got=f"{len(bank)} and {len(data)}"
        )
    found = [_one(part, c, rows) for part, c in zip(bank.split([1] * len(bank)), data, strict=True)]
    columns = [torch.stack(column) for column in zip(*(f[:3] for f in found), strict=True)]
    likelihoods = [f[3] for f in found]
    known = [value for value in likelihoods if value is not None]
    density = torch.stack(known) if len(known) == len(likelihoods) else None
    return Diagnosis(columns[0], columns[1], columns[2], density)


def _one(
    part: Bank[Any], c: ClassVectors, rows: int
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    scaled = standardise(c.vectors)
    varies = scaled.std > 0
    samples = part.sample(rows, [c.stream])[0].cpu().double()
    likelihood = part.log_likelihood(c.vectors.float().to(part.device)[None])
    mean = None if likelihood is None else likelihood.cpu().mean()
    if not varies.any():
        nan = torch.tensor(torch.nan)
        return nan, nan, nan, mean
    drawn = ((samples - scaled.mean) / divisor(scaled.std))[:, varies]
    real = scaled.x[:, varies]
    nearest = torch.cdist(real, drawn).amin(dim=1).square() / real.shape[1]
    return (
        drawn.std(dim=0).mean().float(),
        drawn.mean(dim=0).square().mean().sqrt().float(),
        nearest.mean().sqrt().float(),
        mean,
    )
