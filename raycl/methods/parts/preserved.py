"""Distribution-preserved training: new classes learn beside draws from the mixtures of old ones.

    row of an image        x_i / |x_i|,                 weight 1
    row of a prototype     normalise(μ_k + σ_k ε),      weight w · π_k,   ε ~ N(0, I) in each step

    code     L = Σ_rows weight · CE / number of rows
    paper    L = mean over classes of images' mean CE + w · mean over old classes of Σ_k π_k CE
    balanced the same two means, each times its part of all classes: every class counts alike

CE is over all classes that have been learnt, on what `Scoring` gives. Where there are more
prototypes than a step takes, it takes some at random and the sum over them counts for all.
Draws and batches are named by (task, epoch or step): a resumed loop needs its position, the
parameters and the moments of AdamW.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from raycl.config.lada import LADA
from raycl.errors import ConfigError, MethodError
from raycl.generators.adamw import AdamW
from raycl.methods.context import Context
from raycl.methods.method import Setting
from raycl.methods.parts.keys import unit
from raycl.methods.parts.one_cycle import one_cycle
from raycl.methods.parts.prototypes import Prototypes

Scores = Callable[[Tensor], Tensor]
"""(n, classes) of unit vectors."""


@dataclass(frozen=True, eq=False)
class Scoring:
    """Old classes come first, and their scores do not move; new ones carry gradients."""

    old: Scores
    new: Scores
    text_parameters: list[Tensor]
    memory_parameters: list[Tensor]

    @property
    def parameters(self) -> list[Tensor]:
        return self.text_parameters + self.memory_parameters


@dataclass(frozen=True, eq=False)
class Images:
    """The task's own."""

    x: Tensor
    """(n, width) unit vectors."""
    target: Tensor
    """(n) the place of its class among the new ones."""
    classes: int


@dataclass(frozen=True, eq=False)
class Replay:
    """The components of all old classes, one below the other."""

    mean: Tensor
    """(rows, width)"""
    deviation: Tensor
    """(rows, 1)"""
    weight: Tensor
    """(rows) adding up to one for each class."""
    target: Tensor
    """(rows) the place of its class among the old ones."""
    classes: int

    @classmethod
    def of(cls, old: list[Prototypes], spec: LADA, setting: Setting) -> Replay:
        """Of the prototypes in the order of tasks."""
        parts = [_rows(p, spec) for p in old]
        counts = [len(p.weight) for p in old]
        first = [sum(counts[:i]) for i in range(len(old))]
        target = [place + start for (_, _, _, place), start in zip(parts, first, strict=True)]
        none = setting.text.new_zeros(0, setting.width)
        return cls(
            torch.cat([none, *(mean for mean, _, _, _ in parts)]),
            torch.cat([none[:, :1], *(deviation for _, deviation, _, _ in parts)]),
            torch.cat([none[:, 0], *(weight for _, _, weight, _ in parts)]),
            torch.cat([none[:, 0].long(), *target]),
            sum(counts),
        )

    def __len__(self) -> int:
        return len(self.mean)

    @property
    def moves(self) -> bool:
        """Whether two draws differ."""
        return bool((self.deviation > 0).any())


def _rows(p: Prototypes, spec: LADA) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    place, component = torch.nonzero(p.weight > 0, as_tuple=True)
    weight, deviation = p.weight[place, component], p.variance[place, component].sqrt()
    if not spec.dpt:
        each = (p.weight > 0).sum(dim=1)
        weight, deviation = 1 / each[place].float(), torch.zeros_like(deviation)
    return p.mean[place, component], spec.spread * deviation[:, None], weight, place


class PreservedTraining:
    """One task's training."""

    def __init__(
        self,
        spec: LADA,
        setting: Setting,
        scoring: Scoring,
        replay: Replay,
        images: Images,
        context: Context,
    ) -> None:
        self.spec, self.setting, self.scoring, self.context = spec, setting, scoring, context
        self.replay, self.x = replay, images.x
        self.target = images.target + replay.classes  # old classes come first
        self.classes = replay.classes + images.classes
        self.epochs = epochs_of(spec, context.task)
        self.optimiser = AdamW(scoring.parameters, spec.lr, spec.weight_decay)
        code = spec.loss == "code"
        published = float(spec.batch) if code else 1.0
        self.weight = published if spec.prototype_weight is None else spec.prototype_weight
        self.replayed = len(replay) > 0 and self.weight > 0
        self.draws = replay.moves
        self.known: tuple[Tensor, Tensor] | None = None
        """All prototypes and their old scores, where they are the same in every step."""
        self.at = -1
        self.order = torch.empty(0)
        self.loss = torch.zeros(())

    def run(self) -> None:
        """Train; the parameters of the scoring hold the result."""
        per_epoch = -(-len(self.x) // self.spec.batch)
        steps = self.epochs * per_epoch
        stage = self.context.stage("train", steps)
        for step in stage.steps(self.optimiser.state, self.optimiser.restore):
            epoch, batch = divmod(step, per_epoch)
            if epoch != self.at:
                self._begin(epoch)
            rows = self.order[batch * self.spec.batch : (batch + 1) * self.spec.batch]
            self._step(step, one_cycle(step, steps), rows)
        self._check()

    def _begin(self, epoch: int) -> None:
        generator = self.setting.generator("batches", self.context.task, epoch)
        self.order = torch.randperm(len(self.x), generator=generator).to(self.x.device)
        self.at = epoch

    def _step(self, step: int, rate: float, rows: Tensor) -> None:
        images, target = self.x[rows], self.target[rows]
        weight = self._image_weights(target)
        if self.replayed:
            prototypes, known, chosen = self._prototypes(step)
            x = torch.cat([images, prototypes])
            old = self._old_scores(images, x, known)
            target = torch.cat([target, self.replay.target[chosen]])
            weight = torch.cat(
                [weight, self._prototype_weights(chosen, len(prototypes), len(rows))]
            )
        else:
            x, old = images, self.scoring.old(images)
        scores = torch.cat([old, self.scoring.new(x)], dim=1)
        loss = (weight * cross_entropy(scores, target, reduction="none")).sum()
        self._move(self.optimiser.gradients(loss), rate)
        self.loss = loss.detach()

    def _old_scores(self, images: Tensor, x: Tensor, known: Tensor | None) -> Tensor:
        """Of all rows, where those of the prototypes may be known."""
        if known is None:
            return self.scoring.old(x)
        return torch.cat([self.scoring.old(images), known])

    def _move(self, gradients: list[Tensor], rate: float) -> None:
        self.optimiser.begin_step()
        texts = len(self.scoring.text_parameters)
        text_lr = self.spec.text_lr or self.spec.lr
        for part, lr in ((slice(0, texts), text_lr), (slice(texts, None), self.spec.lr)):
            if gradients[part]:
                self.optimiser.lr = rate * lr
                self.optimiser.move_part(part, gradients[part])

    def _image_weights(self, target: Tensor) -> Tensor:
        """Of images in the loss."""
        if self.spec.loss == "code":
            return torch.full(target.shape, 1 / self._rows_of_a_step(len(target))).to(self.x)
        # Not bincount, which waits for the device.
        of_class = self.x.new_zeros(self.classes).index_add_(
            0, target, self.x.new_ones(len(target))
        )
        weight = 1 / (of_class[target] * (of_class > 0).sum())
        return weight * self._share(self.classes - self.replay.classes)

    def _prototype_weights(self, chosen: Tensor | slice, rows: int, images: int) -> Tensor:
        """Of so many chosen prototypes in the loss."""
        weight = self.replay.weight[chosen] * (self.weight * len(self.replay) / rows)
        if self.spec.loss == "code":
            return weight / self._rows_of_a_step(images)
        return weight * (self._share(self.replay.classes) / self.replay.classes)

    def _share(self, classes: int) -> float:
        return classes / self.classes if self.spec.loss == "balanced" else 1.0

    def _rows_of_a_step(self, images: int) -> int:
        return images + (len(self.replay) if self.replayed else 0)

    def _prototypes(self, step: int) -> tuple[Tensor, Tensor | None, Tensor | slice]:
        """Unit vectors, their scores by the old classes if known, and which they are."""
        if self.known is not None:
            return (*self.known, slice(None))
        generator = self.setting.generator("prototypes", self.context.task, step)
        chosen: Tensor | slice = slice(None)
        if len(self.replay) > self.spec.prototype_batch:
            order = torch.randperm(len(self.replay), generator=generator)
            chosen = order[: self.spec.prototype_batch].to(self.x.device)
        x = self.replay.mean[chosen]
        if self.draws:
            noise = torch.empty(x.shape).normal_(generator=generator).to(x.device)
            x = torch.addcmul(x, noise, self.replay.deviation[chosen])
        elif isinstance(chosen, slice):
            x = unit(x)
            self.known = x, self.scoring.old(x)
            return (*self.known, chosen)
        return unit(x), None, chosen

    def _check(self) -> None:
        finite = all(bool(torch.isfinite(p).all()) for p in self.scoring.parameters)
        if not finite or not math.isfinite(float(self.loss)):
            raise MethodError(
                f"training diverged in task {self.context.task + 1}",
                got=f"loss {float(self.loss)}",
                do=f"lower method.lr (now {self.spec.lr:g})",
            )


def epochs_of(spec: LADA, task: int) -> int:
    """How often the images of a task are seen."""
    if isinstance(spec.epochs, int):
        return spec.epochs
    if task >= len(spec.epochs):
        raise ConfigError(
            "method.epochs names fewer numbers than there are tasks",
            got=f"{len(spec.epochs)} numbers, and this is task {task + 1}",
            do="name one for each task, or one for all",
        )
    return spec.epochs[task]
