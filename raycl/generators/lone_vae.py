"""The gradients of one class's VAE on a CPU, written out layer by layer.

A network of this size is bound by its own memory: parameters, moments and gradients are several
times what a core's cache holds, and all of them are walked through in every step. So gradients
of weights are all made in one place, layer by layer from the last, and each is handed to the
optimiser while it still is in the cache. Autograd keeps all of them until the end; with its own
work that takes a fourth longer. The value of the loss is never made, for nothing asks for it.

Guarantees: the gradients are those of `vae_network`'s loss to rounding; with `low`, inputs of
products are bfloat16 where autocast has them so, and all sums over rows are float32.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from raycl.generators.layers import BATCH_NORM_EPSILON, Parameters
from raycl.generators.vae_network import DECODER, SLOPE

ENCODER_LAYERS, LAYERS = 3, 6
_leaky = torch.ops.aten.leaky_relu_.default
_leaky_backward = torch.ops.aten.leaky_relu_backward.grad_input
_norm_backward = torch.ops.aten.native_batch_norm_backward.default


class Layer:
    """A linear layer; in the encoder's first two, with the batch norm behind it.

    Both scratches are shared with the other layers; one in bfloat16 makes its products that.
    """

    def __init__(
        self, place: slice, tensors: Sequence[Tensor], scratch: Tensor, low_scratch: Tensor | None
    ) -> None:
        self.place = place
        self.weight, self.bias, *self.norm = tensors
        self.scratch, self.low_scratch = self._shaped(scratch), None
        self.used, self.used_bias = self.weight, self.bias
        if low_scratch is not None:
            self.low_scratch = self._shaped(low_scratch)
            self.used, self.used_bias = self.weight.bfloat16(), self.bias.bfloat16()
        self.used_transposed = self.used.t()

    def _shaped(self, scratch: Tensor) -> Tensor:
        return scratch[: self.weight.numel()].view_as(self.weight)

    def refresh(self) -> None:
        """Take up that the parameters have moved."""
        if self.low_scratch is not None:
            self.used.copy_(self.weight)
            self.used_bias.copy_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """x W + b"""
        self._fetch()
        return torch.addmm(self.used_bias, x, self.used)

    def backward(self, gradient: Tensor) -> Tensor:
        """Of the input, given that of the output."""
        self._fetch()
        return torch.mm(gradient, self.used_transposed)

    def of_weight(self, x: Tensor, gradient: Tensor) -> Tensor:
        """Valid until another layer of the network is asked."""
        if self.low_scratch is not None:
            return self.scratch.copy_(torch.mm(x.t(), gradient, out=self.low_scratch))
        return torch.mm(x.t(), gradient, out=self.scratch)

    def _fetch(self) -> None:
        # A product takes a large matrix in small pieces, and waits for each. One walk through
        # it costs less than that: 5 % of a step. In half the memory it gains nothing.
        if self.low_scratch is None:
            self.weight.sum()


@dataclass
class Trace:
    """What a step keeps of its way forward for its way back."""

    inputs: list[Tensor]
    norms: list[tuple[Tensor, Tensor, Tensor]]
    """Of each batch norm: its input, means, and inverse deviations."""
    mean: Tensor
    variance: Tensor
    spread: Tensor
    """ε σ"""


class LoneVAE:
    """The only network of a stack, on a CPU. Its `parameters` share the network's memory."""

    def __init__(self, network: Parameters, parity: bool, low: bool) -> None:
        self.parity, self.dtype = parity, torch.bfloat16 if low else torch.float32
        self.parameters: list[Tensor] = []
        self.layers: list[Layer] = []
        largest = max(t.numel() for t in network.values())
        scratch = torch.empty(largest)
        low_scratch = torch.empty(largest, dtype=self.dtype) if low else None
        for i in range(LAYERS):
            own = [network[name].detach().squeeze(0) for name in _names(i)]
            place = slice(len(self.parameters), len(self.parameters) + len(own))
            self.parameters += own
            self.layers.append(Layer(place, own, scratch, low_scratch))

    def refresh(self) -> None:
        """Take up that all parameters have moved."""
        for layer in self.layers:
            layer.refresh()

    def gradients(self, x: Tensor, noise: Tensor) -> Iterator[tuple[slice, list[Tensor]]]:
        """Places in `parameters` and their gradients, layer by layer from the last.

        Each is valid until the next is asked for, and what it belongs to may be moved before.
        """
        guess, trace = self._forward(x, noise)
        gradient = (guess - x).mul_(1 / len(x)).to(self.dtype)
        of_norm: list[Tensor] = []
        for i in reversed(range(LAYERS)):
            layer = self.layers[i]
            # Before the layer is moved, and while what it comes from is at hand.
            passed, of_norm_before = self._passed(i, gradient, trace) if i else (gradient, [])
            of_weight = layer.of_weight(trace.inputs[i], gradient)
            of_bias = gradient.sum(0, dtype=torch.float32)
            yield layer.place, [of_weight, of_bias, *of_norm]
            layer.refresh()
            gradient, of_norm = passed, of_norm_before

    def _forward(self, x: Tensor, noise: Tensor) -> tuple[Tensor, Trace]:
        x = x.to(self.dtype)
        inputs, norms = [x], []
        for layer in self.layers[: ENCODER_LAYERS - 1]:
            y, (gain, shift) = layer.forward(x), layer.norm
            x, mean, scale = torch.native_batch_norm(
                y, gain, shift, None, None, True, 0.0, BATCH_NORM_EPSILON
            )
            inputs.append(_leaky(x, SLOPE))
            norms.append((y, mean, scale))
        mean, log_variance = self.layers[ENCODER_LAYERS - 1].forward(x).float().chunk(2, dim=1)
        variance = log_variance.exp()
        spread = noise * (variance if self.parity else variance.sqrt())
        x = (mean + spread).to(self.dtype)
        inputs.append(x)
        for layer in self.layers[ENCODER_LAYERS:-1]:
            x = _leaky(layer.forward(x), SLOPE)
            inputs.append(x)
        return self.layers[-1].forward(x), Trace(inputs, norms, mean, variance, spread)

    def _passed(self, i: int, gradient: Tensor, trace: Trace) -> tuple[Tensor, list[Tensor]]:
        """Through layer i and what is between it and the product before: the gradient of that
        product, and those of the batch norm behind it."""
        gradient = self.layers[i].backward(gradient)
        if i == ENCODER_LAYERS:
            return self._through_sample(gradient.float(), trace).to(self.dtype), []
        _leaky_backward(gradient, trace.inputs[i], SLOPE, True, grad_input=gradient)
        if i > ENCODER_LAYERS:
            return gradient, []
        y, mean, scale = trace.norms[i - 1]
        gain = self.layers[i - 1].norm[0]
        gradient, *of_norm = _norm_backward(
            gradient, y, gain, None, None, mean, scale, True, BATCH_NORM_EPSILON, [True] * 3
        )
        return gradient, of_norm

    def _through_sample(self, gradient: Tensor, trace: Trace) -> Tensor:
        """Of the encoder's output, given that of z = m + ε σ; with the divergence's own."""
        share = 1 / len(gradient)
        out = gradient.new_empty(len(gradient), 2 * gradient.shape[1])
        of_mean, of_log_variance = out.chunk(2, dim=1)
        torch.add(gradient, trace.mean, alpha=share, out=of_mean)
        of_divergence = trace.variance.sub_(1).mul_(share / 2)
        slope = 1.0 if self.parity else 0.5  # of σ by log σ², over σ
        torch.addcmul(of_divergence, gradient, trace.spread, value=slope, out=of_log_variance)
        return out


def _names(i: int) -> list[str]:
    """Of the tensors of a layer."""
    stem = f"encoder.{i}" if i < ENCODER_LAYERS else f"{DECODER}{i - ENCODER_LAYERS}"
    norm = [f"norm.{i}.gain", f"norm.{i}.bias"] if i < ENCODER_LAYERS - 1 else []
    return [f"{stem}.weight", f"{stem}.bias", *norm]
