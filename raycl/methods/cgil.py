"""CGIL (Frascaroli et al. 2024): a generator per class, and prompts aligned on its samples.

    task end    p_c   fitted to the vectors of each new class c, never updated
    epoch       x ~ p_c, 256 of each class seen
    keys        k_c = normalise(TextEncoder([SOS][V_c][g(e_c)][name of c][.][EOT]))
    loss        CE(exp(logit scale) · cos(x, k), c) over the classes seen; V and g move
    unseen      normalise(e_c), beside the trained keys

Where vectors are given without a text tower, k_c = normalise(e_c + (r_c + h(e_c)) / √d).
Of the authors' code ours differs where that is mistaken, with the published behaviour as an
option: zero-shot keys are of unit length (`parity`), as are the generators' formulas
(`generator.parity`).
"""

from __future__ import annotations

from raycl.config.methods import CGIL
from raycl.methods.method import Setting
from raycl.methods.parts.aligned import AlignedMethod


class CGILMethod(AlignedMethod[CGIL]):
    """Keeps decoders and prompts, no vector."""

    def __init__(self, spec: CGIL, setting: Setting) -> None:
        super().__init__(spec, setting, spec.generator)
