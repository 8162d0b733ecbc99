"""Random streams named by what they are for: there is no global seed.

`seed_for(seed, "batches", task, epoch)` is the same number on every machine and in
every process, and no two purposes share a stream; so a resumed loop needs no saved
generator state, only its own position.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from raycl.config.spec import canonical

if TYPE_CHECKING:
    import numpy as np


def seed_for(seed: int, purpose: str, *ids: int | str) -> int:
    """A 63-bit seed for one purpose."""
    text = canonical([seed, purpose, list(ids)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def rng(seed: int, purpose: str, *ids: int | str) -> np.random.Generator:
    """A NumPy generator for one purpose."""
    import numpy as np

    return np.random.default_rng(seed_for(seed, purpose, *ids))
