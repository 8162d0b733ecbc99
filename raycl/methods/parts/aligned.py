"""Replay of what is drawn from every class seen, and keys aligned on it: CGIL's task end.

    1. a generator is fitted to each new class, or real vectors are kept in its place
    2. in every epoch `per_class` vectors are drawn of each class seen
    3. prompts: CE over the seen classes on exp(logit scale) · cosine, AdamW, fresh per task

No vector of an earlier task is at hand. A class without a sample has no generator and keeps
its zero-shot key. An unseen class is scored by its zero-shot key beside the trained ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor

from raycl.config.generators import GeneratorSpec
from raycl.config.methods import AlignedReplay
from raycl.errors import ConfigError
from raycl.methods.context import Context
from raycl.methods.method import Method, Setting, State
from raycl.methods.parts.class_generators import ClassGenerators
from raycl.methods.parts.keys import cosine_scores, unit
from raycl.methods.parts.mapped_heads import build_mapped_head
from raycl.methods.parts.raw_lengths import UNIT, vectors_to_model
from raycl.streams.stream import Task

S = TypeVar("S", bound=AlignedReplay)

PUBLISHED_TEMPLATE = "a photo of a {}."


class AlignedMethod(Method[S]):
    """Keeps the generators, each class's own part of its prompt, and the map."""

    def __init__(self, spec: S, setting: Setting, generator: GeneratorSpec) -> None:
        super().__init__(spec, setting)
        self.head = build_mapped_head(spec.prompt, setting)
        self.generators = ClassGenerators(generator, setting)
        self.raw_text = _raw_text(setting) if spec.parity else None

    @property
    def scores_unseen(self) -> bool:
        return self.head.scores_unseen

    def learn(self, task: Task, context: Context) -> None:
        x = vectors_to_model(task, self.spec.input, context)
        self.generators.learn(x, task.train.y, task.classes, context)
        space = self.generators.classes
        moving = space
        if self.spec.train == "current":
            moving = tuple(c for c in task.classes if c in set(space))
        if not moving:  # a task without a sample
            return
        trainable = replace(self.head.prepare(space, moving), beside=self._beside(space))
        align = self.spec.align.at_rate(self.head.rate)
        replay = self.generators.replay(self.spec.per_class, context)
        with closing(replay.whole_epochs(align.epochs, self.setting.device)) as epochs:
            self.head.train_on(epochs, trainable, space, align, context)

    def _beside(self, space: tuple[int, ...]) -> Tensor | None:
        """Zero-shot keys of the classes without trained ones, if samples are to keep off them."""
        if self.spec.negatives == "seen":
            return None
        others = self.setting.has_text.clone()
        others[list(space)] = False
        return self.setting.text[others]

    def seen_scores(self, x: Tensor) -> Tensor:
        return self.head.seen_scores(x, self.seen)

    def union_scores(self, x: Tensor) -> Tensor | None:
        scores = self.head.union_scores(x)
        if scores is None or self.raw_text is None:
            return scores
        raw = cosine_scores(x, self.raw_text, self.setting.logit_scale)
        trained = self.head.trained.to(scores.device)
        return torch.where(trained, scores, raw)

    def state(self) -> State:
        return {**self.head.state(self.seen), **self.generators.state()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        self.head.restore(self.seen, state)
        self.generators.restore(state)

    @property
    def trainable_parameters(self) -> int:
        """Of the prompts; a generator's network lives only while its class is fitted."""
        return self.head.trainable_parameters


def _raw_text(setting: Setting) -> Tensor:
    """Text vectors at the length that the tower gave them."""
    if setting.encoder is None:
        raise ConfigError(
            "parity needs text vectors at their raw length, and this stream gives vectors only",
            got="method.parity=true",
            do="leave it false, or use a stream of images",
        )
    names = [PUBLISHED_TEMPLATE.format(name) for name in setting.class_names]
    raw = setting.encoder.encode_texts(names).to(setting.device)
    if float((unit(raw) * setting.text).sum(dim=1).min()) < 1 - UNIT:
        raise ConfigError(
            "parity is of the published template, and these text vectors are of another",
            do=f"leave backbone.template at {PUBLISHED_TEMPLATE!r}",
        )
    return raw
