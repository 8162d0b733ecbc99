"""Joint training: at each stage the keys are retrained on all data so far.

    k_c = normalise(text_c + r_c), or an encoded prompt with soft tokens before the name
    loss = CE over all classes seen, on all their samples

Not a continual method: it keeps every training vector, counted as its state. It is the
upper line of its kind of keys; a continual method of that kind above it by more than chance
has a leak.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from raycl.config.methods import Joint
from raycl.methods.context import Context
from raycl.methods.method import Method, Setting, State
from raycl.methods.parts.heads import build_head
from raycl.streams.stream import Task


class JointMethod(Method[Joint]):
    """Keeps the trained part of each class's key and every training vector."""

    def __init__(self, spec: Joint, setting: Setting) -> None:
        super().__init__(spec, setting)
        self.head = build_head(spec.prompt, setting)
        self.x = torch.empty(0, setting.width)
        self.y = torch.empty(0, dtype=torch.long)

    @property
    def scores_unseen(self) -> bool:
        return self.head.scores_unseen

    def learn(self, task: Task, context: Context) -> None:
        self.x = torch.cat([self.x, task.train.x])
        self.y = torch.cat([self.y, task.train.y])
        self.head = build_head(self.spec.prompt, self.setting)
        self.head.train(self.x, self.y, self.seen, self.spec.align, context)

    def seen_scores(self, x: Tensor) -> Tensor:
        return self.head.seen_scores(x, self.seen)

    def union_scores(self, x: Tensor) -> Tensor | None:
        return self.head.union_scores(x)

    def state(self) -> State:
        return {**self.head.state(self.seen), "x": self.x, "y": self.y}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        self.head.restore(self.seen, state)
        self.x, self.y = state["x"].clone(), state["y"].clone()

    @property
    def trainable_parameters(self) -> int:
        return self.head.trainable_parameters
