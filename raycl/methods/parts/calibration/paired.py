"""Calibrators that use which vector before became which after.

    mean_shift     μ_c ← μ_c + mean of δ_i,                     δ_i = after_i − before_i
    sdc            μ_c ← μ_c + Σ w_ci δ_i / Σ w_ci,             w_ci = exp(−|before_i − μ_c|² / 2σ²)
    ridge_paired   W = I + (XᵀX + λI)⁻¹ Xᵀ(Y − X),              X, Y centred
                   μ_c ← ȳ + (μ_c − x̄) W,   Σ_c ← Wᵀ Σ_c W

Ridge is pulled towards the identity: where the current vectors say nothing, nothing moves.
"""

from __future__ import annotations

import torch

from raycl.config.dmc import RidgePaired, SemanticDrift
from raycl.methods.parts.calibration.drift import Drift, Moved, Old


def mean_shift(moved: Moved, old: Old) -> Drift:
    """One shift for all means."""
    return Drift(old.means + moved.shift)


def semantic_drift(spec: SemanticDrift, moved: Moved, old: Old) -> Drift:
    """A shift for each mean, of what lies near it."""
    squares = torch.cdist(old.means, moved.before).square()
    # A softmax, since every weight of a mean far from all would be zero.
    weights = torch.softmax(-squares / (2 * spec.bandwidth**2), dim=1)
    return Drift(old.means + weights @ (moved.after - moved.before))


def ridge(spec: RidgePaired, moved: Moved, old: Old) -> Drift:
    """One linear map by least squares."""
    start, end = moved.before.mean(dim=0), moved.after.mean(dim=0)
    x, y = moved.before - start, moved.after - end
    gram = x.T @ x
    strength = spec.strength * float(gram.diagonal().mean())
    eye = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    if strength <= 0:  # a single sample
        return mean_shift(moved, old)
    matrix = eye + torch.linalg.solve(gram + strength * eye, x.T @ (y - x))
    return Drift(end + (old.means - start) @ matrix, matrix.T[None])
