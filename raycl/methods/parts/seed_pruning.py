"""Which seeds are dropped when there are too many: those of least use.

The use of a seed is a first-order estimate of the loss that its absence would add, on the
held-out samples and on the retained seeds. A seed has two ways into a prediction: its w is part
of its class's key, and its v is replayed when the adapters are trained.

    use(s) = ⟨∂L/∂w̄_c, w̄_c without s - w̄_c⟩ + α/n · ⟨∂L/∂θ, ∂ℓ_s/∂θ⟩

θ are the adapters, ℓ_s the cross-entropy of v, α the rate of descent on n seeds. Old classes have
no held-out samples any more; their seeds speak for them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from raycl.methods.parts.seed_adapters import Adapters
from raycl.methods.parts.seeds import Seeds, means_of_text

CHUNK = 512
"""Rows at a time: each has a logit for every class."""

Keys = Callable[[Adapters, Tensor], Tensor]
"""From adapters and the classes' means of w to keys."""


@dataclass(frozen=True, eq=False)
class Judge:
    """Held-out samples, by which seeds are measured. Classes are rows of the keys."""

    x: Tensor
    y: Tensor
    keys: Keys
    logit_scale: float

    def uses(self, seeds: Seeds, adapters: Adapters, classes: int, rate: float) -> Tensor:
        """One for each seed; infinite for the last of a class."""
        mean_w = means_of_text(seeds, classes)
        slope_w, slope = self._slopes(seeds, adapters, mean_w)
        count = torch.bincount(seeds.y, minlength=classes)[seeds.y]
        rest = torch.nonzero(count > 1).flatten()
        some, others = seeds.take(rest), (count[rest] - 1)[:, None]
        without = (mean_w[some.y] - some.w) / others
        in_key = (slope_w[some.y] * without).sum(dim=1)
        in_replay = rate / len(seeds) * self._along(slope, some, adapters, mean_w)
        uses = torch.full((len(seeds),), math.inf, dtype=mean_w.dtype, device=mean_w.device)
        return uses.index_copy(0, rest, in_key + in_replay)

    def _slopes(self, seeds: Seeds, adapters: Adapters, mean_w: Tensor) -> tuple[Tensor, Adapters]:
        """Of the loss, by the means of w and by the adapters."""
        moving = [mean_w.clone().requires_grad_(), *adapters.ready()]
        total = [torch.zeros_like(part) for part in moving]
        judged = [(seeds.v, seeds.y)] + ([(self.x, self.y)] if len(self.x) else [])
        for x, y in judged:
            for rows in torch.split(torch.arange(len(x)), CHUNK):
                at = Adapters(*moving[1:])
                logits = self._logits(at, x[rows], self.keys(at, moving[0]))
                loss = cross_entropy(logits, y[rows], reduction="sum") / len(x)
                for sum_, part in zip(total, torch.autograd.grad(loss, moving), strict=True):
                    sum_ += part
        return total[0], Adapters(*total[1:])

    def _along(self, slope: Adapters, seeds: Seeds, adapters: Adapters, mean_w: Tensor) -> Tensor:
        """How each seed's own loss changes as the adapters move along the slope."""
        changes: list[Tensor] = []
        at = adapters.ready()
        for rows in torch.split(torch.arange(len(seeds)), CHUNK):
            logits = self._logits(at, seeds.v[rows], self.keys(at, mean_w))
            # By the weight that each loss has in a sum: one pass for all seeds.
            weight = torch.ones(len(rows), device=logits.device, requires_grad=True)
            loss = (weight * cross_entropy(logits, seeds.y[rows], reduction="none")).sum()
            along = torch.autograd.grad(loss, list(at), create_graph=True)
            total = torch.stack([(a * b).sum() for a, b in zip(along, slope, strict=True)]).sum()
            changes += torch.autograd.grad(total, [weight])
        return torch.cat(changes)

    def _logits(self, adapters: Adapters, x: Tensor, keys: Tensor) -> Tensor:
        return self.logit_scale * adapters.image(x) @ keys.T


def kept_seeds(seeds: Seeds, most: int, uses: Callable[[Seeds], Tensor]) -> Tensor:
    """Which seeds stay: at most so many, but one of every class.

    A class loses at most one seed before uses are asked again, because its others are worth
    more then.
    """
    left = torch.arange(len(seeds))
    while len(left) > most:
        now = seeds.take(left.to(seeds.y.device))
        use, y = uses(now).cpu(), now.y.tolist()
        least: dict[int, int] = {}
        for place in use.argsort(stable=True).tolist():
            if use[place] < math.inf:
                least.setdefault(y[place], place)
        if not least:
            break
        stay = torch.ones(len(left), dtype=torch.bool)
        stay[list(least.values())[: len(left) - most]] = False
        left = left[stay]
    keep = torch.zeros(len(seeds), dtype=torch.bool)
    keep[left] = True
    return keep
