"""What the two stages of DMC minimise, each as a function of the step and of the keys.

images    CE(scale · cos(E(x), k), y) of a batch of the task's images, among a label space
replay    the same of vectors real and drawn, among all classes seen, and if asked
          + λ · mean over new c, old c' of max(0, cos(k_c, k_c') − cos(e_c, e_c'))
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from raycl.methods.context import Context
from raycl.methods.method import Setting
from raycl.methods.parts.descent import ShuffledRows
from raycl.methods.parts.gaussian_epochs import GaussianEpochs
from raycl.methods.parts.keys import columns, positions, unit
from raycl.methods.parts.visual_adapter import LowRank, VisualAdapter
from raycl.streams.stream import Samples

Classes = tuple[int, ...]


class _Among:
    """Cross-entropy among the classes of a label space."""

    def __init__(self, setting: Setting, space: Classes) -> None:
        self.setting, self.target = setting, positions(space, setting.classes)

    def __call__(self, x: Tensor, y: Tensor, keys: Tensor) -> Tensor:
        """Of unit vectors and keys on the device, and class ids on the CPU."""
        logits = self.setting.logit_scale * x @ keys.T
        return cross_entropy(logits, self.target[y].to(logits.device))


class ImageLoss:
    """Of images as an adapter sees them; it has a gradient in the adapter."""

    def __init__(
        self,
        vision: VisualAdapter,
        at: LowRank,
        samples: Samples,
        space: Classes,
        batch: int,
        context: Context,
    ) -> None:
        self.vision, self.at, self.samples = vision, at, samples
        self.among, task = _Among(vision.setting, space), context.task
        self.rows = ShuffledRows(
            len(samples),
            batch,
            lambda epoch: vision.setting.generator("vision batches", task, epoch),
        )

    @property
    def per_epoch(self) -> int:
        """Steps."""
        return self.rows.per_epoch

    def __call__(self, step: int, keys: Tensor) -> Tensor:
        rows = self.rows(step)
        x = unit(self.vision.encode(self.samples, rows.numpy(), self.at))
        return self.among(x, self.samples.y[rows], keys)


class ReplayLoss:
    """Of what stands for the classes seen."""

    def __init__(
        self, epochs: GaussianEpochs, space: Classes, new: Classes, separability: float
    ) -> None:
        setting = epochs.setting
        self.epochs, self.among, self.separability = epochs, _Among(setting, space), separability
        self.is_new = torch.tensor([c in new for c in space], device=setting.device)
        self.hinges = separability > 0 and not bool(self.is_new.all())
        text = setting.text[columns(space, setting.text)]
        self.by_text = text[self.is_new] @ text[~self.is_new].T

    def __call__(self, step: int, keys: Tensor) -> Tensor:
        x, y = self.epochs.rows(step)
        found = self.among(x, y, keys)
        return found + self.separability * self.nearness(keys) if self.hinges else found

    def nearness(self, keys: Tensor) -> Tensor:
        """How much nearer new keys are to old ones than their texts are, on average."""
        between = keys[self.is_new] @ keys[~self.is_new].T
        return (between - self.by_text).clamp_min(0).mean()
