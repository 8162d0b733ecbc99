"""What a calibrator gets, and what it gives back.

    Moved   the current task's vectors under the encoder before and after, paired
    Old     means and covariances of older classes, as they stood before
    Drift   μ_c ← the new mean,   Σ_c ← M_c Σ_c M_cᵀ

M_c is one map for all old classes, or a mixture of several by weights of the class, so that a
task keeps a few matrices and no covariance is written again. All in float64.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from raycl.generators.gaussian import ledoit_wolf

RIDGE = 1e-4
FEW = 5
"""A covariance of fewer samples than this times the dimensions is shrunk."""


@dataclass(frozen=True, eq=False)
class Moved:
    """(n, d) unit vectors before and after, row by row of one sample, and (n,) class ids."""

    before: Tensor
    after: Tensor
    y: Tensor

    @classmethod
    def of(cls, before: Tensor, after: Tensor, y: Tensor) -> Moved:
        """In float64."""
        return cls(before.double(), after.double(), y.to(before.device))

    def __len__(self) -> int:
        return len(self.y)

    @property
    def shift(self) -> Tensor:
        """(d,) of the mean."""
        return self.after.mean(dim=0) - self.before.mean(dim=0)

    def classes(self) -> list[Moved]:
        """One class after the other, by id."""
        rows = [self.y == c for c in sorted(set(self.y.tolist()))]
        return [Moved(self.before[r], self.after[r], self.y[r]) for r in rows]

    def within(self) -> Moved:
        """Each side less the mean of the row's class."""
        return Moved(_centred(self.before, self.y), _centred(self.after, self.y), self.y)


def _centred(x: Tensor, y: Tensor) -> Tensor:
    ids = sorted(set(y.tolist()))
    place = torch.searchsorted(torch.tensor(ids, device=y.device), y)
    counts = torch.bincount(place, minlength=len(ids))[:, None]
    means = x.new_zeros(len(ids), x.shape[1]).index_add_(0, place, x) / counts
    return x - means[place]


class Old(Protocol):
    """Older classes, before the move."""

    @property
    def means(self) -> Tensor:
        """(classes, d) float64."""

    def covariance(self, index: int) -> Tensor:
        """(d, d) float64 of one class; read when asked, since all may not fit into memory."""


@dataclass(frozen=True, eq=False)
class Drift:
    """Where old statistics go."""

    means: Tensor
    """(classes, d)"""
    maps: Tensor | None = None
    """(k, d, d); None leaves covariances as they are."""
    weights: Tensor | None = None
    """(classes, k); None where there is one map for all."""


def covariance(x: Tensor, *, centred: bool = False) -> Tensor:
    """(d, d) of the rows of x, plus RIDGE · I; shrunk by Ledoit and Wolf where they are few."""
    n, d = x.shape
    x = x.double() if centred else x.double() - x.double().mean(dim=0)
    out = x.T @ x / max(n - 1, 1)
    if n < FEW * d and n > 1:
        share = ledoit_wolf(x)
        out = (1 - share) * out
        out.diagonal().add_(share * float(x.square().sum()) / (n - 1) / d)
    out.diagonal().add_(RIDGE)
    return out


def powers(matrix: Tensor, *exponents: float) -> list[Tensor]:
    """Powers of a symmetric positive definite matrix."""
    values, vectors = torch.linalg.eigh(matrix)
    values = values.clamp_min(torch.finfo(values.dtype).tiny)
    return [vectors * values**p @ vectors.T for p in exponents]
