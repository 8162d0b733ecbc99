"""SLCA (Zhang et al. 2023), its classifier alignment: Gaussian replay to a linear classifier.

    task        rows of the new classes, CE among them, on the task's samples
    generators  a Gaussian with full covariance per class, kept
    alignment   all rows, from where their tasks left them, by CE on 256 draws of each class:
                CE(logits / (τ · mean over tasks of the norm of a task's logits))

Every stage aligns anew from the rows as their own tasks trained them. Deviations: vectors are
frozen, so there is no slow learner and no drift to make up for, and old means are not scaled
down; AdamW at a constant rate, cosine while aligning, rather than SGD; covariances are shrunk by
Ledoit and Wolf's share rather than by 1e-4 I, which matters where samples are few.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from raycl.config.rivals import SLCA
from raycl.methods.context import Context
from raycl.methods.method import Setting, State
from raycl.methods.parts.class_generators import ClassGenerators
from raycl.methods.parts.gated import GatedMethod
from raycl.methods.parts.key_head import Kept
from raycl.methods.parts.linear_head import LinearHead
from raycl.methods.parts.mini_batches import Descent
from raycl.streams.stream import Task

TINY = 1e-7


class SLCAMethod(GatedMethod[SLCA]):
    """Keeps generators, the rows as their tasks left them, and the aligned ones."""

    def __init__(self, spec: SLCA, setting: Setting) -> None:
        super().__init__(spec, setting)
        self.generators = ClassGenerators(spec.generator, setting)
        self.own, self.aligned = LinearHead(setting), LinearHead(setting)
        self.tasks: tuple[tuple[int, ...], ...] = ()
        """The classes with a sample of each task."""

    def learn(self, task: Task, context: Context) -> None:
        x, y, spec = task.train.x, task.train.y, self.spec
        self.generators.learn(x, y, task.classes, context)
        before = tuple(c for classes in self.tasks for c in classes)
        new = tuple(c for c in self.generators.classes if c not in set(before))
        self.tasks += (new,)
        if new:
            how = Descent(spec.lr, spec.epochs, spec.batch, spec.weight_decay)
            self.own.train("classifier", new, Kept(x, y), how, context)
        self.aligned = LinearHead(self.setting)
        self.aligned.restore(self.seen, self.own.state(self.seen))
        if before:
            self._align((*before, *new), context)

    def _align(self, space: tuple[int, ...], context: Context) -> None:
        spec = self.spec
        how = Descent(spec.lr, spec.align_epochs, spec.batch, spec.weight_decay, cosine=True)
        task_of = torch.tensor([t for t, classes in enumerate(self.tasks) for _ in classes])
        task_of = task_of.to(self.setting.device)

        def loss(logits: Tensor, target: Tensor) -> Tensor:
            return cross_entropy(self._of_equal_norm(logits, task_of), target)

        replay = self.generators.replay(spec.per_class, context)
        with closing(replay.whole_epochs(spec.align_epochs, self.setting.device)) as epochs:
            self.aligned.train("alignment", space, epochs, how, context, loss)

    def _of_equal_norm(self, logits: Tensor, task_of: Tensor) -> Tensor:
        """Logits over the mean norm that they have within a task, and the temperature."""
        if self.spec.logit_norm is None:
            return logits
        squares = logits.new_zeros(len(logits), len(self.tasks))
        norms = (squares.index_add(1, task_of, logits.square()) + TINY).sqrt()
        filled = torch.bincount(task_of, minlength=len(self.tasks)) > 0
        mean = norms[:, filled].mean(dim=1, keepdim=True)
        return logits / mean / self.spec.logit_norm

    def seen_scores(self, x: Tensor) -> Tensor:
        return self.aligned.scores(x, self.seen)

    def state(self) -> State:
        out = self.generators.state()
        for t, classes in enumerate(self.tasks):
            own = {"classes": torch.tensor(classes, dtype=torch.long), **self.own.state(classes)}
            out |= {f"own.{t}.{name}": tensor for name, tensor in own.items()}
        aligned = self.aligned.state(self.seen)
        return out | {f"aligned.{name}": tensor for name, tensor in aligned.items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        self.generators.restore(state)
        self.tasks = ()
        while (at := f"own.{len(self.tasks)}.") + "classes" in state:
            classes = tuple(state[f"{at}classes"].tolist())
            self.own.restore(classes, _below(at, state))
            self.tasks += (classes,)
        self.aligned.restore(self.seen, _below("aligned.", state))

    @property
    def trainable_parameters(self) -> int:
        return int(self.aligned.trained.sum()) * (self.setting.width + 1)


def _below(start: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {n.removeprefix(start): t for n, t in state.items() if n.startswith(start)}
