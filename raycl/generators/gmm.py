"""A mixture of diagonal Gaussians per class, by expectation maximisation.

    p(x) = Σ_k π_k N(x; μ_k, diag σ_k²)

in the class's standardised space and in float64. Start: k-means++ seeds and a few rounds of
k-means; end: the mean log-likelihood gains less than the tolerance, or the last iteration.
Deviations: a component's variance has a floor in units of the class's own variance, for with
16 samples and 5 components some component owns a single sample; a class with fewer distinct
samples than components uses as many components as samples. `parity` weighs samples by the
published density, in which the variances are square roots of those meant.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from raycl.config.generators import GMMGenerator
from raycl.generators.bank import Bank, kept
from raycl.generators.noise import BLOCK, generator, normals, uniforms
from raycl.generators.vectors import ClassVectors, divisor, standardise

KMEANS_ROUNDS = 10
LEAST_OWNED = 1e-9
LOG_2PI = math.log(2 * math.pi)


class GMMBank(Bank[GMMGenerator]):
    """Tensors `mean`, `std` (classes, d) of the class; `weight` (classes, k), `centre` and
    `spread` (classes, k, d) of the components, in the class's own units."""

    def draw(self, streams: Sequence[int], block: int) -> Tensor:
        return torch.stack([self._draw(c, s, block) for c, s in enumerate(streams)])

    def _draw(self, c: int, stream: int, block: int) -> Tensor:
        edges = self.tensors["weight"][c].double().cumsum(0)
        which = uniforms(stream, "component", block, shape=(BLOCK,)).to(self.device).double()
        # Scaled by the last edge, as the weights add up to one only to rounding.
        component = torch.searchsorted(edges, which * edges[-1], right=True)
        component.clamp_(max=len(edges) - 1)
        noise = normals(stream, "sample", block, shape=(BLOCK, self.width)).to(self.device)
        spread = self.tensors["spread"][c].float()[component]
        x = self.tensors["centre"][c].float()[component] + spread * noise
        return x * self.tensors["std"][c] + self.tensors["mean"][c]

    def log_likelihood(self, x: Tensor) -> Tensor:
        return torch.stack([self._log_density(c, rows) for c, rows in enumerate(x)])

    def _log_density(self, c: int, x: Tensor) -> Tensor:
        std = self.tensors["std"][c].double()
        varies = std > 0
        if not varies.any():
            return torch.full((len(x),), math.nan)
        scaled = ((x.double() - self.tensors["mean"][c]) / divisor(std))[:, varies]
        variance = self.tensors["spread"][c].double()[:, varies].square()
        owned = self.tensors["weight"][c].double()
        joint = _log_joint(scaled, owned, self.tensors["centre"][c].double()[:, varies], variance)
        return (joint.logsumexp(dim=1) / varies.sum()).float()


def fit_gmm(spec: GMMGenerator, data: ClassVectors) -> GMMBank:
    """A bank of one class."""
    scaled = standardise(data.vectors)
    varies = scaled.std > 0
    x = scaled.x[:, varies]
    weight, centre, variance = _em(spec, x, data.stream)
    # EM's variance is that of n rows about their mean; the class's is the unbiased one.
    unbiased = len(x) / max(len(x) - 1, 1)
    centre, variance = centre * unbiased**0.5, variance * unbiased
    shape = (spec.components, len(varies))
    tensors = {
        "mean": scaled.mean[None],
        "std": scaled.std[None],
        "weight": torch.zeros(1, spec.components),
        "centre": torch.zeros(1, *shape),
        "spread": torch.zeros(1, *shape),
    }
    tensors["weight"][0, : len(weight)] = weight.float()
    for name, values in (("centre", centre), ("spread", variance.sqrt())):
        whole = torch.zeros(len(weight), len(varies), dtype=torch.float64)
        whole[:, varies] = values
        tensors[name][0, : len(weight)] = whole.float()
    return GMMBank(spec, kept(tensors, spec.weights))


def _em(spec: GMMGenerator, x: Tensor, stream: int) -> tuple[Tensor, Tensor, Tensor]:
    """Weights, centres and variances of the components."""
    owned = _start(x, spec.components, stream)
    before = -math.inf
    for _ in range(spec.iterations):
        weight, centre, variance = _maximise(x, owned, spec.floor)
        joint = _log_joint(x, weight, centre, variance.sqrt() if spec.parity else variance)
        evidence = joint.logsumexp(dim=1, keepdim=True)
        now = float(evidence.mean())
        if now - before < spec.tolerance:
            break
        before, owned = now, (joint - evidence).exp()
    return weight, centre, variance


def _maximise(x: Tensor, owned: Tensor, floor: float) -> tuple[Tensor, Tensor, Tensor]:
    total = owned.sum(dim=0)
    share = total.clamp(min=LEAST_OWNED)[:, None]
    centre = owned.T @ x / share
    variance = owned.T @ x.square() / share - centre.square()
    return total / len(x), centre, variance.clamp(min=floor)


def _log_joint(x: Tensor, weight: Tensor, centre: Tensor, variance: Tensor) -> Tensor:
    """log π_k N(x; …) for each row and component."""
    # A component without weight has no variance either; its density must not be 0 / 0.
    variance = variance.masked_fill(weight[:, None] <= 0, 1.0)
    precision = 1 / variance
    square = x.square() @ precision.T - 2 * x @ (centre * precision).T
    square = square + (centre.square() * precision).sum(dim=1)
    constant = variance.log().sum(dim=1) + x.shape[1] * LOG_2PI
    return weight.log() - 0.5 * (square + constant)


def _start(x: Tensor, components: int, stream: int) -> Tensor:
    """Which row belongs to which component, as zeros and ones, by k-means."""
    random = generator(stream, "start")
    chosen = [int(torch.randint(len(x), (), generator=random))]
    distance = (x - x[chosen[0]]).square().sum(dim=1)
    while len(chosen) < min(components, len(x)) and float(distance.max()) > 0:
        chosen.append(int(torch.multinomial(distance, 1, generator=random)))
        distance = torch.minimum(distance, (x - x[chosen[-1]]).square().sum(dim=1))
    centre = x[chosen]
    for _ in range(KMEANS_ROUNDS):
        nearest = torch.cdist(x, centre).argmin(dim=1)
        owned = torch.nn.functional.one_hot(nearest, len(centre)).double()
        count = owned.sum(dim=0)[:, None]
        moved = torch.where(count > 0, owned.T @ x / count.clamp(min=1), centre)
        if torch.equal(moved, centre):
            break
        centre = moved
    return owned
