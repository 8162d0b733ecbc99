"""Heads of trained keys, and the one loop that trains them.

    loss = CE(logit_scale · cos(x, k), y) over a label space,   k = the head's keys

What a key is made of is the head's affair: a residual on the text vector, or soft tokens
before the class name. What it is trained on is an `Epochs`: the same samples again and again,
or others in every epoch. Batches come from a random stream named by (task, epoch): a resumed
loop needs only its position, the parameters and the optimiser's moments. Nothing in the loop
waits for the device. Keys are computed once between two trainings, not once per chunk of an
evaluation.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from raycl.config.methods import Align
from raycl.errors import MethodError
from raycl.generators.adamw import AdamW
from raycl.methods.context import Context
from raycl.methods.method import Setting
from raycl.methods.parts.keys import columns, cosine_scores, positions, unit


class Epochs(Protocol):
    """Labelled vectors to train on: as many rows in every epoch."""

    @property
    def rows(self) -> int:
        """In an epoch."""
        ...

    def epoch(self, index: int) -> tuple[Tensor, Tensor]:
        """Vectors of any length, and class ids; the same for the same index, whenever asked."""
        ...


@dataclass(frozen=True, eq=False)
class Kept:
    """The same samples in every epoch."""

    x: Tensor
    y: Tensor

    @property
    def rows(self) -> int:
        return len(self.x)

    def epoch(self, index: int) -> tuple[Tensor, Tensor]:
        return self.x, self.y


@dataclass(frozen=True)
class Trainable:
    """A label space made ready for training."""

    parameters: list[Tensor]
    """Copies of what moves; they require gradients."""
    keys: Callable[[], Tensor]
    """(classes of the space, width) unit keys as the parameters stand now."""
    keep: Callable[[list[Tensor]], None]
    """Takes over what training made of the parameters."""
    penalty: Callable[[], Tensor] | None = None
    """Added to the loss."""
    beside: Tensor | None = None
    """(others, width) unit keys of no class of the space: they never move, and no sample is
    theirs."""


class KeyHead(ABC):
    """One unit key per class. `prepare` is what a kind of head adds."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self._moved = 0
        self._known_keys: Tensor | None = None

    @abstractmethod
    def prepare(self, space: tuple[int, ...]) -> Trainable:
        """What training the keys of these classes moves."""

    @abstractmethod
    def all_keys(self) -> Tensor:
        """(classes, width) unit keys; a class never trained has its zero-shot key."""

    @abstractmethod
    def state(self, seen: tuple[int, ...]) -> dict[str, Tensor]:
        """What is kept of these classes."""

    @abstractmethod
    def put_back(self, seen: tuple[int, ...], state: Mapping[str, Tensor]) -> None:
        """Take back what `state` gave for the same classes."""

    def restore(self, seen: tuple[int, ...], state: Mapping[str, Tensor]) -> None:
        """Become the head whose `state` this was."""
        self.put_back(seen, state)
        self._known_keys = None

    @property
    def trainable_parameters(self) -> int:
        """How many parameters the last training moved."""
        return self._moved

    @property
    def scores_unseen(self) -> bool:
        """A class that was never trained still has its text; unless it has none."""
        return bool(self.setting.has_text.all())

    def train(
        self, x: Tensor, y: Tensor, label_space: tuple[int, ...], align: Align, context: Context
    ) -> None:
        """Train the keys of `label_space` on these samples."""
        self.train_on(Kept(x, y), self.prepare(label_space), label_space, align, context)

    def train_on(
        self,
        epochs: Epochs,
        trainable: Trainable,
        label_space: tuple[int, ...],
        align: Align,
        context: Context,
    ) -> list[Tensor]:
        """Train what was prepared of `label_space`; the loss of each step that was made here."""
        self._moved = sum(p.numel() for p in trainable.parameters)
        if not epochs.rows:
            return []
        training = _Training(self.setting, trainable, epochs, label_space, align, context)
        losses = training.run()
        trainable.keep([p.detach() for p in trainable.parameters])
        self._known_keys = None
        return losses

    def seen_scores(self, x: Tensor, seen: tuple[int, ...]) -> Tensor:
        """(n, len(seen)) scores in the order of `seen`."""
        return self._scores(x, self._keys()[columns(seen, x)])

    def union_scores(self, x: Tensor) -> Tensor | None:
        """(n, classes) scores, or None where a class has neither training nor text."""
        return self._scores(x, self._keys()) if self.scores_unseen else None

    def _scores(self, x: Tensor, keys: Tensor) -> Tensor:
        return cosine_scores(x, keys, self.setting.logit_scale)

    def _keys(self) -> Tensor:
        if self._known_keys is None:
            with torch.no_grad():
                self._known_keys = self.all_keys()
        return self._known_keys


class _Training:
    def __init__(
        self,
        setting: Setting,
        trainable: Trainable,
        epochs: Epochs,
        label_space: tuple[int, ...],
        align: Align,
        context: Context,
    ) -> None:
        self.setting, self.align, self.context = setting, align, context
        self.trainable, self.epochs = trainable, epochs
        self.position = positions(label_space, setting.classes)
        self.optimiser = AdamW(trainable.parameters, align.lr, align.weight_decay)
        self.losses: list[Tensor] = []
        self.at = -1
        """The epoch whose samples are at hand."""

    def run(self) -> list[Tensor]:
        per_epoch = -(-self.epochs.rows // self.align.batch)
        stage = self.context.stage("align", self.align.epochs * per_epoch)
        for step in stage.steps(self.optimiser.state, self.optimiser.restore):
            epoch, batch = divmod(step, per_epoch)
            if epoch != self.at:
                self.begin(epoch)
            rows = self.order[batch * self.align.batch : (batch + 1) * self.align.batch]
            self.losses.append(self.step(rows))
        self.check()
        return self.losses

    def begin(self, epoch: int) -> None:
        x, y = self.epochs.epoch(epoch)
        self.x = unit(x.to(self.setting.device))
        self.target = self.position[y.cpu()].to(self.setting.device)
        generator = self.setting.generator("batches", self.context.task, epoch)
        self.order = torch.randperm(len(self.x), generator=generator).to(self.x.device)
        self.at = epoch

    def step(self, rows: Tensor) -> Tensor:
        keys = self.keys()
        if self.trainable.beside is not None:
            keys = torch.cat([keys, self.trainable.beside])
        logits = self.setting.logit_scale * self.x[rows] @ keys.T
        loss = cross_entropy(logits, self.target[rows])
        if self.trainable.penalty is not None:
            loss = loss + self.trainable.penalty()
        self.optimiser.step(loss)
        return loss.detach()

    def keys(self) -> Tensor:
        if self.align.precision == "fp32":
            return self.trainable.keys()
        with torch.autocast(self.setting.device.type, dtype=torch.bfloat16):
            return self.trainable.keys().float()

    def check(self) -> None:
        finite = all(bool(torch.isfinite(p).all()) for p in self.trainable.parameters)
        last = float(self.losses[-1]) if self.losses else 0.0
        if not math.isfinite(last) or not finite:
            raise MethodError(
                f"training diverged in task {self.context.task + 1}",
                got=f"loss {last}",
                do=f"lower method.align.lr (now {self.align.lr:g})",
            )
