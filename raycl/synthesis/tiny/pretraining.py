"""Pre-trains tiny-SD: an autoencoder of drawn pictures, then a UNet that denoises its latents.

The autoencoder halves a picture twice; its latents are computed once and kept. The UNet learns
the velocity v = √ᾱ ε - √(1-ᾱ) x at random noise steps, each weighed by min(SNR, 5) / (SNR + 1),
from a caption that is left out one time in ten. Its learning rate is constant and what is kept is
a running mean of its weights, so that a longer plan may go on from a shorter one. The text tower
is tiny-CLIP's and stays as it is.

Batch i is chosen by a random stream named i, and a killed run continues from its last checkpoint
to the same weights (on one kind of CPU, with the same number of threads). The result is a folder
that diffusers reads.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import l1_loss, mse_loss

from raycl.backbones.tiny.corpus import CORPUS_REVISION
from raycl.config.seeds import rng, seed_for
from raycl.drawing.fonts import DRAWING_REVISION
from raycl.errors import ConfigError
from raycl.synthesis.tiny.architecture import (
    LATENT_CHANNELS,
    LATENT_SIZE,
    NOISE_STEPS,
    assemble,
    encoded,
    kept_signal,
    new_autoencoder,
    new_unet,
    text_tower,
    tokeniser,
)
from raycl.synthesis.tiny.pictures import CAPTIONS_REVISION, Pictures, drawn, load, save
from raycl.whole_files import whole_file

WORK = "work"
"""Where pictures and checkpoints lie until all is done."""
ENCODED_AT_ONCE = 256
LATENT_NOISE = 0.05
"""What the decoder learns to overlook, in deviations of a latent."""
UNIT_LATENTS = 0.05
"""Weight by which latents are held at mean zero and deviation one."""


@dataclass(frozen=True)
class Plan:
    """What makes the weights what they are."""

    pictures: int = 50_000
    autoencoder_batches: int = 1200
    autoencoder_batch: int = 64
    autoencoder_lr: float = 2e-3
    batches: int = 9000
    batch: int = 64
    wide_batches: int = 560
    """So many at the beginning are twice as large."""
    lr: float = 1e-3
    weight_decay: float = 0.01
    warm_up: int = 100
    no_caption: float = 0.1
    mean_decay: float = 0.9985
    snr_limit: float = 5.0
    seed: int = 0

    def text(self) -> str:
        """All of it but its length, and of what it is applied to."""
        revisions = {
            "corpus": CORPUS_REVISION,
            "drawing": DRAWING_REVISION,
            "captions": CAPTIONS_REVISION,
        }
        plan = {name: value for name, value in asdict(self).items() if name != "batches"}
        return json.dumps({**plan, **revisions}, sort_keys=True)


@dataclass(frozen=True)
class Told:
    """Where pre-training stands."""

    stage: str
    done: int
    total: int
    loss: float = math.nan


Tell = Callable[[Told], None]
Stopping = Callable[[], bool]


def pretrain(
    plan: Plan,
    folder: Path,
    *,
    drawers: int = 1,
    tell: Tell = lambda told: None,
    stopping: Stopping = lambda: False,
    save_every: float = 60.0,
) -> bool:
    """Write the finished folder; False if it was stopped before, to be continued.

    A checkpoint is written every `save_every` seconds.
    """
    work = folder / WORK
    _claim(plan, work)
    pictures = _pictures(plan, work, drawers, tell, stopping)
    if pictures is None:
        return False
    autoencoder = _Autoencoding(plan, pictures)
    if not _carried_out(autoencoder, work, tell, stopping, save_every):
        return False
    unet = _Denoising(plan, pictures, autoencoder)
    if not _carried_out(unet, work, tell, stopping, save_every):
        return False
    # In half precision, as large models are published: half the bytes, the same pictures.
    pipeline = assemble(unet.mean_network().half(), autoencoder.network.half())
    pipeline.text_encoder.half()
    pipeline.save_pretrained(folder)
    (folder / "pretraining.json").write_text(
        json.dumps({"batches": plan.batches, **json.loads(plan.text())}, indent=1) + "\n", "utf-8"
    )
    shutil.rmtree(work)
    return True


def _claim(plan: Plan, work: Path) -> None:
    """Refuse to go on with what another plan began."""
    work.mkdir(parents=True, exist_ok=True)
    file = work / "plan.json"
    if file.exists() and file.read_text("utf-8") != plan.text():
        raise ConfigError(
            "the folder holds another pre-training, half done",
            got=file.read_text("utf-8"),
            do=f"continue that one, choose another folder, or delete {work}",
        )
    file.write_text(plan.text(), "utf-8")


def _pictures(
    plan: Plan, work: Path, drawers: int, tell: Tell, stopping: Stopping
) -> Pictures | None:
    file = work / "pictures.safetensors"
    if file.exists():
        return load(file)
    made = drawn(
        plan.seed,
        plan.pictures,
        drawers,
        lambda done: tell(Told("draw", done, plan.pictures)),
        stopping,
    )
    if made is not None:
        save(made, file)
    return made


class _Stage(Protocol):
    """A network that is trained batch by batch."""

    name: str
    done: int
    total: int
    cooling: int
    """Batches at the end for which the learning rate falls."""

    def step(self) -> float:
        """Trains on batch `done`; its loss."""

    def state(self) -> dict[str, Tensor]:
        """All that a continued run needs."""

    def restore(self, state: dict[str, Tensor]) -> None:
        """Goes on from `state`."""


def _carried_out(
    stage: _Stage, work: Path, tell: Tell, stopping: Stopping, save_every: float
) -> bool:
    """Whether the stage is at its end, where it may have been already."""
    file = work / f"{stage.name}.safetensors"
    if file.exists():
        stage.restore(load_file(file))
        with safe_open(file, "pt") as notes:
            stage.done, before = (int(notes.metadata()[name]) for name in ("done", "total"))
        if before != stage.total and stage.done > min(before, stage.total) - stage.cooling:
            raise ConfigError(
                f"{stage.name} was begun for {before} batches and has gone through {stage.done}",
                got=f"{stage.total} batches",
                do=f"ask for {before}, or delete {file}",
            )
    saved = time.monotonic()
    while stage.done < stage.total:
        loss = stage.step()
        stage.done += 1
        tell(Told(stage.name, stage.done, stage.total, loss))
        ends = stage.done == stage.total
        stop = stopping() and not ends
        if stop or ends or time.monotonic() - saved > save_every:
            _write(file, stage)
            saved = time.monotonic()
        if stop:
            return False
    return True


def _write(file: Path, stage: _Stage) -> None:
    state = {name: tensor.detach().contiguous() for name, tensor in stage.state().items()}
    with whole_file(file) as aside:
        save_file(state, aside, metadata={"done": str(stage.done), "total": str(stage.total)})


def _rate(stage: _Stage, warm_up: int) -> float:
    """The share of the learning rate: up, constant, and down if the stage cools."""
    left = (stage.total - stage.done) / stage.cooling if stage.cooling else 1.0
    return min(1.0, (stage.done + 1) / warm_up, left)


class _Network:
    """A network and its optimiser, and how both are kept."""

    def __init__(self, network: nn.Module, lr: float, weight_decay: float) -> None:
        self.network, self.lr = network, lr
        self.optimiser = torch.optim.AdamW(
            network.parameters(), lr=lr, weight_decay=weight_decay, fused=True
        )

    def descend(self, loss: Tensor, rate: float) -> None:
        for group in self.optimiser.param_groups:
            group["lr"] = self.lr * rate
        self.optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimiser.step()

    def state(self) -> dict[str, Tensor]:
        out = {f"network.{k}": v for k, v in self.network.state_dict().items()}
        for index, values in self.optimiser.state_dict()["state"].items():
            out |= {f"optimiser.{index}.{name}": value for name, value in values.items()}
        return out

    def restore(self, state: dict[str, Tensor]) -> None:
        self.network.load_state_dict(below("network.", state))
        parts: dict[int, dict[str, Tensor]] = {}
        for name, tensor in below("optimiser.", state).items():
            index, _, field = name.partition(".")
            parts.setdefault(int(index), {})[field] = tensor
        self.optimiser.load_state_dict({**self.optimiser.state_dict(), "state": parts})


def below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin so, without that."""
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def as_pixels(pictures: Tensor) -> Tensor:
    """(n, 3, 32, 32) in -1 … 1, as an autoencoder takes it."""
    return pictures.permute(0, 3, 1, 2).float() / 127.5 - 1


def _first_weights(seed: int, name: str) -> None:
    torch.manual_seed(seed_for(seed, "tiny-sd", name) % 2**63)


class _Autoencoding(_Network):
    """Pictures to latents of mean zero and deviation one, and back."""

    name = "autoencoder"

    def __init__(self, plan: Plan, pictures: Pictures) -> None:
        self.plan, self.pictures = plan, pictures
        self.done, self.total = 0, plan.autoencoder_batches
        self.cooling = self.total // 2
        with torch.random.fork_rng(devices=[]):
            _first_weights(plan.seed, self.name)
            self.autoencoder = new_autoencoder()
        super().__init__(self.autoencoder, plan.autoencoder_lr, 0.0)

    def step(self) -> float:
        generator = rng(self.plan.seed, "tiny-sd-autoencoder", self.done)
        rows = generator.integers(len(self.pictures.captions), size=self.plan.autoencoder_batch)
        x = as_pixels(self.pictures.pixels[torch.from_numpy(rows)])
        with torch.autocast("cpu", torch.bfloat16):
            z = self.autoencoder.encode(x).latents.float()
            noise = generator.standard_normal(z.shape, np.float32) * LATENT_NOISE
            again = self.autoencoder.decode(z + torch.from_numpy(noise)).sample.float()
        each = (0, 2, 3)
        unit = z.mean(each).square().mean() + (z.var(each) - 1).square().mean()
        loss = l1_loss(again, x) + mse_loss(again, x) + UNIT_LATENTS * unit
        self.descend(loss, _rate(self, 30))
        return float(loss.item())

    @torch.no_grad()
    def latents(self) -> Tensor:
        """(pictures, channels, height, width), divided by their deviation, which the
        autoencoder's configuration keeps."""
        rows = torch.split(self.pictures.pixels, ENCODED_AT_ONCE)
        found = torch.cat([self.autoencoder.encode(as_pixels(x)).latents for x in rows])
        scale = round(1 / float(found.std()), 4)
        self.autoencoder.register_to_config(scaling_factor=scale)
        return found * scale


class _Denoising(_Network):
    """Latents out of noise, told by a caption."""

    name = "unet"

    def __init__(self, plan: Plan, pictures: Pictures, autoencoder: _Autoencoding) -> None:
        self.plan = plan
        self.done, self.total, self.cooling = 0, plan.batches, 0
        self.pictures, self.autoencoder = pictures, autoencoder
        with torch.random.fork_rng(devices=[]):
            _first_weights(plan.seed, self.name)
            self.unet = new_unet(text_tower().config.hidden_size)
        super().__init__(self.unet, plan.lr, plan.weight_decay)
        self.mean = {k: v.clone() for k, v in self.unet.state_dict().items()}
        self.kept = kept_signal()
        self.latents = autoencoder.latents()

    @cached_property
    def texts(self) -> tuple[Tensor, NDArray[np.int64]]:
        """Each distinct caption encoded, the empty one first, and the caption of each picture."""
        tower, tokens = text_tower(), tokeniser()
        texts = list(dict.fromkeys(["", *self.pictures.captions]))
        place = {text: i for i, text in enumerate(texts)}
        parts = [texts[i : i + ENCODED_AT_ONCE] for i in range(0, len(texts), ENCODED_AT_ONCE)]
        found = torch.cat([encoded(tower, tokens, part).bfloat16() for part in parts])
        return found, np.asarray([place[text] for text in self.pictures.captions])

    def step(self) -> float:
        plan = self.plan
        generator = rng(plan.seed, "tiny-sd-unet", self.done)
        texts, caption_of = self.texts
        batch = plan.batch * (2 if self.done < plan.wide_batches else 1)
        rows = generator.integers(len(caption_of), size=batch)
        said = np.where(generator.random(batch) < plan.no_caption, 0, caption_of[rows])
        # One step from each part of the range, so that batches are alike.
        spread = (np.arange(batch) + generator.random(batch)) / batch
        at = torch.from_numpy((spread * NOISE_STEPS).astype(np.int64))
        x = self.latents[torch.from_numpy(rows)]
        shape = (batch, LATENT_CHANNELS, LATENT_SIZE, LATENT_SIZE)
        noise = torch.from_numpy(generator.standard_normal(shape, np.float32))
        kept = self.kept[at].view(-1, 1, 1, 1)
        noisy = kept.sqrt() * x + (1 - kept).sqrt() * noise
        velocity = kept.sqrt() * noise - (1 - kept).sqrt() * x
        snr = kept / (1 - kept)
        weight = snr.clamp(max=plan.snr_limit) / (snr + 1)
        with torch.autocast("cpu", torch.bfloat16):
            told = self.unet(noisy, at, texts[torch.from_numpy(said)]).sample
        loss = (weight * (told.float() - velocity).square()).mean()
        self.descend(loss, _rate(self, plan.warm_up))
        decay = min(plan.mean_decay, (1 + self.done) / (10 + self.done))
        own = self.unet.state_dict()
        torch._foreach_lerp_(list(self.mean.values()), [own[k] for k in self.mean], 1 - decay)
        return float(loss.item())

    def state(self) -> dict[str, Tensor]:
        return super().state() | {f"mean.{k}": v for k, v in self.mean.items()}

    def restore(self, state: dict[str, Tensor]) -> None:
        super().restore(state)
        self.mean = below("mean.", state)

    def mean_network(self) -> UNet2DConditionModel:
        """The UNet with the running mean of its weights."""
        self.unet.load_state_dict(self.mean)
        return self.unet
