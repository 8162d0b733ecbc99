"""How a task's seeds lie beside the real vectors of their classes, as figures of the run.

    cosine_to_mean, cosine_to_text    of v with the class mean, of w with the text vector
    distance_to_nearest               of v from the nearest vector of its class
    vectors_apart                     the same distance of a real vector from the nearest other one
    spread, spread_of_vectors         mean square of what lies beyond the class mean along the
                                      classes' common principal directions, times 10⁴

Nothing here is learnt from. A figure that no class defines is null.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from raycl.methods.method import Figures
from raycl.methods.parts.keys import unit
from raycl.methods.parts.seeds import Seeds

DIRECTIONS = 10
SCALE = 1e4


def seed_figures(seeds: Seeds, x: Tensor, y: Tensor, text: Tensor) -> Figures:
    """Of some seeds, the unit vectors of their classes, and text; classes are rows of `text`."""
    centred, near, apart = [], [], []
    seeds_centred, to_mean = [], []
    for c in torch.unique(seeds.y).tolist():
        real, v = x[y == c], seeds.v[seeds.y == c]
        mean = unit(real.mean(dim=0))
        to_mean.append(v @ mean)
        centred.append(real - mean)
        seeds_centred.append(v - mean)
        near.append(torch.cdist(v, real).amin(dim=1))
        between = torch.cdist(real, real).fill_diagonal_(math.inf).amin(dim=1)
        apart.append(between[between.isfinite()])
    directions = _principal(torch.cat(centred))
    return {
        "seeds": len(seeds),
        "cosine_to_mean": _mean(torch.cat(to_mean)),
        "cosine_to_text": _mean((seeds.w * text[seeds.y]).sum(dim=1)),
        "distance_to_nearest": _mean(torch.cat(near)),
        "vectors_apart": _mean(torch.cat(apart)),
        "spread": _along(torch.cat(seeds_centred), directions),
        "spread_of_vectors": _along(torch.cat(centred), directions),
    }


def _principal(centred: Tensor) -> Tensor:
    """(d, directions) in which vectors of a class differ most."""
    found = torch.linalg.eigh(centred.double().T @ centred.double())
    vectors: Tensor = found.eigenvectors
    last: Tensor = vectors[:, -DIRECTIONS:]
    return last.float()


def _along(centred: Tensor, directions: Tensor) -> float | None:
    return _mean(SCALE * (centred @ directions).square())


def _mean(values: Tensor) -> float | None:
    return float(values.mean()) if len(values) else None
