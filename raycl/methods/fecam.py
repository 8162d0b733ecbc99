"""FeCAM (Goswami et al. 2023): Mahalanobis distances with a covariance of each class's own.

    Σ_c = S_c + γ m_c I,  m_c the mean variance of S_c;   C_c = D⁻½ Σ_c D⁻½,  D = diag Σ_c
    score_c = -(x - μ_c)ᵀ C_c⁻¹ (x - μ_c),   x of unit length

Few samples leave S_c of low rank: S_c = AᵀA with A of min(n, d) rows, and

    C_c⁻¹ = D½ (I - Aᵀ (c I + A Aᵀ)⁻¹ A) D½ / c,   c = γ m_c

is exact, needs no d × d matrix and no more bytes than the samples. Deviations: γ₂, the share of
the mean covariance, is zero, as the authors have it for transformers; Tukey's transform is left
out, since it needs features that are never negative. A class of one sample has C = I.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from raycl.config.rivals import FeCAM
from raycl.methods.context import Context
from raycl.methods.method import Setting, State
from raycl.methods.parts.gated import GatedMethod
from raycl.methods.parts.keys import FLOOR, columns, unit
from raycl.methods.parts.statistics import ClassMeans
from raycl.streams.stream import Task


@dataclass(frozen=True, eq=False)
class _Metric:
    """A class's distance: |s ⊙ z|² - |B z|², z = x - μ."""

    scale: Tensor
    across: Tensor


class FeCAMMethod(GatedMethod[FeCAM]):
    """Keeps of each class its mean and a root of its covariance."""

    def __init__(self, spec: FeCAM, setting: Setting) -> None:
        super().__init__(spec, setting)
        self.means = ClassMeans(setting.classes, setting.width, setting.device)
        self.roots: tuple[tuple[Tensor, ...], ...] = ()
        """By task and class: (rank, d), float32."""
        self.metrics: tuple[_Metric, ...] = ()

    def learn(self, task: Task, context: Context) -> None:
        self.means.learn(task.train.x, task.train.y, task.classes)
        centred = self.means.centred(task.train.x, task.train.y.to(self.means.mean.device))
        roots = tuple(_root(centred[task.train.y == c]) for c in task.classes)
        self._add(roots)

    def _add(self, roots: tuple[Tensor, ...]) -> None:
        self.roots += (roots,)
        self.metrics += tuple(_metric(root.double(), self.spec) for root in roots)

    def seen_scores(self, x: Tensor) -> Tensor:
        x = unit(x)
        classes = columns(self.seen, x)
        means = self.means.mean[classes].float()
        distances = [
            _distance(x - mean, metric) for mean, metric in zip(means, self.metrics, strict=True)
        ]
        scores = -torch.stack(distances, dim=1)
        return scores.masked_fill(self.means.empty(classes), FLOOR)

    def state(self) -> State:
        out = self.means.state(columns(self.seen, self.means.mean))
        for task, roots in enumerate(self.roots):
            out[f"ranks.{task}"] = torch.tensor([len(root) for root in roots])
            out[f"roots.{task}"] = torch.cat(roots)
        return out

    def restore(self, state: Mapping[str, Tensor]) -> None:
        self.means.restore(columns(self.seen, self.means.mean), state)
        self.roots, self.metrics = (), ()
        while (name := f"ranks.{len(self.roots)}") in state:
            every = state[f"roots.{len(self.roots)}"].to(self.setting.device)
            self._add(torch.split(every, state[name].tolist()))


def _root(centred: Tensor) -> Tensor:
    """A with AᵀA the unbiased covariance of these rows; no row where there is no spread."""
    if len(centred) < 2:
        return centred[:0].float()
    root: Tensor = torch.linalg.qr(centred, mode="r").R / (len(centred) - 1) ** 0.5
    return root.float()


def _metric(root: Tensor, spec: FeCAM) -> _Metric:
    variances = root.square().sum(dim=0)
    load = spec.shrinkage * variances.mean()
    if not load > 0:
        return _Metric(torch.ones_like(variances).float(), root[:0].float())
    # Σ⁻¹ = (I - Aᵀ (c I + A Aᵀ)⁻¹ A) / c, between the standard deviations if they are taken out.
    outer = variances + load if spec.normalise else torch.ones_like(variances)
    scale = (outer / load).sqrt()
    inner = root @ root.T + load * torch.eye(len(root), dtype=root.dtype, device=root.device)
    lower = torch.linalg.cholesky(inner)
    across = torch.linalg.solve_triangular(lower, root, upper=False) * scale
    return _Metric(scale.float(), across.float())


def _distance(z: Tensor, metric: _Metric) -> Tensor:
    whole: Tensor = (z * metric.scale).square().sum(dim=1)
    whole -= (z @ metric.across.T).square().sum(dim=1)
    return whole
