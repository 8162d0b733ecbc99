"""RAPF (Huang et al. 2024): one linear adapter A of image vectors, keys of frozen text.

    score   exp(logit scale) · cos(A x, text_c)
    loss    CE over the classes seen, on the task's samples and on draws of old classes'
            Gaussians, + mean max(0, m - cos(A x̃, text_o) + cos(A x̃, text_n)) over draws x̃ of
            an old class o and new classes n whose text is nearer to o's than a threshold
    fusion  with A_old = U S V:   P = Uᵀ A,  M = |P - S V| / max,  M ← min(1, M + b)
            A = U (M ⊙ P + (1 - M) ⊙ S V)

Deviations: A starts as the identity (`start`), so that few samples and unseen classes keep the
zero-shot scores; Ledoit and Wolf's share shrinks the Gaussians; epochs run over the task's
samples and a fixed number of draws of each old class rather than some old classes a batch, and
the hinge is taken on those draws; Adam's rate falls along a cosine rather than in two steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack, closing

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from raycl.config.rivals import RAPF
from raycl.methods.context import Context
from raycl.methods.method import Method, Setting, State
from raycl.methods.parts.class_generators import ClassGenerators
from raycl.methods.parts.joined import Joined
from raycl.methods.parts.key_head import Epochs, Kept
from raycl.methods.parts.keys import columns, cosine_scores, positions, unit
from raycl.methods.parts.mini_batches import Descent, minimise
from raycl.streams.stream import Task


class RAPFMethod(Method[RAPF]):
    """Keeps the adapter and a generator per class."""

    needs_text = True

    def __init__(self, spec: RAPF, setting: Setting) -> None:
        super().__init__(spec, setting)
        self.generators = ClassGenerators(spec.generator, setting)
        self.adapter = _start(spec, setting)

    def learn(self, task: Task, context: Context) -> None:
        old = self.generators.classes
        samples: Epochs = Kept(task.train.x, task.train.y)
        with ExitStack() as using:
            if old:
                replay = self.generators.replay(self.spec.per_class, context)
                draws = replay.whole_epochs(self.spec.epochs, self.setting.device)
                samples = Joined(samples, using.enter_context(closing(draws)))
            moved = self._trained(samples, old, task.classes, context)
        fuses = self.spec.fuse and bool(old)
        self.adapter = fused(self.adapter, moved, self.spec.keep_bias) if fuses else moved
        self.generators.learn(task.train.x, task.train.y, task.classes, context)

    def _trained(
        self, samples: Epochs, old: tuple[int, ...], new: tuple[int, ...], context: Context
    ) -> Tensor:
        spec, setting = self.spec, self.setting
        text = setting.text[columns(self.seen, setting.text)]
        column = positions(self.seen, setting.classes).to(text.device)
        near = self._neighbours(old, new) if spec.separate else None
        moved = self.adapter.clone().requires_grad_()

        def loss(x: Tensor, y: Tensor) -> Tensor:
            cosines = unit(x @ moved.T) @ text.T
            found = cross_entropy(setting.logit_scale * cosines, column[y])
            return found if near is None else found + hinge(cosines, column[y], near, spec.margin)

        how = Descent(spec.lr, spec.epochs, spec.batch, cosine=True)
        minimise("adapter", how, [moved], samples, loss, setting, context)
        return moved.detach()

    def _neighbours(self, old: tuple[int, ...], new: tuple[int, ...]) -> Tensor | None:
        """(seen, seen) pairs of an old class and a new one with text close to it."""
        text = self.setting.text[columns(self.seen, self.setting.text)]
        distance = (2 - 2 * text @ text.T).clamp(min=0).sqrt()
        place = positions(self.seen, self.setting.classes)
        is_old, is_new = (torch.zeros(len(self.seen), dtype=torch.bool) for _ in range(2))
        is_old[place[list(old)]], is_new[place[list(new)]] = True, True
        near = (distance < self.spec.threshold) & (is_old[:, None] & is_new).to(text.device)
        return near if bool(near.any()) else None

    def seen_scores(self, x: Tensor) -> Tensor:
        return self.union_scores(x)[:, columns(self.seen, x)]

    def union_scores(self, x: Tensor) -> Tensor:
        return cosine_scores(unit(x) @ self.adapter.T, self.setting.text, self.setting.logit_scale)

    def state(self) -> State:
        return {"adapter": self.adapter, **self.generators.state()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        self.adapter = state["adapter"].to(self.adapter)
        self.generators.restore(state)

    @property
    def trainable_parameters(self) -> int:
        return self.adapter.numel()


def _start(spec: RAPF, setting: Setting) -> Tensor:
    width = setting.width
    if spec.start == "identity":
        return torch.eye(width, device=setting.device)
    noise = torch.empty(width, width)
    noise.uniform_(-(width**-0.5), width**-0.5, generator=setting.generator("adapter"))
    return noise.to(setting.device)


def hinge(cosines: Tensor, target: Tensor, near: Tensor, margin: float) -> Tensor:
    """The mean over pairs of a sample and a class near its own."""
    pairs = near[target]
    own = cosines.gather(1, target[:, None])
    short: Tensor = ((margin - own + cosines).relu() * pairs).sum() / pairs.sum().clamp(min=1)
    return short


def fused(old: Tensor, new: Tensor, bias: float) -> Tensor:
    """Of each entry, in the old adapter's basis, so much of the new as it moved."""
    u, s, v = torch.linalg.svd(old.double())
    before, after = s[:, None] * v, u.T @ new.double()
    moved = (after - before).abs()
    if not moved.any():
        return new
    share = (moved / moved.max() + bias).clamp(max=1)
    mixed: Tensor = u @ (share * after + (1 - share) * before)
    return mixed.to(new)
