"""The probe: a test set that is evaluated after every task and never trained.

Guarantees: the method that learns never hears of it. A second one, of the same state, is
told of more classes: those of the stream, then those of the probe, which it scores by its
own rule for classes that it has not learnt. Two label spaces are ranked: the probe's
classes alone, and the union of both. Where a method's gate takes a sample for a learnt
class, so that none of the probe's has a score, their zero-shot ranking stands: it is what
the gate would choose by if the learnt classes were not in the label space.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from raycl.engine.contract import scores_of, vectors_of
from raycl.engine.evaluating import ranked
from raycl.errors import DataError
from raycl.methods.method import Method, Setting
from raycl.methods.parts.keys import FLOOR, unit
from raycl.metrics.predictions import ZERO_SHOT_STAGE, Ranking, StagePredictions, no_ranking
from raycl.streams.source import Source
from raycl.streams.stream import Decode, Samples, samples_of


@dataclass(frozen=True)
class Probe:
    """The probe's test set and what a method must be told to score it."""

    name: str
    setting: Setting
    """The stream's classes, then the probe's."""
    first: int
    """The id of the probe's first class among them."""
    test: Samples
    """Labelled by ids among the classes of `setting`."""

    @classmethod
    def of(cls, source: Source, setting: Setting, decode: Decode | None = None) -> Probe:
        """The probe beside a stream whose setting this is."""
        if source.width != setting.width:
            raise DataError(
                "the probe's vectors have another width than the stream's",
                got=f"{source.width} and {setting.width}",
                do="embed both with one backbone",
            )
        text = unit(torch.from_numpy(source.text.copy())).to(setting.text)
        has_text = torch.from_numpy(source.has_text.copy()).to(setting.has_text)
        wider = replace(
            setting,
            class_names=setting.class_names + source.class_names,
            text=torch.cat([setting.text, text]),
            has_text=torch.cat([setting.has_text, has_text]),
        )
        test = samples_of(source.test, np.arange(len(source.test)), decode)
        return cls(
            name=source.name,
            setting=wider,
            first=setting.classes,
            test=replace(test, y=test.y + setting.classes),
        )

    @property
    def has_text(self) -> bool:
        """Whether every class of the probe has a text vector."""
        return bool(self.setting.has_text[self.first :].all())

    def predict(self, method: Method[Any], stage: int) -> StagePredictions:
        """What a method built on `setting` predicts after a task."""

        def union(x: Tensor) -> Tensor:
            return scores_of(method, "union_scores", x, self.setting.classes)

        def own(x: Tensor) -> Tensor:
            scores = union(x)[:, self.first :]
            gated = (scores == FLOOR).all(dim=1, keepdim=True)
            return torch.where(gated, self._zero_shot(x).to(scores), scores)

        return self._stage(stage, vectors_of(method, self.test), own, union)

    def predict_zero_shot(self) -> StagePredictions:
        """What the text vectors alone predict, before any task."""
        whole = bool(self.setting.has_text.all())
        return self._stage(
            ZERO_SHOT_STAGE,
            self.test.x,
            self._zero_shot,
            self.setting.zero_shot if whole else None,
        )

    def _zero_shot(self, x: Tensor) -> Tensor:
        return self.setting.zero_shot(x)[:, self.first :]

    def _stage(
        self,
        stage: int,
        x: Tensor,
        own: Callable[[Tensor], Tensor],
        union: Callable[[Tensor], Tensor] | None,
    ) -> StagePredictions:
        """As predictions of a single task, whose `seen` are the probe's own classes."""
        classes = np.arange(self.setting.classes)
        device = self.setting.device
        among_all = no_ranking(len(x))
        if union is not None:
            among_all = ranked(x, classes, device, union)
        among_own: Ranking = ranked(x, classes[self.first :], device, own)
        return StagePredictions(
            stage,
            np.arange(len(x), dtype=np.int32),
            np.zeros(len(x), np.int32),
            self.test.y.numpy().astype(np.int32),
            *among_own,
            *among_all,
        )
