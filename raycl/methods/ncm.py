"""Nearest class mean: argmax over c of cos(x, μ_c), μ_c = mean of the class's unit vectors.

Order of arrival does not matter: each class is met once and its mean is kept. Class means
and text vectors lie at different cosine levels, so unseen classes are scored only through
the gate (`unseen: gate`), never in one argmax with the means.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from raycl.config.methods import NCM
from raycl.methods.context import Context
from raycl.methods.method import Setting, State
from raycl.methods.parts.gated import GatedMethod
from raycl.methods.parts.keys import FLOOR, columns, cosine_scores
from raycl.methods.parts.statistics import ClassMeans
from raycl.streams.stream import Task


class NCMMethod(GatedMethod[NCM]):
    """Keeps one mean per class."""

    def __init__(self, spec: NCM, setting: Setting) -> None:
        super().__init__(spec, setting)
        self.means = ClassMeans(setting.classes, setting.width, setting.device)

    def learn(self, task: Task, context: Context) -> None:
        self.means.learn(task.train.x, task.train.y, task.classes)

    def seen_scores(self, x: Tensor) -> Tensor:
        classes = columns(self.seen, x)
        scores = cosine_scores(x, self.means.keys(classes), self.setting.logit_scale)
        return scores.masked_fill(self.means.empty(classes), FLOOR)

    def state(self) -> State:
        return self.means.state(columns(self.seen, self.means.mean))

    def restore(self, state: Mapping[str, Tensor]) -> None:
        self.means.restore(columns(self.seen, self.means.mean), state)
