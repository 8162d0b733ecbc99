"""Keys as text plus a trained residual, and the loop that trains them.

    k_c = normalise(e_c + r_c),   loss = CE(logit_scale · cos(x, k), y) over a label space

r starts at zero where the class has text; a class without any gets a small random r, so
that its key has a direction. Batches come from a random stream named by (task, epoch):
a resumed loop needs only its position, the parameters and the optimiser's moments.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from raycl.config.methods import Align
from raycl.errors import MethodError
from raycl.methods.context import Context
from raycl.methods.method import Setting
from raycl.methods.parts.adamw import AdamW
from raycl.methods.parts.keys import columns, cosine_scores, positions, unit

INIT_STD = 0.02


class ResidualHead:
    """The residual of every class, and the scores of the keys that it makes."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        noise = torch.empty(setting.classes, setting.width)
        noise.normal_(std=INIT_STD, generator=setting.generator("residual"))
        self.residual = noise.masked_fill(setting.has_text.cpu()[:, None], 0.0).to(setting.device)

    @property
    def scores_unseen(self) -> bool:
        """A class that was never trained still has its text; unless it has none."""
        return bool(self.setting.has_text.all())

    def train(
        self, x: Tensor, y: Tensor, label_space: tuple[int, ...], align: Align, context: Context
    ) -> None:
        """Train the keys of `label_space` on these samples."""
        if len(y):
            trainer = _Trainer(self, x, y, label_space, align, context)
            self.residual = trainer.run()

    def seen_scores(self, x: Tensor, seen: tuple[int, ...]) -> Tensor:
        return self._scores(x, columns(seen, x))

    def union_scores(self, x: Tensor) -> Tensor | None:
        return self._scores(x, slice(None)) if self.scores_unseen else None

    def _scores(self, x: Tensor, classes: Tensor | slice) -> Tensor:
        keys = unit(self.setting.text[classes] + self.residual[classes])
        return cosine_scores(x, keys, self.setting.logit_scale)

    def state(self, seen: tuple[int, ...]) -> dict[str, Tensor]:
        return {"residual": self.residual[columns(seen, self.residual)]}

    def restore(self, seen: tuple[int, ...], state: Mapping[str, Tensor]) -> None:
        self.residual[columns(seen, self.residual)] = state["residual"].to(self.residual)


class _Trainer:
    def __init__(
        self,
        head: ResidualHead,
        x: Tensor,
        y: Tensor,
        label_space: tuple[int, ...],
        align: Align,
        context: Context,
    ) -> None:
        self.setting, self.align, self.context = head.setting, align, context
        device = self.setting.device
        self.residual = head.residual
        self.space = torch.tensor(label_space, device=device)
        self.x = unit(x.to(device))
        self.target = positions(label_space, self.setting.classes)[y].to(device)
        self.text = self.setting.text[self.space]
        self.moved = self.residual[self.space].clone().requires_grad_()
        self.optimiser = AdamW([self.moved], align.lr, align.weight_decay)

    def run(self) -> Tensor:
        per_epoch = -(-len(self.x) // self.align.batch)
        stage = self.context.stage("align", self.align.epochs * per_epoch)
        order, ordered_epoch = torch.empty(0), -1
        loss = torch.zeros(())
        for step in stage.steps(self.optimiser.state, self.optimiser.restore):
            epoch, batch = divmod(step, per_epoch)
            if epoch != ordered_epoch:
                order, ordered_epoch = self.order(epoch), epoch
            rows = order[batch * self.align.batch : (batch + 1) * self.align.batch]
            loss = self.step(rows)
        self.check(loss)
        out = self.residual.clone()
        out[self.space] = self.moved.detach()
        return out

    def order(self, epoch: int) -> Tensor:
        generator = self.setting.generator("batches", self.context.task, epoch)
        return torch.randperm(len(self.x), generator=generator).to(self.x.device)

    def step(self, rows: Tensor) -> Tensor:
        keys = unit(self.text + self.moved)
        logits = self.setting.logit_scale * self.x[rows] @ keys.T
        loss = cross_entropy(logits, self.target[rows])
        self.optimiser.step(loss)
        return loss.detach()

    def check(self, loss: Tensor) -> None:
        if not torch.isfinite(loss) or not torch.isfinite(self.moved).all():
            raise MethodError(
                f"training diverged in task {self.context.task + 1}",
                got=f"loss {loss.item()}",
                do=f"lower method.align.lr (now {self.align.lr:g})",
            )
