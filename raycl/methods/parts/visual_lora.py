"""LoRA inside the visual tower (Hu et al. 2021), on q and v of its attention.

    W_q ← W_q + (α / r) · B_q A_q,    W_v ← W_v + (α / r) · B_v A_v      in every block

The tower is shared by all methods and runs of a process, and so is never written to: a copy of
its modules that shares its weights is called with merged ones. With B = 0 it gives the frozen
vectors to the bit, since every pass has the encoder's own shape.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call

from raycl.backbones.encoder import Encoder
from raycl.config.dmc import VisionStage
from raycl.errors import ConfigError, DataError
from raycl.methods.method import Setting
from raycl.methods.parts.visual_adapter import (
    LowRank,
    ResidualAdapter,
    Still,
    VisualAdapter,
    drawn_down,
)
from raycl.streams.source import Ints
from raycl.streams.stream import Pixels, Samples

PROJECTIONS = (".attn.in_proj_weight", ".attn.qkv.weight")
"""How q, k and v in one matrix are named in open_clip's own towers, and in timm's."""


class LoRA(VisualAdapter):
    """A and B of q and v, of all blocks in one tensor each."""

    kind = "lora"

    def __init__(self, spec: VisionStage, setting: Setting, encoder: Encoder) -> None:
        self.encoder = encoder
        self.tower = _modules_of(encoder.visual)
        self.names = _projections(self.tower)
        weights = dict(self.tower.named_parameters())
        self.weights = [weights[name] for name in self.names]
        blocks, width = len(self.names), int(self.weights[0].shape[1])
        down = drawn_down((blocks, 2, spec.rank, width), setting)
        up = torch.zeros(blocks, 2, width, spec.rank, device=setting.device)
        super().__init__(spec, setting, LowRank(down, up))

    def encode(self, samples: Samples, positions: Ints, at: LowRank) -> Tensor:
        pixels = self.encoder.as_input(_pixels(samples)(positions))
        return self._call(pixels, self._merged(at)).float()

    @torch.no_grad()
    def vectors(self, samples: Samples) -> Tensor:
        merged = self._merged(self.at)
        parts = [
            self.encoder.encode_images(pixels, lambda batch: self._call(batch, merged))
            for pixels in _pixels(samples).chunks(self.encoder.batch)
        ]
        return torch.cat(parts) if parts else torch.empty(0, self.setting.width)

    def _merged(self, at: LowRank) -> dict[str, Tensor]:
        """Weights by name, each block's with its q and v moved."""
        moves = self.scale * at.up @ at.down  # (blocks, 2, width, width)
        still = torch.zeros_like(moves[:, 0])
        whole = torch.cat([moves[:, 0], still, moves[:, 1]], dim=1)
        return {
            name: (weight.float() + move).to(weight.dtype)
            for name, weight, move in zip(self.names, self.weights, whole, strict=True)
        }

    def _call(self, pixels: Tensor, merged: dict[str, Tensor]) -> Tensor:
        vectors = functional_call(self.tower, merged, (pixels,))
        if not isinstance(vectors, Tensor):
            raise ConfigError(
                "LoRA needs a visual tower that gives one vector for an image",
                got=type(vectors).__name__,
                do="take another backbone",
            )
        return vectors


def _modules_of(tower: Any) -> Any:
    """The tower's modules anew, with the very same weights."""
    shared = [*tower.parameters(), *tower.buffers()]
    return copy.deepcopy(tower, {id(tensor): tensor for tensor in shared})


def _projections(tower: Any) -> list[str]:
    """Names of the matrices that hold q, k and v of a block, of one shape."""
    found = {
        name: tuple(weight.shape)
        for name, weight in tower.named_parameters()
        if name.endswith(PROJECTIONS) and "pool" not in name
    }
    if not found or len(set(found.values())) > 1:
        raise ConfigError(
            "LoRA adapts the attention of a vision transformer, and this visual tower is none",
            got=type(tower).__name__,
            do="take a ViT, or set method.vision.adapter=residual",
        )
    return list(found)


def _pixels(samples: Samples) -> Pixels:
    if samples.pixels is None:
        raise DataError(
            "LoRA inside the visual tower needs images, and these samples are vectors only",
            do="give a stream of images, or set method.vision.adapter=residual",
        )
    return samples.pixels


def build_adapter(spec: VisionStage, setting: Setting) -> VisualAdapter:
    """The adapter before its first training."""
    if not spec.epochs:
        return Still(spec, setting)
    kind = spec.adapter or ("residual" if setting.encoder is None else "lora")
    if kind == "residual":
        return ResidualAdapter(spec, setting)
    if setting.encoder is None:
        raise ConfigError(
            "LoRA inside the visual tower needs images, and this stream gives vectors only",
            got="method.vision.adapter=lora",
            do="name a stream of images, or leave method.vision.adapter out",
        )
    return LoRA(spec, setting, setting.encoder)
