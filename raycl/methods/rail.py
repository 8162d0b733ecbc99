"""RAIL (Xu et al. 2024): analytic regression, mixed with zero-shot, behind a zero-shot gate.

    primal  w = (Φᵀ Φ + λ I)⁻¹ Φᵀ Y,  φ(x) = √(2/M) max(0, x W);   h(x) = φ(x) w
    dual    α = (K + λ I)⁻¹ Y,  k(x, x') = exp(-γ |x - x'|²);       h(x) = k(x, X) α
    seen    (1 - β) · softmax(zero-shot) + β · h(x)
    unseen  where the zero-shot argmax over the union is an unseen class, zero-shot alone

Deviations: the published recursion for w is the same numbers by another way, and loses some to
rounding, so the sums are solved anew after each task; softmax is over the classes seen rather
than the union, a factor per sample; W is normal rather than uniform, and features are scaled
so that λ does not depend on M. The dual form keeps every vector, counted as its state.
"""

from __future__ import annotations

from raycl.config.rivals import RAIL
from raycl.methods.method import Setting
from raycl.methods.parts.random_features import RandomFeatures
from raycl.methods.parts.ridge import Dual, Primal, Regression
from raycl.methods.parts.ridge_head import RidgeMethod

PUBLISHED_RIDGE = {"primal": 0.02, "dual": 0.001}


class RAILMethod(RidgeMethod[RAIL]):
    """Keeps sums of features (primal) or all vectors (dual)."""

    def __init__(self, spec: RAIL, setting: Setting) -> None:
        ridge = PUBLISHED_RIDGE[spec.form] if spec.ridge is None else spec.ridge
        super().__init__(spec, setting, _regression(spec, setting), ridge)


def _regression(spec: RAIL, setting: Setting) -> Regression:
    if spec.form == "dual":
        return Dual(spec.gamma, spec.most_samples, setting.width, setting.device)
    return Primal(RandomFeatures(setting, spec.hidden))
