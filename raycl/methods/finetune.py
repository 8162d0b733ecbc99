"""Fine-tuning without replay: trained keys, CE on the current task.

    k_c = normalise(text_c + r_c), or an encoded prompt with soft tokens before the name
    loss = CE over `seen` or `local` label space

`seen` normalises over all classes met so far: without replay the absent ones are only ever
pushed away, and the method collapses onto the newest task. `local` normalises over the
current task's classes and leaves the others' keys alone (but for a shared context): the
honest rival. Where a class has no text vector, r_c alone is its key, small and random.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from raycl.config.methods import Finetune
from raycl.methods.context import Context
from raycl.methods.method import Method, Setting, State
from raycl.methods.parts.heads import build_head
from raycl.streams.stream import Task


class FinetuneMethod(Method[Finetune]):
    """Keeps the trained part of each class's key."""

    def __init__(self, spec: Finetune, setting: Setting) -> None:
        super().__init__(spec, setting)
        self.head = build_head(spec.prompt, setting)

    @property
    def scores_unseen(self) -> bool:
        return self.head.scores_unseen

    def learn(self, task: Task, context: Context) -> None:
        space = self.seen if self.spec.loss == "seen" else task.classes
        self.head.train(task.train.x, task.train.y, space, self.spec.align, context)

    def seen_scores(self, x: Tensor) -> Tensor:
        return self.head.seen_scores(x, self.seen)

    def union_scores(self, x: Tensor) -> Tensor | None:
        return self.head.union_scores(x)

    def state(self) -> State:
        return self.head.state(self.seen)

    def restore(self, state: Mapping[str, Tensor]) -> None:
        self.head.restore(self.seen, state)

    @property
    def trainable_parameters(self) -> int:
        return self.head.trainable_parameters
