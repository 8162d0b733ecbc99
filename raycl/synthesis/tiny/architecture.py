"""The parts of tiny-SD: what each network looks like, and tiny-CLIP's text tower among them.

Guarantees that the text tower and the tokeniser are tiny-CLIP's own, spelt as transformers
spells them: the same ids and, to rounding, the same vectors. All parts have the classes that a
Stable Diffusion has, so that one folder holds them and diffusers reads it.
"""

from __future__ import annotations

import gzip
import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderTiny,
    DPMSolverMultistepScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from safetensors.torch import load_file
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from raycl.backbones.tiny import CONFIG_FILE, VOCABULARY_FILE, WEIGHTS, WEIGHTS_FILE

LATENT_CHANNELS, LATENT_SIZE = 6, 8
"""A picture of 32 × 32 is 6 × 8 × 8 numbers to the diffusion."""
UNET_WIDTHS = (64, 128)
AUTOENCODER_WIDTH = 32
NOISE_STEPS = 1000
BEGIN, END = "<|startoftext|>", "<|endoftext|>"


def new_unet(text_width: int) -> UNet2DConditionModel:
    """Two resolutions. The text is looked at in the middle, and what it says as a whole goes
    to every block, beside the noise step: cheap, and enough for pictures of one thing."""
    return UNet2DConditionModel(
        sample_size=LATENT_SIZE,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        block_out_channels=UNET_WIDTHS,
        layers_per_block=1,
        cross_attention_dim=text_width,
        attention_head_dim=4,
        addition_embed_type="text",
        addition_embed_type_num_heads=4,
        norm_num_groups=16,
    )


def new_autoencoder() -> AutoencoderTiny:
    """Halves a picture twice. Most of it decodes, since only that is done for every image."""
    widths = (AUTOENCODER_WIDTH,) * 3
    return AutoencoderTiny(
        encoder_block_out_channels=widths,
        decoder_block_out_channels=widths,
        latent_channels=LATENT_CHANNELS,
        num_encoder_blocks=(0, 1, 2),
        num_decoder_blocks=(2, 1, 1),
    )


def new_scheduler() -> DPMSolverMultistepScheduler:
    """Noise that ends so strong that nothing of a picture's colours is left, and what is
    predicted is the velocity, which few steps suffice for."""
    return DPMSolverMultistepScheduler(
        num_train_timesteps=NOISE_STEPS,
        beta_schedule="linear",
        beta_start=1e-4,
        beta_end=0.02,
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        steps_offset=1,  # unused here; a Stable Diffusion is warned about without it
    )


def kept_signal() -> Tensor:
    """The share of a latent's variance that is left at each noise step."""
    kept: Tensor = new_scheduler().alphas_cumprod
    return kept


def assemble(unet: UNet2DConditionModel, autoencoder: AutoencoderTiny) -> StableDiffusionPipeline:
    """The pipeline of these networks and tiny-CLIP's text tower."""
    return StableDiffusionPipeline(
        vae=autoencoder,
        text_encoder=text_tower(),
        tokenizer=tokeniser(),
        unet=unet,
        scheduler=new_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def tokeniser() -> CLIPTokenizer:
    """tiny-CLIP's vocabulary as transformers' tokeniser."""
    text = gzip.decompress((WEIGHTS / VOCABULARY_FILE).read_bytes()).decode()
    merges = [line for line in text.split("\n")[1:] if line]
    return tokeniser_of(merges, _model()["text_cfg"]["context_length"])


def tokeniser_of(merges: list[str], context: int) -> CLIPTokenizer:
    """transformers' tokeniser with CLIP's numbering of bytes, these merges and two marks."""
    characters = _characters()
    pieces = [*characters, *(c + "</w>" for c in characters)]
    pieces += [merge.replace(" ", "") for merge in merges]
    vocabulary = {piece: i for i, piece in enumerate([*pieces, BEGIN, END])}
    # By way of files, the one form of them that has been stable across versions.
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "vocab.json").write_text(json.dumps(vocabulary), "utf-8")
        Path(folder, "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n", "utf-8")
        found: CLIPTokenizer = CLIPTokenizer.from_pretrained(folder, model_max_length=context)
    return found


def _characters() -> list[str]:
    """A printable character for each byte, in the order in which CLIP numbers them."""
    from open_clip.tokenizer import bytes_to_unicode

    return list(bytes_to_unicode().values())


def _model() -> dict[str, Any]:
    model: dict[str, Any] = json.loads((WEIGHTS / CONFIG_FILE).read_text("utf-8"))["model_cfg"]
    return model


def text_tower() -> CLIPTextModel:
    """tiny-CLIP's text tower as transformers' own, frozen."""
    text = _model()["text_cfg"]
    end = text["vocab_size"] - 1
    tower = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=text["vocab_size"],
            hidden_size=text["width"],
            intermediate_size=4 * text["width"],
            num_hidden_layers=text["layers"],
            num_attention_heads=text["heads"],
            max_position_embeddings=text["context_length"],
            projection_dim=_model()["embed_dim"],
            hidden_act="gelu",
            bos_token_id=end - 1,
            eos_token_id=end,
            pad_token_id=end,
        )
    )
    own = tower.state_dict()
    prefix = "text_model." if any(name.startswith("text_model.") for name in own) else ""
    renamed = {prefix + k: v for k, v in _renamed(load_file(WEIGHTS / WEIGHTS_FILE)).items()}
    buffers = {name: value for name, value in own.items() if name.endswith("position_ids")}
    tower.load_state_dict({**buffers, **{k: v.float() for k, v in renamed.items()}})
    tower.eval().requires_grad_(False)
    return tower


_PARTS = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "attn.out_proj": "self_attn.out_proj",
}


def _renamed(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """open_clip's text tower under transformers' names."""
    out = {
        "embeddings.token_embedding.weight": weights["token_embedding.weight"],
        "embeddings.position_embedding.weight": weights["positional_embedding"],
        "final_layer_norm.weight": weights["ln_final.weight"],
        "final_layer_norm.bias": weights["ln_final.bias"],
    }
    begin = "transformer.resblocks."
    for name, value in weights.items():
        if not name.startswith(begin):
            continue
        number, _, rest = name.removeprefix(begin).partition(".")
        layer = f"encoder.layers.{number}."
        if rest.startswith("attn.in_proj_"):
            kind = rest.removeprefix("attn.in_proj_")
            for part, rows in zip("qkv", value.chunk(3), strict=True):
                out[f"{layer}self_attn.{part}_proj.{kind}"] = rows
            continue
        part, _, kind = rest.rpartition(".")
        out[f"{layer}{_PARTS[part]}.{kind}"] = value
    return out


@torch.no_grad()
def encoded(tower: CLIPTextModel, tokens: CLIPTokenizer, texts: list[str]) -> Tensor:
    """(texts, context, width): what the UNet looks at, as the pipeline makes it."""
    ids = tokens(
        texts,
        padding="max_length",
        max_length=tokens.model_max_length,
        truncation=True,
        return_tensors="pt",
    ).input_ids
    states: Tensor = tower(ids)[0]
    return states
