"""Training-free fusion of text and class mean.

    k_c = normalise((1 - w) · text_c + w · normalise(μ_c)),   score = logit_scale · cos(x, k_c)

over the seen classes. Unseen ones are scored through the gate: a fused key lies at a higher
cosine level than a bare text vector, so that one argmax over both would never choose an
unseen class (measured on Cars: transfer 0). The weight is chosen on held-out samples of the
first tasks (`validation.scope`), each judged when it arrives, among the classes seen by
then: only counts of right answers are kept, no sample. A strong line: a method that trains
is judged against it.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from raycl.config.methods import ProtoFusion
from raycl.methods.context import Context
from raycl.methods.method import Setting, State
from raycl.methods.parts.gated import GatedMethod
from raycl.methods.parts.keys import columns, cosine_scores, positions, unit
from raycl.methods.parts.statistics import ClassMeans
from raycl.streams.stream import Task

WEIGHTS = tuple(round(0.05 * i, 2) for i in range(1, 20))
UNCHOSEN = 0.5


class ProtoFusionMethod(GatedMethod[ProtoFusion]):
    """Keeps one mean per class and how many held-out samples each weight got right."""

    needs_text = True

    def __init__(self, spec: ProtoFusion, setting: Setting) -> None:
        super().__init__(spec, setting)
        self.means = ClassMeans(setting.classes, setting.width, setting.device)
        self.right = torch.zeros(len(WEIGHTS), dtype=torch.long)

    def learn(self, task: Task, context: Context) -> None:
        if self._may_choose(task):
            self.means.learn(task.fit.x, task.fit.y, task.classes)
            self.right += self._right_answers(task)
        self.means.learn(task.train.x, task.train.y, task.classes)

    def _may_choose(self, task: Task) -> bool:
        validation = self.setting.validation
        in_scope = validation.scope == "all" or task.index < validation.first_k
        return self.spec.weight is None and in_scope and len(task.held_out) > 0

    def _right_answers(self, task: Task) -> Tensor:
        x = task.held_out.x.to(self.setting.device)
        target = positions(self.seen, self.setting.classes)[task.held_out.y]
        answers = [self._scores(x, weight).argmax(dim=1).cpu() for weight in WEIGHTS]
        return torch.stack([(answer == target).sum() for answer in answers])

    @property
    def weight(self) -> float:
        """The weight in force: fixed, chosen, or a half where nothing could choose."""
        if self.spec.weight is not None:
            return self.spec.weight
        if not self.right.any():
            return UNCHOSEN
        best: list[int] = torch.nonzero(self.right == self.right.max()).flatten().tolist()
        # The middle of the best ones: few held-out samples leave plateaus.
        return WEIGHTS[best[len(best) // 2]]

    def _scores(self, x: Tensor, weight: float) -> Tensor:
        seen = columns(self.seen, x)
        # A seen class without a sample has a zero mean, and so keeps its text's direction.
        fused = unit((1 - weight) * self.setting.text[seen] + weight * self.means.keys(seen))
        return cosine_scores(x, fused, self.setting.logit_scale)

    def seen_scores(self, x: Tensor) -> Tensor:
        return self._scores(x, self.weight)

    def state(self) -> State:
        classes = columns(self.seen, self.means.mean)
        return {**self.means.state(classes), "right": self.right}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        self.means.restore(columns(self.seen, self.means.mean), state)
        self.right = state["right"].clone()
