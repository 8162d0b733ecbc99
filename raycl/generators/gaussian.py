"""The class mean, and one Gaussian per class with diagonal or shrunk full covariance.

    diagonal    x = μ + σ ⊙ ε,   σ² unbiased
    full        x = μ + σ ⊙ L ε, L Lᵀ = (1 - s) R + s I on the dimensions that vary

R is the correlation of the standardised vectors, so the target of the shrinkage keeps each
dimension's own variance and a flat dimension stays flat; s is Ledoit and Wolf's (2004)
estimate of the best share. L is kept as a packed triangle, half the bytes of the square.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from raycl.config.generators import GaussianGenerator, MeanGenerator
from raycl.generators.bank import Bank, kept
from raycl.generators.noise import BLOCK, normals
from raycl.generators.vectors import ClassVectors, Standardised, divisor, standardise

LEAST_SHRINKAGE = 1e-6
"""Fewer samples than dimensions would leave R singular."""
LOG_2PI = math.log(2 * math.pi)


class MeanBank(Bank[MeanGenerator]):
    """Every sample is the mean of its class."""

    def draw(self, streams: Sequence[int], block: int) -> Tensor:
        return self.tensors["mean"][:, None].expand(-1, BLOCK, -1)


def fit_mean(spec: MeanGenerator, data: ClassVectors) -> MeanBank:
    """A bank of one class."""
    mean = data.vectors.detach().cpu().double().mean(dim=0)
    return MeanBank(spec, {"mean": mean.float()[None]})


class GaussianBank(Bank[GaussianGenerator]):
    """Tensors `mean` and `std` (classes, d); for a full covariance `factor`, L by rows."""

    def draw(self, streams: Sequence[int], block: int) -> Tensor:
        mean, std = self.tensors["mean"][:, None], self.tensors["std"][:, None]
        shape = (BLOCK, self.width)
        noise = torch.stack([normals(s, "sample", block, shape=shape) for s in streams])
        noise = noise.to(self.device)
        if "factor" in self.tensors:
            noise = torch.stack(
                [
                    rows @ unpacked(factor, self.width).T
                    for rows, factor in zip(noise, self.tensors["factor"], strict=True)
                ]
            )
        return noise * std + mean

    def log_likelihood(self, x: Tensor) -> Tensor:
        return torch.stack([self._log_density(c, rows) for c, rows in enumerate(x)])

    def _log_density(self, c: int, x: Tensor) -> Tensor:
        mean, std = self.tensors["mean"][c].double(), self.tensors["std"][c].double()
        varies = std > 0
        scaled = ((x.double() - mean) / divisor(std))[:, varies]
        log_root = x.new_zeros((), dtype=torch.float64)
        if "factor" in self.tensors:
            factor = unpacked(self.tensors["factor"][c], self.width).double()[varies][:, varies]
            if not factor.diagonal().all():  # a class of one sample has no density
                return torch.full((len(x),), math.nan)
            scaled = torch.linalg.solve_triangular(factor, scaled.T, upper=False).T
            log_root = factor.diagonal().log().sum()
        if not varies.any():
            return torch.full((len(x),), math.nan)
        square = scaled.square().sum(dim=1)
        per_row = -0.5 * (square + varies.sum() * LOG_2PI) - log_root
        return (per_row / varies.sum()).float()


def fit_gaussian(spec: GaussianGenerator, data: ClassVectors) -> GaussianBank:
    """A bank of one class."""
    scaled = standardise(data.vectors)
    tensors = {"mean": scaled.mean[None], "std": scaled.std[None]}
    if spec.covariance == "full":
        tensors["factor"] = packed(_factor(scaled, spec.shrinkage))[None]
    return GaussianBank(spec, kept(tensors, spec.weights))


def _factor(scaled: Standardised, shrinkage: float | None) -> Tensor:
    """L; zero rows for the dimensions that do not vary."""
    varies = scaled.std > 0
    x = scaled.x[:, varies]
    out = torch.zeros(len(varies), len(varies), dtype=torch.float64)
    if not x.numel():
        return out
    correlation = x.T @ x / (len(x) - 1)
    share = ledoit_wolf(x) if shrinkage is None else shrinkage
    share = max(share, LEAST_SHRINKAGE)
    target = torch.eye(x.shape[1], dtype=torch.float64)
    root = torch.linalg.cholesky((1 - share) * correlation + share * target)
    places = varies.nonzero().flatten()
    out[places[:, None], places] = root
    return out


def ledoit_wolf(x: Tensor) -> float:
    """The share of the scaled identity that minimises the expected squared error.

    For centred rows x with S = XᵀX / n and m = tr S / d:
    δ² = |S - m I|² / d, β² = (Σ|x_i|⁴ / n - |S|²) / (n d), share = min(β², δ²) / δ².
    """
    n, d = x.shape
    gram = x @ x.T if n < d else x.T @ x  # the same norm and trace, on the smaller side
    norm = float(gram.square().sum()) / n**2
    mean = float(gram.diagonal().sum()) / (n * d)
    delta = norm / d - mean**2
    if delta <= 0:
        return 1.0
    fourth = float(x.square().sum(dim=1).square().mean())
    beta = max(0.0, (fourth - norm) / (n * d))
    return min(beta, delta) / delta


def packed(factor: Tensor) -> Tensor:
    """The lower triangle by rows."""
    rows, columns = torch.tril_indices(len(factor), len(factor))
    return factor[rows, columns]


def unpacked(triangle: Tensor, width: int) -> Tensor:
    """The square matrix of a packed lower triangle, float32."""
    out = torch.zeros(width, width, device=triangle.device)
    rows, columns = torch.tril_indices(width, width, device=triangle.device)
    out[rows, columns] = triangle.float()
    return out
