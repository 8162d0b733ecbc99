"""Seeds: pairs of a visual and a textual prototype, the keys they make, the loss they are held to.

    seed         s = (v, w), unit vectors near images and near the text of its class
    key          k_c = a_text(normalise((1 - η) t_c + η · mean of the w of c))
    seed loss    CE(scale · a_image(v) · kᵀ, c) + 0.5 · InfoNCE(a_image(v), a_text(w))
    similarity   cos(s, s') = (v · v' + w · w') / 2, the cosine of both sides laid end to end

InfoNCE runs both ways over the seeds at hand; seeds of the same class are nobody's negatives.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from raycl.methods.parts.keys import FLOOR, unit
from raycl.methods.parts.seed_adapters import Adapters

CONSISTENCY = 0.5
DIVERSITY = 0.1
SIMILAR = 0.95
"""Seeds of a class beyond this cosine are too much alike: pushed apart, and then merged."""


@dataclass(frozen=True, eq=False)
class Seeds:
    """Some seeds in a row, and where the class of each stands."""

    v: Tensor
    w: Tensor
    y: Tensor

    def __len__(self) -> int:
        return len(self.y)

    def take(self, rows: Tensor) -> Seeds:
        """Some of them: by number or by mask."""
        return Seeds(self.v[rows], self.w[rows], self.y[rows])

    @staticmethod
    def joined(parts: Sequence[Seeds]) -> Seeds:
        """All in a row; there is at least one part."""
        v, w, y = zip(*((p.v, p.w, p.y) for p in parts), strict=True)
        return Seeds(torch.cat(v), torch.cat(w), torch.cat(y))


def means_of_text(seeds: Seeds, classes: int) -> Tensor:
    """(classes, d) means of w; zero for a class without a seed."""
    total = torch.zeros(classes, seeds.w.shape[1], device=seeds.w.device)
    total.index_add_(0, seeds.y, seeds.w)
    count = torch.bincount(seeds.y, minlength=classes).clamp(min=1)
    return total / count[:, None]


def fused(text: Tensor, mean_w: Tensor, weight: float) -> Tensor:
    """What a key is adapted from; where no seed is known it is the text vector."""
    mixed = (1 - weight) * text + weight * mean_w
    return unit(torch.where(mean_w.any(dim=1, keepdim=True), mixed, text))


@dataclass(frozen=True)
class SeedLoss:
    """What seeds are held to; the same for generator and adapters."""

    logit_scale: float
    temperature: float
    consistency: bool

    def __call__(self, adapters: Adapters, seeds: Seeds, keys: Tensor) -> Tensor:
        """The mean over the seeds; `seeds.y` are rows of `keys`."""
        v = adapters.image(seeds.v)
        loss = cross_entropy(self.logit_scale * v @ keys.T, seeds.y)
        if self.consistency:
            w = adapters.text(seeds.w)
            loss = loss + CONSISTENCY * consistency(v, w, seeds.y, self.temperature)
        return loss


def consistency(v: Tensor, w: Tensor, y: Tensor, temperature: float) -> Tensor:
    """Symmetric InfoNCE of rows that belong together, with negatives of other classes only."""
    own = torch.eye(len(y), dtype=torch.bool, device=y.device)
    alike = (y[:, None] == y[None]) & ~own
    logits = (v @ w.T / temperature).masked_fill(alike, FLOOR)
    target = torch.arange(len(y), device=y.device)
    return 0.5 * (cross_entropy(logits, target) + cross_entropy(logits.T, target))


def similarity(v: Tensor, w: Tensor) -> Tensor:
    """(…, m, m) cosines between the seeds of each class, from (…, m, d)."""
    return 0.5 * (v @ v.transpose(-1, -2) + w @ w.transpose(-1, -2))


def crowding(v: Tensor, w: Tensor) -> Tensor:
    """Mean over pairs of a class of what their cosine has beyond `SIMILAR`."""
    m = v.shape[1]
    if m < 2:
        return v.new_zeros(())
    excess = (similarity(v, w) - SIMILAR).clamp(min=0)
    pairs = torch.ones(m, m, device=v.device).triu(1)
    return (excess * pairs).sum() / (len(v) * pairs.sum())


def merged(v: Tensor, w: Tensor) -> Tensor:
    """(classes, m, m) members of each seed after merging; a row of zeros is a seed that is gone.

    The most similar pair of a class first, until no pair lies beyond `SIMILAR`; a merged seed
    is the direction of the mean of its members.
    """
    classes, m, _ = v.shape
    member = torch.eye(m, device=v.device).expand(classes, m, m).clone()
    for _ in range(m - 1):
        sides = [unit(member @ side) for side in (v, w)]
        alive = member.any(dim=2)
        pairs = alive[:, :, None] & alive[:, None] & torch.ones_like(member).triu(1).bool()
        best = similarity(*sides).masked_fill(~pairs, FLOOR).flatten(1).max(dim=1)
        rows = torch.nonzero(best.values > SIMILAR).flatten()
        if not len(rows):
            break
        first, second = best.indices[rows] // m, best.indices[rows] % m
        member[rows, first] += member[rows, second]
        member[rows, second] = 0
    return member
