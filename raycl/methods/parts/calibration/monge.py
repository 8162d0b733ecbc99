"""Optimal transport between Gaussians (Bures–Wasserstein), and the calibrators made of it.

    A   = Σo^{-1/2} (Σo^{1/2} Σn Σo^{1/2})^{1/2} Σo^{-1/2},   symmetric and PSD, A Σo A = Σn
    x   ↦ μn + A (x − μo)
    BW² = |μo − μn|² + tr(Σo + Σn − 2 (Σo^{1/2} Σn Σo^{1/2})^{1/2})

A drift that is symmetric and PSD is recovered but for the noise of the covariances; a rotation
cannot be. The formulas are POT's (`ot.gaussian`, `ot.sinkhorn`), to which tests hold them: its
import takes seconds and brings in pandas.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from raycl.config.dmc import MongeClasswise
from raycl.methods.parts.calibration.drift import Drift, Moved, Old, covariance, powers

SINKHORN_STEPS = 1000
SINKHORN_TOLERANCE = 1e-9


@dataclass(frozen=True, eq=False)
class Transport:
    """The optimal map from one Gaussian to another."""

    start: Tensor
    end: Tensor
    map: Tensor

    def __call__(self, points: Tensor) -> Tensor:
        """(n, d) moved."""
        return self.end + (points - self.start) @ self.map


def transport_map(before: Tensor, after: Tensor) -> Tensor:
    """A of two covariances."""
    root, inverse = powers(before, 0.5, -0.5)
    (middle,) = powers(_symmetric(root @ after @ root), 0.5)
    return _symmetric(inverse @ middle @ inverse)


def squared_distance(means: tuple[Tensor, Tensor], covariances: tuple[Tensor, Tensor]) -> float:
    """BW² of two Gaussians."""
    before, after = covariances
    (root,) = powers(before, 0.5)
    return _squared_distance(means, before.trace() + after.trace(), root, after)


def _squared_distance(
    means: tuple[Tensor, Tensor], traces: Tensor, root: Tensor, other: Tensor
) -> float:
    values = torch.linalg.eigvalsh(_symmetric(root @ other @ root)).clamp_min(0)
    spread = traces - 2 * values.sqrt().sum()
    tiny = torch.finfo(spread.dtype).tiny
    return max(tiny, float((means[0] - means[1]).square().sum() + spread))


def drift_size(moved: Moved) -> float:
    """BW² of all current vectors before and after."""
    means = moved.before.mean(dim=0), moved.after.mean(dim=0)
    return squared_distance(means, (covariance(moved.before), covariance(moved.after)))


def pooled(moved: Moved) -> Transport:
    """By the whole spread of the current vectors."""
    matrix = transport_map(covariance(moved.before), covariance(moved.after))
    return Transport(moved.before.mean(dim=0), moved.after.mean(dim=0), matrix)


def within(moved: Moved) -> Transport:
    """By their spread within classes."""
    inner = moved.within()
    before, after = (covariance(x, centred=True) for x in (inner.before, inner.after))
    return Transport(
        moved.before.mean(dim=0), moved.after.mean(dim=0), transport_map(before, after)
    )


def carried(transport: Transport, old: Old) -> Drift:
    """All old classes by one map."""
    return Drift(transport(old.means), transport.map[None])


def classwise(spec: MongeClasswise, moved: Moved, old: Old) -> Drift:
    """Each old class by a mixture of the current classes' maps."""
    parts = moved.classes()
    transports = [pooled(part) for part in parts]
    weights = mixture(costs(parts, old), spec.entropy)
    ends = torch.stack([transport(old.means) for transport in transports])
    means = torch.einsum("ck,kcd->cd", weights, ends)
    return Drift(means, torch.stack([transport.map for transport in transports]), weights)


def costs(parts: list[Moved], old: Old) -> Tensor:
    """(old classes, current classes) BW² under the encoder before."""
    centres = [part.before.mean(dim=0) for part in parts]
    spreads = [covariance(part.before) for part in parts]
    roots = [powers(spread, 0.5)[0] for spread in spreads]
    rows = []
    for index, mean in enumerate(old.means):
        theirs = old.covariance(index)
        rows.append(
            [
                _squared_distance((mean, centre), theirs.trace() + spread.trace(), root, theirs)
                for centre, spread, root in zip(centres, spreads, roots, strict=True)
            ]
        )
    return torch.tensor(rows, dtype=torch.float64)


def mixture(cost: Tensor, entropy: float) -> Tensor:
    """Rows of Sinkhorn's plan between uniform weights, each scaled to sum one."""
    scale = entropy * float(cost.mean())
    plan = sinkhorn(cost, scale) if scale > 0 else torch.ones_like(cost)
    return plan / plan.sum(dim=1, keepdim=True)


def sinkhorn(cost: Tensor, entropy: float) -> Tensor:
    """The entropic plan between uniform weights, in logarithms."""
    rows, columns = cost.shape
    kernel = -cost / entropy
    to_row, to_column = -math.log(rows), -math.log(columns)
    u, v = cost.new_zeros(rows, 1), cost.new_zeros(1, columns)
    for _ in range(SINKHORN_STEPS):
        v = to_column - torch.logsumexp(kernel + u, dim=0, keepdim=True)
        before, u = u, to_row - torch.logsumexp(kernel + v, dim=1, keepdim=True)
        if float((u - before).abs().max()) < SINKHORN_TOLERANCE:
            break
    return (kernel + u + v).exp()


def _symmetric(matrix: Tensor) -> Tensor:
    return (matrix + matrix.T) / 2
