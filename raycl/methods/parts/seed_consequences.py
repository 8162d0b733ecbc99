"""What seeds do: the loss of adapters that were trained on them, where they had no part.

    θ' = θ - α Σₖ ∂ℓ(θₖ; seeds)/∂θ,   L = CE(θ'; held-out) + CE(θ'; old seeds, less sharply)

    ∂L/∂s = ∂L/∂s at fixed θ' (w is in the keys) - α Σₖ ∂/∂s ⟨∂ℓ(θₖ; seeds)/∂θ, ∂L/∂θ'⟩

θ are the adapters, which come back unmoved. First order: each θₖ is taken as a constant, so the
Hessian of the inner loss is dropped; its mixed derivative by θ and seeds is not, for without it
v would get nothing. One inner step is exact. Only one step's graph is in memory at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from raycl.methods.parts.seed_adapters import Adapters
from raycl.methods.parts.seed_pruning import Keys
from raycl.methods.parts.seeds import SeedLoss, Seeds

Replay = Callable[[Tensor, Tensor], tuple[Seeds, Tensor]]
"""From new v and w to all seeds that are descended on, and the classes' means of w."""


@dataclass(frozen=True, eq=False)
class Asked:
    """Vectors, their rows of the keys, and the scale of their logits."""

    x: Tensor
    y: Tensor
    scale: float


@dataclass(frozen=True, eq=False)
class Consequences:
    """Adapters, and how they would be trained."""

    adapters: Adapters
    keys: Keys
    loss: SeedLoss
    steps: int
    rate: float

    def slopes(
        self, v: Tensor, w: Tensor, replay: Replay, asked: Sequence[Asked]
    ) -> tuple[Tensor, Tensor]:
        """∂L/∂v and ∂L/∂w, and zero where nothing is asked."""
        v, w = (side.detach().requires_grad_() for side in (v, w))
        by_v, by_w = torch.zeros_like(v), torch.zeros_like(w)
        if not asked:
            return by_v, by_w
        passed = self.descent(v, w, replay)
        after = passed.pop().ready()
        slope, *slopes = torch.autograd.grad(self._outer(after, v, w, replay, asked), [w, *after])
        by_w += slope
        for at in passed:
            inner = self._slopes(at.ready(), v, w, replay, mixed=True)
            pairs = zip(inner, slopes, strict=True)
            along = torch.stack([(a * b).sum() for a, b in pairs]).sum()
            for total, mixed in zip((by_v, by_w), torch.autograd.grad(along, [v, w]), strict=True):
                total -= self.rate * mixed
        return by_v, by_w

    def descent(self, v: Tensor, w: Tensor, replay: Replay) -> list[Adapters]:
        """The adapters before every inner step, and after the last."""
        passed = [self.adapters]
        for _ in range(self.steps):
            at = passed[-1].ready()
            moves = zip(at, self._slopes(at, v, w, replay, mixed=False), strict=True)
            passed.append(Adapters(*(part.detach() - self.rate * by for part, by in moves)))
        return passed

    def _slopes(
        self, at: Adapters, v: Tensor, w: Tensor, replay: Replay, *, mixed: bool
    ) -> tuple[Tensor, ...]:
        """Of the inner loss by the adapters; `mixed`: to be differentiated by the seeds."""
        seeds, mean_w = replay(v, w)
        loss = self.loss(at, seeds, self.keys(at, mean_w))
        return torch.autograd.grad(loss, list(at), create_graph=mixed)

    def _outer(
        self,
        after: Adapters,
        v: Tensor,
        w: Tensor,
        replay: Replay,
        asked: Sequence[Asked],
    ) -> Tensor:
        keys = self.keys(after, replay(v, w)[1])
        losses = [cross_entropy(a.scale * after.image(a.x) @ keys.T, a.y) for a in asked]
        return torch.stack(losses).sum()
