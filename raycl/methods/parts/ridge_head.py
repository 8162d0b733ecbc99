"""A ridge regression beside the text: its λ, and how much it counts, fixed or chosen.

    score = (1 - w) · softmax(zero-shot over the seen classes) + w · regressed label

λ is chosen by the squared error of a regression on the task's own samples, w by right answers
among all classes seen; each on the held-out samples of the first tasks (`validation.scope`),
judged when they arrive. What is kept of it are sums of errors, counts and, until w is chosen, a
second regression that has not seen the held-out samples.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from typing import Literal, Protocol, TypeVar, cast

import torch
from torch import Tensor

from raycl.config.spec import Spec
from raycl.methods.context import Context
from raycl.methods.method import Setting, State, require_text
from raycl.methods.parts.choosing import in_scope, may_choose, middle_of_best, right_answers
from raycl.methods.parts.gated import GatedMethod
from raycl.methods.parts.keys import FLOOR, columns
from raycl.methods.parts.ridge import Predict, Regression, errors_of
from raycl.streams.stream import Task

RIDGES = tuple(b * 10.0**e for e in range(-5, 3) for b in (1.0, 3.0))
WEIGHTS = tuple(round(0.05 * i, 2) for i in range(1, 21))
UNCHOSEN_RIDGE, UNCHOSEN_WEIGHT = 0.02, 0.9
"""RAIL's, where there is no held-out sample to choose by."""
TRIAL = "trial."

S = TypeVar("S", bound=Spec)


class _Options(Protocol):
    fusion: Literal["text", "none"]
    weight: float | None


class RidgeMethod(GatedMethod[S]):
    """Keeps a regression, and what held-out samples say of λ and w."""

    def __init__(
        self, spec: S, setting: Setting, regression: Regression, ridge: float | None
    ) -> None:
        super().__init__(spec, setting)
        options = cast(_Options, spec)
        self.fuses, self._weight, self._ridge = options.fusion == "text", options.weight, ridge
        if self.fuses:
            require_text(self, setting)
        self._nothing = regression
        self.regression, self.trial = copy(regression), copy(regression)
        """Of all samples; and of `fit` alone, for as long as w is being chosen."""
        self.errors = torch.zeros(len(RIDGES), dtype=torch.float64)
        self.right = torch.zeros(len(WEIGHTS), dtype=torch.long)
        self._predict: Predict | None = None

    def learn(self, task: Task, context: Context) -> None:
        if self._ridge is None and may_choose(self.setting.validation, task):
            fit, held_out = (task.fit.x, task.fit.y), (task.held_out.x, task.held_out.y)
            self.errors += errors_of(self.regression, fit, held_out, task.classes, RIDGES)
        if self._weight is None and self.fuses:
            self._judge_weights(task)
        self.regression = self.regression.added(task.train.x, task.train.y, task.classes)
        self._predict = self.regression.solve(self.ridge)

    def _judge_weights(self, task: Task) -> None:
        if not in_scope(self.setting.validation, task):
            self.trial = copy(self._nothing)
            return
        self.trial = self.trial.added(task.fit.x, task.fit.y, task.classes)
        if may_choose(self.setting.validation, task):
            x = task.held_out.x.to(self.setting.device)
            head = self.trial.solve(self.ridge)(x)
            answers = (self._fused(x, head, weight) for weight in WEIGHTS)
            self.right += right_answers(answers, task.held_out.y, self.seen, self.setting.classes)

    @property
    def ridge(self) -> float:
        """The λ in force."""
        if self._ridge is not None:
            return self._ridge
        return RIDGES[int(self.errors.argmin())] if self.errors.any() else UNCHOSEN_RIDGE

    @property
    def weight(self) -> float:
        """The share of the regression in force."""
        if self._weight is not None:
            return self._weight
        return WEIGHTS[middle_of_best(self.right)[0]] if self.right.any() else UNCHOSEN_WEIGHT

    def seen_scores(self, x: Tensor) -> Tensor:
        assert self._predict is not None
        head = self._predict(x)
        if self.fuses:
            return self._fused(x, head, self.weight)
        return head.masked_fill(self.regression.empty, FLOOR)

    def _fused(self, x: Tensor, head: Tensor, weight: float) -> Tensor:
        zero_shot = self.setting.zero_shot(x)[:, columns(self.seen, x)]
        return (1 - weight) * zero_shot.softmax(dim=1) + weight * head

    def state(self) -> State:
        out = {**self.regression.state(), "errors": self.errors, "right": self.right}
        if self.trial.classes:
            out |= {f"{TRIAL}{name}": tensor for name, tensor in self.trial.state().items()}
        return out

    def restore(self, state: Mapping[str, Tensor]) -> None:
        trial = {n.removeprefix(TRIAL): t for n, t in state.items() if n.startswith(TRIAL)}
        self.regression, self.trial = copy(self._nothing), copy(self._nothing)
        self.regression.restore(state)
        if trial:
            self.trial.restore(trial)
        self.errors, self.right = state["errors"].clone(), state["right"].clone()
        self._predict = self.regression.solve(self.ridge)
