"""Adapters trained on a task beside the replay of seeds, and what its classes' gradients are then.

    loss = r · CE(a_image(x) · k, y) + (1 - r) · seed loss(memory),   r = 1/t within [0.3, 0.7]

The first task has nothing to replay: its loss is the first term. Batches of both kinds come from
random streams named by (task, epoch).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from raycl.config.autoseed import Adapt
from raycl.errors import MethodError
from raycl.generators.adamw import AdamW
from raycl.methods.context import Context
from raycl.methods.method import Setting
from raycl.methods.parts.seed_adapters import Adapters
from raycl.methods.parts.seed_pruning import CHUNK, Keys
from raycl.methods.parts.seeds import SeedLoss, Seeds

LEAST_REAL, MOST_REAL = 0.3, 0.7


@dataclass(frozen=True, eq=False)
class Adaptation:
    """What a task brings to the adapters. Classes are rows of the keys throughout."""

    x: Tensor
    y: Tensor
    seeds: Seeds | None
    mean_w: Tensor
    keys: Keys
    loss: SeedLoss

    def train(
        self, adapters: Adapters, options: Adapt, setting: Setting, context: Context
    ) -> Adapters:
        """Adapters that have gone on from these."""
        moved = adapters.ready()
        optimiser = AdamW(list(moved), options.lr)
        per_epoch = -(-len(self.x) // options.batch)
        stage = context.stage("adapt", options.epochs * per_epoch)
        real = min(MOST_REAL, max(LEAST_REAL, 1 / (context.task + 1)))
        loss, orders, at = torch.zeros(()), (torch.empty(0), torch.empty(0)), -1
        for step in stage.steps(optimiser.state, optimiser.restore):
            epoch, batch = divmod(step, per_epoch)
            if epoch != at:
                orders, at = self._orders(setting, context.task, epoch), epoch
            loss = self._loss(moved, orders, batch, options.batch, real)
            optimiser.step(loss)
        if not all(bool(torch.isfinite(part).all()) for part in moved):
            raise MethodError(
                f"training of the adapters diverged in task {context.task + 1}",
                got=f"loss {float(loss.detach())}",
                do=f"lower method.adapt.lr (now {options.lr:g})",
            )
        return moved.still()

    def _orders(self, setting: Setting, task: int, epoch: int) -> tuple[Tensor, Tensor]:
        seeds = 0 if self.seeds is None else len(self.seeds)
        first, second = (
            torch.randperm(rows, generator=setting.generator(what, task, epoch)).to(self.x.device)
            for what, rows in (("batches", len(self.x)), ("seed batches", seeds))
        )
        return first, second

    def _loss(
        self, adapters: Adapters, orders: tuple[Tensor, Tensor], batch: int, size: int, real: float
    ) -> Tensor:
        keys = self.keys(adapters, self.mean_w)
        rows = orders[0][batch * size : (batch + 1) * size]
        logits = self.loss.logit_scale * adapters.image(self.x[rows]) @ keys.T
        loss = cross_entropy(logits, self.y[rows])
        if self.seeds is None:
            return loss
        # Round and round through the seeds, of which an epoch has more or fewer than samples.
        count = min(size, len(self.seeds))
        places = torch.arange(batch * count, (batch + 1) * count, device=rows.device)
        replayed = self.seeds.take(orders[1][places % len(self.seeds)])
        return real * loss + (1 - real) * self.loss(adapters, replayed, keys)


@torch.no_grad()
def class_gradients(
    adapters: Adapters, keys: Tensor, x: Tensor, y: Tensor, logit_scale: float
) -> tuple[Tensor, Tensor]:
    """Mean gradients of each class's cross-entropy by its key, and by its adapted vectors.

    Each (classes, d), zero for a class without a sample.
    """
    by_key, by_vector = torch.zeros_like(keys), torch.zeros_like(keys)
    for rows in torch.split(torch.arange(len(x)), CHUNK):
        z, of = adapters.image(x[rows]), y[rows]
        excess = (logit_scale * z @ keys.T).softmax(dim=1) - one_hot(of, len(keys))
        own = excess.gather(1, of[:, None])
        by_key.index_add_(0, of, logit_scale * own * z)
        by_vector.index_add_(0, of, logit_scale * excess @ keys)
    count = torch.bincount(y, minlength=len(keys)).clamp(min=1)[:, None]
    return by_key / count, by_vector / count
