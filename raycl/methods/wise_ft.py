"""WiSE-FT (Wortsman et al. 2022) of a classifier: between the zero-shot keys and trained ones.

    k_c = normalise((1 - w) · text_c + w · normalise(text_c + r_c)),   r_c trained on c's task

The towers are frozen, so the weights that are interpolated are the classifier's: its keys. w is
chosen on held-out samples of the first tasks, each judged when it arrives among the classes
seen by then, with residuals trained without those samples. With w = 1 it is `finetune`.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from raycl.config.rivals import WiSEFT
from raycl.methods.context import Context
from raycl.methods.method import Method, Setting, State
from raycl.methods.parts.choosing import may_choose, middle_of_best, right_answers
from raycl.methods.parts.key_head import Kept
from raycl.methods.parts.keys import columns, cosine_scores, positions, unit
from raycl.methods.parts.mini_batches import Descent, minimise
from raycl.methods.parts.residual import ResidualHead
from raycl.streams.stream import Samples, Task

WEIGHTS = tuple(round(0.05 * i, 2) for i in range(21))
UNCHOSEN = 0.5
"""As the authors recommend where nothing can choose."""


class WiSEFTMethod(Method[WiSEFT]):
    """Keeps the residual of each class, and how many held-out samples each weight got right."""

    needs_text = True

    def __init__(self, spec: WiSEFT, setting: Setting) -> None:
        super().__init__(spec, setting)
        self.head = ResidualHead(setting)
        self.right = torch.zeros(len(WEIGHTS), dtype=torch.long)

    def learn(self, task: Task, context: Context) -> None:
        if self.spec.weight is None and may_choose(self.setting.validation, task):
            before = {name: part.clone() for name, part in self.head.state(self.seen).items()}
            self._train(task.fit, task, "choosing", context)
            x = task.held_out.x.to(self.setting.device)
            scores = (self._scores(x, weight)[:, columns(self.seen, x)] for weight in WEIGHTS)
            self.right += right_answers(scores, task.held_out.y, self.seen, self.setting.classes)
            self.head.restore(self.seen, before)
        self._train(task.train, task, "align", context)

    def _train(self, samples: Samples, task: Task, stage: str, context: Context) -> None:
        spec, setting = self.spec, self.setting
        space = self.seen if spec.loss == "seen" else task.classes
        trainable = self.head.prepare(space)
        column = positions(space, setting.classes).to(setting.device)

        def loss(x: Tensor, y: Tensor) -> Tensor:
            return cross_entropy(setting.logit_scale * x @ trainable.keys().T, column[y])

        how = Descent(spec.lr, spec.epochs, spec.batch)
        moved = trainable.parameters
        minimise(stage, how, moved, Kept(samples.x, samples.y), loss, setting, context)
        trainable.keep([part.detach() for part in moved])
        self._moved = sum(part.numel() for part in moved)

    @property
    def weight(self) -> float:
        """The weight in force: fixed, chosen, or a half where nothing could choose."""
        if self.spec.weight is not None:
            return self.spec.weight
        return WEIGHTS[middle_of_best(self.right)[0]] if self.right.any() else UNCHOSEN

    def _scores(self, x: Tensor, weight: float) -> Tensor:
        text = self.setting.text
        keys = unit((1 - weight) * text + weight * self.head.all_keys())
        return cosine_scores(x, keys, self.setting.logit_scale)

    def seen_scores(self, x: Tensor) -> Tensor:
        return self.union_scores(x)[:, columns(self.seen, x)]

    def union_scores(self, x: Tensor) -> Tensor:
        return self._scores(x, self.weight)

    def state(self) -> State:
        return {**self.head.state(self.seen), "right": self.right}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        self.head.restore(self.seen, state)
        self.right = state["right"].clone()

    _moved = 0

    @property
    def trainable_parameters(self) -> int:
        return self._moved
