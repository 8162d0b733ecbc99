"""Tip-Adapter (Zhang et al. 2022) on a cache that grows with the tasks.

    score_c = 100 · cos(x, text_c) + α · Σ over cached k of class c: exp(-β (1 - cos(x, k)))

Without training the keys are the training vectors themselves. -F trains keys by cross-entropy:
`current` the task's own, on its samples and among its classes; `all` every key on every cached
vector among the classes seen, from the vectors again at each stage, which keeps both.
α and β are chosen on held-out samples with the untrained cache. Deviations: the published
search looks for α and β after -F was trained, and its epoch is the best on the test set; here
the last epoch stands. Unseen classes go through the zero-shot gate, as the cache only ever adds
to seen ones. 100 is the backbone's own logit scale.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from raycl.config.rivals import TipAdapter
from raycl.methods.context import Context
from raycl.methods.method import Setting, State
from raycl.methods.parts.choosing import may_choose, middle_of_best, right_answers
from raycl.methods.parts.gated import GatedMethod
from raycl.methods.parts.key_head import Kept
from raycl.methods.parts.keys import columns, positions, unit
from raycl.methods.parts.mini_batches import Descent, minimise
from raycl.streams.source import Ints
from raycl.streams.stream import Samples, Task

ALPHAS = (0.1, 0.3, 0.5, 1.0, 2.0, 3.0, 5.0, 8.0, 13.0)
BETAS = (0.1, 1.0, 2.0, 3.5, 5.5, 8.0, 13.0)
"""What the published search spans, in coarser steps."""
UNCHOSEN = (2.0, 1.0)
"""α and β where there is no held-out sample to choose by: where the published search begins."""
DECAY = 0.01
"""The optimiser's own, published by being left alone."""
CELLS = 1 << 24
"""Samples times cached keys that are held at once."""


class TipAdapterMethod(GatedMethod[TipAdapter]):
    """Keeps the cache: vectors, their classes and, where all are trained, the keys."""

    needs_text = True

    def __init__(self, spec: TipAdapter, setting: Setting) -> None:
        super().__init__(spec, setting)
        self.x: tuple[Tensor, ...] = ()
        self.y: tuple[Tensor, ...] = ()
        self.fit: tuple[Tensor, ...] = ()
        """Which of the cached are no held-out samples."""
        self.keys = torch.zeros(0, setting.width, device=setting.device)
        self.right = torch.zeros(len(ALPHAS), len(BETAS), dtype=torch.long)

    def learn(self, task: Task, context: Context) -> None:
        if self._open and may_choose(self.setting.validation, task):
            self._choose(task)
        x, y, rows = self._picked(task.train)
        fit = torch.from_numpy(np.isin(rows, task.fit.rows))
        if self.spec.train == "current":
            x = self._trained(x, y, task.classes, context)
        self.x, self.y, self.fit = (*self.x, x), (*self.y, y), (*self.fit, fit)
        self.keys = torch.cat(self.x)
        if self.spec.train == "all":
            self.keys = self._trained(self.keys, self._classes(), self.seen, context)

    def _picked(self, samples: Samples) -> tuple[Tensor, Tensor, Ints]:
        """Unit vectors, classes and rows of those that are cached."""
        x, y = unit(samples.x.to(self.keys)), samples.y.to(self.keys.device)
        if self.spec.per_class is None:
            return x, y, samples.rows
        chosen = [columns((), y)]
        for c in sorted(set(y.tolist())):
            own = torch.nonzero(y == c).flatten()
            order = torch.randperm(len(own), generator=self.setting.generator("exemplars", c))
            chosen.append(own[order.to(own.device)][: self.spec.per_class])
        at = torch.cat(chosen).sort().values
        return x[at], y[at], samples.rows[at.cpu().numpy()]

    @property
    def _open(self) -> bool:
        return self.spec.alpha is None or self.spec.beta is None

    def _choose(self, task: Task) -> None:
        x, y, _ = self._picked(task.fit)
        before = torch.cat([torch.zeros(0, dtype=torch.bool), *self.fit]).to(y.device)
        keys = torch.cat([self.keys[before], x])
        classes = torch.cat([self._classes()[before], y])
        new = task.held_out.x.to(self.keys)
        text = self._text(new, self.seen)
        for column, beta in enumerate(BETAS):
            cache = self._cache(new, keys, classes, beta, self.seen)
            scores = (text + alpha * cache for alpha in ALPHAS)
            found = right_answers(scores, task.held_out.y, self.seen, self.setting.classes)
            self.right[:, column] += found

    @property
    def alpha_beta(self) -> tuple[float, float]:
        """In force: as given, chosen, or where the published search begins."""
        alpha, beta = UNCHOSEN
        if self.right.any():
            row, column = middle_of_best(self.right)
            alpha, beta = ALPHAS[row], BETAS[column]
        return self.spec.alpha or alpha, self.spec.beta or beta

    def _trained(self, x: Tensor, y: Tensor, space: tuple[int, ...], context: Context) -> Tensor:
        """Keys that begin as these vectors and are trained on them, among these classes."""
        moved = x.clone().requires_grad_()
        alpha, beta = self.alpha_beta
        column = positions(space, self.setting.classes).to(x.device)

        def loss(part: Tensor, target: Tensor) -> Tensor:
            cache = self._cache(part, moved, y, beta, space)
            return cross_entropy(self._text(part, space) + alpha * cache, column[target])

        spec = self.spec
        how = Descent(spec.lr, spec.epochs, spec.batch, weight_decay=DECAY, cosine=True)
        minimise("cache", how, [moved], Kept(x, y), loss, self.setting, context)
        return moved.detach()

    def _classes(self) -> Tensor:
        """Of each cached vector."""
        return torch.cat([columns((), self.keys), *self.y])

    def _text(self, x: Tensor, space: tuple[int, ...]) -> Tensor:
        return self.setting.zero_shot(x)[:, columns(space, x)]

    def _cache(
        self, x: Tensor, keys: Tensor, classes: Tensor, beta: float, space: tuple[int, ...]
    ) -> Tensor:
        """(n, len(space)) sums of affinities; keys are as long as training made them."""
        column = positions(space, self.setting.classes).to(x.device)[classes]
        parts = [
            part.new_zeros(len(part), len(space)).index_add(
                1, column, (beta * (part @ keys.T - 1)).exp()
            )
            for part in torch.split(unit(x), max(1, CELLS // max(1, len(keys))))
        ]
        return torch.cat(parts)

    def seen_scores(self, x: Tensor) -> Tensor:
        alpha, beta = self.alpha_beta
        cache = self._cache(x, self.keys, self._classes(), beta, self.seen)
        return self._text(x, self.seen) + alpha * cache

    def state(self) -> State:
        out = {"right": self.right}
        for task, (x, y, fit) in enumerate(zip(self.x, self.y, self.fit, strict=True)):
            out |= {f"x.{task}": x, f"y.{task}": y, f"fit.{task}": fit}
        return out | ({"keys": self.keys} if self.spec.train == "all" else {})

    def restore(self, state: Mapping[str, Tensor]) -> None:
        self.right = state["right"].clone()
        tasks = sum(name.startswith("x.") for name in state)
        self.x = tuple(state[f"x.{task}"].to(self.keys) for task in range(tasks))
        self.y = tuple(state[f"y.{task}"].to(self.keys.device) for task in range(tasks))
        self.fit = tuple(state[f"fit.{task}"].cpu() for task in range(tasks))
        every = torch.cat([self.keys[:0], *self.x])
        self.keys = state["keys"].to(every) if "keys" in state else every

    @property
    def trainable_parameters(self) -> int:
        if self.spec.train == "none" or not self.x:
            return 0
        return self.keys.numel() if self.spec.train == "all" else self.x[-1].numel()
