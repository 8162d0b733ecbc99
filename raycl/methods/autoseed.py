"""Auto-Seed: a few generated pairs of prototypes per class, and two adapters trained on them.

    seed s = (v, w)      a visual and a textual prototype; K of them in all, and no real vector
    key                  k_c = a_text(normalise((1 - η) t_c + η · mean of the w of c))
    score                logit_scale · a_image(x) · k_c, among the classes seen

    0. a share of the task's samples is held out, before anything is made of the others
    1. conditions     mean gradients of each class's cross-entropy by its key and its vectors
    2. update         the generator learns, and makes the classes' seeds  parts/seed_update.py
    3. pruning        seeds of a class that are alike are merged; beyond K the least useful
                      are dropped                                        parts/seed_pruning.py
    4. adaptation     r · CE(task) + (1 - r) · seed loss(memory)     parts/seed_adaptation.py

The description adapts first (`order=seeds_last`); then a task's classes have their text for a key
until their seeds move it, and the newest classes win over all others. A class without a sample
gets no seed and keeps its text. Unseen classes are scored through the gate.

The method is built from a description of unverified origin, not from a paper or code, and no
figure of that description is shown as published.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from raycl.config.autoseed import AutoSeed
from raycl.methods.context import Context
from raycl.methods.method import Figures, Setting, State
from raycl.methods.parts.gated import GatedMethod
from raycl.methods.parts.keys import columns, cosine_scores, positions, unit
from raycl.methods.parts.seed_adaptation import Adaptation, class_gradients
from raycl.methods.parts.seed_adapters import Adapters, untrained
from raycl.methods.parts.seed_diagnosis import seed_figures
from raycl.methods.parts.seed_generator import Conditions, SeedGenerator, described
from raycl.methods.parts.seed_memory import SeedMemory
from raycl.methods.parts.seed_pruning import Judge
from raycl.methods.parts.seed_update import Lesson, SeedUpdateLoop
from raycl.methods.parts.seeds import SeedLoss, Seeds, fused, means_of_text
from raycl.streams.stream import Task

ADAPTERS = "adapters."


class AutoSeedMethod(GatedMethod[AutoSeed]):
    """Keeps adapters, the generator and seeds."""

    needs_text = True

    def __init__(self, spec: AutoSeed, setting: Setting) -> None:
        super().__init__(spec, setting)
        self.adapters = untrained(setting, spec.rank)
        self.generator = SeedGenerator(setting, spec.hidden, spec.noise)
        self.memory = SeedMemory()
        self.loss = SeedLoss(setting.logit_scale, spec.temperature, spec.consistency)
        self._known_keys: Tensor | None = None
        self._figures: Figures = {}

    def learn(self, task: Task, context: Context) -> None:
        self._known_keys, self._figures = None, {}
        if not len(task.train):
            return
        x = unit(task.train.x.to(self.setting.device, torch.float32))
        y = self._position[task.train.y.to(self.setting.device)]
        judging = self._held_out(task).to(self.setting.device)
        mine = Adaptation(x[~judging], y[~judging], *self._seeds(), self.keys, self.loss)
        judge = Judge(x[judging], y[judging], self.keys, self.setting.logit_scale)
        if self.spec.order == "seeds_first":
            self._learn_seeds(mine, judge, context)
            self._adapt(replace(mine, mean_w=self._seeds()[1]), context)
        else:
            self._adapt(mine, context)
            self._learn_seeds(mine, judge, context)

    def _adapt(self, mine: Adaptation, context: Context) -> None:
        self.adapters = mine.train(self.adapters, self.spec.adapt, self.setting, context)

    def _held_out(self, task: Task) -> Tensor:
        """Which samples judge the seeds: of every class with two or more, at least one."""
        chosen = torch.zeros(len(task.train), dtype=torch.bool)
        for c in task.classes:
            rows = torch.nonzero(task.train.y.cpu() == c).flatten()
            if len(rows) > 1:
                share = max(1, round(self.spec.update.held_out * len(rows)))
                generator = self.setting.generator("seeds held out", c)
                order = torch.randperm(len(rows), generator=generator)
                chosen[rows[order[: min(share, len(rows) - 1)]]] = True
        return chosen

    def _learn_seeds(self, mine: Adaptation, judge: Judge, context: Context) -> None:
        """Train the generator on the task's classes, keep their seeds, prune."""
        rows = torch.unique(mine.y)
        known = self._conditions(mine, rows, context.task)
        lesson = Lesson(known, rows, mine, judge, self.adapters)
        loop = SeedUpdateLoop(self.spec, self.setting, self.generator, lesson, context.task)
        loop.run(context)
        classes = columns(self.seen, rows)[rows]
        group = self.memory.add(*loop.seeds(), classes, merge=self.spec.pruning)
        self._figures = self._compare(group, mine, judge)
        if self.spec.pruning:
            self.memory.drop(self.spec.memory, self._position, partial(self._uses, judge))

    def _compare(self, group: Seeds, mine: Adaptation, judge: Judge) -> Figures:
        """New seeds beside the vectors that they stand for."""
        x, y = torch.cat([mine.x, judge.x]), torch.cat([mine.y, judge.y])
        return seed_figures(group, x, columns(self.seen, y)[y], self.setting.text)

    def _uses(self, judge: Judge, seeds: Seeds) -> Tensor:
        return judge.uses(seeds, self.adapters, len(self.seen), self.spec.update.inner_lr)

    def _conditions(self, mine: Adaptation, rows: Tensor, task: int) -> Conditions:
        total = torch.zeros_like(mine.mean_w).index_add_(0, mine.y, mine.x)
        if self.spec.gradient_conditioning:
            keys = self.keys(self.adapters, mine.mean_w)
            scale = self.setting.logit_scale
            g, h = class_gradients(self.adapters, keys, mine.x, mine.y, scale)
        else:
            generator = self.setting.generator("seed conditions", task)
            g, h = torch.randn((2, *total.shape), generator=generator).to(total)
        text = self.setting.text[columns(self.seen, total)]
        return Conditions(unit(total[rows]), text[rows], described(g[rows], h[rows]))

    @property
    def _position(self) -> Tensor:
        """For each class id its row among the keys."""
        return positions(self.seen, self.setting.classes).to(self.setting.device)

    def _seeds(self) -> tuple[Seeds | None, Tensor]:
        """The seeds by rows of the keys, and each class's mean of w."""
        seeds = self.memory.seeds(self._position)
        if seeds is None:
            return None, torch.zeros(len(self.seen), self.setting.width).to(self.setting.device)
        return seeds, means_of_text(seeds, len(self.seen))

    def keys(self, adapters: Adapters, mean_w: Tensor) -> Tensor:
        """(classes seen, d) unit keys."""
        text = self.setting.text[columns(self.seen, mean_w)]
        return adapters.text(fused(text, mean_w, self.spec.fusion))

    def seen_scores(self, x: Tensor) -> Tensor:
        if self._known_keys is None:
            with torch.no_grad():
                self._known_keys = self.keys(self.adapters, self._seeds()[1])
        return cosine_scores(
            self.adapters.image(unit(x)), self._known_keys, self.setting.logit_scale
        )

    def state(self) -> State:
        adapters = {f"{ADAPTERS}{name}": t for name, t in self.adapters._asdict().items()}
        return {**adapters, **self.generator.state(), **self.memory.state()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        device = self.setting.device
        parts = (state[f"{ADAPTERS}{name}"].to(device).clone() for name in Adapters._fields)
        self.adapters = Adapters(*parts)
        self.generator.restore(state)
        self.memory.restore(state, device)
        self._known_keys = None

    @property
    def figures(self) -> Figures:
        return self._figures

    @property
    def trainable_parameters(self) -> int:
        """Of the adapters or of the generator, which never move together."""
        both = (list(self.adapters), list(self.generator.tensors.values()))
        return max(sum(part.numel() for part in parts) for parts in both)
