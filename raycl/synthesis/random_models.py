"""Stable Diffusions with random weights, made offline: for tests and for timing, never to look at.

`sd15` has the true architecture of Stable Diffusion 1.5, so that a second of it is a second of
the real one; `small` has its form, with all that is large cut down. Both are folders as diffusers
saves them, and go the same way as a downloaded one.
"""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from diffusers import (
    AutoencoderKL,
    PNDMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel

from raycl.config.seeds import seed_for
from raycl.synthesis.tiny.architecture import tokeniser_of

Size = Literal["sd15", "small"]


@dataclass(frozen=True)
class _Shape:
    """What is different between the two."""

    unet: tuple[int, ...]
    unet_layers: int
    autoencoder: tuple[int, ...]
    autoencoder_layers: int
    latent_size: int
    text_width: int
    text_layers: int
    heads: int
    groups: int


SHAPES: dict[Size, _Shape] = {
    "sd15": _Shape((320, 640, 1280, 1280), 2, (128, 256, 512, 512), 2, 64, 768, 12, 12, 32),
    "small": _Shape((16, 32), 1, (8, 16), 1, 16, 32, 1, 2, 8),
}


def write_random_pipeline(folder: Path, size: Size, *, seed: int = 0) -> Path:
    """The folder, with weights drawn from a seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for(seed, "random pipeline") % 2**63)
        pipeline = _pipeline(SHAPES[size])
    pipeline.save_pretrained(folder)
    return folder


def _pipeline(shape: _Shape) -> StableDiffusionPipeline:
    from open_clip.tokenizer import default_bpe

    merges = gzip.decompress(Path(default_bpe()).read_bytes()).decode().split("\n")
    tokens = tokeniser_of(merges[1 : 49152 - 256 - 2 + 1], 77)  # as many as CLIP took
    return StableDiffusionPipeline(
        vae=_autoencoder(shape),
        text_encoder=_text_tower(shape, len(tokens)),
        tokenizer=tokens,
        unet=_unet(shape),
        scheduler=PNDMScheduler(
            beta_schedule="scaled_linear",
            beta_start=0.00085,
            beta_end=0.012,
            skip_prk_steps=True,
            set_alpha_to_one=False,
            steps_offset=1,
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _unet(shape: _Shape) -> UNet2DConditionModel:
    """Attention at every resolution but the lowest."""
    upper = len(shape.unet) - 1
    return UNet2DConditionModel(
        sample_size=shape.latent_size,
        down_block_types=(*["CrossAttnDownBlock2D"] * upper, "DownBlock2D"),
        up_block_types=("UpBlock2D", *["CrossAttnUpBlock2D"] * upper),
        block_out_channels=shape.unet,
        layers_per_block=shape.unet_layers,
        cross_attention_dim=shape.text_width,
        attention_head_dim=8,
        norm_num_groups=shape.groups,
    )


def _autoencoder(shape: _Shape) -> AutoencoderKL:
    levels = len(shape.autoencoder)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=shape.autoencoder,
        layers_per_block=shape.autoencoder_layers,
        norm_num_groups=shape.groups,
        sample_size=shape.latent_size * 2 ** (levels - 1),
        scaling_factor=0.18215,
    )


def _text_tower(shape: _Shape, vocabulary: int) -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=vocabulary,
            hidden_size=shape.text_width,
            intermediate_size=4 * shape.text_width,
            num_hidden_layers=shape.text_layers,
            num_attention_heads=shape.heads,
            projection_dim=shape.text_width,
            hidden_act="quick_gelu",
            bos_token_id=vocabulary - 2,
            eos_token_id=vocabulary - 1,
            pad_token_id=vocabulary - 1,
        )
    )
