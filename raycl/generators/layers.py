"""Layers with a leading class axis: one network per class, all moved by one call.

With one class they call the plain two-dimensional kernels, which are faster on a CPU; the
stacked form is for GPUs, where a small network waits for launches.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor

BATCH_NORM_EPSILON = 1e-5
Parameters = dict[str, Tensor]


def draw_linear(inner: int, out: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Weight (inner, out) and bias as torch's own layer starts them: uniform in ±1 / √inner."""
    bound = 1 / math.sqrt(inner)
    weight = torch.empty(inner, out).uniform_(-bound, bound, generator=generator)
    return weight, torch.empty(out).uniform_(-bound, bound, generator=generator)


def stacked(networks: Sequence[Parameters], device: torch.device) -> Parameters:
    """One network per class as tensors with a class axis, ready to be trained."""
    return {
        name: torch.stack([n[name] for n in networks]).to(device).requires_grad_()
        for name in networks[0]
    }


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """(classes, rows, inner) times (classes, inner, out) plus (classes, out)."""
    if len(weight) == 1:
        # Not weight[0]: the gradient of an index fills a whole tensor with zeros first.
        y = torch.addmm(bias.squeeze(0), x.squeeze(0), weight.squeeze(0))
        return y.unsqueeze(0)
    return torch.baddbmm(bias[:, None], x, weight)


def batch_norm(x: Tensor, gain: Tensor, bias: Tensor, mask: Tensor | None) -> Tensor:
    """By the statistics of each class's own rows; `mask` (classes, rows, 1) leaves out padding."""
    if len(x) == 1 and mask is None and x.shape[1] > 1:
        gain, bias = gain.squeeze(0), bias.squeeze(0)
        y = F.batch_norm(x.squeeze(0), None, None, gain, bias, True, eps=BATCH_NORM_EPSILON)
        return y.unsqueeze(0)
    x = x.float()
    weight = torch.ones_like(x[..., :1]) if mask is None else mask
    count = weight.sum(dim=1, keepdim=True)
    centred = x - (x * weight).sum(dim=1, keepdim=True) / count
    variance = (centred.square() * weight).sum(dim=1, keepdim=True) / count
    return centred * (variance + BATCH_NORM_EPSILON).rsqrt() * gain[:, None] + bias[:, None]
