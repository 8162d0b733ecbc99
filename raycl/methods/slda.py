"""Streaming LDA with one shared covariance (Hayes & Kanan 2020, on frozen features).

    S  = Σ over seen samples of (x - μ_y)(x - μ_y)ᵀ / n,   Σ_s = (1 - s) S + s (tr S / d) I
    score_c(x) = x · w_c + b_c + a s · cos(x, t_c),   w_c = Σ_s⁻¹ μ_c,   b_c = -½ μ_c · w_c

a = `text`, 0 unless asked for: at 1 the zero-shot model's posterior is the prior of the classes.

Deviations: unit vectors; class means are final when the class has been met (each class
arrives once), so the scatter is exact rather than updated sample by sample; shrinkage is
towards the isotropic covariance of equal trace. After the last task the result equals the
joint solution to rounding, whatever the order.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from raycl.config.methods import SLDA
from raycl.methods.context import Context
from raycl.methods.method import Setting, State, require_text
from raycl.methods.parts.gated import GatedMethod
from raycl.methods.parts.keys import FLOOR, columns, unit
from raycl.methods.parts.statistics import ClassMeans, shrunk_precision
from raycl.streams.stream import Task


class SLDAMethod(GatedMethod[SLDA]):
    """Keeps one mean per class and one scatter matrix."""

    def __init__(self, spec: SLDA, setting: Setting) -> None:
        super().__init__(spec, setting)
        if spec.text:
            require_text(self, setting)
        width = setting.width
        self.means = ClassMeans(setting.classes, width, setting.device)
        self.scatter = torch.zeros(width, width, dtype=torch.float64, device=setting.device)
        self.weight, self.bias = torch.empty(0), torch.empty(0)

    def learn(self, task: Task, context: Context) -> None:
        self.means.learn(task.train.x, task.train.y, task.classes)
        centred = self.means.centred(task.train.x, task.train.y)
        self.scatter = self.scatter + centred.T @ centred
        self._solve()

    def _solve(self) -> None:
        classes = columns(self.seen, self.means.mean)
        mean = self.means.mean[classes]
        count = float(self.means.count.sum())
        weight = mean @ shrunk_precision(self.scatter, count, self.spec.shrinkage)
        bias = -0.5 * (weight * mean).sum(dim=1)
        self.weight = weight.float()
        self.bias = bias.masked_fill(self.means.empty(classes), FLOOR).float()

    def seen_scores(self, x: Tensor) -> Tensor:
        scores = unit(x) @ self.weight.T + self.bias
        if not self.spec.text:
            return scores
        return scores + self.spec.text * self.setting.zero_shot(x)[:, columns(self.seen, x)]

    def state(self) -> State:
        classes = columns(self.seen, self.means.mean)
        return {**self.means.state(classes), "scatter": self.scatter}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        self.means.restore(columns(self.seen, self.means.mean), state)
        self.scatter = state["scatter"].to(self.scatter)
        self._solve()
