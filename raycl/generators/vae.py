"""A variational auto-encoder per class, of which the decoder and the class's scale are kept.

    x = μ + σ ⊙ decoder(z),   z ~ N(0, I)

Adam with cosine warm restarts over epochs of batches of 64. Every class has its own start,
order and noise. On a CPU each class is a network of its own; on a GPU a stack of classes that
take equally many batches is one network with a class axis, padded rows masked.

Deviations from the published code: the posterior's deviation is exp(½ log σ²) (see `parity`);
a lone last row joins the batch before it; a flat dimension is divided by one; one affine scale
instead of two in a row. The decoder's mean alone spreads less than the data, for the likelihood
gives the rest to unit noise: `output_noise: residual` adds what is missing per dimension, and
moves the samples' mean onto the class's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from raycl.config.generators import VAEGenerator
from raycl.errors import MethodError
from raycl.generators.adamw import AdamW
from raycl.generators.ahead import Ahead, Draws
from raycl.generators.bank import Bank, kept
from raycl.generators.batches import batch_count, batch_slices, epoch_order
from raycl.generators.fitting import Fitting
from raycl.generators.gaussian import LOG_2PI
from raycl.generators.layers import Parameters, stacked
from raycl.generators.lone_vae import LoneVAE
from raycl.generators.noise import BLOCK, generator, normals
from raycl.generators.schedule import warm_restarts
from raycl.generators.vae_network import (
    DECODER,
    decode,
    divergence,
    draw_vae,
    encode,
    per_class,
    posterior_sample,
)
from raycl.generators.vectors import ClassVectors, divisor, standardise

CALIBRATION_ROWS = 1024
DENSITY_ROWS = 256
DENSITY_STREAM = 0


class VAEBank(Bank[VAEGenerator]):
    """Tensors `mean` and `std` (classes, d), `noise` where the spec adds some, and the
    decoder's weights and biases."""

    def draw(self, streams: Sequence[int], block: int) -> Tensor:
        z = _stack_normals(streams, "latent", block, (BLOCK, self.spec.latent), self.device)
        x = self.decoded(z)
        if "noise" in self.tensors:
            noise = _stack_normals(streams, "output", block, (BLOCK, self.width), self.device)
            x = x + noise * self.tensors["noise"][:, None]
        return x

    def decoded(self, z: Tensor) -> Tensor:
        """(classes, rows, latent) in the units of the data."""
        weights = {n: t.float() for n, t in self.tensors.items() if n.startswith(DECODER)}
        return decode(weights, z) * self.tensors["std"][:, None] + self.tensors["mean"][:, None]

    def log_likelihood(self, x: Tensor) -> Tensor:
        """A lower bound: 256 draws from the prior stand for the integral over z."""
        return torch.stack(
            [
                part.log_density(rows)
                for part, rows in zip(self.split([1] * len(self)), x, strict=True)
            ]
        )

    def log_density(self, x: Tensor) -> Tensor:
        """The bound for rows of the only class of this bank."""
        shape = (DENSITY_ROWS, self.spec.latent)
        z = _stack_normals([DENSITY_STREAM], "density", 0, shape, self.device)
        return prior_bound(x, self.decoded(z)[0], self.tensors["std"][0])


def prior_bound(x: Tensor, centres: Tensor, std: Tensor) -> Tensor:
    """log of the mean over centres of N(x; centre, std²), per dimension that varies."""
    varies = std > 0
    if not varies.any():
        return torch.full((len(x),), torch.nan)
    scale = divisor(std)[varies].double()
    distance = torch.cdist(x.double()[:, varies] / scale, centres.double()[:, varies] / scale)
    dims = float(varies.sum())
    joint = -0.5 * (distance.square() + dims * LOG_2PI)
    bound = joint.logsumexp(dim=1) - torch.tensor(float(len(centres))).log()
    return (bound / dims).float()


def _stack_normals(
    streams: Sequence[int], purpose: str, block: int, shape: tuple[int, int], device: torch.device
) -> Tensor:
    draws = [normals(s, purpose, block, shape=shape) for s in streams]
    return torch.stack(draws).to(device)


class VAEFitting(Fitting):
    """Classes that take equally many batches, in one stack."""

    def __init__(
        self, spec: VAEGenerator, data: Sequence[ClassVectors], device: torch.device
    ) -> None:
        super().__init__(spec.epochs)
        self.spec, self.data, self.device = spec, data, device
        scaled = [standardise(c.vectors) for c in data]
        self.mean = torch.stack([s.mean for s in scaled])
        self.std = torch.stack([s.std for s in scaled])
        self.sizes = [len(c) for c in data]
        assert len({batch_count(n, spec.batch) for n in self.sizes}) == 1
        self.x = _padded([s.x.float() for s in scaled], max(self.sizes)).to(device)
        self.batches = batch_slices(max(self.sizes), spec.batch)
        self.masks = [self._mask(rows) for rows in self.batches]
        self.counts = [self._counts(rows) for rows in self.batches]
        self.network = stacked([self._start(c.stream, c.width) for c in data], device)
        self.lone = self._lone()
        parameters = self.lone.parameters if self.lone else list(self.network.values())
        self.optimiser = AdamW(parameters, spec.lr)
        self.draws = Ahead(self._draws, spec.epochs, device)

    def _start(self, stream: int, width: int) -> Parameters:
        hidden, latent = self.spec.hidden, self.spec.latent
        return draw_vae(
            (width, hidden, hidden, 2 * latent),
            (latent, hidden, hidden, width),
            generator(stream, "start"),
        )

    def _lone(self) -> LoneVAE | None:
        if self.device.type != "cpu" or len(self.data) > 1:
            return None
        return LoneVAE(self.network, self.spec.parity, self.spec.precision == "bf16")

    def _mask(self, rows: slice) -> Tensor | None:
        """(classes, rows, 1); None where every class fills the batch."""
        if min(self.sizes) >= rows.stop:
            return None
        place = torch.arange(rows.start, rows.stop)
        mask = place[None] < torch.tensor(self.sizes)[:, None]
        return mask[..., None].float().to(self.device)

    def _counts(self, rows: slice) -> Tensor:
        counts = [float(min(n, rows.stop) - rows.start) for n in self.sizes]
        return torch.tensor(counts).to(self.device)

    def _draws(self, epoch: int) -> Draws:
        """Orders (classes, rows) and noise (classes, rows, latent) of an epoch."""
        orders, noises = [], []
        for c, n in zip(self.data, self.sizes, strict=True):
            orders.append(epoch_order(c.stream, epoch, n)[:, None])
            noises.append(normals(c.stream, "noise", epoch, shape=(n, self.spec.latent)))
        most = max(self.sizes)
        return _padded(orders, most)[..., 0], _padded(noises, most)

    def _advance(self) -> None:
        order, noise = self.draws.get(self.done)
        self.optimiser.lr = warm_restarts(self.spec.lr, self.done, self.spec.epochs)
        if self.lone:
            x = self.x[0].index_select(0, order[0])
            for rows in self.batches:
                self._move(self.lone, x[rows], noise[0, rows])
            return
        x = self.x.gather(1, order[..., None].expand_as(self.x))
        for rows, mask, counts in zip(self.batches, self.masks, self.counts, strict=True):
            self.optimiser.step(self._loss(x[:, rows], noise[:, rows], mask, counts))

    def _move(self, lone: LoneVAE, x: Tensor, noise: Tensor) -> None:
        """A step, in which each layer is moved as soon as its gradients are known."""
        self.optimiser.begin_step()
        for part, gradients in lone.gradients(x, noise):
            self.optimiser.move_part(part, gradients)

    def _loss(self, x: Tensor, noise: Tensor, mask: Tensor | None, counts: Tensor) -> Tensor:
        low = self.spec.precision == "bf16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=low):
            mean, log_variance = encode(self.network, x, mask)
            z = posterior_sample(mean, log_variance, noise, self.spec.parity)
            error = 0.5 * (decode(self.network, z) - x).square()
        kl = divergence(mean, log_variance)
        losses = per_class(error, mask, counts) + per_class(kl, mask, counts)
        return losses.sum()  # a class's gradients are its own

    def _state(self) -> dict[str, Tensor]:
        return self.optimiser.state()

    def _restore(self, state: Mapping[str, Tensor]) -> None:
        self.optimiser.restore(state)
        if self.lone:
            self.lone.refresh()

    def bank(self) -> VAEBank:
        tensors = {n: t.detach() for n, t in self.network.items() if n.startswith(DECODER)}
        finite = torch.stack([t.isfinite().flatten(1).all(dim=1) for t in tensors.values()])
        for c, sound in zip(self.data, finite.all(dim=0).tolist(), strict=True):
            if not sound:
                raise MethodError(f"the VAE of class {c.name!r} diverged", do="lower its lr")
        tensors["mean"], tensors["std"] = (t.to(self.device) for t in (self.mean, self.std))
        bank = VAEBank(self.spec, kept(tensors, self.spec.weights))
        match self.spec.output_noise:
            case "none":
                return bank
            case "unit":
                return VAEBank(self.spec, {**bank.tensors, "noise": bank.tensors["std"]})
            case "residual":
                return self._calibrated(bank)

    def _calibrated(self, bank: VAEBank) -> VAEBank:
        """With the mean moved, and noise added, so that samples have the class's moments."""
        streams = [c.stream for c in self.data]
        shape = (CALIBRATION_ROWS, self.spec.latent)
        x = bank.decoded(_stack_normals(streams, "calibration", 0, shape, self.device))
        return VAEBank(self.spec, {**bank.tensors, **calibration(bank.tensors, x)})


def calibration(tensors: Mapping[str, Tensor], decoded: Tensor) -> Parameters:
    """`mean` and `noise` that give decoded samples (classes, rows, d) the data's moments."""
    mean, std = tensors["mean"], tensors["std"]
    missing = std.square() - decoded.var(dim=1)
    return {"mean": 2 * mean - decoded.mean(dim=1), "noise": missing.clamp(min=0).sqrt()}


def _padded(tensors: Sequence[Tensor], rows: int) -> Tensor:
    out = tensors[0].new_zeros(len(tensors), rows, *tensors[0].shape[1:])
    for place, tensor in zip(out, tensors, strict=True):
        place[: len(tensor)] = tensor
    return out
