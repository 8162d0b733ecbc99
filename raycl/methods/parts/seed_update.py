"""Trains the generator on the classes of one task, by what its seeds are and by what they do.

    what they are   seed loss + a ‖v - μ‖² + b ‖w - t‖² + 0.1 · crowding
    what they do    `seed_consequences.py`

A step generates for at most `CLASSES` of the task; the keys of the others stand as last generated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from raycl.config.autoseed import AutoSeed
from raycl.errors import MethodError
from raycl.generators.adamw import AdamW
from raycl.methods.context import Context
from raycl.methods.method import Setting
from raycl.methods.parts.seed_adaptation import Adaptation
from raycl.methods.parts.seed_adapters import Adapters
from raycl.methods.parts.seed_consequences import Asked, Consequences
from raycl.methods.parts.seed_generator import Conditions, SeedGenerator
from raycl.methods.parts.seed_pruning import Judge
from raycl.methods.parts.seeds import DIVERSITY, Seeds, crowding

CLASSES = 64
SEEDS = 256
"""Most old seeds, and most held-out samples, in a step."""


@dataclass(frozen=True, eq=False)
class Lesson:
    """What a task offers the generator. Classes are rows of the keys throughout."""

    known: Conditions
    rows: Tensor
    """Of the keys: where the classes of `known` are."""
    mine: Adaptation
    """What the adapters learn from; its samples play no part here."""
    judge: Judge
    adapters: Adapters


class SeedUpdateLoop:
    """The training of one task; resumable."""

    def __init__(
        self, spec: AutoSeed, setting: Setting, generator: SeedGenerator, lesson: Lesson, task: int
    ) -> None:
        self.spec, self.setting, self.lesson = spec, setting, lesson
        self.generator, self.task = generator, task
        self.weights = generator.copies()
        self.optimiser = AdamW(self.weights, spec.update.lr)
        self.mean_w = lesson.mine.mean_w.index_copy(0, lesson.rows, self.seeds()[1].mean(dim=1))

    @torch.no_grad()
    def seeds(self) -> tuple[Tensor, Tensor]:
        """v and w of every class as the generator stands; the same whenever asked."""
        known = self.lesson.known
        parts = torch.split(torch.arange(len(known), device=self.setting.device), CLASSES)
        made = [self.generator(known.take(part), self.noise(part, -1)) for part in parts]
        v, w = zip(*made, strict=True)
        return torch.cat(v), torch.cat(w)

    def run(self, context: Context) -> None:
        stage = context.stage("update", self.spec.update.steps)
        loss = torch.zeros(())
        for step in stage.steps(self._snapshot, self._restore):
            loss = self.step(step)
            self.optimiser.step(loss)
        if not all(bool(torch.isfinite(w).all()) for w in self.weights):
            raise MethodError(
                f"training of the seed generator diverged in task {self.task + 1}",
                got=f"loss {float(loss.detach())}",
                do=f"lower method.update.lr (now {self.spec.update.lr:g})",
            )
        self.generator.take(self.weights)

    def noise(self, part: Tensor, step: int) -> Tensor:
        """For the seeds of so many classes; step -1 is for those that are kept."""
        generator = self.setting.generator("seed noise", self.task, step, int(part[0]))
        shape = (len(part), self.spec.per_class, self.spec.noise)
        return torch.randn(shape, generator=generator).to(self.setting.device)

    def step(self, step: int) -> Tensor:
        lesson, part = self.lesson, self._some(len(self.lesson.known), CLASSES, "classes", step)
        known = lesson.known.take(part)
        v, w = self.generator(known, self.noise(part, step), self.weights)
        mean_w = self.mean_w.index_copy(0, lesson.rows[part], w.mean(dim=1))
        y = lesson.rows[part].repeat_interleave(self.spec.per_class)
        seeds = Seeds(v.flatten(0, 1), w.flatten(0, 1), y)
        keys = lesson.mine.keys(lesson.adapters, mean_w)
        loss = lesson.mine.loss(lesson.adapters, seeds, keys)
        loss = loss + self.spec.anchor_image * _apart(v, known.mean)
        loss = loss + self.spec.anchor_text * _apart(w, known.text)
        loss = loss + DIVERSITY * crowding(v, w)
        if self.spec.meta_update:
            by_v, by_w = self._consequences(seeds, part, step)
            # Their derivatives by the generator are those of the consequences.
            loss = loss + (seeds.v * by_v).sum() + (seeds.w * by_w).sum()
        self.mean_w[lesson.rows[part]] = w.detach().mean(dim=1)
        return loss

    def _consequences(self, seeds: Seeds, part: Tensor, step: int) -> tuple[Tensor, Tensor]:
        lesson, old = self.lesson, self._old(step)
        some = self._some(len(lesson.judge.x), SEEDS, "held out", step)
        scale, share = self.setting.logit_scale, self.spec.update.old_scale
        asked = [Asked(lesson.judge.x[some], lesson.judge.y[some], scale)] if len(some) else []
        asked += [] if old is None else [Asked(old.v, old.y, share * scale)]

        def replay(v: Tensor, w: Tensor) -> tuple[Seeds, Tensor]:
            new = Seeds(v, w, seeds.y)
            mean = w.view(len(part), -1, w.shape[1]).mean(dim=1)
            mean_w = self.mean_w.index_copy(0, lesson.rows[part], mean)
            return (new if old is None else Seeds.joined([new, old])), mean_w

        mine, update = lesson.mine, self.spec.update
        behind = Consequences(
            lesson.adapters, mine.keys, mine.loss, update.inner_steps, update.inner_lr
        )
        return behind.slopes(seeds.v, seeds.w, replay, asked)

    def _old(self, step: int) -> Seeds | None:
        old = self.lesson.mine.seeds
        return None if old is None else old.take(self._some(len(old), SEEDS, "old seeds", step))

    def _some(self, total: int, most: int, what: str, step: int) -> Tensor:
        """At most so many of all, others in every step."""
        if total <= most:
            return torch.arange(total, device=self.setting.device)
        generator = self.setting.generator(what, self.task, step)
        return torch.randperm(total, generator=generator)[:most].to(self.setting.device)

    def _snapshot(self) -> dict[str, Tensor]:
        return {**self.optimiser.state(), "mean_w": self.mean_w.clone()}

    def _restore(self, state: Mapping[str, Tensor]) -> None:
        self.optimiser.restore(state)
        self.mean_w = state["mean_w"].to(self.mean_w).clone()


def _apart(seeds: Tensor, prototypes: Tensor) -> Tensor:
    """Mean square distance of the (classes, m, d) seeds from their class's prototype."""
    return (seeds - prototypes[:, None]).square().sum(dim=2).mean()
