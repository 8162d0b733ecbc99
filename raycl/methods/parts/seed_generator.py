"""The network that turns what is known of a class into its seeds.

    (δv, δw) = W₃ s(W₂ s(W₁ (μ, t, ĝ, ĥ, log|g|, log|h|, noise))),   s = GELU ∘ LayerNorm
    v = normalise(μ + δv / √d),   w = normalise(t + δw / √d)

g and h are a class's gradients: of the cross-entropy of its own samples with respect to its key,
and to the image vector, each the mean over its samples. W₃ starts at zero, so that an untrained
generator returns the prototypes (μ, t). Directions go in at √d times their length and moves count
in units of a coordinate of a unit vector, so that all numbers are of the size one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn.functional import gelu, layer_norm, linear

from raycl.methods.method import Setting
from raycl.methods.parts.keys import unit

LAYERS = 3
LEAST = 1e-8
"""Added to a gradient's length before its logarithm is taken."""
START = "generator."


@dataclass(frozen=True, eq=False)
class Conditions:
    """What the generator is told of each of some classes, one row each."""

    mean: Tensor
    text: Tensor
    gradients: Tensor
    """(classes, 2 d + 2): two directions and two logarithms of lengths."""

    def __len__(self) -> int:
        return len(self.mean)

    def take(self, rows: Tensor) -> Conditions:
        """Those of some of the classes."""
        return Conditions(self.mean[rows], self.text[rows], self.gradients[rows])


def described(g: Tensor, h: Tensor) -> Tensor:
    """Gradients as the generator is told them."""
    lengths = torch.stack([g.norm(dim=1), h.norm(dim=1)], dim=1)
    directions = torch.cat([unit(g), unit(h)], dim=1) * math.sqrt(g.shape[1])
    return torch.cat([directions, (lengths + LEAST).log()], dim=1)


class SeedGenerator:
    """The weights by name, and what they make of conditions and noise."""

    def __init__(self, setting: Setting, hidden: int, noise: int) -> None:
        self.width, self.noise = setting.width, noise
        widths = (4 * setting.width + 2 + noise, hidden, hidden, 2 * setting.width)
        self.tensors: dict[str, Tensor] = {}
        for layer, (inputs, outputs) in enumerate(pairwise(widths)):
            # The bounds that torch gives its linear layers.
            bound = 0.0 if layer == LAYERS - 1 else 1 / math.sqrt(inputs)
            generator = setting.generator("seed generator", layer)
            weight = torch.empty(outputs, inputs).uniform_(-bound, bound, generator=generator)
            bias = torch.empty(outputs).uniform_(-bound, bound, generator=generator)
            made = {"weight": weight, "bias": bias}
            if layer < LAYERS - 1:
                made |= {"scale": torch.ones(outputs), "shift": torch.zeros(outputs)}
            for part, tensor in made.items():
                self.tensors[f"{part}.{layer}"] = tensor.to(setting.device)

    def __call__(
        self, known: Conditions, noise: Tensor, weights: Sequence[Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """v and w, each (classes, seeds, d), from noise (classes, seeds, dimensions)."""
        named = dict(zip(self.tensors, weights or self.tensors.values(), strict=True))
        root = math.sqrt(self.width)
        told = torch.cat([known.mean * root, known.text * root, known.gradients], dim=1)
        # What is known of a class goes through the first layer once, not once per seed.
        of_class, of_seed = torch.split(named["weight.0"], [told.shape[1], self.noise], dim=1)
        x = linear(told, of_class, named["bias.0"])[:, None] + linear(noise, of_seed)
        for layer in range(1, LAYERS):
            scale, shift = named[f"scale.{layer - 1}"], named[f"shift.{layer - 1}"]
            x = gelu(layer_norm(x, x.shape[-1:], scale, shift))
            x = linear(x, named[f"weight.{layer}"], named[f"bias.{layer}"])
        v, w = torch.split(x / root, self.width, dim=2)
        return unit(known.mean[:, None] + v), unit(known.text[:, None] + w)

    def copies(self) -> list[Tensor]:
        """Of all weights, ready for training."""
        return [tensor.clone().requires_grad_() for tensor in self.tensors.values()]

    def take(self, weights: Sequence[Tensor]) -> None:
        """Go on with these weights, in the order of `copies`."""
        self.tensors = {n: t.detach() for n, t in zip(self.tensors, weights, strict=True)}

    def state(self) -> dict[str, Tensor]:
        """All weights by name."""
        return {f"{START}{name}": tensor for name, tensor in self.tensors.items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take back what `state` gave."""
        for name, tensor in self.tensors.items():
            self.tensors[name] = state[f"{START}{name}"].to(tensor).clone()
