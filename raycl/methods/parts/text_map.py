"""A small network from a class's text vector to something of its prompt, shared by all classes.

    g(e) = W₄ s(W₃ s(W₂ s(W₁ e))),   s(a) = SELU(γ ⊙ a / √(1 + ε) + β)

Four affine layers d → d → d → w → w; after each of the first three a batch normalisation whose
statistics stay 0 and 1, so that a class's result does not depend on the others in the batch.
Text vectors come as directions and go in at √d times their length, a coordinate being of the
size one that the fixed statistics assume.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn.functional import linear, selu

from raycl.methods.method import Setting

EPSILON = 1e-5
LAYERS = 4


class TextMap:
    """The parameters of g, by name, and what g makes of text vectors."""

    def __init__(self, setting: Setting, width: int, *, ends_in_zero: bool = False) -> None:
        """`ends_in_zero`: the last layer starts at zero, and so does g."""
        d = setting.width
        self.tensors: dict[str, Tensor] = {}
        for layer, (inputs, outputs) in enumerate(((d, d), (d, d), (d, width), (width, width))):
            self._add_layer(setting, layer, inputs, outputs)
        if ends_in_zero:
            self.tensors[f"weight.{LAYERS - 1}"].zero_()
            self.tensors[f"bias.{LAYERS - 1}"].zero_()

    def _add_layer(self, setting: Setting, layer: int, inputs: int, outputs: int) -> None:
        # The bounds that torch gives its linear layers.
        bound = 1 / math.sqrt(inputs)
        generator = setting.generator("text map", layer)
        made = {
            "weight": torch.empty(outputs, inputs).uniform_(-bound, bound, generator=generator),
            "bias": torch.empty(outputs).uniform_(-bound, bound, generator=generator),
        }
        if layer < LAYERS - 1:
            made |= {"scale": torch.ones(outputs), "shift": torch.zeros(outputs)}
        for part, tensor in made.items():
            self.tensors[f"{part}.{layer}"] = tensor.to(setting.device)

    def __call__(self, text: Tensor, parameters: Sequence[Tensor] | None = None) -> Tensor:
        """(classes, w) of unit text vectors, by other parameters than one's own if given."""
        values = self.tensors.values() if parameters is None else parameters
        named = dict(zip(self.tensors, values, strict=True))
        x = text * math.sqrt(text.shape[1])
        for layer in range(LAYERS):
            x = linear(x, named[f"weight.{layer}"], named[f"bias.{layer}"])
            if layer < LAYERS - 1:
                x = x / math.sqrt(1 + EPSILON)
                x = selu(x * named[f"scale.{layer}"] + named[f"shift.{layer}"])
        return x

    def copies(self) -> list[Tensor]:
        """Of all parameters, ready for training."""
        return [tensor.clone().requires_grad_() for tensor in self.tensors.values()]

    def take(self, parameters: Sequence[Tensor]) -> None:
        """Go on with these parameters, in the order of `copies`."""
        self.tensors = dict(zip(self.tensors, parameters, strict=True))

    def state(self) -> dict[str, Tensor]:
        """All parameters by name."""
        return {f"map.{name}": tensor for name, tensor in self.tensors.items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take back what `state` gave."""
        for name, tensor in self.tensors.items():
            self.tensors[name] = state[f"map.{name}"].to(tensor).clone()
