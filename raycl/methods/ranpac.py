"""RanPAC (McDonnell et al. 2023), on frozen features: random projection, then ridge regression.

    φ(x) = √(2/M) max(0, x W),   w = (Φᵀ Φ + λ I)⁻¹ Φᵀ Y,   score = φ(x) w

λ is chosen by the squared error on held-out samples. Deviations: the backbone is frozen from
the start, without the adapter that the paper trains on the first task; vectors are of unit
length; λ is judged by the first tasks (`validation.scope`) rather than by the newest alone, on
the stream's own validation split, and in steps of half a decade. `fusion: text` mixes the
zero-shot scores in, as RAIL does; that is not published.
"""

from __future__ import annotations

from raycl.config.rivals import RanPAC
from raycl.methods.method import Setting
from raycl.methods.parts.random_features import RandomFeatures
from raycl.methods.parts.ridge import Primal
from raycl.methods.parts.ridge_head import RidgeMethod


class RanPACMethod(RidgeMethod[RanPAC]):
    """Keeps one matrix of products and a sum of features per class."""

    def __init__(self, spec: RanPAC, setting: Setting) -> None:
        regression = Primal(RandomFeatures(setting, spec.hidden))
        super().__init__(spec, setting, regression, spec.ridge)
