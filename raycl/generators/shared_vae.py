"""One variational auto-encoder for many classes, told which class it looks at.

    x = μ_c + σ_c ⊙ decoder(z, v_c),   z ~ N(0, I),   v_c learnt, one short vector per class

Classes are standardised one by one, so the decoder learns how vectors vary within a class, of
which every class sees a little and all together see much. The rule that a class's result
depends on that class alone does not hold here: the artefact is the bank, not the class. It
does not depend on the order in which classes are given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from raycl.config.generators import SharedVAEGenerator
from raycl.config.seeds import seed_for
from raycl.errors import MethodError
from raycl.generators.adamw import AdamW
from raycl.generators.bank import SHARED, Bank, kept
from raycl.generators.batches import batch_slices, epoch_order
from raycl.generators.fitting import Fitting
from raycl.generators.layers import stacked
from raycl.generators.noise import BLOCK, generator, normals
from raycl.generators.schedule import warm_restarts
from raycl.generators.vae import (
    CALIBRATION_ROWS,
    DENSITY_ROWS,
    DENSITY_STREAM,
    calibration,
    prior_bound,
)
from raycl.generators.vae_network import (
    DECODER,
    decode,
    divergence,
    draw_vae,
    encode,
    per_class,
    posterior_sample,
)
from raycl.generators.vectors import ClassVectors, check_widths, standardise

LABEL_STD = 1.0


class SharedVAEBank(Bank[SharedVAEGenerator]):
    """Tensors `mean`, `std` (classes, d), `label` (classes, class_width), `noise` where the
    spec adds some, and one decoder."""

    def draw(self, streams: Sequence[int], block: int) -> Tensor:
        z = torch.stack(
            [normals(s, "latent", block, shape=(BLOCK, self.spec.latent)) for s in streams]
        )
        x = self.decoded(z.to(self.device))
        if "noise" in self.tensors:
            shape = (BLOCK, self.width)
            noise = torch.stack([normals(s, "output", block, shape=shape) for s in streams])
            x = x + noise.to(self.device) * self.tensors["noise"][:, None]
        return x

    def decoded(self, z: Tensor) -> Tensor:
        """(classes, rows, latent) in the units of the data."""
        shared = {
            name.removeprefix(SHARED): tensor.float()[None]
            for name, tensor in self.tensors.items()
            if name.startswith(SHARED)
        }
        label = self.tensors["label"].float()[:, None].expand(-1, z.shape[1], -1)
        told = torch.cat([z, label], dim=-1)
        x = decode(shared, told.reshape(1, -1, told.shape[-1])).reshape(*z.shape[:2], -1)
        return x * self.tensors["std"][:, None] + self.tensors["mean"][:, None]

    def log_likelihood(self, x: Tensor) -> Tensor:
        """A lower bound: 256 draws from the prior stand for the integral over z."""
        z = normals(DENSITY_STREAM, "density", shape=(1, DENSITY_ROWS, self.spec.latent))
        parts = self.split([1] * len(self))
        return torch.stack(
            [
                prior_bound(rows, part.decoded(z.to(self.device))[0], part.tensors["std"][0])
                for part, rows in zip(parts, x, strict=True)
            ]
        )


class SharedVAEFitting(Fitting):
    """All classes in one network; rows of all of them in every batch."""

    def __init__(
        self, spec: SharedVAEGenerator, data: Sequence[ClassVectors], device: torch.device
    ) -> None:
        check_widths(data)
        super().__init__(spec.epochs)
        self.spec, self.device = spec, device
        # One order of classes, whatever the caller's, so that it moves no number.
        self.places = sorted(range(len(data)), key=lambda i: (data[i].stream, data[i].name))
        ordered = [data[i] for i in self.places]
        self.stream = seed_for(0, "shared_vae", *(c.stream for c in ordered))
        scaled = [standardise(c.vectors) for c in ordered]
        self.mean = torch.stack([s.mean for s in scaled])
        self.std = torch.stack([s.std for s in scaled])
        self.x = torch.cat([s.x.float() for s in scaled]).to(device)
        self.y = torch.arange(len(data)).repeat_interleave(torch.tensor([len(c) for c in ordered]))
        self.y = self.y.to(device)
        self.batches = batch_slices(len(self.x), spec.batch)
        self.network = self._start()
        self.optimiser = AdamW(list(self.network.values()), spec.lr)

    def _start(self) -> dict[str, Tensor]:
        width, hidden, latent = self.x.shape[1], self.spec.hidden, self.spec.latent
        told = self.spec.class_width
        random = generator(self.stream, "start")
        network = draw_vae(
            (width + told, hidden, hidden, 2 * latent),
            (latent + told, hidden, hidden, width),
            random,
        )
        network["label"] = torch.empty(len(self.mean), told).normal_(0, LABEL_STD, generator=random)
        return stacked([network], self.device)

    def _advance(self) -> None:
        order = epoch_order(self.stream, self.done, len(self.x)).to(self.device)
        shape = (len(self.x), self.spec.latent)
        noise = normals(self.stream, "noise", self.done, shape=shape).to(self.device)
        self.optimiser.lr = warm_restarts(self.spec.lr, self.done, self.spec.epochs)
        for rows in self.batches:
            chosen = order[rows]
            self.optimiser.step(self._loss(self.x[chosen], self.y[chosen], noise[rows]))

    def _loss(self, x: Tensor, y: Tensor, noise: Tensor) -> Tensor:
        label = self.network["label"][0][y]
        count = torch.full((1,), float(len(x)), device=self.device)
        low = self.spec.precision == "bf16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=low):
            mean, log_variance = encode(self.network, torch.cat([x, label], dim=1)[None], None)
            z = posterior_sample(mean, log_variance, noise[None], self.spec.parity)
            guess = decode(self.network, torch.cat([z, label[None]], dim=2))
        error = 0.5 * (guess - x).square()
        kl = divergence(mean, log_variance)
        return (per_class(error, None, count) + per_class(kl, None, count)).sum()

    def _state(self) -> dict[str, Tensor]:
        return self.optimiser.state()

    def _restore(self, state: Mapping[str, Tensor]) -> None:
        self.optimiser.restore(state)

    def bank(self) -> SharedVAEBank:
        decoder = {n: t.detach()[0] for n, t in self.network.items() if n.startswith(DECODER)}
        if not all(bool(t.isfinite().all()) for t in decoder.values()):
            raise MethodError("the shared VAE diverged", do="lower its lr")
        tensors = {SHARED + name: tensor for name, tensor in decoder.items()}
        tensors["label"] = self.network["label"].detach()[0]
        tensors["mean"], tensors["std"] = (t.to(self.device) for t in (self.mean, self.std))
        bank = SharedVAEBank(self.spec, kept(tensors, self.spec.weights))
        match self.spec.output_noise:
            case "none":
                pass
            case "unit":
                bank = SharedVAEBank(self.spec, {**bank.tensors, "noise": bank.tensors["std"]})
            case "residual":
                bank = self._calibrated(bank)
        return bank.pick(sorted(range(len(self.places)), key=self.places.__getitem__))

    def _calibrated(self, bank: SharedVAEBank) -> SharedVAEBank:
        """With the moments of every class, found a class at a time to bound memory."""
        z = normals(self.stream, "calibration", shape=(1, CALIBRATION_ROWS, self.spec.latent))
        parts = []
        for part in bank.split([1] * len(bank)):
            moved = calibration(part.tensors, part.decoded(z.to(self.device)))
            parts.append(SharedVAEBank(self.spec, {**part.tensors, **moved}))
        return SharedVAEBank.concat(parts)
