"""CLTS (arXiv 2409.17806): captions in place of images, a router trained on what is drawn of them.

    head(t)       linear classes of task t, on its real vectors, then frozen
    caption(t)    m images of each class → captions with seeds: what is kept of them
    synthesise(t) captions → images, at the class's own resolution → vectors (a cache),
                  moved by the mean difference of real vectors and drawn ones
    router(≤ t)   from scratch on the synthetic vectors of all tasks, the newest one's too
    inference     t̂ = argmax router; ŷ = argmax head t̂

The newest task is shown to the router through synthetic images like every other: seen through
its real ones, it would be told from them by being real, and draw every test image. Controls: as
many real images kept (`replay=real`), the naive router, one joint classifier of what is drawn.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from raycl.config.clts import CLTS, EnergyRouter
from raycl.errors import ConfigError
from raycl.methods.context import Context
from raycl.methods.method import Figures, Setting, State
from raycl.methods.parts.gated import GatedMethod
from raycl.methods.parts.image_memory import ImageMemory
from raycl.methods.parts.key_head import Kept
from raycl.methods.parts.linear_head import LinearHead
from raycl.methods.parts.mini_batches import Descent
from raycl.methods.parts.routing import Routed, head_shares, routed_scores
from raycl.methods.parts.task_router import build_router
from raycl.streams.stream import Samples, Task
from raycl.synthesis.models import model_files


class CLTSMethod(GatedMethod[CLTS]):
    """Keeps the heads, what is remembered of images, and the router."""

    def __init__(self, spec: CLTS, setting: Setting) -> None:
        super().__init__(spec, setting)
        if setting.encoder is None:
            raise ConfigError(
                "CLTS captions images and draws new ones, and this stream gives vectors only",
                got="a stream of embeddings",
                do="name a stream of images: digits, glyphs, tiny-xtail or folder:PATH",
            )
        self.memory = ImageMemory(spec, setting, setting.encoder)
        self.router = build_router(spec.router, setting)
        self.heads, self.joint = LinearHead(setting), LinearHead(setting)
        self.sizes: tuple[int, ...] = ()
        """How many classes each task brought."""

    def learn(self, task: Task, context: Context) -> None:
        self.sizes += (len(task.classes),)
        x, y = task.train.x, task.train.y
        if self.spec.classifier == "routed":
            self._train(self.heads, "head", x, y, context)
        if self.spec.remembers:
            self.memory.learn(task, context)
            x, y = self.memory.vectors(context)
        if self.spec.classifier == "joint":
            self.joint = LinearHead(self.setting)
            self._train(self.joint, "joint head", x, y, context)
        elif self.router is not None:
            self.router.learn(x, y, self._task_of_ids(), context)

    def _train(self, head: LinearHead, name: str, x: Tensor, y: Tensor, context: Context) -> None:
        """Rows of the classes that have a sample, told apart among themselves."""
        spec = self.spec.heads
        present = tuple(c for c in self.seen if bool((y == c).any()))
        if not present:
            return
        per_epoch = -(-len(x) // spec.batch)
        epochs = max(spec.epochs, -(-spec.least_steps // per_epoch))
        how = Descent(spec.lr, epochs, spec.batch, spec.weight_decay, cosine=True)
        head.train(name, present, Kept(x, y), how, context)

    @property
    def task_of(self) -> Tensor:
        """The task of each class seen, in their order."""
        sizes = torch.tensor(self.sizes, dtype=torch.long)
        return torch.repeat_interleave(torch.arange(len(sizes)), sizes)

    def _task_of_ids(self) -> Tensor:
        """The task of each class id of the stream; -1 before it came."""
        out = torch.full((self.setting.classes,), -1)
        out[torch.tensor(self.seen, dtype=torch.long)] = self.task_of
        return out

    def seen_scores(self, x: Tensor) -> Tensor:
        if self.spec.classifier == "joint":
            return self.joint.scores(x, self.seen)
        log_shares, log_heads = self._terms(x)
        hard = self.spec.routing == "hard"
        return routed_scores(log_shares, log_heads, self.task_of.to(x.device), hard=hard)

    def _terms(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """log p(task | x), and log p(y | x, task of y) of the classes seen."""
        logits, task_of = self.heads.scores(x, self.seen), self.task_of.to(x.device)
        if self.router is not None:
            return self.router.log_shares(x), head_shares(logits, task_of)
        assert isinstance(self.spec.router, EnergyRouter)
        energy = energies(logits, task_of, self.spec.router.temperature)
        return energy, head_shares(logits, task_of)

    def state(self) -> State:
        out = {"sizes": torch.tensor(self.sizes, dtype=torch.long)}
        if self.spec.classifier == "joint":
            heads = self.joint.state(self.seen)
        else:
            heads = self.heads.state(self.seen)
            out |= self.router.state() if self.router is not None else {}
        return out | {f"heads.{n}": t for n, t in heads.items()} | self.memory.state()

    def restore(self, state: Mapping[str, Tensor]) -> None:
        self.sizes = tuple(state["sizes"].tolist())
        heads = {n.removeprefix("heads."): t for n, t in state.items() if n.startswith("heads.")}
        if self.spec.classifier == "joint":
            self.joint.restore(self.seen, heads)
        else:
            self.heads.restore(self.seen, heads)
            if self.router is not None:
                self.router.restore(state)
        self.memory.restore(state)

    @property
    def trainable_parameters(self) -> int:
        head = self.joint if self.spec.classifier == "joint" else self.heads
        rows = int(head.trained.sum()) * (self.setting.width + 1)
        return max(rows, self.router.parameters if self.router is not None else 0)

    @property
    def figures(self) -> Figures:
        """What is kept in bytes, each for itself, and what it stands for."""
        kept = self.memory.tasks
        heads = (self.joint if self.spec.classifier == "joint" else self.heads).state(self.seen)
        router = self.router.state() if self.router and self.spec.classifier == "routed" else {}
        spent = model_files(self.spec.synthesis).weight_bytes if self.spec.synthesises else 0
        return {
            "captions": float(sum(len(k.texts) for k in kept)),
            "caption_bytes": float(sum(k.caption_bytes for k in kept)),
            "captioned_image_bytes": float(sum(k.captioned_bytes for k in kept)),
            "kept_images": float(sum(len(k.images) for k in kept)),
            "kept_image_bytes": float(sum(k.image_bytes for k in kept)),
            "shift_bytes": float(sum(k.shift.nbytes for k in kept if k.shift is not None)),
            "head_bytes": float(sum(t.nbytes for t in heads.values())),
            "router_bytes": float(sum(t.nbytes for t in router.values())),
            "generator_bytes": float(spent),
        }

    def figures_of_tests(self, tests: Samples, x: Tensor) -> Figures:
        """How the tests of the classes seen were routed: no method without a router has it."""
        place = torch.full((self.setting.classes,), -1)
        place[torch.tensor(self.seen, dtype=torch.long)] = torch.arange(len(self.seen))
        known = place[tests.y] >= 0
        if self.spec.classifier == "joint" or not bool(known.any()):
            return {}
        device = self.setting.device
        log_shares, log_heads = self._terms(x[known].to(device))
        if not bool(log_shares.isfinite().any()):
            return {}
        label, task_of = place[tests.y[known]], self.task_of
        return Routed.of(log_shares.cpu(), log_heads.cpu(), task_of, label).figures()


def energies(logits: Tensor, task_of: Tensor, temperature: float) -> Tensor:
    """(n, tasks) log p(task | x) by the energy of each task's head."""
    tasks = int(task_of.max()) + 1 if len(task_of) else 0
    parts = [
        temperature * (logits[:, task_of == t] / temperature).logsumexp(dim=1) for t in range(tasks)
    ]
    found = torch.stack(parts, dim=1)
    return torch.where(found.isfinite().any(dim=1, keepdim=True), found, 0.0).log_softmax(dim=1)
