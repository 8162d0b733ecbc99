"""A small denoising diffusion model per class, which predicts the clean vector.

    training   x_t = √ᾱ_t x + √(1 - ᾱ_t) ε, t uniform in 1 … T, ᾱ_t = cos²(πt / 2T)
    loss       w_t · mean (x̂ - x)², w_t = max(1, log √(ᾱ_t / (1 - ᾱ_t)))
    sampling   x̂ = net(x_t, t), x_{t-1} = √ᾱ_{t-1} x̂ + √(1 - ᾱ_{t-1}) ε with fresh ε; at t = 1, x̂

net: d → hidden, five hidden layers with SiLU and an embedding of t added to each, → d; AdamW
for a number of steps, over epochs of batches of 64. The published code trains with a product
of two normals as ε (`parity`); the rest is as there, but for a flat dimension, which is divided
by one, and a lone last row, which joins the batch before it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor

from raycl.config.generators import DiffusionGenerator
from raycl.errors import MethodError
from raycl.generators.adamw import AdamW
from raycl.generators.ahead import Ahead, Draws
from raycl.generators.bank import Bank, kept
from raycl.generators.batches import batch_slices, epoch_order
from raycl.generators.fitting import Fitting
from raycl.generators.layers import Parameters, draw_linear, linear, stacked
from raycl.generators.noise import BLOCK, generator, normals
from raycl.generators.schedule import cosine_signal
from raycl.generators.vectors import ClassVectors, standardise

STEPS_PER_ROUND = 20
NETWORK = "network."


def rounds_of(spec: DiffusionGenerator) -> int:
    """Rounds of a fit, each of some steps."""
    return -(-spec.steps // STEPS_PER_ROUND)


class DiffusionBank(Bank[DiffusionGenerator]):
    """Tensors `mean` and `std` (classes, d) and the network's weights and biases."""

    def draw(self, streams: Sequence[int], block: int) -> Tensor:
        spec = self.spec
        weights = {n: t.float() for n, t in self.tensors.items() if n.startswith(NETWORK)}
        alpha = cosine_signal(spec.noise_steps).to(self.device)
        x = self._noise(streams, block, spec.noise_steps)
        for t in reversed(range(spec.noise_steps)):
            step = torch.full((len(self), BLOCK), t, device=self.device)
            x = denoised(weights, x, step, spec)
            if t > 0:
                noise = self._noise(streams, block, t)
                x = x * alpha[t - 1].sqrt() + noise * (1 - alpha[t - 1]).sqrt()
        return x * self.tensors["std"][:, None] + self.tensors["mean"][:, None]

    def _noise(self, streams: Sequence[int], block: int, t: int) -> Tensor:
        shape = (BLOCK, self.width)
        draws = [normals(s, "sample", block, t, shape=shape) for s in streams]
        return torch.stack(draws).to(self.device)


def draw_network(width: int, spec: DiffusionGenerator, stream: torch.Generator) -> Parameters:
    """Fresh parameters of one class."""
    shapes = {"input": (width, spec.hidden), "output": (spec.hidden, width)}
    shapes |= {f"hidden.{i}": (spec.hidden, spec.hidden) for i in range(spec.layers)}
    shapes |= {f"time.{i}": (spec.hidden, spec.hidden) for i in range(2)}
    out: Parameters = {}
    for name, (inner, rows) in shapes.items():
        weight, bias = draw_linear(inner, rows, stream)
        out[f"{NETWORK}{name}.weight"], out[f"{NETWORK}{name}.bias"] = weight, bias
    return out


def denoised(p: Parameters, x: Tensor, t: Tensor, spec: DiffusionGenerator) -> Tensor:
    """The clean vectors expected behind (classes, rows, d) at steps t (classes, rows)."""
    time = _layer(p, "time.1", F.silu(_layer(p, "time.0", sinusoids(t + 1, spec))))
    x = F.silu(_layer(p, "input", x))
    for i in range(spec.layers):
        x = F.silu(_layer(p, f"hidden.{i}", x) + time)
    return _layer(p, "output", x).float()


def _layer(p: Parameters, name: str, x: Tensor) -> Tensor:
    return linear(x, p[f"{NETWORK}{name}.weight"], p[f"{NETWORK}{name}.bias"])


def sinusoids(t: Tensor, spec: DiffusionGenerator) -> Tensor:
    """Sines and cosines of t at frequencies from 1 to 1 / T."""
    half = spec.hidden // 2
    rate = math.log(spec.noise_steps) / max(half - 1, 1)
    angle = t[..., None] * torch.exp(torch.arange(half, device=t.device) * -rate)
    both = torch.cat([angle.sin(), angle.cos()], dim=-1)
    return F.pad(both, (0, spec.hidden - 2 * half))


class DiffusionFitting(Fitting):
    """Classes in one stack; each goes through its own epochs at its own pace."""

    def __init__(
        self, spec: DiffusionGenerator, data: Sequence[ClassVectors], device: torch.device
    ) -> None:
        super().__init__(rounds_of(spec))
        self.spec, self.data, self.device = spec, data, device
        scaled = [standardise(c.vectors) for c in data]
        self.mean = torch.stack([s.mean for s in scaled])
        self.std = torch.stack([s.std for s in scaled])
        self.x = [s.x.float() for s in scaled]
        self.alpha = cosine_signal(spec.noise_steps)
        ratio = (self.alpha.sqrt() / (1 - self.alpha).sqrt()).log()
        self.weight = ratio.clamp(min=1).to(device)
        self.alpha = self.alpha.to(device)
        starts = [draw_network(c.width, spec, generator(c.stream, "start")) for c in data]
        self.network = stacked(starts, device)
        self.optimiser = AdamW(list(self.network.values()), spec.lr, spec.weight_decay)
        self.draws = Ahead(self._draws, self.total, device)

    def _steps(self, index: int) -> range:
        first = index * STEPS_PER_ROUND
        return range(first, min(first + STEPS_PER_ROUND, self.spec.steps))

    def _draws(self, index: int) -> Draws:
        """For each step of a round: clean rows, noise, time, and the share of each row in its
        class's mean; (classes, steps, rows, …), padded."""
        steps = self._steps(index)
        slices = [batch_slices(len(x), self.spec.batch) for x in self.x]
        rows = max(s.stop - s.start for own in slices for s in own)
        shape = (len(self.x), len(steps), rows)
        clean, noise = (
            torch.zeros(*shape, self.x[0].shape[1]),
            torch.zeros(*shape, self.x[0].shape[1]),
        )
        time, share = torch.zeros(shape, dtype=torch.long), torch.zeros(shape)
        for c, (x, own, of) in enumerate(zip(self.x, slices, self.data, strict=True)):
            for i, step in enumerate(steps):
                epoch, batch = divmod(step, len(own))
                chosen = epoch_order(of.stream, epoch, len(x))[own[batch]]
                n = len(chosen)
                clean[c, i, :n] = x[chosen]
                noise[c, i, :n] = self._noise(of.stream, step, (n, x.shape[1]))
                random = generator(of.stream, "time", step)
                time[c, i, :n] = torch.randint(self.spec.noise_steps, (n,), generator=random)
                share[c, i, :n] = 1 / n
        return clean, noise, time, share

    def _noise(self, stream: int, step: int, shape: tuple[int, int]) -> Tensor:
        noise = normals(stream, "noise", step, shape=shape)
        if self.spec.parity:
            noise = noise * normals(stream, "second noise", step, shape=shape)
        return noise

    def _advance(self) -> None:
        clean, noise, time, share = self.draws.get(self.done)
        for i in range(clean.shape[1]):
            self.optimiser.step(self._loss(clean[:, i], noise[:, i], time[:, i], share[:, i]))

    def _loss(self, x: Tensor, noise: Tensor, time: Tensor, share: Tensor) -> Tensor:
        alpha = self.alpha[time][..., None]
        noisy = x * alpha.sqrt() + noise * (1 - alpha).sqrt()
        low = self.spec.precision == "bf16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=low):
            guess = denoised(self.network, noisy, time, self.spec)
        error = (guess - x).square().mean(dim=-1)
        return (error * self.weight[time] * share).sum()  # a class's gradients are its own

    def _state(self) -> dict[str, Tensor]:
        return self.optimiser.state()

    def _restore(self, state: Mapping[str, Tensor]) -> None:
        self.optimiser.restore(state)

    def bank(self) -> DiffusionBank:
        tensors = {name: tensor.detach() for name, tensor in self.network.items()}
        finite = torch.stack([t.isfinite().flatten(1).all(dim=1) for t in tensors.values()])
        for c, sound in zip(self.data, finite.all(dim=0).tolist(), strict=True):
            if not sound:
                raise MethodError(
                    f"the diffusion model of class {c.name!r} diverged", do="lower lr"
                )
        tensors["mean"], tensors["std"] = (t.to(self.device) for t in (self.mean, self.std))
        return DiffusionBank(self.spec, kept(tensors, self.spec.weights))
