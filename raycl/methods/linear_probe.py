"""Linear probe: logistic regression on frozen vectors, by AdamW.

    logit_c = √d · (x · w_c) + b_c,   loss = CE

`all` retrains every row at each stage on all data so far, from zero: not a continual method but
the upper line of linear classifiers without text; it keeps every vector, counted as its state.
`task` trains the task's rows among its own classes and leaves the others alone, so that rows of
two tasks were never compared: what it loses is what replay or alignment is for.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from raycl.config.rivals import LinearProbe
from raycl.methods.context import Context
from raycl.methods.method import Setting, State
from raycl.methods.parts.gated import GatedMethod
from raycl.methods.parts.key_head import Kept
from raycl.methods.parts.linear_head import LinearHead
from raycl.methods.parts.mini_batches import Descent
from raycl.streams.stream import Task


class LinearProbeMethod(GatedMethod[LinearProbe]):
    """Keeps the rows and, with data=all, every training vector."""

    def __init__(self, spec: LinearProbe, setting: Setting) -> None:
        super().__init__(spec, setting)
        self.head = LinearHead(setting)
        self.x: tuple[Tensor, ...] = ()
        self.y: tuple[Tensor, ...] = ()

    def learn(self, task: Task, context: Context) -> None:
        spec = self.spec
        how = Descent(spec.lr, spec.epochs, spec.batch, spec.weight_decay)
        if spec.data == "task":
            samples = Kept(task.train.x, task.train.y)
            return self.head.train("probe", _present(task.classes, samples), samples, how, context)
        self.x, self.y = (*self.x, task.train.x), (*self.y, task.train.y)
        self.head = LinearHead(self.setting)
        samples = Kept(torch.cat(self.x), torch.cat(self.y))
        return self.head.train("probe", _present(self.seen, samples), samples, how, context)

    def seen_scores(self, x: Tensor) -> Tensor:
        return self.head.scores(x, self.seen)

    def state(self) -> State:
        out = self.head.state(self.seen)
        for task, (x, y) in enumerate(zip(self.x, self.y, strict=True)):
            out |= {f"x.{task}": x, f"y.{task}": y}
        return out

    def restore(self, state: Mapping[str, Tensor]) -> None:
        self.head.restore(self.seen, state)
        tasks = sum(name.startswith("x.") for name in state)
        self.x = tuple(state[f"x.{task}"].clone() for task in range(tasks))
        self.y = tuple(state[f"y.{task}"].clone() for task in range(tasks))

    @property
    def trainable_parameters(self) -> int:
        rows = int(self.head.trained.sum())
        return rows * (self.setting.width + 1)


def _present(classes: tuple[int, ...], samples: Kept) -> tuple[int, ...]:
    """Those with a sample; a row without one would only ever be pushed away."""
    found = set(samples.y.tolist())
    return tuple(c for c in classes if c in found)
