"""Routers: which task an input is of, from its frozen vector.

    trained   x/|x| → LayerNorm → Linear d→h → GELU → dropout → Linear h→T, from scratch at each
              task, CE over tasks, every class alike
    naive     the same network, trained on by the newest task's own vectors
    ncm       the task of the nearest mean of a class

A task that nothing is known of gets no input. `log_shares` is log p(task | x).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Protocol, assert_never

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, gelu, layer_norm, linear

from raycl.config.clts import EnergyRouter, NaiveRouter, NCMRouter, RouterSpec, TrainedRouter
from raycl.generators.adamw import AdamW
from raycl.methods.context import Context
from raycl.methods.method import Setting
from raycl.methods.parts.descent import descend
from raycl.methods.parts.keys import FLOOR, cosine_scores, unit
from raycl.methods.parts.statistics import ClassMeans


class Router(Protocol):
    """Tells tasks apart."""

    def learn(self, x: Tensor, y: Tensor, task_of: Tensor, context: Context) -> None:
        """From these vectors and class ids; `task_of` gives the task of a class id, or -1."""

    def log_shares(self, x: Tensor) -> Tensor:
        """(n, tasks) log p(task | x), of the tasks known so far."""

    def state(self) -> dict[str, Tensor]: ...
    def restore(self, state: Mapping[str, Tensor]) -> None: ...

    @property
    def parameters(self) -> int:
        """How many its last training moved."""


class Network:
    """`trained` and `naive`: the same layers, another life."""

    def __init__(self, spec: TrainedRouter | NaiveRouter, setting: Setting) -> None:
        self.spec, self.setting = spec, setting
        self.layers: list[Tensor] = []
        self.known = torch.zeros(0, dtype=torch.bool)
        """Which tasks it has seen something of."""

    @property
    def parameters(self) -> int:
        return sum(layer.numel() for layer in self.layers)

    def learn(self, x: Tensor, y: Tensor, task_of: Tensor, context: Context) -> None:
        tasks = int(task_of.max()) + 1
        known = torch.bincount(task_of[y], minlength=tasks) > 0
        goes_on = isinstance(self.spec, NaiveRouter) and self.layers
        self.layers = self._grown(tasks) if goes_on else self._begun(tasks, context.task)
        if goes_on:
            known[: len(self.known)] |= self.known
        self.known = known
        if not len(x):
            return
        device = self.setting.device
        moved = [layer.requires_grad_() for layer in self.layers]
        rows, order = Balanced(y, self.setting, context.task), task_of.to(device)
        x, y = unit(x.to(device)), y.to(device)
        per_epoch = -(-rows.count // self.spec.batch)
        steps = max(self.spec.epochs, -(-self.spec.least_steps // per_epoch)) * per_epoch
        absent = ~self.known.to(device)

        def loss(step: int) -> Tensor:
            epoch, batch = divmod(step, per_epoch)
            chosen = rows.epoch(epoch)[batch * self.spec.batch : (batch + 1) * self.spec.batch]
            chosen = chosen.to(device)
            noise = self._noise(len(chosen), context.task, step)
            logits = self._logits(x[chosen], moved, noise).masked_fill(absent, FLOOR)
            return cross_entropy(logits, order[y[chosen]])

        group = AdamW(moved, self.spec.lr, self.spec.weight_decay)
        descend([group], loss, steps, context, "router", options="method.router.lr")
        self.layers = [layer.detach() for layer in moved]

    def _begun(self, tasks: int, task: int) -> list[Tensor]:
        """As torch begins linear layers: uniform, by the number of inputs."""
        width, hidden = self.setting.width, self.spec.hidden
        random = self.setting.generator("router", task)

        def drawn(*shape: int, inputs: int) -> Tensor:
            bound = 1 / math.sqrt(inputs)
            return torch.empty(shape).uniform_(-bound, bound, generator=random)

        layers = [
            torch.ones(width),
            torch.zeros(width),
            drawn(hidden, width, inputs=width),
            drawn(hidden, inputs=width),
            drawn(tasks, hidden, inputs=hidden),
            drawn(tasks, inputs=hidden),
        ]
        return [layer.to(self.setting.device) for layer in layers]

    def _grown(self, tasks: int) -> list[Tensor]:
        """The layers with an output for each new task."""
        fresh = self._begun(tasks, len(self.known))
        old = len(self.layers[5])
        weight, bias = fresh[4].clone(), fresh[5].clone()
        weight[:old], bias[:old] = self.layers[4], self.layers[5]
        return [*(layer.clone() for layer in self.layers[:4]), weight, bias]

    def _noise(self, rows: int, task: int, step: int) -> Tensor | None:
        """What dropout leaves of the hidden units, for one step; drawn by its name, so that a
        resumed training draws the same."""
        if not self.spec.dropout:
            return None
        random = self.setting.generator("router dropout", task, step)
        kept = torch.rand(rows, self.spec.hidden, generator=random) >= self.spec.dropout
        return (kept.float() / (1 - self.spec.dropout)).to(self.setting.device)

    def _logits(self, x: Tensor, layers: list[Tensor], noise: Tensor | None = None) -> Tensor:
        scale, shift, weight, bias, out, out_bias = layers
        hidden = gelu(linear(layer_norm(x, x.shape[1:], scale, shift), weight, bias))
        return linear(hidden if noise is None else hidden * noise, out, out_bias)

    def log_shares(self, x: Tensor) -> Tensor:
        if not self.known.any():
            return torch.full((len(x), len(self.known)), FLOOR, device=x.device)
        logits = self._logits(unit(x.to(self.layers[0])), self.layers)
        return logits.masked_fill(~self.known.to(x.device), FLOOR).log_softmax(dim=1)

    def state(self) -> dict[str, Tensor]:
        layers = {f"router.{i}": layer for i, layer in enumerate(self.layers)}
        return {"router.known": self.known, **layers}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        self.known = state["router.known"].clone()
        count = sum(name.startswith("router.") for name in state) - 1
        self.layers = [state[f"router.{i}"].to(self.setting.device) for i in range(count)]


class NearestMean:
    """`ncm`: means of what is remembered of each class."""

    parameters = 0

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.means = ClassMeans(setting.classes, setting.width, setting.device)
        self.task_of = torch.full((setting.classes,), -1)

    def learn(self, x: Tensor, y: Tensor, task_of: Tensor, context: Context) -> None:
        self.task_of = task_of.clone()
        self.means.learn(x, y.to(x.device), tuple(torch.nonzero(task_of >= 0).flatten().tolist()))

    def log_shares(self, x: Tensor) -> Tensor:
        tasks = int(self.task_of.max()) + 1
        known = torch.nonzero((self.task_of >= 0).to(x.device) & (self.means.count > 0)).flatten()
        out = torch.full((len(x), max(tasks, 0)), FLOOR, device=x.device)
        if not len(known):
            return out
        scores = cosine_scores(x, self.means.keys(known), self.setting.logit_scale)
        own = self.task_of.to(x.device)[known]
        for task in sorted(set(own.tolist())):
            out[:, task] = scores[:, own == task].logsumexp(dim=1)
        return out.log_softmax(dim=1)

    def state(self) -> dict[str, Tensor]:
        known = torch.nonzero(self.task_of >= 0).flatten()
        own = self.means.state(known.to(self.means.mean.device))
        parts = {"classes": known, "tasks": self.task_of[known], **own}
        return {f"router.{name}": tensor for name, tensor in parts.items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        known = state["router.classes"]
        self.task_of = torch.full((self.setting.classes,), -1)
        self.task_of[known] = state["router.tasks"]
        own = {name: state[f"router.{name}"] for name in ("mean", "count")}
        self.means.restore(known.to(self.means.mean.device), own)


class Balanced:
    """Rows of an epoch: as many of every class, which the largest has all of its own."""

    def __init__(self, y: Tensor, setting: Setting, task: int) -> None:
        self.setting, self.task = setting, task
        self.rows = [torch.nonzero(y == c).flatten() for c in torch.bincount(y).nonzero()[:, 0]]
        self.each = max((len(rows) for rows in self.rows), default=0)
        self.count = self.each * len(self.rows)
        self._epoch, self._drawn = -1, torch.empty(0, dtype=torch.long)

    def epoch(self, index: int) -> Tensor:
        """Shuffled; a smaller class goes round, in an order of its own each time."""
        if index != self._epoch:
            random = self.setting.generator("router rows", self.task, index)
            drawn = [
                torch.cat([own[torch.randperm(len(own), generator=random)] for _ in range(rounds)])[
                    : self.each
                ]
                for own in self.rows
                for rounds in (-(-self.each // len(own)),)
            ]
            every = torch.cat(drawn)
            self._drawn = every[torch.randperm(len(every), generator=random)]
            self._epoch = index
        return self._drawn


def build_router(spec: RouterSpec, setting: Setting) -> Router | None:
    """A router before its first training; None where the heads' own energy routes."""
    match spec:
        case TrainedRouter() | NaiveRouter():
            return Network(spec, setting)
        case NCMRouter():
            return NearestMean(setting)
        case EnergyRouter():
            return None
        case _:
            assert_never(spec)
