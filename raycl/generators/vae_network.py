"""The encoder and decoder of a variational auto-encoder, one per class of a stack.

encoder   d → hidden → hidden → 2 · latent, BatchNorm and LeakyReLU(0.2) after the first two
decoder   latent → hidden → hidden → d, LeakyReLU(0.2) after the first two
loss      ½ |x - x̂|² + KL(N(m, σ²) ‖ N(0, I)), summed over dimensions, averaged over rows
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor

from raycl.generators.layers import Parameters, batch_norm, draw_linear, linear

SLOPE = 0.2
DECODER = "decoder."


def draw_vae(
    encoder: tuple[int, int, int, int], decoder: tuple[int, int, int, int], stream: torch.Generator
) -> Parameters:
    """Fresh parameters of one class for networks of these widths."""
    out: Parameters = {}
    for name, widths in (("encoder.", encoder), (DECODER, decoder)):
        for i, (inner, width) in enumerate(pairwise(widths)):
            weight, bias = draw_linear(inner, width, stream)
            out[f"{name}{i}.weight"], out[f"{name}{i}.bias"] = weight, bias
            if name == "encoder." and i < 2:
                out[f"norm.{i}.gain"] = torch.ones(width)
                out[f"norm.{i}.bias"] = torch.zeros(width)
    return out


def encode(p: Parameters, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Mean and log variance of the posterior, float32."""
    for i in range(2):
        x = linear(x, p[f"encoder.{i}.weight"], p[f"encoder.{i}.bias"])
        x = F.leaky_relu(batch_norm(x, p[f"norm.{i}.gain"], p[f"norm.{i}.bias"], mask), SLOPE)
    x = linear(x, p["encoder.2.weight"], p["encoder.2.bias"]).float()
    mean, log_variance = x.chunk(2, dim=-1)
    return mean, log_variance


def decode(p: Parameters, z: Tensor) -> Tensor:
    """The mean of the likelihood, float32."""
    for i in range(2):
        z = F.leaky_relu(linear(z, p[f"decoder.{i}.weight"], p[f"decoder.{i}.bias"]), SLOPE)
    return linear(z, p["decoder.2.weight"], p["decoder.2.bias"]).float()


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL to the standard normal, by dimension."""
    return 0.5 * (log_variance.exp() + mean.square() - 1 - log_variance)


def posterior_sample(mean: Tensor, log_variance: Tensor, noise: Tensor, parity: bool) -> Tensor:
    """m + σ ε; the published code takes σ² for σ."""
    return mean + noise * (log_variance if parity else 0.5 * log_variance).exp()


def per_class(values: Tensor, mask: Tensor | None, rows: Tensor) -> Tensor:
    """Sum over the dimensions of (classes, rows, d), mean over each class's own rows."""
    if mask is not None:
        values = values * mask
    return values.sum(dim=(1, 2)) / rows
